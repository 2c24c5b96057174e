//! State of services, by tenant and key, as readers ask for it.

use std::collections::BTreeMap;

use deadpool_postgres::Client;
use jiff::SignedDuration;
use purista_core::store::{StateChange, Versioned};
use purista_events::store::StoreError;
use serde_json::Value;

use crate::codec;
use crate::error::{corrupt, read_failed};
use crate::fetch::rows;
use crate::known::Entry;

/// How long the version of a removed or expired key is remembered, so that its next value has the next version. Later a
/// new value begins above the versions of all keys that are forgotten: a writer that read the key before must never take
/// it for the one that it read.
const VERSIONS_KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What expired at this time or before is forgotten.
pub(crate) fn forgotten_before(now: i64) -> i64 {
    now.saturating_sub(i64::try_from(VERSIONS_KEPT.as_nanos()).unwrap_or(i64::MAX))
}

/// The values as they will lie in their rows, in order.
pub(crate) fn texts(changes: &[StateChange]) -> Vec<Option<String>> {
    changes.iter().map(|change| change.value.as_ref().map(Value::to_string)).collect()
}

/// The values that are there now.
pub(crate) async fn read(
    client: &Client,
    tenant: Option<&str>,
    keys: &[String],
    now: i64,
) -> Result<BTreeMap<String, Versioned>, StoreError> {
    let what = "read of state";
    let sql =
        "SELECT key, value, version, expires_at FROM state WHERE tenant = $1 AND key = ANY ($2::text[])";
    let columns: Vec<_> = keys.iter().map(|key| codec::text(key)).collect();
    let mut found = BTreeMap::new();
    for row in rows(client, sql, &[&codec::tenant_key(tenant), &columns], what).await? {
        let read = || -> Result<(String, Entry), tokio_postgres::Error> {
            let (value, version, expires_at) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
            Ok((codec::text_of(row.try_get(0)?).into_owned(), Entry { value, version, expires_at }))
        };
        let (key, entry) = read().map_err(read_failed(what))?;
        if !entry.is_present(now) {
            continue;
        }
        let value = serde_json::from_str(&entry.value.unwrap_or_default())
            .map_err(|error| corrupt(format!("the state `{key}` is no JSON")).with_source(error))?;
        let version = u64::try_from(entry.version).unwrap_or(0);
        found.insert(key, Versioned { value, version });
    }
    Ok(found)
}
