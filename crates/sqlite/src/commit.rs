//! What one batch does: every check first, then writing.
//!
//! The checks only read. So a batch that is refused has written nothing, and needs no savepoint to take it back; the
//! order of the checks is that of the memory engine. After them only the disk can fail, and that concerns the group.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use purista_events::batch::{Batch, Condition, Receipt};
use purista_events::position::Position;
use purista_events::store::{Direction, StoreError, StoreErrorKind};
use rusqlite::{OptionalExtension as _, Statement, params};
use tokio::time::Instant;

use crate::error::Refusal;
use crate::event::{self, Place};
use crate::queue::Job;
use crate::selection::{self, Drive, Range};
use crate::statements::Statements;
use crate::{codec, dead_letter, progress, receipts, state};

/// Commits a batch into the open transaction. `head` is the position of the last event, and moves on.
pub(crate) fn apply(
    statements: &mut Statements<'_>,
    Job { batch, state_texts, .. }: &Job,
    head: &mut i64,
    now: i64,
) -> Result<Receipt, Refusal> {
    let connection = statements.connection;
    if let Some(first) = receipts::receipt(&mut statements.select_receipt, &batch.id, now)? {
        return Ok(first);
    }
    if batch.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        let what = format!("the deadline of {} passed before its write began", batch.id);
        return Err(StoreError::new(StoreErrorKind::DeadlinePassed, what).into());
    }
    let tenant = codec::tenant_key(batch.tenant.as_deref());
    receipts::check_consumed(connection, batch, now)?;
    progress::check_undone(connection, batch)?;
    dead_letter::check_present(connection, batch)?;
    receipts::check_key(connection, &tenant, batch, now)?;
    let mut streams = Streams { tenant: &tenant, known: HashMap::new() };
    for append in &batch.appends {
        check_condition(statements, &mut streams, &append.condition)?;
    }
    let state = state::plan(connection, &tenant, &batch.state, state_texts, now)?;

    let positions = write_events(statements, &mut streams, batch, head, now)?;
    state::write(connection, &tenant, &state)?;
    receipts::write(connection, &tenant, batch, now)?;
    progress::write(connection, batch)?;
    batch.forgotten_dead_letters.iter().try_for_each(|id| dead_letter::forget(connection, id))?;
    batch.dead_letters.iter().try_for_each(|letter| dead_letter::write(connection, letter))?;
    let receipt = Receipt {
        id: batch.id.clone(),
        position: positions.last().copied().unwrap_or_else(|| codec::position(*head)),
        positions,
        recorded_at: codec::timestamp(now),
        state_versions: state.versions,
        is_repeated: false,
    };
    receipts::write_receipt(&mut statements.insert_receipt, &receipt)?;
    Ok(receipt)
}

fn check_condition<'b>(
    statements: &mut Statements<'_>,
    streams: &mut Streams<'b>,
    condition: &'b Condition,
) -> Result<(), Refusal> {
    let conflict = |what| Err(StoreError::new(StoreErrorKind::Conflict, what).into());
    match condition {
        Condition::Always => Ok(()),
        Condition::Stream { name, value, version } => {
            let actual = streams.known(&mut statements.select_stream, (name, value))?.now;
            if actual == codec::signed(*version) {
                return Ok(());
            }
            // The value of a tag may be somebody's e-mail address: it stays out of the text.
            conflict(format!("a stream of `{name}` has {actual} events, not {version}"))
        }
        Condition::Unless(query, token) => {
            let from = codec::signed(token.position().number());
            let direction = Direction::Forwards;
            let range =
                Range { from, each: &[], up_to: i64::MAX, direction, limit: Some(1), drive: Drive::Log };
            let connection = statements.connection;
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

/// How many events the streams of a batch have: each is looked up once, and written once.
struct Streams<'b> {
    tenant: &'b str,
    known: HashMap<(&'b str, &'b str), Events>,
}

/// How many events a stream has.
#[derive(Debug, Clone, Copy)]
struct Events {
    before: i64,
    now: i64,
}

impl<'b> Streams<'b> {
    fn known(
        &mut self,
        select: &mut Statement<'_>,
        stream: (&'b str, &'b str),
    ) -> rusqlite::Result<&mut Events> {
        match self.known.entry(stream) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                let key = [self.tenant, stream.0, stream.1];
                let before = select.query_row(key, |row| row.get(0)).optional()?.unwrap_or(0);
                Ok(unknown.insert(Events { before, now: before }))
            }
        }
    }

    /// One event more. Returns its version.
    fn next(&mut self, select: &mut Statement<'_>, stream: (&'b str, &'b str)) -> rusqlite::Result<i64> {
        let events = self.known(select, stream)?;
        events.now += 1;
        Ok(events.now)
    }

    fn write(&self, statements: &mut Statements<'_>) -> rusqlite::Result<()> {
        for ((name, value), events) in self.known.iter().filter(|(_, events)| events.now > events.before) {
            let statement = match events.before {
                0 => &mut statements.insert_stream,
                _ => &mut statements.update_stream,
            };
            statement.execute(params![self.tenant, name, value, events.now])?;
        }
        Ok(())
    }
}

fn write_events<'b>(
    statements: &mut Statements<'_>,
    streams: &mut Streams<'b>,
    batch: &'b Batch,
    head: &mut i64,
    now: i64,
) -> rusqlite::Result<Vec<Position>> {
    let count = batch.appends.iter().map(|append| append.events.len()).sum();
    let mut positions = Vec::with_capacity(count);
    if count == 0 {
        return Ok(positions);
    }
    let tenant = streams.tenant;
    for event in batch.appends.iter().flat_map(|append| &append.events) {
        let stream = event.tags.first();
        let stream_version =
            stream.map(|stream| streams.next(&mut statements.select_stream, stream)).transpose()?;
        let position = *head + 1;
        let place = Place { position, tenant, stream_version, recorded_at: now };
        event::insert(&mut statements.insert_event, event, place)?;
        for (name, value) in event.tags.iter() {
            statements.insert_tag.execute(params![name, value, tenant, position])?;
        }
        statements.forms_added.add(&event.name, event.version, position);
        *head = position;
        positions.push(codec::position(position));
    }
    streams.write(statements)?;
    Ok(positions)
}
