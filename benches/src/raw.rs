//! The rows of a file that purista wrote, and raw rusqlite that writes the same rows into another one: what a durable
//! sign-up would cost if nothing but SQLite were asked to do it.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, Statement, params_from_iter};

type Row = Vec<Value>;

/// What one batch wrote: its receipt, and what came with it.
#[derive(Debug, Default)]
struct Written {
    receipt: Row,
    event: Option<Row>,
    tags: Vec<Row>,
    stream: Option<Row>,
    state: Option<Row>,
    /// Of a batch that brought no event.
    progress: Option<Row>,
}

/// The rows of one file, batch by batch in the order of their commits.
#[derive(Debug)]
pub struct Rows(Vec<Written>);

impl Written {
    /// Looks for events that bear its first tag: there are none yet.
    fn look(&self, connection: &Connection) -> Result<()> {
        let Some([name, value, tenant, ..]) = self.tags.first().map(Vec::as_slice) else { return Ok(()) };
        let select = "SELECT e.body FROM tags t JOIN events e ON e.position = t.position \
                      WHERE t.name = ?1 AND t.value = ?2 AND t.tenant = ?3 ORDER BY t.position";
        let mut statement = connection.prepare_cached(select)?;
        ensure!(!statement.exists([name, value, tenant])?, "a tag that is not new");
        Ok(())
    }
}

fn rows(connection: &Connection, select: &str) -> Result<Vec<Row>> {
    let mut statement = connection.prepare(select).with_context(|| select.to_owned())?;
    let columns = statement.column_count();
    let found = statement.query_map([], |row| (0..columns).map(|column| row.get(column)).collect())?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

/// Rows by the value of one of their columns.
fn by(rows: Vec<Row>, column: usize) -> HashMap<String, Vec<Row>> {
    let mut found: HashMap<String, Vec<Row>> = HashMap::new();
    for row in rows {
        found.entry(key(&row, column)).or_default().push(row);
    }
    found
}

fn key(row: &Row, column: usize) -> String {
    format!("{:?}", row.get(column))
}

impl Rows {
    /// Reads a file whose sign-ups each bear the tag `user`, and whose states are kept under the user's id.
    pub fn of(file: &Path) -> Result<Self> {
        let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut events = by(rows(&connection, "SELECT * FROM events")?, 0);
        let mut tags = by(rows(&connection, "SELECT * FROM tags")?, 3);
        let mut streams = by(rows(&connection, "SELECT * FROM streams")?, 2);
        let mut states = by(rows(&connection, "SELECT * FROM state")?, 1);
        let progress = rows(&connection, "SELECT * FROM progress")?;
        let mut written = Vec::new();
        for receipt in rows(&connection, "SELECT * FROM batches ORDER BY number")? {
            // Columns: number, id, recorded_at, position, events, state_versions.
            let (position, brings) = (key(&receipt, 3), receipt.get(4).cloned());
            if brings != Some(Value::Integer(1)) {
                let mut progress = progress.first().cloned();
                if let (Some(low), Some(position)) =
                    (progress.as_mut().and_then(|row| row.get_mut(1)), receipt.get(3))
                {
                    *low = position.clone();
                }
                written.push(Written { receipt, progress, ..Written::default() });
                continue;
            }
            let tags = tags.remove(&position).unwrap_or_default();
            let user = tags.first().map(|tag| key(tag, 1)).context("an event without a tag")?;
            let first = |found: Option<Vec<Row>>| found.and_then(|mut rows| rows.pop());
            written.push(Written {
                event: first(events.remove(&position)),
                stream: first(streams.remove(&user)),
                state: first(states.remove(&user)),
                progress: None,
                receipt,
                tags,
            });
        }
        ensure!(events.is_empty() && streams.is_empty() && states.is_empty(), "rows that belong to no batch");
        Ok(Self(written))
    }

    /// How many batches there are.
    pub fn batches(&self) -> usize {
        self.0.len()
    }

    /// Writes all of it into `file`, which has its tables already, as many batches to a transaction as are told. With
    /// `is_decided` it does what a decision needs beside: before the transaction it looks for the events that bear the tag,
    /// and in it whether one was added.
    pub fn write(&self, file: &Path, group: usize, is_decided: bool) -> Result<Duration> {
        let mut connection = Connection::open(file)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let checkpoint_at = i64::try_from(purista_sqlite::builder::CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "wal_autocheckpoint", checkpoint_at)?;
        let start = Instant::now();
        for batches in self.0.chunks(group.max(1)) {
            let decided = batches.iter().filter(|_| is_decided);
            decided.clone().try_for_each(|written| written.look(&connection))?;
            let transaction = connection.transaction()?;
            {
                let mut tables = Tables::of(&transaction)?;
                for written in batches {
                    if is_decided {
                        written.look(&transaction)?;
                    }
                    tables.write(written)?;
                }
            }
            transaction.commit()?;
        }
        Ok(start.elapsed())
    }
}

/// The statements, prepared once a connection.
struct Tables<'c> {
    events: rusqlite::CachedStatement<'c>,
    tags: rusqlite::CachedStatement<'c>,
    streams: rusqlite::CachedStatement<'c>,
    states: rusqlite::CachedStatement<'c>,
    receipts: rusqlite::CachedStatement<'c>,
    progress: rusqlite::CachedStatement<'c>,
}

impl<'c> Tables<'c> {
    fn of(connection: &'c Connection) -> Result<Self> {
        let insert = |table: &str, columns: usize| {
            let places = vec!["?"; columns].join(",");
            connection.prepare_cached(&format!("INSERT OR REPLACE INTO {table} VALUES ({places})"))
        };
        Ok(Self {
            events: insert("events", 20)?,
            tags: insert("tags", 4)?,
            streams: insert("streams", 4)?,
            states: insert("state", 5)?,
            receipts: insert("batches", 6)?,
            progress: insert("progress", 2)?,
        })
    }

    fn write(&mut self, written: &Written) -> Result<()> {
        let put = |statement: &mut Statement<'_>, row: &Row| statement.execute(params_from_iter(row));
        if let Some(row) = &written.event {
            put(&mut self.events, row)?;
        }
        for row in &written.tags {
            put(&mut self.tags, row)?;
        }
        if let Some(row) = &written.stream {
            put(&mut self.streams, row)?;
        }
        if let Some(row) = &written.state {
            put(&mut self.states, row)?;
        }
        if let Some(row) = &written.progress {
            put(&mut self.progress, row)?;
        }
        put(&mut self.receipts, &written.receipt)?;
        Ok(())
    }
}
