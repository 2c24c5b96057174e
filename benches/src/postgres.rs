//! Postgres as it would be asked by hand: the same tables, the same rows, the same check, in groups of the same size.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::TryStreamExt as _;
use purista_core::clock::Clock;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Statement};
use tokio_util::task::TaskTracker;

/// What a raw group does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Takes the locks, asks whether something bears one of the tags, and writes: what a commit on a condition needs.
    Checked,
    /// Only writes.
    Unchecked,
}

const LOCKS: &str = "SELECT take_locks($1, $2)";
const BEGINS: &str = "SELECT base, recorded_at FROM write_begins($1, $2)";
const RECEIPTS_THERE: &str = "SELECT id FROM batches WHERE id = ANY ($1::bytea[])";
// One look into the index for each: without statistics the planner joins the other way round, and reads all of it.
const STREAMS_THERE: &str = "SELECT s.value, s.count FROM unnest($1::text[]) k (value) CROSS JOIN LATERAL \
     (SELECT value, count FROM streams WHERE tenant = '' AND name = 'account' AND value = k.value COLLATE \"C\" LIMIT 1) s";
const TAGS_THERE: &str = "SELECT t.value FROM unnest($1::text[]) k (value) CROSS JOIN LATERAL (SELECT value FROM tags \
     WHERE name = 'account' AND value = k.value COLLATE \"C\" AND tenant = '' AND position > $2 LIMIT 1) t";
const EVENTS: &str = "INSERT INTO events (position, name, version, tenant, recorded_at, id, stream_version, tags, \
     sender_service, sender_version, sender_target, sender_instance, principal, trace_id, correlation_id, causation_id, \
     hops, body) SELECT k.position, 'opened', 1, '', $2, k.id, 1, k.tags, 'Account', '1', 'open', NULL, NULL, k.id, NULL, \
     NULL, 0, k.body FROM unnest($1::bigint[], $3::bytea[], $4::text[], $5::bytea[]) k (position, id, tags, body)";
const TAGS: &str = "INSERT INTO tags (name, value, tenant, position) \
     SELECT 'account', k.value, '', k.position FROM unnest($1::text[], $2::bigint[]) k (value, position)";
const STREAMS: &str = "INSERT INTO streams (tenant, name, value, count) SELECT '', 'account', k.value, 1 \
     FROM unnest($1::text[]) k (value) ON CONFLICT (tenant, name, value) DO UPDATE SET count = excluded.count";
const RECEIPTS: &str = "INSERT INTO batches (id, recorded_at, position, events, state_versions) \
     SELECT k.id, $2, k.position, 1, NULL FROM unnest($1::bytea[], $3::bigint[]) k (id, position)";

/// A connection of a schema whose tables a store has made.
#[derive(Debug)]
pub struct Raw {
    client: Client,
    locks: Statement,
    begins: Statement,
    there: [Statement; 3],
    writes: [Statement; 4],
}

/// Connects, with what is in this schema under its own names.
pub async fn connect(url: &str, schema: &str, tasks: &TaskTracker) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.context("connect to Postgres")?;
    // A connection that fails is seen by whoever asks it next.
    tasks.spawn(async move { drop(connection.await) });
    // The settings that the store has too: without them the planner reads whole tables that it has no statistics of yet.
    let settings = "SET jit TO off; SET enable_seqscan TO off; SET enable_bitmapscan TO off; SET enable_hashjoin TO off; \
                    SET enable_mergejoin TO off";
    client.batch_execute(&format!("SET search_path TO {schema}; {settings}")).await?;
    Ok(client)
}

impl Raw {
    /// A connection with its statements prepared.
    pub async fn connect(url: &str, schema: &str, tasks: &TaskTracker) -> Result<Self> {
        let client = connect(url, schema, tasks).await?;
        Ok(Self {
            locks: client.prepare(LOCKS).await?,
            begins: client.prepare(BEGINS).await?,
            there: [
                client.prepare(RECEIPTS_THERE).await?,
                client.prepare(STREAMS_THERE).await?,
                client.prepare(TAGS_THERE).await?,
            ],
            writes: [
                client.prepare(EVENTS).await?,
                client.prepare(TAGS).await?,
                client.prepare(STREAMS).await?,
                client.prepare(RECEIPTS).await?,
            ],
            client,
        })
    }

    /// Writes events `from..to`, `group` to a transaction; each bears a tag of its own.
    pub async fn write(&self, way: Way, from: u64, to: u64, group: u64, body: &[u8]) -> Result<Duration> {
        let start = Instant::now();
        let mut next = from;
        while next < to {
            let end = (next + group.max(1)).min(to);
            self.group(way, next, end, body).await?;
            next = end;
        }
        Ok(start.elapsed())
    }

    async fn group(&self, way: Way, from: u64, to: u64, body: &[u8]) -> Result<()> {
        let values: Vec<String> = (from..to).map(|nth| nth.to_string()).collect();
        let tags: Vec<String> = values.iter().map(|value| format!("[[\"account\",\"{value}\"]]")).collect();
        let ids: Vec<Vec<u8>> = (from..to).map(|_| uuid::Uuid::now_v7().as_bytes().to_vec()).collect();
        let bodies: Vec<&[u8]> = values.iter().map(|_| body).collect();
        // Both a lock for the tag and one for the type, as whoever decides has to take them.
        let mut keys: Vec<i64> = (from..to).map(u64::cast_signed).collect();
        keys.insert(0, -1);
        let exclusive: Vec<bool> = keys.iter().map(|key| *key >= 0).collect();
        let (clock, guard) = (Clock::system().now().as_microsecond().saturating_mul(1_000), -2_i64);
        let (base, now) = match way {
            Way::Checked => {
                let [receipts, streams, there] = &self.there;
                let locks: [&(dyn ToSql + Sync); 2] = [&keys, &exclusive];
                let begins: [&(dyn ToSql + Sync); 2] = [&clock, &guard];
                let asked: [&(dyn ToSql + Sync); 2] = [&values, &0_i64];
                let known: [&(dyn ToSql + Sync); 1] = [&ids];
                let ((), _, begun, receipts, streams, there) = tokio::try_join!(
                    self.client.batch_execute("BEGIN"),
                    self.client.query(&self.locks, &locks),
                    self.client.query_one(&self.begins, &begins),
                    self.client.query(receipts, &known),
                    self.client.query(streams, asked.split_at(1).0),
                    self.client.query(there, &asked),
                )?;
                ensure!(
                    receipts.is_empty() && streams.is_empty() && there.is_empty(),
                    "tags that are not new"
                );
                (begun.try_get::<_, i64>(0)?, begun.try_get::<_, i64>(1)?)
            }
            Way::Unchecked => {
                self.client.batch_execute("BEGIN").await?;
                (i64::MAX / 2 + from.cast_signed(), clock)
            }
        };
        let positions: Vec<i64> = (base + 1..).take(values.len()).collect();
        let [events, tag_rows, streams, receipts] = &self.writes;
        let each: [(&Statement, Vec<&(dyn ToSql + Sync)>); 4] = [
            (events, vec![&positions, &now, &ids, &tags, &bodies]),
            (tag_rows, vec![&values, &positions]),
            (streams, vec![&values]),
            (receipts, vec![&ids, &now, &positions]),
        ];
        let [events, tag_rows, streams, receipts] =
            each.each_ref().map(|(statement, columns)| self.client.execute(*statement, columns));
        tokio::try_join!(events, tag_rows, streams, receipts, self.client.batch_execute("COMMIT"))?;
        Ok(())
    }
}

/// Reads all columns of all events in order as a binary COPY.
pub async fn copied(client: &Client) -> Result<Duration> {
    let start = Instant::now();
    let copy = "COPY (SELECT * FROM events ORDER BY position) TO STDOUT (FORMAT binary)";
    let rows = client.copy_out(copy).await?;
    let bytes = rows.try_fold(0, |sum, chunk| async move { Ok(sum + chunk.len()) }).await?;
    ensure!(bytes > 0, "nothing was copied");
    Ok(start.elapsed())
}
