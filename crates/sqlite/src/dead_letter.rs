//! What was given up.

use bytes::Bytes;
use purista_events::position::Position;
use purista_events::subscriptions::{DeadLetter, DeadLetterSource, SubscriptionId};
use rusqlite::{Connection, params};

use crate::codec::Column;

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

/// Oldest first, of one subscription or of all.
pub(crate) fn read(
    connection: &Connection,
    subscription: Option<&SubscriptionId>,
    limit: usize,
) -> rusqlite::Result<Vec<DeadLetter>> {
    // Two statements, so that each is one range of an index.
    let wanted = if subscription.is_some() { "subscription = ?1" } else { "?1 IS NULL" };
    let sql = format!(
        "SELECT id, subscription, position, message, at, reason, attempts, trace_id, history \
         FROM dead_letters WHERE {wanted} ORDER BY number LIMIT ?2"
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    connection
        .prepare_cached(&sql)?
        .query_map(params![subscription.map(SubscriptionId::as_str), limit], |row| {
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
        })?
        .collect()
}
