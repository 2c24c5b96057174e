//! Forgetting what was kept long enough, a little at a time, so that no commit waits for a great cleaning.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Client, Pool};
use tokio_postgres::Error;
use tokio_util::sync::CancellationToken;

use crate::locks::Locks;
use crate::receipts;
use crate::shared::Shared;
use crate::state;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(30);
/// How many rows of a table go in one transaction.
const ROWS: i64 = 1_000;

/// Forgets until it is told to end. Of many processes one does it at a time.
pub(crate) async fn run(pool: Pool, schema: String, shared: Arc<Shared>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        let turn = async {
            loop {
                let Ok(mut client) = pool.get().await else { return };
                match step(&mut client, &schema, shared.time.now()).await {
                    Ok(rows) if rows >= u64::try_from(ROWS).unwrap_or(0) => {}
                    Ok(_) => return,
                    Err(error) => {
                        tracing::warn!(%error, "what was kept long enough could not be removed");
                        return;
                    }
                }
            }
        };
        stop.run_until_cancelled(turn).await;
    }
}

/// Removes some of what is forgotten; returns how much of one table at most.
pub(crate) async fn step(client: &mut Client, schema: &str, now: i64) -> Result<u64, Error> {
    let guard = Locks::guard(&format!("{schema}\0upkeep"));
    let transaction = client.transaction().await?;
    let is_ours: bool =
        transaction.query_one("SELECT pg_try_advisory_xact_lock($1)", &[&guard]).await?.try_get(0)?;
    if !is_ours {
        return Ok(0);
    }
    // What is removed twice after a crash was removed once.
    transaction
        .batch_execute("SET LOCAL synchronous_commit TO off; SET LOCAL enable_bitmapscan TO on")
        .await?;
    let (before, state_before) = (receipts::forgotten_before(now), state::forgotten_before(now));
    let mut most = 0;
    for sql in [
        "DELETE FROM batches WHERE id IN (SELECT id FROM batches WHERE recorded_at <= $1 LIMIT $2)",
        "DELETE FROM replies WHERE (tenant, scope, key) IN \
         (SELECT tenant, scope, key FROM replies WHERE recorded_at <= $1 LIMIT $2)",
        "DELETE FROM consumed WHERE (subscription, message) IN \
         (SELECT subscription, message FROM consumed WHERE recorded_at <= $1 LIMIT $2)",
    ] {
        most = most.max(transaction.execute(sql, &[&before, &ROWS]).await?);
    }
    // A row that somebody writes meanwhile is no more an old one when its turn comes, and stays.
    let state = "WITH gone AS (DELETE FROM state WHERE (tenant, key) IN (SELECT tenant, key FROM state \
         WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2) AND expires_at <= $1 RETURNING version), \
         floor AS (UPDATE log SET state_versions_forgotten = greatest(state_versions_forgotten, \
         (SELECT coalesce(max(version), 0) FROM gone)) WHERE EXISTS (SELECT 1 FROM gone)) \
         SELECT count(*) FROM gone";
    let gone: i64 = transaction.query_one(state, &[&state_before, &ROWS]).await?.try_get(0)?;
    most = most.max(u64::try_from(gone).unwrap_or(0));
    transaction.commit().await?;
    Ok(most)
}
