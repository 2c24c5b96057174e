//! What makes a second time harmless, as readers ask for it: receipts of batches, replies under a key, messages that were
//! handled. What is older than some days counts as absent at once; its row goes later, see `upkeep`.

use bytes::Bytes;
use deadpool_postgres::Client;
use jiff::SignedDuration;
use purista_core::id::Id;
use purista_events::batch::{RECEIPTS_KEPT_DAYS, Receipt, ReplyKey, StoredReply};
use purista_events::fingerprint::Fingerprint;
use purista_events::store::StoreError;
use purista_events::subscriptions::SubscriptionId;
use tokio_postgres::types::{FromSql, Kind, Type};
use tokio_postgres::{Error, Row};

use crate::codec;
use crate::error::{corrupt, read_failed};
use crate::fetch::rows;
use crate::rows::{FoundRow, Refusal};

/// What was recorded at this time or before is forgotten.
pub(crate) fn forgotten_before(now: i64) -> i64 {
    let kept = SignedDuration::from_hours(RECEIPTS_KEPT_DAYS * 24).as_nanos();
    now.saturating_sub(i64::try_from(kept).unwrap_or(i64::MAX))
}

/// The receipt of the first commit of this id.
pub(crate) async fn receipt(client: &Client, id: &Id, now: i64) -> Result<Option<Receipt>, StoreError> {
    let what = "read of a receipt";
    let rows = rows(client, RECEIPTS, &[&vec![codec::id(id)]], what).await?;
    let found = rows.first().map(receipt_of).transpose().map_err(read_failed(what))?.flatten();
    let before = codec::timestamp(forgotten_before(now));
    Ok(found.map(|(_, receipt)| receipt).filter(|receipt| receipt.recorded_at > before))
}

/// The reply that is kept under a key.
pub(crate) async fn reply(
    client: &Client,
    tenant: Option<&str>,
    key: &ReplyKey,
    now: i64,
) -> Result<Option<StoredReply>, StoreError> {
    let what = "read of a reply";
    let sql = "SELECT fingerprint, body, event_name FROM replies \
               WHERE tenant = $1 AND scope = $2 AND key = $3 AND recorded_at > $4";
    let (tenant, before) = (codec::tenant_key(tenant), forgotten_before(now));
    let rows = rows(client, sql, &[&tenant, &codec::text(&key.scope), &codec::text(&key.key), &before], what)
        .await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let read =
        || -> Result<_, tokio_postgres::Error> { Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)) };
    let (fingerprint, body, event_name): (&[u8], Option<&[u8]>, Option<&str>) =
        read().map_err(read_failed(what))?;
    let fingerprint = fingerprint.try_into().map_err(|_| corrupt("a reply's fingerprint is not 16 bytes"))?;
    Ok(Some(StoredReply {
        key: key.clone(),
        fingerprint: Fingerprint(fingerprint),
        body: body.map(Bytes::copy_from_slice),
        event_name: event_name.map(|name| codec::text_of(name).into()),
    }))
}

/// Whether a message of a bridge was handled for a subscription.
pub(crate) async fn is_consumed(
    client: &Client,
    subscription: &SubscriptionId,
    message: &Id,
    now: i64,
) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM consumed WHERE subscription = $1 AND message = $2 AND recorded_at > $3";
    let (subscription, message) = (codec::text(subscription.as_str()), codec::id(message));
    let rows =
        rows(client, sql, &[&subscription, &message, &forgotten_before(now)], "read of a message").await?;
    Ok(!rows.is_empty())
}

/// The receipts of these ids.
const RECEIPTS: &str =
    "SELECT id, recorded_at, position, events, state_versions FROM batches WHERE id = ANY ($1::bytea[])";

/// A receipt as it is kept.
#[derive(Debug)]
pub(crate) struct ReceiptRow<'r> {
    pub(crate) id: &'r [u8],
    pub(crate) recorded_at: i64,
    pub(crate) position: i64,
    pub(crate) events: i32,
    pub(crate) state_versions: Option<&'r str>,
}

impl ReceiptRow<'_> {
    /// The receipt, and whose it is. `None` when its id is none.
    pub(crate) fn receipt(&self) -> Option<(Id, Receipt)> {
        let id = codec::id_of(self.id).ok()?;
        let versions =
            self.state_versions.unwrap_or_default().split(',').filter(|version| !version.is_empty());
        // One transaction gives the positions of a batch, so they are one run.
        let positions = self.position - i64::from(self.events) + 1..=self.position;
        let receipt = Receipt {
            id: id.clone(),
            position: codec::position(self.position),
            positions: positions.map(codec::position).collect(),
            recorded_at: codec::timestamp(self.recorded_at),
            state_versions: versions.map(|version| version.parse().unwrap_or(0)).collect(),
            is_repeated: true,
        };
        Some((id, receipt))
    }
}

/// The receipt of a row of [`RECEIPTS`].
pub(crate) fn receipt_of(row: &Row) -> Result<Option<(Id, Receipt)>, Error> {
    let row = ReceiptRow {
        id: row.try_get(0)?,
        recorded_at: row.try_get(1)?,
        position: row.try_get(2)?,
        events: row.try_get(3)?,
        state_versions: row.try_get(4)?,
    };
    Ok(row.receipt())
}

impl<'r> FromSql<'r> for ReceiptRow<'r> {
    fn from_sql(of_type: &Type, row: &'r [u8]) -> Result<Self, Refusal> {
        let mut row = FoundRow::of(of_type, row)?;
        Ok(Self {
            id: row.take()?,
            recorded_at: row.take()?,
            position: row.take()?,
            events: row.take()?,
            state_versions: row.take()?,
        })
    }

    fn accepts(of_type: &Type) -> bool {
        matches!(of_type.kind(), Kind::Composite(_))
    }
}
