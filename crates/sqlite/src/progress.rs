//! Progress of durable subscriptions, what is parked, and pauses.

use std::collections::{BTreeSet, HashSet};

use purista_events::batch::Batch;
use purista_events::position::Position;
use purista_events::store::{StoreError, StoreErrorKind};
use purista_events::subscriptions::{
    Parked, ParkedChange, Pause, Progress, ProgressChange, SubscriptionId, SubscriptionRecord,
};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::codec::Column;
use crate::error::Refusal;
use crate::receipts::forgotten_before;

/// Refuses a batch that finishes what is finished.
pub(crate) fn check_undone(connection: &Connection, batch: &Batch) -> Result<(), Refusal> {
    let mut done = HashSet::new();
    for ProgressChange { subscription, done: position, .. } in &batch.progress {
        let Some(position) = *position else { continue };
        let is_finished = connection
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM progress WHERE subscription = ?1 AND low >= ?2) \
                 OR EXISTS (SELECT 1 FROM progress_done WHERE subscription = ?1 AND position = ?2)",
            )?
            .query_row(params![subscription.as_str(), Column(position)], |row| row.get(0))?;
        if is_finished || !done.insert((subscription, position)) {
            let what = format!("{subscription} finished the event at {position} before");
            return Err(StoreError::new(StoreErrorKind::AlreadyDone, what).into());
        }
    }
    Ok(())
}

pub(crate) fn write(connection: &Connection, batch: &Batch) -> rusqlite::Result<()> {
    batch.progress.iter().try_for_each(|change| advance(connection, change))?;
    batch.parked.iter().try_for_each(|change| park(connection, change))?;
    batch.pauses.iter().try_for_each(|(id, change)| pause(connection, id, change.as_ref()))
}

fn advance(connection: &Connection, change: &ProgressChange) -> rusqlite::Result<()> {
    let name = change.subscription.as_str();
    let up_to = change.up_to.unwrap_or(Position::START);
    connection
        .prepare_cached(
            "INSERT INTO progress (subscription, low) VALUES (?1, ?2) \
             ON CONFLICT (subscription) DO UPDATE SET low = excluded.low WHERE excluded.low > low",
        )?
        .execute(params![name, Column(up_to)])?;
    if let Some(position) = change.done {
        // What lies at or below the low mark is finished by it.
        connection
            .prepare_cached(
                "INSERT OR IGNORE INTO progress_done (subscription, position) \
                 SELECT ?1, ?2 WHERE ?2 > (SELECT low FROM progress WHERE subscription = ?1)",
            )?
            .execute(params![name, Column(position)])?;
    }
    if change.up_to.is_some() {
        connection
            .prepare_cached(
                "DELETE FROM progress_done WHERE subscription = ?1 \
                 AND position <= (SELECT low FROM progress WHERE subscription = ?1)",
            )?
            .execute(params![name])?;
    }
    Ok(())
}

fn park(connection: &Connection, change: &ParkedChange) -> rusqlite::Result<()> {
    match change {
        ParkedChange::Keep(parked) => connection
            .prepare_cached(
                "INSERT OR REPLACE INTO parked (subscription, position, attempts, key, due, history) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                parked.subscription.as_str(),
                Column(parked.position),
                parked.attempts,
                parked.key,
                parked.due.map(Column),
                Column(parked.history.as_slice()),
            ])?,
        ParkedChange::Forget(subscription, position) => connection
            .prepare_cached("DELETE FROM parked WHERE subscription = ?1 AND position = ?2")?
            .execute(params![subscription.as_str(), Column(*position)])?,
    };
    Ok(())
}

fn pause(connection: &Connection, id: &SubscriptionId, change: Option<&Pause>) -> rusqlite::Result<()> {
    match change {
        Some(Pause { since, reason }) => connection
            .prepare_cached(
                "INSERT OR REPLACE INTO pauses (subscription, since, reason) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![id.as_str(), Column(*since), reason])?,
        None => connection
            .prepare_cached("DELETE FROM pauses WHERE subscription = ?1")?
            .execute(params![id.as_str()])?,
    };
    Ok(())
}

/// Everything that is kept for a subscription. `None` when that is nothing.
pub(crate) fn record(
    connection: &Connection,
    id: &SubscriptionId,
) -> rusqlite::Result<Option<SubscriptionRecord>> {
    let name = id.as_str();
    let low: Option<Column<Position>> = connection
        .prepare_cached("SELECT low FROM progress WHERE subscription = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    let pause = connection
        .prepare_cached("SELECT since, reason FROM pauses WHERE subscription = ?1")?
        .query_row([name], |row| Ok(Pause { since: row.get::<_, Column<_>>(0)?.0, reason: row.get(1)? }))
        .optional()?;
    let parked = parked(connection, id)?;
    if low.is_none() && pause.is_none() && parked.is_empty() {
        return Ok(None);
    }
    let done: BTreeSet<Position> = connection
        .prepare_cached("SELECT position FROM progress_done WHERE subscription = ?1")?
        .query_map([name], |row| row.get::<_, Column<_>>(0).map(|position| position.0))?
        .collect::<Result<_, _>>()?;
    let low = low.map_or(Position::START, |low| low.0);
    Ok(Some(SubscriptionRecord { progress: Progress { low, done }, parked, pause }))
}

fn parked(connection: &Connection, id: &SubscriptionId) -> rusqlite::Result<Vec<Parked>> {
    connection
        .prepare_cached(
            "SELECT position, attempts, key, due, history FROM parked WHERE subscription = ?1 ORDER BY position",
        )?
        .query_map([id.as_str()], |row| {
            Ok(Parked {
                subscription: id.clone(),
                position: row.get::<_, Column<_>>(0)?.0,
                attempts: row.get(1)?,
                key: row.get(2)?,
                due: row.get::<_, Option<Column<_>>>(3)?.map(|due| due.0),
                history: row.get::<_, Column<_>>(4)?.0,
            })
        })?
        .collect()
}

/// The names of all subscriptions that anything is kept for, in order. What is forgotten counts no more, although its rows
/// may be there still.
pub(crate) fn subscriptions(connection: &Connection, now: i64) -> rusqlite::Result<Vec<SubscriptionId>> {
    // From name to name through the index: the table of consumed messages is long, its subscriptions are few.
    connection
        .prepare_cached(
            "WITH RECURSIVE fed (name) AS (
                 SELECT min(subscription) FROM consumed
                 UNION ALL
                 SELECT (SELECT min(subscription) FROM consumed WHERE subscription > name) FROM fed
                 WHERE name IS NOT NULL
             )
             SELECT name FROM fed WHERE EXISTS
                 (SELECT 1 FROM consumed WHERE subscription = name AND recorded_at > ?1)
             UNION SELECT subscription FROM progress
             UNION SELECT subscription FROM parked
             UNION SELECT subscription FROM pauses
             UNION SELECT subscription FROM dead_letters
             ORDER BY 1",
        )?
        .query_map([forgotten_before(now)], |row| row.get::<_, String>(0).map(SubscriptionId::new))?
        .collect()
}
