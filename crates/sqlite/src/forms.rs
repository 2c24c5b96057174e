//! Which forms of events there are: counted as batches come, written once a group.

use std::collections::HashMap;

use purista_core::text::Text;
use purista_events::form::Form;
use rusqlite::{Connection, params};

use crate::codec;

/// What the open transaction adds.
#[derive(Debug, Default)]
pub(crate) struct Added(HashMap<(Text, u32), Run>);

/// Events of one form.
#[derive(Debug, Clone, Copy)]
struct Run {
    count: i64,
    oldest: i64,
    newest: i64,
}

impl Added {
    /// An event was written. Positions grow.
    pub(crate) fn add(&mut self, name: &Text, version: u32, position: i64) {
        let run = self.0.entry((name.clone(), version)).or_insert(Run {
            count: 0,
            oldest: position,
            newest: position,
        });
        run.count += 1;
        run.newest = position;
    }

    /// Forgets what was added: the transaction is gone, or begins.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Writes what was added, before the transaction ends.
    pub(crate) fn write(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        for ((name, version), run) in self.0.drain() {
            connection
                .prepare_cached(
                    "INSERT INTO forms (name, version, count, oldest, newest) VALUES (?1, ?2, ?3, ?4, ?5) \
                     ON CONFLICT (name, version) DO UPDATE SET count = count + excluded.count, newest = excluded.newest",
                )?
                .execute(params![name.as_str(), version, run.count, run.oldest, run.newest])?;
        }
        Ok(())
    }
}

/// All of them, in order.
pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Vec<Form>> {
    connection
        .prepare_cached("SELECT name, version, count, oldest, newest FROM forms ORDER BY name, version")?
        .query_map([], |row| {
            let count: i64 = row.get(2)?;
            Ok(Form {
                name: Text::from(row.get::<_, String>(0)?),
                version: row.get(1)?,
                count: u64::try_from(count).ok(),
                oldest: codec::position(row.get(3)?),
                newest: codec::position(row.get(4)?),
            })
        })?
        .collect()
}
