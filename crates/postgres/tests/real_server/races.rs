//! What only many clients at once get wrong.

use std::sync::Arc;
use std::time::Duration;

use purista_core::text::Text;
use purista_events::batch::{Batch, Condition, ReplyKey, StoredReply};
use purista_events::fingerprint::Fingerprint;
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::store::{EventStore, StoreErrorKind};
use purista_postgres::store::PostgresStore;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::given::{batch, event, followed, reached, written};
use crate::server::{Server, schema};

/// A client that has written and not committed; nobody of the store knows it.
async fn idle_writer(server: &Server) -> Client {
    let client = server.client().await;
    client.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.expect("a transaction has a number");
    client
}

/// Writes an event as a lane does, and sleeps before its COMMIT: its place in the log is taken.
async fn sleeping_writer(server: &Server, schema: &str) -> (Client, Position) {
    let client = server.client().await;
    let sql = format!(
        "SET search_path TO \"{schema}\"; BEGIN; \
         CREATE TEMPORARY TABLE slow ON COMMIT DROP AS SELECT base + 1 AS position FROM write_begins(0, 7); \
         CREATE TEMPORARY TABLE copied ON COMMIT DROP AS SELECT * FROM events ORDER BY position LIMIT 1; \
         UPDATE copied SET position = (SELECT position FROM slow), recorded_at = (SELECT last_value FROM log_time); \
         INSERT INTO events SELECT * FROM copied"
    );
    client.batch_execute(&sql).await.expect("an event is written");
    let row = client.query_one("SELECT position FROM slow", &[]).await.expect("it has a place");
    let place: i64 = row.get(0);
    (client, Position::new(place.unsigned_abs()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn no_follower_passes_over_a_writer_that_sleeps_before_its_commit() {
    let (server, schema) = (Server::shared(), schema());
    let store = server.store(&schema).connect().await.expect("the store opens");
    let first = store.commit(written("writer", "first")).await.expect("committed");
    reached(&store, first.position).await;

    let (sleeping, place) = sleeping_writer(server, &schema).await;
    let mut last = first.position;
    for _ in 0..20 {
        last = store.commit(written("writer", "other")).await.expect("committed").position;
        assert!(last > place, "whoever begins later comes later");
        let (found, looked_up_to) = followed(&store, Position::START).await;
        assert_eq!((found.len(), looked_up_to), (1, first.position), "nobody follows past {place}");
        assert_eq!(*store.head().borrow(), first.position);
    }
    // Who decides sees all of it.
    let view = store.read_view(&Query::all(), Position::START).await.expect("a view is read");
    assert_eq!((view.token.position(), view.token.is_settled()), (last, false));
    assert_eq!(view.all().await.expect("a view is read").0.len(), 21);

    sleeping.batch_execute("COMMIT").await.expect("it commits in the end");
    reached(&store, last).await;
    let (found, _) = followed(&store, first.position).await;
    assert_eq!(found.first().map(|event| event.position), Some(place));
    assert_eq!(found.len(), 21);
    assert!(found.is_sorted_by_key(|event| event.position));
    store.close().await.expect("a store closes");
}

/// What lay below the last event of a view and was committed after it is new to whoever decides on the view.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn a_decision_learns_of_what_was_committed_behind_its_back() {
    let (server, schema) = (Server::shared(), schema());
    let store = server.store(&schema).connect().await.expect("the store opens");
    store.commit(written("seat", "1")).await.expect("committed");
    let (sleeping, place) = sleeping_writer(server, &schema).await;
    let last = store.commit(written("seat", "2")).await.expect("committed").position;
    let query = Query::types([Text::known("written")]).of_tenant(None);
    let token = store.read_view(&query, Position::START).await.expect("a view is read").token;
    assert!(token.position() == last && place < last);
    sleeping.batch_execute("COMMIT").await.expect("committed");
    let decision = batch(vec![event("seat", "3")], Condition::Unless(query, token));
    let refused = store.commit(decision).await.expect_err("something was added");
    assert_eq!(refused.kind(), StoreErrorKind::Conflict);
    store.close().await.expect("a store closes");
}

async fn take_seat(store: &PostgresStore, seat: &str) -> Result<(), StoreErrorKind> {
    let query = Query::tag("seat", seat).of_tenant(None);
    let view = store.read_view(&query, Position::START).await.map_err(|error| error.kind())?;
    let (found, token) = view.all().await.map_err(|error| error.kind())?;
    if !found.is_empty() {
        return Ok(());
    }
    let taking = batch(vec![event("seat", seat)], Condition::Unless(query, token));
    store.commit(taking).await.map(drop).map_err(|error| error.kind())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn no_seat_is_taken_twice_while_somebody_leaves_a_transaction_open() {
    const SEATS: usize = 400;
    let (server, schema) = (Server::shared(), schema());
    let idle = idle_writer(server).await;
    // Two stores stand for two processes: they share nothing but the server.
    let stores = [
        server.store(&schema).connect().await.expect("the store opens"),
        server.store(&schema).connect().await.expect("the store opens"),
    ];
    let mut callers = JoinSet::new();
    for caller in 0..32 {
        let store = stores[caller % 2].clone();
        callers.spawn(async move {
            let (mut conflicts, mut seat) = (0, caller * 7);
            for _ in 0..SEATS {
                seat = (seat + 13) % SEATS;
                match take_seat(&store, &seat.to_string()).await {
                    Ok(()) => {}
                    Err(StoreErrorKind::Conflict) => conflicts += 1,
                    Err(kind) => panic!("{kind:?}"),
                }
            }
            conflicts
        });
    }
    let conflicts: usize = callers.join_all().await.into_iter().sum();
    println!("{conflicts} of {} attempts lost their race", 32 * SEATS);
    let view = stores[0].read_view(&Query::all(), Position::START).await.expect("a view is read");
    let (events, _) = view.all().await.expect("a view is read");
    let mut seats: Vec<String> =
        events.iter().filter_map(|event| event.tags.first()).map(|(_, seat)| seat.to_owned()).collect();
    seats.sort();
    seats.dedup();
    assert_eq!((events.len(), seats.len()), (SEATS, SEATS), "a seat was taken twice");
    assert!(events.iter().all(|event| event.stream_version == Some(1)));
    drop(idle);
    for store in stores {
        store.close().await.expect("a store closes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn one_key_has_one_effect_from_however_many_processes() {
    let (server, schema) = (Server::shared(), schema());
    let stores = [
        server.store(&schema).connect().await.expect("the store opens"),
        server.store(&schema).connect().await.expect("the store opens"),
    ];
    let key = ReplyKey { scope: "ada@User.1.signUp".into(), key: "once".into() };
    let barrier = Arc::new(tokio::sync::Barrier::new(64));
    let mut callers = JoinSet::new();
    for caller in 0..64_usize {
        let (store, key, barrier) = (stores[caller % 2].clone(), key.clone(), Arc::clone(&barrier));
        callers.spawn(async move {
            let body = Some(caller.to_string().into());
            let reply =
                StoredReply { key: key.clone(), fingerprint: Fingerprint([7; 16]), body, event_name: None };
            let keyed = Batch { reply: Some(reply), ..written("user", &caller.to_string()) };
            barrier.wait().await;
            match store.commit(keyed).await {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), StoreErrorKind::KeyTaken, "{error}"),
            }
            let kept = store.reply(None, &key).await.expect("a reply is read");
            kept.and_then(|reply| reply.body).expect("a reply is kept")
        });
    }
    let mut answers = callers.join_all().await;
    answers.dedup();
    assert_eq!(answers.len(), 1, "equal answers");
    let head = stores[0].read_view(&Query::all(), Position::START).await.expect("a view is read");
    assert_eq!(head.all().await.expect("a view is read").0.len(), 1, "one effect");
    for store in stores {
        store.close().await.expect("a store closes");
    }
}

/// What one process records reaches the followers of another soon: by word, not only by looking now and then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn another_process_learns_of_what_is_recorded() {
    let (server, schema) = (Server::shared(), schema());
    let writing = server.store(&schema).connect().await.expect("the store opens");
    let following = server.store(&schema).connect().await.expect("the store opens");
    let mut waits = Vec::new();
    for _ in 0..10 {
        let last = writing.commit(written("user", "ada")).await.expect("committed").position;
        let since = tokio::time::Instant::now();
        reached(&following, last).await;
        waits.push(since.elapsed());
    }
    waits.sort();
    println!("followers of another process wait {waits:?}");
    assert!(waits[5] < Duration::from_millis(400), "{waits:?}");
    writing.close().await.expect("a store closes");
    following.close().await.expect("a store closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn a_batch_in_its_users_transaction_ends_as_that_does() {
    let (server, schema) = (Server::shared(), schema());
    let store = server.store(&schema).connect().await.expect("the store opens");
    let mut client = server.client().await;
    let table = format!("\"{schema}\".stock");
    client.batch_execute(&format!("CREATE TABLE {table} (pieces int)")).await.expect("a table is made");
    for is_committed in [false, true] {
        let transaction = client.transaction().await.expect("a transaction begins");
        store.commit_in(&transaction, written("order", "1")).await.expect("it is taken");
        transaction
            .batch_execute(&format!("INSERT INTO {table} VALUES (1)"))
            .await
            .expect("a row is written");
        let again = store.commit_in(&transaction, written("order", "2")).await.expect_err("one batch");
        assert_eq!(again.kind(), StoreErrorKind::Invalid);
        let path = transaction.query_one("SHOW search_path", &[]).await.expect("it goes on");
        assert_eq!(
            path.get::<_, String>(0),
            "\"$user\", public",
            "the user's own names mean what they meant"
        );
        if is_committed { transaction.commit().await } else { transaction.rollback().await }
            .expect("it ends");
        let rows = client.query(&format!("SELECT 1 FROM {table}"), &[]).await.expect("rows are read").len();
        let view = store.read_view(&Query::all(), Position::START).await.expect("a view is read");
        let events = view.all().await.expect("a view is read").0.len();
        assert_eq!((rows, events), (usize::from(is_committed), usize::from(is_committed)));
    }
    // A condition that does not hold refuses it, and the transaction is its owner's to end.
    let transaction = client.transaction().await.expect("a transaction begins");
    let second = Condition::Stream { name: "order".into(), value: "1".into(), version: 0 };
    let refused = store.commit_in(&transaction, batch(vec![event("order", "1")], second)).await;
    assert_eq!(refused.expect_err("there is one already").kind(), StoreErrorKind::Conflict);
    transaction.rollback().await.expect("it ends");
    store.close().await.expect("a store closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn who_holds_followers_back_is_named() {
    let (server, schema) = (Server::shared(), schema());
    let store = server.store(&schema).connect().await.expect("the store opens");
    let idle = idle_writer(server).await;
    idle.batch_execute("SET application_name TO 'forgetful'").await.expect("it has a name");
    let holders = EventStore::holders(&store).await.expect("holders are read");
    let holder = holders.iter().find(|holder| holder.application == "forgetful").expect("it is among them");
    assert_eq!((holder.state.as_str(), holder.database.as_str()), ("idle in transaction", "postgres"));
    assert!(holder.pid > 0);
    store.close().await.expect("a store closes");
}
