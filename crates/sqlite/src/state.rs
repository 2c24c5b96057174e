//! State of services, by tenant and key.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use jiff::SignedDuration;
use purista_core::store::{Expect, StateChange, Versioned};
use purista_events::store::{StoreError, StoreErrorKind};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::Value;

use crate::codec;
use crate::error::Refusal;

/// How long the version of a removed or expired key is remembered, so that its next value has the next version. Later a
/// new value begins above the versions of all keys that are forgotten: a writer that read the key before must never take
/// it for the one that it read.
const VERSIONS_KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The values as they will lie in their rows, in order. Made by the caller, so that the writer need not.
pub(crate) fn texts(changes: &[StateChange]) -> Vec<Option<String>> {
    changes.iter().map(|change| change.value.as_ref().map(Value::to_string)).collect()
}

/// The changes of a batch whose expectations held.
#[derive(Debug, Default)]
pub(crate) struct Planned<'a> {
    rows: HashMap<&'a str, Row<'a>>,
    /// The new version of each change, in order; 0 for a removal.
    pub(crate) versions: Vec<u64>,
}

#[derive(Debug, Default)]
struct Row<'a> {
    value: Option<Cow<'a, str>>,
    version: u64,
    expires_at: Option<i64>,
}

impl Row<'_> {
    fn is_present(&self, now: i64) -> bool {
        self.value.is_some() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// Checks each change against what those before it leave.
pub(crate) fn plan<'a>(
    connection: &Connection,
    tenant: &str,
    changes: &'a [StateChange],
    texts: &'a [Option<String>],
    now: i64,
) -> Result<Planned<'a>, Refusal> {
    let mut planned = Planned::default();
    for (StateChange { key, expect, time_to_live, .. }, text) in changes.iter().zip(texts) {
        let before = match planned.rows.remove(key.as_str()) {
            Some(row) => row,
            None => match stored(connection, tenant, key)? {
                Some(row) => row,
                None => Row { version: forgotten(connection)?, ..Row::default() },
            },
        };
        let holds = match expect {
            Expect::Any => true,
            Expect::Absent => !before.is_present(now),
            Expect::Version(version) => before.is_present(now) && before.version == *version,
        };
        if !holds {
            let what = format!("the state `{key}` is not what its writer expected");
            return Err(StoreError::new(StoreErrorKind::StateConflict, what).into());
        }
        let version = before.version + u64::from(text.is_some());
        planned.versions.push(if text.is_some() { version } else { 0 });
        let expires_at = match (text, time_to_live) {
            (None, _) => Some(now),
            (Some(_), None) => None,
            (Some(_), Some(time)) => {
                Some(now.saturating_add(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)))
            }
        };
        planned.rows.insert(key, Row { value: text.as_deref().map(Cow::Borrowed), version, expires_at });
    }
    Ok(planned)
}

/// The highest version of any key that is forgotten.
fn forgotten(connection: &Connection) -> rusqlite::Result<u64> {
    let version: i64 = connection
        .prepare_cached("SELECT value FROM meta WHERE name = 'state_versions_forgotten'")?
        .query_row([], |row| row.get(0))?;
    Ok(u64::try_from(version).unwrap_or(0))
}

/// Removes some rows whose versions were remembered long enough.
pub(crate) fn forget(connection: &Connection, rows: i64, now: i64) -> rusqlite::Result<()> {
    let before = forgotten_before(now);
    connection
        .prepare_cached(
            "UPDATE meta SET value = max(value, coalesce((SELECT max(version) FROM \
             (SELECT version FROM state WHERE expires_at <= ?2 ORDER BY expires_at, tenant, key LIMIT ?1)), 0)) \
             WHERE name = 'state_versions_forgotten'",
        )?
        .execute(params![rows, before])?;
    connection
        .prepare_cached(
            "DELETE FROM state WHERE (tenant, key) IN \
             (SELECT tenant, key FROM state WHERE expires_at <= ?2 ORDER BY expires_at, tenant, key LIMIT ?1)",
        )?
        .execute(params![rows, before])?;
    Ok(())
}

/// What expired at this time or before is forgotten.
pub(crate) fn forgotten_before(now: i64) -> i64 {
    now.saturating_sub(i64::try_from(VERSIONS_KEPT.as_nanos()).unwrap_or(i64::MAX))
}

fn stored(connection: &Connection, tenant: &str, key: &str) -> rusqlite::Result<Option<Row<'static>>> {
    connection
        .prepare_cached("SELECT value, version, expires_at FROM state WHERE tenant = ?1 AND key = ?2")?
        .query_row([tenant, key], |row| {
            let version: i64 = row.get(1)?;
            let version = u64::try_from(version).unwrap_or(0);
            let value: Option<String> = row.get(0)?;
            Ok(Row { value: value.map(Cow::Owned), version, expires_at: row.get(2)? })
        })
        .optional()
}

pub(crate) fn write(connection: &Connection, tenant: &str, planned: &Planned<'_>) -> rusqlite::Result<()> {
    for (key, row) in &planned.rows {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO state (tenant, key, value, version, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![tenant, key, row.value, codec::signed(row.version), row.expires_at])?;
    }
    Ok(())
}

/// The values that are there now.
pub(crate) fn read(
    connection: &Connection,
    tenant: &str,
    keys: &[String],
    now: i64,
) -> rusqlite::Result<BTreeMap<String, Versioned>> {
    let mut found = BTreeMap::new();
    for key in keys {
        let Some(row) = stored(connection, tenant, key)?.filter(|row| row.is_present(now)) else { continue };
        let text = row.value.unwrap_or_default();
        let value = serde_json::from_str(&text)
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, error.into()))?;
        found.insert(key.clone(), Versioned { value, version: row.version });
    }
    Ok(found)
}
