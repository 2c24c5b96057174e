//! Forgetting what was kept long enough, a little with each group, so that no commit waits for a great cleaning.

use rusqlite::{Connection, params};

use crate::receipts::forgotten_before;
use crate::state;

/// How many rows of each table go with a group at least. A group of more batches takes twice as many as it brings, so
/// that the forgetting catches up.
const ROWS_MIN: usize = 64;

/// Removes some of what is forgotten. `batches` is how many the group brought.
pub(crate) fn step(connection: &Connection, batches: usize, now: i64) -> rusqlite::Result<()> {
    let rows = i64::try_from(ROWS_MIN.max(batches * 2)).unwrap_or(i64::MAX);
    let before = forgotten_before(now);
    // The numbers grow with time: the oldest rows are the first, and only they are looked at.
    for sql in [
        // Not the last one: its number says how many commits there were, see `file::lost`.
        "DELETE FROM batches WHERE number IN (SELECT number FROM \
         (SELECT number, recorded_at FROM batches ORDER BY number LIMIT ?1) WHERE recorded_at <= ?2) \
         AND number < (SELECT max(number) FROM batches)",
        "DELETE FROM replies WHERE number IN (SELECT number FROM \
         (SELECT number, recorded_at FROM replies ORDER BY number LIMIT ?1) WHERE recorded_at <= ?2)",
        "DELETE FROM consumed WHERE number IN (SELECT number FROM \
         (SELECT number, recorded_at FROM consumed ORDER BY number LIMIT ?1) WHERE recorded_at <= ?2)",
    ] {
        connection.prepare_cached(sql)?.execute(params![rows, before])?;
    }
    state::forget(connection, rows, now)
}

/// Whether anything is forgotten: one look at the first row of each table.
pub(crate) fn is_due(connection: &Connection, now: i64) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT coalesce((SELECT recorded_at FROM batches WHERE number < (SELECT max(number) FROM batches)
                     ORDER BY number LIMIT 1) <= ?1, 0)
                 OR coalesce((SELECT recorded_at FROM replies ORDER BY number LIMIT 1) <= ?1, 0)
                 OR coalesce((SELECT recorded_at FROM consumed ORDER BY number LIMIT 1) <= ?1, 0)
                 OR EXISTS (SELECT 1 FROM state WHERE expires_at <= ?2)",
        )?
        .query_row(params![forgotten_before(now), state::forgotten_before(now)], |row| row.get(0))
}
