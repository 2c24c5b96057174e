//! What was given up.

use std::collections::HashSet;

use bytes::Bytes;
use purista_core::id::Id;
use purista_events::batch::Batch;
use purista_events::position::Position;
use purista_events::store::{StoreError, StoreErrorKind};
use purista_events::subscriptions::{DeadLetter, DeadLetterSource, SubscriptionId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::codec::Column;
use crate::error::Refusal;

pub(crate) fn write(connection: &Connection, letter: &DeadLetter) -> rusqlite::Result<()> {
    let (position, message) = match &letter.source {
        DeadLetterSource::Event(position) => (Some(Column(*position)), None),
        DeadLetterSource::Message(bytes) => (None, Some(bytes.as_ref())),
    };
    connection
        .prepare_cached(
            "INSERT INTO dead_letters \
             (id, subscription, position, message, at, reason, attempts, trace_id, history) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            Column(&letter.id),
            letter.subscription.as_str(),
            position,
            message,
            Column(letter.at),
            letter.reason,
            letter.attempts,
            Column(&letter.trace_id),
            Column(letter.history.as_slice()),
        ])?;
    Ok(())
}

/// Refuses a batch that forgets what is not there, so that of two who try one again, one does it.
pub(crate) fn check_present(connection: &Connection, batch: &Batch) -> Result<(), Refusal> {
    let mut forgotten = HashSet::new();
    for id in &batch.forgotten_dead_letters {
        let is_present: bool = connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM dead_letters WHERE id = ?1)")?
            .query_row([Column(id)], |row| row.get(0))?;
        if !is_present || !forgotten.insert(id) {
            let what = format!("the dead letter {id} is not there any more");
            return Err(StoreError::new(StoreErrorKind::AlreadyDone, what).into());
        }
    }
    Ok(())
}

pub(crate) fn forget(connection: &Connection, id: &Id) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM dead_letters WHERE id = ?1")?.execute([Column(id)]).map(drop)
}

/// The columns as [`decode`] reads them, and their table.
pub(crate) const COLUMNS: &str =
    "id, subscription, position, message, at, reason, attempts, trace_id, history FROM dead_letters";

/// Oldest first, of one subscription or of all.
pub(crate) fn read(
    connection: &Connection,
    subscription: Option<&SubscriptionId>,
    limit: usize,
) -> rusqlite::Result<Vec<DeadLetter>> {
    // Two statements, so that each is one range of an index.
    let wanted = if subscription.is_some() { "subscription = ?1" } else { "?1 IS NULL" };
    let sql = format!("SELECT {COLUMNS} WHERE {wanted} ORDER BY number LIMIT ?2");
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    connection
        .prepare_cached(&sql)?
        .query_map(params![subscription.map(SubscriptionId::as_str), limit], decode)?
        .collect()
}

/// The one of this id.
pub(crate) fn read_one(connection: &Connection, id: &Id) -> rusqlite::Result<Option<DeadLetter>> {
    connection.query_row(&format!("SELECT {COLUMNS} WHERE id = ?1"), [Column(id)], decode).optional()
}

/// One row of [`COLUMNS`].
pub(crate) fn decode(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    let position: Option<Column<Position>> = row.get(2)?;
    let source = match position {
        Some(position) => DeadLetterSource::Event(position.0),
        None => DeadLetterSource::Message(row.get::<_, Column<Bytes>>(3)?.0),
    };
    Ok(DeadLetter {
        id: row.get::<_, Column<_>>(0)?.0,
        subscription: SubscriptionId::new(row.get::<_, String>(1)?),
        source,
        at: row.get::<_, Column<_>>(4)?.0,
        reason: row.get(5)?,
        attempts: row.get(6)?,
        trace_id: row.get::<_, Column<_>>(7)?.0,
        history: row.get::<_, Column<_>>(8)?.0,
    })
}
