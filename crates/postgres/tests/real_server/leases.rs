//! One process at a time does a piece of work, and another goes on when it ends.

use std::time::Duration;

use purista_events::lease::Lease;
use purista_events::store::EventStore;
use purista_postgres::store::PostgresStore;
use tokio::time::{Instant, timeout};

use crate::given::PATIENCE;
use crate::server::{Server, schema};

/// How long another may take to go on.
const MOVES_WITHIN: Duration = Duration::from_secs(10);
/// How long nobody gets what somebody else has.
const A_WHILE: Duration = Duration::from_millis(1_500);

async fn take(store: &PostgresStore) -> Lease {
    timeout(PATIENCE, store.lease("projection.names"))
        .await
        .expect("a lease is free")
        .expect("the store is open")
}

async fn is_taken(store: &PostgresStore) -> bool {
    timeout(A_WHILE, store.lease("projection.names")).await.is_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn a_lease_moves_when_it_is_given_back_when_its_store_closes_and_when_its_session_dies() {
    // Of its own: it ends the sessions of everybody who has a lease there.
    let (server, schema) = (Server::start(), schema());
    let one = server.store(&schema).connect().await.expect("the store opens");
    let two = server.store(&schema).connect().await.expect("the store opens");

    let lease = take(&one).await;
    assert!(is_taken(&two).await && is_taken(&one).await, "nobody else has it, here or there");
    let other =
        timeout(PATIENCE, one.lease("another")).await.expect("it is free").expect("the store is open");
    drop(lease);
    let lease = take(&two).await;
    assert!(is_taken(&one).await && !other.is_lost());

    // As kill -9 does: the session ends without a word of its process.
    let client = server.client().await;
    let since = Instant::now();
    let sessions = client
        .query("SELECT DISTINCT pid FROM pg_locks WHERE locktype = 'advisory' AND granted", &[])
        .await
        .expect("locks are read");
    for session in sessions {
        let pid: i32 = session.get(0);
        client.query("SELECT pg_terminate_backend($1)", &[&pid]).await.expect("it is ended");
    }
    timeout(MOVES_WITHIN, lease.lost()).await.expect("whoever has lost it learns of it");
    timeout(MOVES_WITHIN, other.lost()).await.expect("its session is gone as well");
    let moved = take(&one).await;
    println!("another goes on {:?} after the session died", since.elapsed());
    assert!(since.elapsed() < MOVES_WITHIN && !moved.is_lost());

    one.close().await.expect("a store closes");
    assert!(moved.is_lost(), "a closed store has no lease");
    drop(take(&two).await);
    two.close().await.expect("a store closes");
}
