//! The schema, step by step: each step has a number and a name, is made once, and is a file of SQL.

use purista_events::store::{StoreError, StoreErrorKind};
use tokio_postgres::{Client, Error, Transaction};

use crate::codec;
use crate::error::{corrupt, read_failed};
use crate::locks::Locks;

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Migration {
    /// Counts from 1.
    pub number: u32,
    /// What it brings.
    pub name: &'static str,
    sql: &'static str,
}

/// All steps, in order.
pub const MIGRATIONS: [Migration; 6] = [
    Migration { number: 1, name: "log", sql: include_str!("sql/1-log.sql") },
    Migration { number: 2, name: "copy", sql: include_str!("sql/2-copy.sql") },
    Migration { number: 3, name: "begin", sql: include_str!("sql/3-begin.sql") },
    Migration { number: 4, name: "trace", sql: include_str!("sql/4-trace.sql") },
    Migration { number: 5, name: "rows", sql: include_str!("sql/5-rows.sql") },
    Migration { number: 6, name: "clock", sql: include_str!("sql/6-clock.sql") },
];

/// What a log is called, and how late it is.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) origin: String,
    pub(crate) latest: i64,
}

/// How many steps were made. None means that there is no store yet.
pub(crate) async fn made(client: &Client, schema: &str) -> Result<i32, StoreError> {
    let look = async {
        let exists = "SELECT to_regclass($1) IS NOT NULL";
        let name = format!("\"{schema}\".migrations");
        if !client.query_one(exists, &[&name]).await?.try_get(0)? {
            return Ok(0);
        }
        client.query_one("SELECT coalesce(max(number), 0) FROM migrations", &[]).await?.try_get(0)
    };
    look.await.map_err(read_failed("read of the store's version"))
}

/// Makes what is missing, one process at a time. Each step is made whole or not at all, so that whoever is interrupted goes on
/// where he was.
pub(crate) async fn migrate(client: &mut Client, schema: &str) -> Result<(), StoreError> {
    let made = made(client, schema).await?;
    check_known(made)?;
    if made == i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX) {
        return Ok(());
    }
    let steps = async {
        let guard = Locks::guard(&format!("{schema}\0migrations"));
        let transaction = client.transaction().await?;
        // The tables of a store are made while nobody else makes them; the lock ends with the transaction.
        transaction.query("SELECT pg_advisory_xact_lock($1)", &[&guard]).await?;
        let tables = format!(
            "CREATE SCHEMA IF NOT EXISTS \"{schema}\"; CREATE TABLE IF NOT EXISTS \"{schema}\".migrations \
             (number integer PRIMARY KEY, name text NOT NULL, made_at timestamptz NOT NULL DEFAULT now())"
        );
        transaction.batch_execute(&tables).await?;
        step(&transaction).await?;
        transaction.commit().await
    };
    steps.await.map_err(|error: Error| {
        let what = format!(
            "the tables of the store cannot be made in the schema {schema}: may this user create tables there?"
        );
        StoreError::new(StoreErrorKind::Invalid, what).with_source(error)
    })
}

async fn step(transaction: &Transaction<'_>) -> Result<(), Error> {
    let row = transaction.query_one("SELECT coalesce(max(number), 0) FROM migrations", &[]).await?;
    let made: i32 = row.try_get(0)?;
    for Migration { number, name, sql } in MIGRATIONS {
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        if number > made {
            tracing::info!(number, name, "the store's tables are brought up to date");
            transaction.batch_execute(sql).await?;
            transaction
                .execute("INSERT INTO migrations (number, name) VALUES ($1, $2)", &[&number, &name])
                .await?;
        }
    }
    Ok(())
}

/// Refuses a store whose tables are not those of this program.
pub(crate) fn check_made(made: i32) -> Result<(), StoreError> {
    check_known(made)?;
    if usize::try_from(made).unwrap_or(0) < MIGRATIONS.len() {
        let what = "the store's tables are missing or older than this program: migrate them first";
        return Err(StoreError::new(StoreErrorKind::Invalid, what));
    }
    Ok(())
}

/// A store of a newer version is not touched.
pub(crate) fn check_known(made: i32) -> Result<(), StoreError> {
    if usize::try_from(made).unwrap_or(usize::MAX) > MIGRATIONS.len() {
        let what = format!(
            "the store's tables are of version {made}, and this program knows {}: use a newer program",
            MIGRATIONS.len()
        );
        return Err(StoreError::new(StoreErrorKind::Invalid, what));
    }
    Ok(())
}

/// Names the log when it is new, and begins another era where the numbers of transactions have begun again: after a restore
/// into another cluster they are lower than those in the log, and what is written now would come before it.
pub(crate) async fn enter(
    client: &mut Client,
    origin: &str,
    now: i64,
    schema: &str,
) -> Result<Opened, StoreError> {
    let what = "read of the store's name";
    let opening = async {
        let guard = Locks::guard(&format!("{schema}\0migrations"));
        let known = "SELECT l.origin, t.last_value, (SELECT coalesce(max(position), 0) FROM events) >> 14 \
             < l.era + pg_snapshot_xmax(pg_current_snapshot())::text::bigint FROM log l, log_time t";
        if let Some(row) = client.query_opt(known, &[]).await?
            && row.try_get(2)?
        {
            return Ok(Some((row.try_get(0)?, row.try_get(1)?)));
        }
        let transaction = client.transaction().await?;
        transaction.query("SELECT pg_advisory_xact_lock($1)", &[&guard]).await?;
        let name = "INSERT INTO log (origin, era) SELECT $1, 0 WHERE NOT EXISTS (SELECT 1 FROM log)";
        transaction.execute(name, &[&codec::text(origin)]).await?;
        let time =
            "SELECT setval('log_time', greatest(last_value, $1::bigint)) FROM log_time WHERE NOT is_called";
        transaction.query(time, &[&now.max(0)]).await?;
        let era = "UPDATE log SET era = greatest(era, \
             ((SELECT coalesce(max(position), 0) FROM events) >> 14) + 1 - pg_current_xact_id()::text::bigint)";
        transaction.execute(era, &[]).await?;
        transaction.commit().await?;
        let row = client.query_opt(known, &[]).await?;
        row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
    };
    let opened: Option<(String, i64)> = opening.await.map_err(read_failed(what))?;
    let (origin, latest) = opened.ok_or_else(|| corrupt("the store has lost its name"))?;
    Ok(Opened { origin: codec::text_of(&origin).into_owned(), latest })
}
