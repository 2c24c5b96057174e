//! Read models in the file: tables of each build, changed together with its checkpoint, and shown to readers by views.
//!
//! A projection's table `names` lies in the file as `names_v2_1`, for version 2 made once; the view `names` shows the
//! tables of the current build. So whoever reads writes plain SQL on plain names, and whoever switches makes the views anew,
//! in one transaction.

use std::fmt::Write as _;

use futures_util::future::BoxFuture;
use purista_core::error::HandlerError;
use purista_core::text::Text;
use purista_events::position::Position;
use purista_events::projection::Projection;
use purista_events::projector::Projected;
use purista_events::read_models::{Build, BuildPause, BuildRecord, Making, ReadModels, Step, Stepped};
use purista_events::store::{StoreError, StoreErrorKind};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::codec::{self, Column};
use crate::error::{Refusal, read_failed};
use crate::store::SqliteStore;
use crate::tx::{Refused, Tx, suffix};

/// A projection into tables of a [`SqliteStore`], see [`Tx`].
pub fn projection(name: &'static str, version: u32) -> Projection<Tx> {
    purista_events::projection::projection(name, version)
}

/// Reads the tables of projections, on connections that cannot write. Cheap to clone; a resource of a service.
#[derive(Debug, Clone)]
pub struct TableReader {
    store: SqliteStore,
}

impl TableReader {
    /// Runs a read on one of the store's connections, all of it at one moment: it sees one build of each projection, also
    /// while another takes its place. It blocks a reader's thread meanwhile, not the runtime.
    ///
    /// Cancel safe: a read that nobody waits for changes nothing.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let what = "read of a projection's tables";
        self.store
            .handle()
            .read(move |connection| {
                let transaction = connection.transaction().map_err(read_failed(what))?;
                read(&transaction).map_err(read_failed(what))
            })
            .await
    }
}

impl SqliteStore {
    /// A projection into this file's own tables, for a host to run.
    pub fn projected(&self, projection: Projection<Tx>) -> Projected {
        Projected::of_tables(self.clone(), projection)
    }

    /// Connections for reading the tables of projections.
    pub fn read_models(&self) -> TableReader {
        TableReader { store: self.clone() }
    }
}

impl ReadModels for SqliteStore {
    type Tx = Tx;

    fn builds(&self) -> BoxFuture<'_, Result<Vec<BuildRecord>, StoreError>> {
        Box::pin(
            self.handle().read(|connection| records(connection).map_err(read_failed("read of projections"))),
        )
    }

    fn begin<'a>(
        &'a self,
        build: &'a Build,
        making: Making<Tx>,
    ) -> BoxFuture<'a, Result<Result<(), HandlerError>, StoreError>> {
        let (build, guard, name) = (build.clone(), self.handle().guard.clone(), self.handle().namer());
        Box::pin(async move {
            let made = self.handle().aside(move |connection| {
                name(format!("the projection {build}"));
                if record(connection, &build)?.is_some() {
                    return Ok(());
                }
                let is_current = current(connection, &build.name)?.is_none();
                insert(connection, &build, is_current)?;
                let tx = Tx::new(connection, &build);
                let others = of_others(connection, &build)?;
                guard.for_build(&tx, others, true, || making(&tx)).map_err(|error| tx.refusal(error))?;
                for table in tx.into_tables() {
                    connection.execute(
                        "INSERT INTO projection_tables (projection, version, generation, name) VALUES (?1, ?2, ?3, ?4)",
                        params![build.name.as_str(), build.version, build.generation, table],
                    )?;
                }
                if is_current { show(connection, &build) } else { Ok(()) }
            });
            Refused::part(made.await)
        })
    }

    fn step<'a>(
        &'a self,
        build: &'a Build,
        from: Position,
        step: Step<Tx>,
    ) -> BoxFuture<'a, Result<Stepped, StoreError>> {
        let (build, guard, name) = (build.clone(), self.handle().guard.clone(), self.handle().namer());
        Box::pin(async move {
            let stepped = self.handle().aside(move |connection| {
                name(format!("the projection {build}"));
                let at = record(connection, &build)?.ok_or_else(|| unknown(&build))?.position;
                if at != from {
                    let what = format!("the projection {build} is at {at}, not at {from}");
                    return Err(StoreError::new(StoreErrorKind::Conflict, what).into());
                }
                let tx = Tx::new(connection, &build);
                let others = of_others(connection, &build)?;
                let reached = guard.for_build(&tx, others, false, || step(&tx)).map_err(|error| tx.refusal(error))?;
                connection
                    .prepare_cached(
                        "UPDATE projections SET position = ?4 WHERE name = ?1 AND version = ?2 AND generation = ?3",
                    )?
                    .execute(params![build.name.as_str(), build.version, build.generation, Column(reached)])?;
                Ok(reached)
            });
            Refused::part(stepped.await)
        })
    }

    fn switch_to<'a>(&'a self, build: &'a Build) -> BoxFuture<'a, Result<(), StoreError>> {
        let build = build.clone();
        Box::pin(self.handle().aside(move |connection| {
            let position = record(connection, &build)?.ok_or_else(|| unknown(&build))?.position;
            if let Some(before) = current(connection, &build.name)? {
                if before.position > position {
                    let what = format!("readers would go back to {position} with the projection {build}");
                    return Err(StoreError::new(StoreErrorKind::Conflict, what).into());
                }
                hide(connection, &before.build)?;
            }
            connection.execute(
                "UPDATE projections SET is_current = (version = ?2 AND generation = ?3) WHERE name = ?1",
                params![build.name.as_str(), build.version, build.generation],
            )?;
            show(connection, &build)
        }))
    }

    fn pause_build<'a>(
        &'a self,
        build: &'a Build,
        pause: Option<BuildPause>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let build = build.clone();
        Box::pin(self.handle().aside(move |connection| {
            connection.execute(
                "UPDATE projections SET paused_at = ?4, paused_since = ?5, paused_reason = ?6 \
                 WHERE name = ?1 AND version = ?2 AND generation = ?3",
                params![
                    build.name.as_str(),
                    build.version,
                    build.generation,
                    pause.as_ref().map(|pause| Column(pause.at)),
                    pause.as_ref().map(|pause| Column(pause.since)),
                    pause.as_ref().map(|pause| &pause.reason),
                ],
            )?;
            Ok(())
        }))
    }

    fn discard<'a>(&'a self, build: &'a Build) -> BoxFuture<'a, Result<(), StoreError>> {
        let build = build.clone();
        Box::pin(self.handle().aside(move |connection| {
            let Some(BuildRecord { is_current, .. }) = record(connection, &build)? else { return Ok(()) };
            if is_current {
                hide(connection, &build)?;
            }
            for table in tables(connection, &build)? {
                connection.execute_batch(&format!("DROP TABLE IF EXISTS \"{table}{}\"", suffix(&build)))?;
            }
            for (sql, name) in [("projection_tables", "projection"), ("projections", "name")] {
                let sql = format!("DELETE FROM {sql} WHERE {name} = ?1 AND version = ?2 AND generation = ?3");
                connection.execute(&sql, params![build.name.as_str(), build.version, build.generation])?;
            }
            Ok(())
        }))
    }
}

fn unknown(build: &Build) -> Refusal {
    let what = format!("there is no build of the projection {build}");
    StoreError::new(StoreErrorKind::Invalid, what).into()
}

fn insert(connection: &Connection, build: &Build, is_current: bool) -> rusqlite::Result<()> {
    connection
        .execute(
            "INSERT INTO projections (name, version, generation, position, is_current) VALUES (?1, ?2, ?3, 0, ?4)",
            params![build.name.as_str(), build.version, build.generation, is_current],
        )
        .map(drop)
}

const SELECT: &str = "SELECT name, version, generation, position, is_current, paused_at, paused_since, paused_reason \
                      FROM projections";

fn read_record(row: &rusqlite::Row<'_>) -> rusqlite::Result<BuildRecord> {
    let at: Option<Column<Position>> = row.get(5)?;
    let pause = match at {
        Some(Column(at)) => {
            Some(BuildPause { at, since: codec::timestamp(row.get(6)?), reason: row.get(7)? })
        }
        None => None,
    };
    let name = Text::from(row.get::<_, String>(0)?);
    Ok(BuildRecord {
        build: Build { name, version: row.get(1)?, generation: row.get(2)? },
        position: row.get::<_, Column<_>>(3)?.0,
        is_current: row.get(4)?,
        pause,
    })
}

fn records(connection: &Connection) -> rusqlite::Result<Vec<BuildRecord>> {
    connection
        .prepare_cached(&format!("{SELECT} ORDER BY name, version, generation"))?
        .query_map([], read_record)?
        .collect()
}

fn record(connection: &Connection, build: &Build) -> rusqlite::Result<Option<BuildRecord>> {
    connection
        .prepare_cached(&format!("{SELECT} WHERE name = ?1 AND version = ?2 AND generation = ?3"))?
        .query_row(params![build.name.as_str(), build.version, build.generation], read_record)
        .optional()
}

fn current(connection: &Connection, name: &Text) -> rusqlite::Result<Option<BuildRecord>> {
    connection
        .prepare_cached(&format!("{SELECT} WHERE name = ?1 AND is_current"))?
        .query_row([name.as_str()], read_record)
        .optional()
}

/// The tables of a build, by the names that readers use.
fn tables(connection: &Connection, build: &Build) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare_cached(
            "SELECT name FROM projection_tables WHERE projection = ?1 AND version = ?2 AND generation = ?3",
        )?
        .query_map(params![build.name.as_str(), build.version, build.generation], |row| row.get(0))?
        .collect()
}

/// The tables of other projections behind whose names the same stands as behind this build's.
fn of_others(connection: &Connection, build: &Build) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare_cached(
            "SELECT name FROM projection_tables WHERE projection <> ?1 AND version = ?2 AND generation = ?3",
        )?
        .query_map(params![build.name.as_str(), build.version, build.generation], |row| row.get(0))?
        .collect()
}

/// Shows the tables of a build under the names that readers use.
fn show(connection: &Connection, build: &Build) -> Result<(), Refusal> {
    let mut sql = String::new();
    for table in tables(connection, build)? {
        let made = format!("{table}{}", suffix(build));
        // A view shows no hidden columns by itself, and a full-text table is searched by them.
        let columns = if is_full_text(connection, &made)? {
            format!("rowid, *, \"{made}\" AS \"{table}\", rank")
        } else {
            "*".to_owned()
        };
        let _ = write!(sql, "CREATE VIEW \"{table}\" AS SELECT {columns} FROM \"{made}\";");
    }
    Ok(connection.execute_batch(&sql)?)
}

fn is_full_text(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT type = 'virtual' FROM pragma_table_list WHERE schema = 'main' AND name = ?1")?
        .query_row([table], |row| row.get(0))
}

fn hide(connection: &Connection, build: &Build) -> rusqlite::Result<()> {
    for table in tables(connection, build)? {
        connection.execute_batch(&format!("DROP VIEW IF EXISTS \"{table}\""))?;
    }
    Ok(())
}
