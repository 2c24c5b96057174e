//! What makes a second time harmless: receipts of batches, replies under a key, messages that were handled.
//!
//! Each is kept for some days. What is older counts as absent at once; its row goes later, see `prune`.

use bytes::Bytes;
use jiff::SignedDuration;
use purista_core::id::Id;
use purista_events::batch::{Batch, RECEIPTS_KEPT_DAYS, Receipt, ReplyKey, StoredReply};
use purista_events::fingerprint::Fingerprint;
use purista_events::store::{StoreError, StoreErrorKind};
use purista_events::subscriptions::SubscriptionId;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, Statement, params};

use crate::codec::{self, Column};
use crate::error::Refusal;

/// What was recorded at this time or before is forgotten.
pub(crate) fn forgotten_before(now: i64) -> i64 {
    let kept = SignedDuration::from_hours(RECEIPTS_KEPT_DAYS * 24).as_nanos();
    now.saturating_sub(i64::try_from(kept).unwrap_or(i64::MAX))
}

pub(crate) const SELECT: &str =
    "SELECT recorded_at, position, events, state_versions FROM batches WHERE id = ?1 AND recorded_at > ?2";
pub(crate) const INSERT: &str = "INSERT OR REPLACE INTO batches (id, recorded_at, position, events, state_versions) \
     VALUES (?1, ?2, ?3, ?4, ?5)";

/// The receipt of the first commit of this id, by [`SELECT`].
pub(crate) fn receipt(select: &mut Statement<'_>, id: &Id, now: i64) -> rusqlite::Result<Option<Receipt>> {
    select.query_row(params![Column(id), forgotten_before(now)], |row| decode(row, id.clone(), 0)).optional()
}

/// The receipt of this batch in a row, whose time, last position, number of events and versions begin at this column.
pub(crate) fn decode(row: &Row<'_>, id: Id, first: usize) -> rusqlite::Result<Receipt> {
    let (last, events): (i64, i64) = (row.get(first + 1)?, row.get(first + 2)?);
    let versions: Option<String> = row.get(first + 3)?;
    let state_versions = serde_json::from_str(versions.as_deref().unwrap_or("[]"))
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(first + 3, Type::Text, error.into()))?;
    Ok(Receipt {
        id,
        position: codec::position(last),
        // One writer gives the positions, so those of a batch are one run.
        positions: (last - events + 1..=last).map(codec::position).collect(),
        recorded_at: codec::timestamp(row.get(first)?),
        state_versions,
        is_repeated: true,
    })
}

/// Keeps a receipt, by [`INSERT`].
pub(crate) fn write_receipt(insert: &mut Statement<'_>, receipt: &Receipt) -> rusqlite::Result<()> {
    let versions = (!receipt.state_versions.is_empty()).then(|| {
        let texts: Vec<String> = receipt.state_versions.iter().map(u64::to_string).collect();
        format!("[{}]", texts.join(","))
    });
    insert.execute(params![
        Column(&receipt.id),
        Column(receipt.recorded_at),
        Column(receipt.position),
        i64::try_from(receipt.positions.len()).unwrap_or(i64::MAX),
        versions,
    ])?;
    Ok(())
}

/// Refuses a message that was handled before.
pub(crate) fn check_consumed(connection: &Connection, batch: &Batch, now: i64) -> Result<(), Refusal> {
    if let Some((subscription, message)) = &batch.consumed
        && is_consumed(connection, subscription, message, now)?
    {
        let what = format!("{subscription} handled the message {message} before");
        return Err(StoreError::new(StoreErrorKind::AlreadyDone, what).into());
    }
    Ok(())
}

/// Refuses a key under which another reply is kept.
pub(crate) fn check_key(
    connection: &Connection,
    tenant: &str,
    batch: &Batch,
    now: i64,
) -> Result<(), Refusal> {
    let Some(reply) = &batch.reply else { return Ok(()) };
    let is_taken = connection
        .prepare_cached(
            "SELECT 1 FROM replies WHERE tenant = ?1 AND scope = ?2 AND key = ?3 AND recorded_at > ?4",
        )?
        .exists(params![tenant, reply.key.scope, reply.key.key, forgotten_before(now)])?;
    if is_taken {
        let what = format!("another reply is kept under the key that {} brings", batch.id);
        return Err(StoreError::new(StoreErrorKind::KeyTaken, what).into());
    }
    Ok(())
}

pub(crate) fn write(connection: &Connection, tenant: &str, batch: &Batch, now: i64) -> rusqlite::Result<()> {
    if let Some(StoredReply { key, fingerprint, body, event_name }) = &batch.reply {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO replies (tenant, scope, key, fingerprint, body, event_name, recorded_at) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                tenant,
                key.scope,
                key.key,
                fingerprint.0,
                body.as_ref().map(Column),
                event_name,
                now
            ])?;
    }
    if let Some((subscription, message)) = &batch.consumed {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO consumed (subscription, message, recorded_at) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![subscription.as_str(), Column(message), now])?;
    }
    Ok(())
}

/// The reply that is kept under a key.
pub(crate) fn reply(
    connection: &Connection,
    tenant: &str,
    key: &ReplyKey,
    now: i64,
) -> rusqlite::Result<Option<StoredReply>> {
    connection
        .prepare_cached(
            "SELECT fingerprint, body, event_name FROM replies \
             WHERE tenant = ?1 AND scope = ?2 AND key = ?3 AND recorded_at > ?4",
        )?
        .query_row(params![tenant, key.scope, key.key, forgotten_before(now)], |row| {
            Ok(StoredReply {
                key: key.clone(),
                fingerprint: Fingerprint(row.get(0)?),
                body: row.get::<_, Option<Column<Bytes>>>(1)?.map(|body| body.0),
                event_name: row.get(2)?,
            })
        })
        .optional()
}

/// Whether a message of a bridge was handled for a subscription.
pub(crate) fn is_consumed(
    connection: &Connection,
    subscription: &SubscriptionId,
    message: &Id,
    now: i64,
) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT 1 FROM consumed WHERE subscription = ?1 AND message = ?2 AND recorded_at > ?3",
        )?
        .exists(params![subscription.as_str(), Column(message), forgotten_before(now)])
}
