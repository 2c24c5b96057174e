//! Servers that crash, and answers that get lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use purista_conformance::proxy::Proxy;
use purista_core::id::Id;
use purista_events::batch::Condition;
use purista_events::lost_answer::commit_until_known;
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::store::{EventStore, StoreErrorKind};
use purista_postgres::store::PostgresStore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::given::{PATIENCE, batch, event};
use crate::server::{Server, schema};

/// What the server says when a transaction was committed.
const COMMITTED: &[u8] = b"COMMIT\0";

/// The ids of all events that are recorded, each once.
async fn recorded(store: &PostgresStore) -> BTreeSet<Id> {
    let view = store.read_view(&Query::all(), Position::START).await.expect("a view is read");
    let (events, _) = view.all().await.expect("a view is read");
    let ids: BTreeSet<Id> = events.iter().map(|event| event.id.clone()).collect();
    assert_eq!(ids.len(), events.len(), "an event was recorded twice");
    ids
}

/// Commits a batch until its end is known, as whoever has a unit of work does: the same batch again.
async fn settle(store: &PostgresStore, value: &str) -> (Id, Result<(), StoreErrorKind>) {
    let new = event("writer", value);
    let event = new.id.clone();
    let batch = batch(vec![new], Condition::Always);
    let until = Instant::now() + PATIENCE;
    loop {
        match store.commit(batch.clone()).await {
            Ok(_) => return (event, Ok(())),
            Err(error) if Instant::now() > until => return (event, Err(error.kind())),
            // It may have happened: only the same batch again tells.
            Err(error) if error.kind() == StoreErrorKind::Unknown => {}
            Err(error) => return (event, Err(error.kind())),
        }
        tokio::time::sleep(Duration::from_millis(20)).await; // real time: a server comes back
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn nothing_acknowledged_is_lost_when_the_server_crashes_under_load() {
    const CRASHES: usize = 4;
    let server = Server::start();
    let store = server.store("crashes").connect().await.expect("the store opens");
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut writers = JoinSet::new();
    for writer in 0..16 {
        let (store, stop, done) = (store.clone(), Arc::clone(&stop), Arc::clone(&done));
        writers.spawn(async move {
            let (mut kept, mut refused) = (BTreeSet::new(), BTreeSet::new());
            while !stop.load(Ordering::Relaxed) {
                let (event, end) = settle(&store, &writer.to_string()).await;
                match end {
                    Ok(()) => {
                        kept.insert(event);
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(_) => {
                        refused.insert(event);
                    }
                }
            }
            (kept, refused)
        });
    }
    let advances = async |by: usize| {
        let (from, since) = (done.load(Ordering::Relaxed), Instant::now());
        while done.load(Ordering::Relaxed) < from + by {
            assert!(since.elapsed() < PATIENCE, "the store does not recover");
            tokio::time::sleep(Duration::from_millis(5)).await; // real time: others write
        }
        since.elapsed()
    };
    advances(200).await;
    for _ in 0..CRASHES {
        tokio::task::block_in_place(|| server.crash());
        tokio::task::block_in_place(|| server.restart());
        let recovered = advances(1).await;
        println!("first commit {recovered:?} after the server took connections again");
        assert!(recovered < Duration::from_secs(5), "{recovered:?}");
        advances(200).await;
    }
    stop.store(true, Ordering::Relaxed);
    let (mut kept, mut refused) = (BTreeSet::new(), BTreeSet::new());
    for (of_writer, not) in writers.join_all().await {
        kept.extend(of_writer);
        refused.extend(not);
    }
    let found = recorded(&store).await;
    assert_eq!(found.difference(&kept).count(), 0, "something was recorded that was refused");
    assert_eq!(kept.difference(&found).count(), 0, "something acknowledged is lost");
    println!("{} acknowledged and found, {} refused and not found", kept.len(), refused.len());
    store.close().await.expect("a store closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn an_answer_that_is_cut_leaves_no_double_effect() {
    let (server, schema) = (Server::shared(), schema());
    let direct = server.store(&schema).connect().await.expect("the store opens");
    let proxy = Proxy::start(server.port()).await;
    let store = PostgresStore::builder(&Server::url_at(proxy.port()))
        .schema(&schema)
        .writers(1)
        .connect()
        .await
        .expect("the store opens");
    let (mut kept, mut unknown) = (BTreeSet::new(), 0);
    for number in 0..30 {
        let new = event("writer", "one");
        let id = new.id.clone();
        let batch = batch(vec![new], Condition::Always);
        if number % 3 == 1 {
            proxy.cut_before_answer(COMMITTED);
        }
        let mut asked = 0;
        let receipt = loop {
            match store.commit(batch.clone()).await {
                Ok(receipt) => break receipt,
                Err(error) => {
                    assert_eq!(error.kind(), StoreErrorKind::Unknown, "{error}");
                    (asked, unknown) = (asked + 1, unknown + 1);
                    assert!(asked < 5, "asking again settles it");
                }
            }
        };
        assert_eq!(receipt.is_repeated, asked > 0, "the server had committed it");
        kept.insert(id);
    }
    assert_eq!(unknown, 10, "each answer that was cut was missed");
    assert_eq!(recorded(&direct).await, kept);
    for store in [store, direct] {
        store.close().await.expect("a store closes");
    }
    proxy.stop().await;
}

/// COMMIT reaches the server, its answer is cut, and the server is away for longer than a writer waits for it: the end stays open
/// until the receipt is found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn a_commit_whose_answer_is_lost_is_not_refused_while_the_server_is_away() {
    let (server, schema) = (Server::shared(), schema());
    let direct = server.store(&schema).connect().await.expect("the store opens");
    let proxy = Proxy::start(server.port()).await;
    let store = PostgresStore::builder(&Server::url_at(proxy.port())).schema(&schema).writers(1);
    let store = store.connect().await.expect("the store opens");
    store.commit(batch(vec![event("writer", "first")], Condition::Always)).await.expect("committed");
    let (new, refusals) = (event("writer", "one"), AtomicUsize::new(0));
    let id = new.id.clone();
    // Connections that are there stay.
    proxy.refuse(true);
    proxy.cut_before_answer(COMMITTED);
    let commit = async |batch| {
        let end = store.commit(batch).await;
        if end.as_ref().is_err_and(|error| error.kind() == StoreErrorKind::Overloaded) {
            refusals.fetch_add(1, Ordering::Relaxed);
            proxy.refuse(false);
        }
        end
    };
    let receipt = commit_until_known(batch(vec![new], Condition::Always), commit).await;
    assert!(receipt.expect("it was committed").is_repeated);
    assert_eq!(refusals.into_inner(), 1, "the server was away for one repeat");
    assert!(recorded(&direct).await.contains(&id));
    for store in [store, direct] {
        store.close().await.expect("a store closes");
    }
    proxy.stop().await;
}

/// What nobody can write now is refused within some seconds, all of it, and was never written; when the server is back, it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn a_server_that_is_gone_refuses_everybody_alike() {
    let server = Server::start();
    let store = server.store("gone").connect().await.expect("the store opens");
    tokio::task::block_in_place(|| server.crash());
    let since = Instant::now();
    let mut callers = JoinSet::new();
    for caller in 0..50 {
        let store = store.clone();
        let batch = batch(vec![event("caller", &caller.to_string())], Condition::Always);
        callers.spawn(async move { store.commit(batch).await.map_err(|error| error.kind()) });
    }
    for end in callers.join_all().await {
        assert_eq!(end.expect_err("nobody is there"), StoreErrorKind::Overloaded);
    }
    println!("50 callers were refused within {:?}", since.elapsed());
    assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
    let read = store.read_view(&Query::all(), Position::START).await;
    assert_eq!(read.expect_err("nobody is there").kind(), StoreErrorKind::ReadFailed);
    tokio::task::block_in_place(|| server.restart());
    assert_eq!(recorded(&store).await.len(), 0, "what was refused was not written");
    assert_eq!(settle(&store, "back").await.1, Ok(()));
    store.close().await.expect("a store closes");
}
