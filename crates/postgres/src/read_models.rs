//! Read models in the store's schema: tables of each build, changed together with its checkpoint, and shown to readers by views.
//!
//! A projection's table `names` lies in the schema as `names_v2_1`, for version 2 made once; the view `names` shows the
//! tables of the current build. So whoever reads writes plain SQL on plain names, and whoever switches makes the views anew,
//! in one transaction.

use std::fmt::Write as _;
use std::future::Future;

use deadpool_postgres::Client;
use futures_util::future::BoxFuture;
use purista_core::error::HandlerError;
use purista_core::text::Text;
use purista_events::projection::Projection;
use purista_events::projector::Projected;
use purista_events::read_models::{
    Build, BuildPause, BuildRecord, Making, ReadModels, Step, Stepped, caught,
};
use purista_events::store::{StoreError, StoreErrorKind};
use tokio::runtime::Handle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

use crate::codec;
use crate::error::{change_failed, read_failed};
use crate::store::PostgresStore;
use crate::tx::{Tx, suffix};

/// A projection into tables of a [`PostgresStore`], see [`Tx`].
pub fn projection(name: &'static str, version: u32) -> Projection<Tx> {
    purista_events::projection::projection(name, version)
}

/// Reads the tables of projections. Cheap to clone; a resource of a service.
#[derive(Debug, Clone)]
pub struct TableReader {
    store: PostgresStore,
}

impl TableReader {
    /// The rows that a statement selects, all of one moment: it sees one build of each projection, also while another takes its
    /// place. It cannot write. Cancel safe.
    pub async fn query(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        let what = "read of a projection's tables";
        let mut client = self.store.handle().client(what).await?;
        let read = async {
            let transaction = client.build_transaction().read_only(true).start().await?;
            // The store's own statements go by index; what is asked here is the user's.
            transaction
                .batch_execute(
                    "SET LOCAL enable_seqscan TO on; SET LOCAL enable_bitmapscan TO on; \
                     SET LOCAL enable_hashjoin TO on; SET LOCAL enable_mergejoin TO on",
                )
                .await?;
            let rows = transaction.query(sql, values).await?;
            transaction.commit().await?;
            Ok(rows)
        };
        read.await.map_err(read_failed(what))
    }
}

impl PostgresStore {
    /// A projection into this store's own tables, for a host to run.
    pub fn projected(&self, projection: Projection<Tx>) -> Projected {
        Projected::of_tables(self.clone(), projection)
    }

    /// Reads the tables of projections.
    pub fn read_models(&self) -> TableReader {
        TableReader { store: self.clone() }
    }

    /// Runs a change on a connection to its end, whoever still waits for it: a connection that goes back to the others has no
    /// open transaction.
    async fn change<T, F>(
        &self,
        what: &'static str,
        change: impl FnOnce(Client) -> F + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let client = self.handle().client(what).await?;
        let ended = self.handle().server.tasks.spawn(change(client)).await;
        ended.unwrap_or_else(|_| {
            Err(StoreError::new(StoreErrorKind::Unknown, format!("{what} ended without an answer")))
        })
    }

    /// Runs code of a user inside a transaction on a thread that may wait, and then what belongs to it.
    async fn in_transaction<T: Send + 'static>(
        client: Client,
        build: &Build,
        code: impl FnOnce(&Tx) -> Result<T, HandlerError> + Send + 'static,
    ) -> Result<(Client, Result<(T, Vec<String>), HandlerError>), StoreError> {
        let what = "a step of a projection";
        let tx = Tx::new(client, Handle::current(), build);
        let run = move || {
            let ended = caught(|| code(&tx)).map(|found| (found, tx.tables()));
            (tx.end(), ended)
        };
        let ((client, fault), ended) = tokio::task::spawn_blocking(run).await.map_err(|error| {
            StoreError::new(StoreErrorKind::Closed, "the runtime ends").with_source(error)
        })?;
        if ended.is_err() {
            // A connection that is gone has taken it back by itself.
            let _ = client.batch_execute("ROLLBACK").await;
        }
        match (fault, &ended) {
            (Some(kind), Err(error)) => {
                Err(StoreError::new(kind, format!("{what} failed: {}", error.report())))
            }
            _ => Ok((client, ended)),
        }
    }
}

/// Ends a transaction: whatever fails takes all of it back.
async fn ended<T>(
    client: &Client,
    what: &'static str,
    rest: impl Future<Output = Result<T, Error>>,
) -> Result<T, StoreError> {
    let done = async {
        let done = rest.await?;
        client.batch_execute("COMMIT").await?;
        Ok(done)
    };
    match done.await {
        Ok(done) => Ok(done),
        Err(error) => {
            let _ = client.batch_execute("ROLLBACK").await;
            Err(change_failed(what)(error))
        }
    }
}

/// Refuses in an open transaction.
async fn refused<T>(client: &Client, kind: StoreErrorKind, what: String) -> Result<T, StoreError> {
    let _ = client.batch_execute("ROLLBACK").await;
    Err(StoreError::new(kind, what))
}

/// What commits here can be made again from the log: it does not wait for the disk.
const BEGIN: &str = "BEGIN; SET LOCAL synchronous_commit TO off";

impl ReadModels for PostgresStore {
    type Tx = Tx;

    fn builds(&self) -> BoxFuture<'_, Result<Vec<BuildRecord>, StoreError>> {
        Box::pin(async move {
            let what = "read of projections";
            let client = self.handle().client(what).await?;
            let rows = client.query(&format!("{SELECT} ORDER BY name, version, generation"), &[]).await;
            let records = rows.and_then(|rows| rows.iter().map(read_record).collect());
            records.map_err(read_failed(what))
        })
    }

    fn begin<'a>(
        &'a self,
        build: &'a Build,
        making: Making<Tx>,
    ) -> BoxFuture<'a, Result<Result<(), HandlerError>, StoreError>> {
        let build = build.clone();
        Box::pin(self.change("the making of a projection", move |client| async move {
            let what = "the making of a projection";
            client.batch_execute(BEGIN).await.map_err(change_failed(what))?;
            // One process makes the tables of a projection; others find them.
            let locked = client.batch_execute("LOCK TABLE projections IN SHARE ROW EXCLUSIVE MODE").await;
            let found = match locked {
                Ok(()) => record(&client, &build, "").await,
                Err(error) => Err(error),
            };
            match found {
                Ok(None) => {}
                Ok(Some(_)) => return ended(&client, what, async { Ok(Ok(())) }).await,
                Err(error) => return ended(&client, what, async { Err(error) }).await,
            }
            let (client, made) = Self::in_transaction(client, &build, making).await?;
            let tables = match made {
                Ok(((), tables)) => tables,
                Err(error) => return Ok(Err(error)),
            };
            let rest = async {
                let is_current = current(&client, &build.name).await?.is_none();
                let (version, generation) = numbers(&build);
                let sql = "INSERT INTO projections (name, version, generation, position, is_current) VALUES ($1, $2, $3, 0, $4)";
                client.execute(sql, &[&build.name.as_str(), &version, &generation, &is_current]).await?;
                let sql = "INSERT INTO projection_tables (projection, version, generation, name) \
                           SELECT $1, $2, $3, * FROM unnest($4::text[])";
                client.execute(sql, &[&build.name.as_str(), &version, &generation, &tables]).await?;
                if is_current { show(&client, &build).await } else { Ok(()) }
            };
            ended(&client, what, rest).await.map(Ok)
        }))
    }

    fn step<'a>(
        &'a self,
        build: &'a Build,
        from: purista_events::position::Position,
        step: Step<Tx>,
    ) -> BoxFuture<'a, Result<Stepped, StoreError>> {
        let build = build.clone();
        Box::pin(self.change("a step of a projection", move |client| async move {
            let what = "a step of a projection";
            client.batch_execute(BEGIN).await.map_err(change_failed(what))?;
            match record(&client, &build, " FOR UPDATE").await {
                Ok(Some(record)) if record.position == from => {}
                Ok(Some(record)) => {
                    let what = format!("the projection {build} is at {}, not at {from}", record.position);
                    return refused(&client, StoreErrorKind::Conflict, what).await;
                }
                Ok(None) => return unknown(&client, &build).await,
                Err(error) => return ended(&client, what, async { Err(error) }).await,
            }
            let (client, stepped) = Self::in_transaction(client, &build, step).await?;
            let reached = match stepped {
                Ok((reached, _)) => reached,
                Err(error) => return Ok(Err(error)),
            };
            let rest = async {
                let (version, generation) = numbers(&build);
                let sql = "UPDATE projections SET position = $4 WHERE name = $1 AND version = $2 AND generation = $3";
                let statement = client.prepare_cached(sql).await?;
                let position = codec::signed(reached.number());
                client.execute(&statement, &[&build.name.as_str(), &version, &generation, &position]).await
            };
            ended(&client, what, rest).await.map(|_| Ok(reached))
        }))
    }

    fn switch_to<'a>(&'a self, build: &'a Build) -> BoxFuture<'a, Result<(), StoreError>> {
        let build = build.clone();
        Box::pin(self.change("the switch of a projection", move |client| async move {
            let what = "the switch of a projection";
            client.batch_execute(BEGIN).await.map_err(change_failed(what))?;
            let looked = async {
                client.batch_execute("LOCK TABLE projections IN SHARE ROW EXCLUSIVE MODE").await?;
                Ok((record(&client, &build, "").await?, current(&client, &build.name).await?))
            };
            let (position, before) = match looked.await {
                Ok((Some(record), before)) => (record.position, before),
                Ok((None, _)) => return unknown(&client, &build).await,
                Err(error) => return ended(&client, what, async { Err(error) }).await,
            };
            if before.as_ref().is_some_and(|before| before.position > position) {
                let what = format!("readers would go back to {position} with the projection {build}");
                return refused(&client, StoreErrorKind::Conflict, what).await;
            }
            let rest = async {
                if let Some(before) = before {
                    hide(&client, &before.build).await?;
                }
                let (version, generation) = numbers(&build);
                let sql =
                    "UPDATE projections SET is_current = (version = $2 AND generation = $3) WHERE name = $1";
                client.execute(sql, &[&build.name.as_str(), &version, &generation]).await?;
                show(&client, &build).await
            };
            ended(&client, what, rest).await
        }))
    }

    fn pause_build<'a>(
        &'a self,
        build: &'a Build,
        pause: Option<BuildPause>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let what = "the pause of a projection";
            let client = self.handle().client(what).await?;
            let (version, generation) = numbers(build);
            let sql = "UPDATE projections SET paused_at = $4, paused_since = $5, paused_reason = $6 \
                       WHERE name = $1 AND version = $2 AND generation = $3";
            let at = pause.as_ref().map(|pause| codec::signed(pause.at.number()));
            let since = pause.as_ref().map(|pause| codec::nanoseconds(pause.since));
            let reason = pause.as_ref().map(|pause| codec::text(&pause.reason));
            let paused = client
                .execute(sql, &[&build.name.as_str(), &version, &generation, &at, &since, &reason])
                .await;
            paused.map(drop).map_err(change_failed(what))
        })
    }

    fn discard<'a>(&'a self, build: &'a Build) -> BoxFuture<'a, Result<(), StoreError>> {
        let build = build.clone();
        Box::pin(self.change("the removal of a projection", move |client| async move {
            let what = "the removal of a projection";
            client.batch_execute(BEGIN).await.map_err(change_failed(what))?;
            let rest = async {
                let Some(found) = record(&client, &build, " FOR UPDATE").await? else { return Ok(()) };
                if found.is_current {
                    hide(&client, &build).await?;
                }
                for table in tables(&client, &build).await? {
                    let drop = format!("DROP TABLE IF EXISTS \"{table}{}\"", suffix(&build));
                    client.batch_execute(&drop).await?;
                }
                let (version, generation) = numbers(&build);
                for (sql, name) in [("projection_tables", "projection"), ("projections", "name")] {
                    let sql =
                        format!("DELETE FROM {sql} WHERE {name} = $1 AND version = $2 AND generation = $3");
                    client.execute(&sql, &[&build.name.as_str(), &version, &generation]).await?;
                }
                Ok(())
            };
            ended(&client, what, rest).await
        }))
    }
}

fn numbers(build: &Build) -> (i64, i64) {
    (i64::from(build.version), i64::from(build.generation))
}

async fn unknown<T>(client: &Client, build: &Build) -> Result<T, StoreError> {
    refused(client, StoreErrorKind::Invalid, format!("there is no build of the projection {build}")).await
}

const SELECT: &str = "SELECT name, version, generation, position, is_current, paused_at, paused_since, paused_reason \
                      FROM projections";

fn read_record(row: &Row) -> Result<BuildRecord, Error> {
    let at: Option<i64> = row.try_get(5)?;
    let since: Option<i64> = row.try_get(6)?;
    let reason: Option<&str> = row.try_get(7)?;
    Ok(BuildRecord {
        build: Build {
            name: Text::from(row.try_get::<_, &str>(0)?),
            version: codec::unsigned(row.try_get(1)?),
            generation: codec::unsigned(row.try_get(2)?),
        },
        position: codec::position(row.try_get(3)?),
        is_current: row.try_get(4)?,
        pause: at.map(|at| BuildPause {
            at: codec::position(at),
            since: codec::timestamp(since.unwrap_or_default()),
            reason: codec::text_of(reason.unwrap_or_default()).into_owned(),
        }),
    })
}

async fn record(client: &Client, build: &Build, locking: &str) -> Result<Option<BuildRecord>, Error> {
    let (version, generation) = numbers(build);
    let sql = format!("{SELECT} WHERE name = $1 AND version = $2 AND generation = $3{locking}");
    let statement = client.prepare_cached(&sql).await?;
    let row = client.query_opt(&statement, &[&build.name.as_str(), &version, &generation]).await?;
    row.as_ref().map(read_record).transpose()
}

async fn current(client: &Client, name: &Text) -> Result<Option<BuildRecord>, Error> {
    let sql = format!("{SELECT} WHERE name = $1 AND is_current");
    client.query_opt(&sql, &[&name.as_str()]).await?.as_ref().map(read_record).transpose()
}

/// The tables of a build, by the names that readers use.
async fn tables(client: &Client, build: &Build) -> Result<Vec<String>, Error> {
    let (version, generation) = numbers(build);
    let sql = "SELECT name FROM projection_tables WHERE projection = $1 AND version = $2 AND generation = $3";
    let rows = client.query(sql, &[&build.name.as_str(), &version, &generation]).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// Shows the tables of a build under the names that readers use.
async fn show(client: &Client, build: &Build) -> Result<(), Error> {
    let mut sql = String::new();
    for table in tables(client, build).await? {
        let _ = write!(sql, "CREATE VIEW \"{table}\" AS SELECT * FROM \"{table}{}\";", suffix(build));
    }
    client.batch_execute(&sql).await
}

async fn hide(client: &Client, build: &Build) -> Result<(), Error> {
    let mut sql = String::new();
    for table in tables(client, build).await? {
        let _ = write!(sql, "DROP VIEW IF EXISTS \"{table}\";");
    }
    client.batch_execute(&sql).await
}
