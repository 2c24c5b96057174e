//! What one batch does: every check first, then writing.
//!
//! The checks only read. So a batch that is refused has written nothing, and needs no savepoint to take it back; the
//! order of the checks is that of the memory engine. After them only the disk can fail, and that concerns the group.

use std::collections::HashMap;

use purista_core::event::Tags;
use purista_events::batch::{Batch, Condition, Receipt};
use purista_events::position::Position;
use purista_events::store::{Direction, StoreError, StoreErrorKind};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, params};
use tokio::time::Instant;

use crate::event::{self, Place};
use crate::selection::{self, Drive, Range};
use crate::writer::Job;
use crate::{codec, dead_letter, progress, receipts, state};

/// Why a batch was not written.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It is refused; nothing of it was written.
    Refused(StoreError),
    /// A statement failed; something of it may stand in the transaction.
    Failed(rusqlite::Error),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error)
    }
}

/// Commits a batch into the open transaction. `head` is the position of the last event, and moves on.
pub(crate) fn apply(
    connection: &Connection,
    Job { batch, state_texts, .. }: &Job,
    head: &mut i64,
    now: i64,
) -> Result<Receipt, Refusal> {
    if let Some(first) = receipts::receipt(connection, &batch.id, now)? {
        return Ok(first);
    }
    if batch.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        let what = format!("the deadline of {} passed before its write began", batch.id);
        return Err(StoreError::new(StoreErrorKind::DeadlinePassed, what).into());
    }
    let tenant = codec::tenant_key(batch.tenant.as_deref());
    receipts::check_consumed(connection, batch, now)?;
    progress::check_undone(connection, batch)?;
    receipts::check_key(connection, &tenant, batch, now)?;
    for append in &batch.appends {
        check_condition(connection, &tenant, &append.condition)?;
    }
    let state = state::plan(connection, &tenant, &batch.state, state_texts, now)?;

    let positions = write_events(connection, &tenant, batch, head, now)?;
    state::write(connection, &tenant, &state)?;
    receipts::write(connection, &tenant, batch, now)?;
    progress::write(connection, batch)?;
    batch.dead_letters.iter().try_for_each(|letter| dead_letter::write(connection, letter))?;
    let receipt = Receipt {
        id: batch.id.clone(),
        position: positions.last().copied().unwrap_or_else(|| codec::position(*head)),
        positions,
        recorded_at: codec::timestamp(now),
        state_versions: state.versions,
        is_repeated: false,
    };
    receipts::write_receipt(connection, &receipt)?;
    Ok(receipt)
}

fn check_condition(connection: &Connection, tenant: &str, condition: &Condition) -> Result<(), Refusal> {
    let conflict = |what| Err(StoreError::new(StoreErrorKind::Conflict, what).into());
    match condition {
        Condition::Always => Ok(()),
        Condition::Stream { name, value, version } => {
            let actual = stream_version(connection, tenant, name, value)?;
            if actual == codec::signed(*version) {
                return Ok(());
            }
            // The value of a tag may be somebody's e-mail address: it stays out of the text.
            conflict(format!("a stream of `{name}` has {actual} events, not {version}"))
        }
        Condition::Unless(query, token) => {
            let from = codec::signed(token.position().number());
            let direction = Direction::Forwards;
            let range = Range { from, up_to: i64::MAX, direction, limit: Some(1), drive: Drive::Log };
            let added = selection::positions(connection, query, range)?;
            let Some(position) = added.first() else { return Ok(()) };
            let name: String = connection
                .prepare_cached("SELECT name FROM events WHERE position = ?1")?
                .query_row([position], |row| row.get(0))?;
            conflict(format!("`{name}` was recorded at {position}"))
        }
        _ => {
            let what = "this store does not know one of the batch's conditions";
            Err(StoreError::new(StoreErrorKind::Invalid, what).into())
        }
    }
}

fn stream_version(connection: &Connection, tenant: &str, name: &str, value: &str) -> rusqlite::Result<i64> {
    let found = connection
        .prepare_cached("SELECT count FROM streams WHERE tenant = ?1 AND name = ?2 AND value = ?3")?
        .query_row([tenant, name, value], |row| row.get(0))
        .optional()?;
    Ok(found.unwrap_or(0))
}

fn write_events(
    connection: &Connection,
    tenant: &str,
    batch: &Batch,
    head: &mut i64,
    now: i64,
) -> rusqlite::Result<Vec<Position>> {
    let count = batch.appends.iter().map(|append| append.events.len()).sum();
    let mut positions = Vec::with_capacity(count);
    if count == 0 {
        return Ok(positions);
    }
    let mut event_row = connection.prepare_cached(event::INSERT)?;
    let mut tag_row = connection.prepare_cached(
        "INSERT OR IGNORE INTO tags (name, value, tenant, position) VALUES (?1, ?2, ?3, ?4)",
    )?;
    // Each stream is written once a batch, whatever its number of events.
    let mut streams: HashMap<(&str, &str), i64> = HashMap::new();
    for event in batch.appends.iter().flat_map(|append| &append.events) {
        let stream_version = match event.tags.first() {
            None => None,
            Some(stream) => {
                let events = match streams.get(&stream) {
                    Some(events) => *events,
                    None => stream_version(connection, tenant, stream.0, stream.1)?,
                };
                streams.insert(stream, events + 1);
                Some(events + 1)
            }
        };
        let position = *head + 1;
        event::insert(&mut event_row, event, Place { position, tenant, stream_version, recorded_at: now })?;
        write_tags(&mut tag_row, &event.tags, tenant, position)?;
        *head = position;
        positions.push(codec::position(position));
    }
    for ((name, value), events) in streams {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO streams (tenant, name, value, count) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![tenant, name, value, events])?;
    }
    Ok(positions)
}

fn write_tags(
    statement: &mut CachedStatement<'_>,
    tags: &Tags,
    tenant: &str,
    position: i64,
) -> rusqlite::Result<()> {
    for (name, value) in tags.iter() {
        statement.execute(params![name, value, tenant, position])?;
    }
    Ok(())
}
