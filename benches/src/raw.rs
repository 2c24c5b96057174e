//! The rows of a file that purista wrote, and raw rusqlite that writes the same rows into another one: what a durable
//! sign-up would cost if nothing but SQLite were asked to do it.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use purista_core::id::ID_DIGITS;
use rusqlite::types::Value;
use rusqlite::{CachedStatement, Connection, OpenFlags, Statement, params_from_iter};

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

/// The rows of one file, batch by batch in the order of their commits.
#[derive(Debug)]
pub struct Rows {
    written: Vec<Written>,
    tables: Tables<Table>,
}

/// A table of the file that purista wrote, with its columns. Both are read from the file: a table that gets a column is
/// written by hand with that column, too.
#[derive(Debug)]
struct Table {
    name: &'static str,
    columns: Vec<String>,
}

/// One of each table that is written by hand.
#[derive(Debug)]
struct Tables<T> {
    events: T,
    tags: T,
    streams: T,
    states: T,
    receipts: T,
    progress: T,
}

impl Table {
    fn read(connection: &Connection, name: &'static str, order: &str) -> Result<(Self, Vec<Row>)> {
        let select = format!("SELECT * FROM {name} {order}");
        let mut statement = connection.prepare(&select).context(select)?;
        let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let found =
            statement.query_map([], |row| (0..columns.len()).map(|column| row.get(column)).collect())?;
        let rows = found.collect::<rusqlite::Result<_>>()?;
        Ok((Self { name, columns }, rows))
    }

    fn column(&self, name: &str) -> Result<usize> {
        let found = self.columns.iter().position(|column| column == name);
        found.with_context(|| format!("table {} has no column {name}", self.name))
    }

    /// The rows by the value of one of their columns.
    fn by(&self, rows: Vec<Row>, column: &str) -> Result<HashMap<String, Vec<Row>>> {
        let column = self.column(column)?;
        let mut found: HashMap<String, Vec<Row>> = HashMap::new();
        for row in rows {
            found.entry(key(&row, column)).or_default().push(row);
        }
        Ok(found)
    }

    fn insert<'c>(&self, connection: &'c Connection) -> Result<CachedStatement<'c>> {
        let (columns, values) = (self.columns.join(","), vec!["?"; self.columns.len()].join(","));
        let insert = format!("INSERT OR REPLACE INTO {} ({columns}) VALUES ({values})", self.name);
        connection.prepare_cached(&insert).context(insert)
    }
}

/// The last part of a value: the id of a user, whatever stands before it in a key.
fn key(row: &Row, column: usize) -> String {
    match row.get(column) {
        Some(Value::Text(text)) => {
            let from = text.char_indices().nth_back(ID_DIGITS - 1).map_or(0, |(at, _)| at);
            text.get(from..).unwrap_or_default().to_owned()
        }
        other => format!("{other:?}"),
    }
}

/// The tables of a file that have rows and that [`Rows`] does not write, to be named beside the figures.
fn others(connection: &Connection, known: &[&str]) -> Result<Vec<String>> {
    let mut statement = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")?;
    let names = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    let mut found = Vec::new();
    for name in names.into_iter().filter(|name| !known.contains(&name.as_str())) {
        if connection.prepare(&format!("SELECT 1 FROM {name}"))?.exists([])? {
            found.push(name);
        }
    }
    Ok(found)
}

impl Rows {
    /// Reads a file whose sign-ups each bear one tag, and whose states have keys that end with the value of this tag.
    pub fn of(file: &Path) -> Result<Self> {
        let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let read = |name, order| Table::read(&connection, name, order);
        let (of_events, events) = read("events", "")?;
        let (of_tags, tags) = read("tags", "")?;
        let (of_streams, streams) = read("streams", "")?;
        let (of_states, states) = read("state", "")?;
        let (of_progress, progress) = read("progress", "")?;
        let (of_receipts, receipts) = read("batches", "ORDER BY number")?;
        let mut events = of_events.by(events, "position")?;
        let (value, mut tags) = (of_tags.column("value")?, of_tags.by(tags, "position")?);
        let mut streams = of_streams.by(streams, "value")?;
        let mut states = of_states.by(states, "key")?;
        let (low, at, count) =
            (of_progress.column("low")?, of_receipts.column("position")?, of_receipts.column("events")?);
        let mut written = Vec::new();
        for receipt in receipts {
            let position = key(&receipt, at);
            if receipt.get(count) != Some(&Value::Integer(1)) {
                let mut progress = progress.first().cloned();
                if let (Some(low), Some(position)) =
                    (progress.as_mut().and_then(|row| row.get_mut(low)), receipt.get(at))
                {
                    *low = position.clone();
                }
                written.push(Written { receipt, progress, ..Written::default() });
                continue;
            }
            let tags = tags.remove(&position).unwrap_or_default();
            let user = tags.first().map(|tag| key(tag, value)).context("an event without a tag")?;
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
        let tables = Tables {
            events: of_events,
            tags: of_tags,
            streams: of_streams,
            states: of_states,
            receipts: of_receipts,
            progress: of_progress,
        };
        let others = others(&connection, &tables.names())?;
        if !others.is_empty() {
            println!("not written by hand: {}", others.join(", "));
        }
        Ok(Self { written, tables })
    }

    /// How many batches there are.
    pub fn batches(&self) -> usize {
        self.written.len()
    }

    /// Writes all of it into `file`, which has its tables already, as many batches to a transaction as are told. With
    /// `is_decided` it does what a decision needs as well: before the transaction it looks for the events that bear the tag,
    /// and in it whether one was added.
    pub fn write(&self, file: &Path, group: usize, is_decided: bool) -> Result<Duration> {
        let mut connection = Connection::open(file)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let checkpoint_at = i64::try_from(purista_sqlite::builder::CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "wal_autocheckpoint", checkpoint_at)?;
        let start = Instant::now();
        for batches in self.written.chunks(group.max(1)) {
            let decided = batches.iter().filter(|_| is_decided);
            decided.clone().try_for_each(|written| written.look(&connection))?;
            let transaction = connection.transaction()?;
            {
                let mut inserts = self.tables.inserts(&transaction)?;
                for written in batches {
                    if is_decided {
                        written.look(&transaction)?;
                    }
                    inserts.write(written)?;
                }
            }
            transaction.commit()?;
        }
        Ok(start.elapsed())
    }
}

impl Tables<Table> {
    fn names(&self) -> [&'static str; 6] {
        let Self { events, tags, streams, states, receipts, progress } = self;
        [events, tags, streams, states, receipts, progress].map(|table| table.name)
    }

    /// The statements, prepared once a connection.
    fn inserts<'c>(&self, connection: &'c Connection) -> Result<Tables<CachedStatement<'c>>> {
        Ok(Tables {
            events: self.events.insert(connection)?,
            tags: self.tags.insert(connection)?,
            streams: self.streams.insert(connection)?,
            states: self.states.insert(connection)?,
            receipts: self.receipts.insert(connection)?,
            progress: self.progress.insert(connection)?,
        })
    }
}

impl Tables<CachedStatement<'_>> {
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
