//! A transaction that stays open keeps what is recorded after it from being delivered: lag and health say so, and name it.

use std::time::Duration;

use purista_core::clock::Clock;
use purista_events::lag::Lag;
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::store::EventStore;
use tokio::time::Instant;

use crate::given::{PATIENCE, followed, reached, written};
use crate::server::{Server, schema};

async fn lag(store: &dyn EventStore) -> Lag {
    let measured = Lag::measure(store, &Query::all(), Position::START, Clock::system().now(), 0.0).await;
    measured.expect("the lag is measured")
}

/// Waits until the report is as wanted.
async fn reported(store: &dyn EventStore, what: &str, is_so: impl Fn(Option<&str>) -> bool) {
    let since = Instant::now();
    while !is_so(store.attention().as_deref()) {
        assert!(since.elapsed() < PATIENCE, "never {what}: {:?}", store.attention());
        tokio::time::sleep(Duration::from_millis(20)).await; // real time: a server is looked at again and again
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn an_orphaned_prepared_transaction_counts_as_lag_and_degrades_health() {
    let (server, schema) = (Server::start_with_options("-c max_prepared_transactions=10"), schema());
    let store = server.store(&schema).blocked_after(Duration::from_millis(200));
    let store = store.connect().await.expect("the store opens");
    let client = server.client().await;
    client
        .batch_execute("CREATE TABLE orders (n int); BEGIN; INSERT INTO orders VALUES (1); PREPARE TRANSACTION 'it''s x'")
        .await
        .expect("it is prepared");
    drop(client);

    let mut last = Position::START;
    for number in 0..3 {
        last = store.commit(written("user", &number.to_string())).await.expect("committed").position;
    }
    let (found, _) = followed(&store, Position::START).await;
    assert_eq!(found, [], "nothing is delivered while the transaction is open");
    let behind = lag(&store).await;
    assert_eq!((behind.events.events, behind.head), (3, last), "what waits is counted");
    reported(&store, "reported", |report| {
        report.is_some_and(|text| text.contains("ROLLBACK PREPARED 'it''s x'") && text.contains("of purista"))
    })
    .await;
    let holders = EventStore::holders(&store).await.expect("the blocking transactions are read");
    let oldest = holders.first().expect("there is one");
    assert_eq!((oldest.prepared.as_deref(), oldest.user.as_str()), (Some("it's x"), "purista"));

    let client = server.client().await;
    client.batch_execute(&oldest.remedy()).await.expect("the remedy ends it");
    reached(&store, last).await;
    assert_eq!(followed(&store, Position::START).await.0.len(), 3, "all is delivered");
    reported(&store, "sound again", |report| report.is_none()).await;
    store.close().await.expect("a store closes");
}
