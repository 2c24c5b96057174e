//! What is kept for some days goes away, a little with each commit.

use std::time::Duration;

use bytes::Bytes;
use purista_core::clock::Clock;
use purista_core::store::{Expect, StateChange};
use purista_events::batch::{ReplyKey, StoredReply};
use purista_events::fingerprint::Fingerprint;
use purista_events::memory::clock::TestClock;
use purista_events::position::Position;
use purista_events::store::EventStore as _;
use purista_events::subscriptions::{ProgressChange, SubscriptionId};
use purista_sqlite::store::SqliteStore;
use rusqlite::Connection;

use crate::folder::Folder;
use crate::given::batch;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::test]
async fn rows_that_are_forgotten_are_removed() {
    let folder = Folder::new();
    let clock = TestClock::new();
    let store = SqliteStore::builder(folder.file()).clock(clock.clock()).open().unwrap();
    for number in 0..100 {
        let mut batch = batch("one");
        let key = ReplyKey { scope: "scope".into(), key: number.to_string().into() };
        let body = Some(Bytes::from_static(b"{}"));
        batch.reply = Some(StoredReply { key, fingerprint: Fingerprint([0; 16]), body, event_name: None });
        batch.consumed = Some((SubscriptionId::new("Mail.1.send"), Clock::system().id()));
        batch.state.push(StateChange {
            key: number.to_string(),
            expect: Expect::Absent,
            value: Some(number.into()),
            time_to_live: Some(DAY),
        });
        store.commit(batch).await.unwrap();
    }
    let reader = Connection::open(folder.file()).unwrap();
    let rows = |table: &str| -> i64 {
        reader.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    };
    let tables = ["batches", "replies", "consumed", "state"];
    assert_eq!(tables.map(rows), [100; 4]);

    clock.advance(6 * DAY);
    store.commit(batch("one")).await.unwrap();
    assert_eq!(tables.map(rows), [101, 100, 100, 100]);

    // A commit takes some of them, the next ones the rest.
    clock.advance(3 * DAY);
    store.commit(batch("one")).await.unwrap();
    assert!(rows("batches") > 2, "one commit removes a bounded part");
    for _ in 0..3 {
        store.commit(batch("one")).await.unwrap();
    }
    assert_eq!(tables.map(rows), [5, 0, 0, 0]);
    assert_eq!(rows("events"), 105, "the log stays");
}

/// What the checksum file says of the last commit stays true when every receipt is old enough to be removed, and when the last
/// batch of a group was rolled back.
#[tokio::test]
async fn a_store_opens_after_its_receipts_are_forgotten_and_after_a_batch_was_refused() {
    let folder = Folder::new();
    let clock = TestClock::new();
    let open = || SqliteStore::builder(folder.file()).clock(clock.clock()).open().unwrap();
    let store = open();
    for _ in 0..3 {
        store.commit(batch("one")).await.unwrap();
    }
    let letters = || {
        let mut refused = batch("two");
        refused.progress.push(ProgressChange {
            subscription: SubscriptionId::new("Mail.1.send"),
            up_to: None,
            done: Some(Position::new(1)),
        });
        refused
    };
    store.commit(letters()).await.unwrap();
    // In one group with commits that hold: it finishes the same position again.
    let (first, second, third) =
        tokio::join!(store.commit(batch("one")), store.commit(letters()), store.commit(letters()));
    assert!(first.is_ok() && second.is_err() && third.is_err());
    store.close().await.unwrap();
    for _ in 0..3 {
        clock.advance(30 * DAY);
        let store = open();
        tokio::time::sleep(Duration::from_millis(50)).await; // real time: the writer forgets by itself when it is idle
        store.close().await.unwrap();
    }
    let store = open();
    store.commit(batch("one")).await.unwrap();
    store.close().await.unwrap();
}
