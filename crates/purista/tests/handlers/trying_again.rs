//! Dead letters that are tried again, and projections beside the services.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use purista::observation::Ending;
use purista::testing::TestHost;
use purista::{Context, Event, HandlerError, Retry, Service, command, subscription};
use purista_core::health::Condition;
use purista_events::batch::Batch;
use purista_events::memory::MemoryStore;
use purista_events::memory::tables::Tables;
use purista_events::projection::{Projection, projection};
use purista_events::recorded::Recorded;
use purista_events::store::{EventStore, StoreErrorKind};

use crate::contracts::{Emit, Happened, Passed, TRY};

/// A service that hears what it emits, and fails on `how == "bad"` while it is broken.
fn hearing(broken: &Arc<AtomicU32>, order: &Arc<Mutex<Vec<String>>>) -> Service {
    let emit = command(async |ctx: Context<()>, input: Emit| {
        ctx.emit(Happened { key: input.key.clone(), how: input.how.clone() })?;
        ctx.emit(Passed { key: input.key, how: input.how })?;
        Ok(())
    });
    let hear = |broken: Arc<AtomicU32>, order: Arc<Mutex<Vec<String>>>, how: String| async move {
        if how == "bad" && broken.load(Ordering::SeqCst) > 0 {
            return Err(HandlerError::failed("broken"));
        }
        order.lock().unwrap().push(how);
        Ok(())
    };
    let (of_log, of_bridge) = ((Arc::clone(broken), Arc::clone(order)), Arc::clone(broken));
    let recorded = subscription("recorded", move |_ctx: Context<()>, event: Happened| {
        hear(Arc::clone(&of_log.0), Arc::clone(&of_log.1), event.how)
    });
    let passed = subscription("passed", move |_ctx: Context<()>, event: Passed| {
        hear(Arc::clone(&of_bridge), Arc::default(), event.how)
    });
    Service::builder(TRY, "Tries", ())
        .command(emit.emits::<Happened>().emits::<Passed>())
        .subscription(recorded.durable().retry(Retry::exponential(2)))
        .subscription(passed.retry(Retry::exponential(2)))
        .build()
}

fn emit(key: &str, how: &str) -> Emit {
    Emit { key: key.into(), how: how.into() }
}

#[tokio::test]
async fn a_dead_letter_is_tried_again_once_while_the_host_runs() {
    let (broken, order) = (Arc::new(AtomicU32::new(1)), Arc::default());
    let host = TestHost::start([hearing(&broken, &order)]).await;
    host.invoke(emit("k", "bad")).await.unwrap();
    let letters = host.store().dead_letters(None, 9).await.unwrap();
    assert_eq!(letters.len(), 2);

    // It fails again: another letter, after as many attempts as at first.
    for letter in &letters {
        host.host().try_again(letter).await.unwrap();
    }
    host.settled().await;
    let again = host.store().dead_letters(None, 9).await.unwrap();
    assert_eq!(again.iter().map(|letter| letter.attempts).collect::<Vec<_>>(), [2, 2]);
    assert!(letters.iter().all(|letter| again.iter().all(|other| other.id != letter.id)));
    assert_eq!(host.endings("recorded").len(), 4);

    broken.store(0, Ordering::SeqCst);
    for letter in &again {
        host.host().try_again(letter).await.unwrap();
    }
    host.settled().await;
    for name in ["recorded", "passed"] {
        assert_eq!(host.endings(name).last(), Some(&Ending::Done), "{name}");
        assert_eq!(host.endings(name).iter().filter(|ending| **ending == Ending::Done).count(), 1, "{name}");
    }
    assert_eq!(host.store().dead_letters(None, 9).await.unwrap(), []);
    let first = again.iter().find(|letter| letter.subscription.as_str() == "Try.1.recorded").unwrap();
    assert_eq!(host.host().try_again(first).await.unwrap_err().kind(), StoreErrorKind::AlreadyDone);
    assert_eq!(*order.lock().unwrap(), ["bad"]);
}

#[tokio::test]
async fn a_dead_letter_that_was_taken_up_before_a_restart_is_tried_after_it() {
    let (broken, order) = (Arc::new(AtomicU32::new(1)), Arc::default());
    let host = TestHost::start([hearing(&broken, &order)]).await;
    host.invoke(emit("k", "bad")).await.unwrap();
    let (_, store) = host.stop().await;
    broken.store(0, Ordering::SeqCst);

    let open = store.reopen();
    let letters = open.dead_letters(None, 9).await.unwrap();
    let letter = letters.iter().find(|letter| letter.subscription.as_str() == "Try.1.recorded").unwrap();
    let batch = Batch::trying_again(letter.trace_id.clone(), letter, None);
    open.commit(batch).await.unwrap();
    let host = TestHost::builder().services([hearing(&broken, &order)]).store(store).start().await;
    host.settled().await;
    assert_eq!(host.endings("recorded"), [Ending::Done]);
    assert_eq!(*order.lock().unwrap(), ["bad"]);
}

#[tokio::test]
async fn what_is_tried_again_waits_for_its_key_and_holds_back_what_comes_after() {
    let (broken, order) = (Arc::new(AtomicU32::new(1)), Arc::default());
    let host = TestHost::start([hearing(&broken, &order)]).await;
    host.invoke(emit("k", "bad")).await.unwrap();
    let letters = host.store().dead_letters(None, 9).await.unwrap();
    let letter = letters.iter().find(|letter| letter.subscription.as_str() == "Try.1.recorded").unwrap();
    host.host().try_again(letter).await.unwrap();
    host.host().client().invoke(emit("k", "later")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await; // real time: paused, it lets the first attempt end
    assert!(order.lock().unwrap().is_empty(), "the later event of the key does not overtake it");
    broken.store(0, Ordering::SeqCst);
    host.settled().await;
    assert_eq!(*order.lock().unwrap(), ["bad", "later"]);
}

fn keys() -> Projection<Tables> {
    projection("keys", 1).on(|rows: &Tables, event: Recorded<Happened>| {
        if event.body.how == "poison" {
            return Err(HandlerError::failed("what is this"));
        }
        rows.put("keys", &event.body.key, event.body.how.into());
        Ok(())
    })
}

fn found(store: &MemoryStore) -> BTreeMap<String, serde_json::Value> {
    store.rows("keys", "keys").unwrap().unwrap()
}

#[tokio::test]
async fn a_host_runs_projections_and_says_when_one_is_paused() {
    let store = MemoryStore::default();
    let projected = store.projected(keys());
    let (broken, order) = (Arc::new(AtomicU32::new(0)), Arc::default());
    let host = TestHost::builder()
        .services([hearing(&broken, &order)])
        .store(store.clone())
        .configure(move |host| host.projection(projected))
        .start()
        .await;
    host.invoke(emit("a", "well")).await.unwrap();
    let head = *host.store().head().borrow();
    let projection = host.host().projection("keys").unwrap();
    projection.reached(head, Duration::from_secs(5)).await.unwrap();
    assert_eq!(found(&store), BTreeMap::from([("a".to_owned(), "well".into())]));
    assert_eq!(host.host().health().report().condition(), Condition::Up);
    let lags = host.host().lags().await.unwrap();
    assert_eq!(
        lags.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["Try.1.recorded", "purista.relay", "keys 1"]
    );
    assert!(lags.iter().all(|(_, lag)| lag.is_caught_up()), "{lags:?}");

    host.invoke(emit("b", "poison")).await.unwrap();
    let head = *host.store().head().borrow();
    let error = projection.reached(head, Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(error.reason.as_deref(), Some("it is paused at 2: what is this"));
    let report = host.host().health().report();
    assert_eq!(report.condition(), Condition::Degraded);
    let part = report.parts.iter().find(|part| part.name == "projection keys 1").unwrap();
    assert_eq!(part.detail.as_deref(), Some("it is paused at 2: see the log"));
    assert!(host.stop().await.0.is_complete);
}

#[tokio::test]
async fn a_projection_of_another_store_or_a_second_one_of_its_name_is_refused() {
    let (store, other) = (MemoryStore::default(), MemoryStore::default());
    let projections = [store.projected(keys()), store.projected(keys()), other.projected(keys())];
    let refused = TestHost::builder()
        .store(store)
        .configure(move |host| projections.into_iter().fold(host, purista::HostBuilder::projection))
        .try_start()
        .await;
    let text = refused.err().unwrap().to_string();
    assert!(text.contains("keys 1 is there twice") && text.contains("another store"), "{text}");
    assert_eq!(Happened::NAME, "happened");
}

#[tokio::test]
async fn what_is_put_aside_is_counted_in_health() {
    let (broken, order) = (Arc::new(AtomicU32::new(1)), Arc::default());
    let host = TestHost::start([hearing(&broken, &order)]).await;
    let part = async |name: &str| {
        let parts = host.host().health().current().await.parts;
        parts.into_iter().find(|part| part.name == name).unwrap()
    };
    assert_eq!(part("store").await.detail, None);
    host.host().client().invoke(emit("k", "bad")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await; // real time: paused, it lets the first attempt end
    let waiting = part("service Try.1").await;
    assert_eq!(waiting.condition, Condition::Up);
    assert_eq!(waiting.detail.as_deref(), Some("1 events wait for another attempt"));
    host.settled().await;
    host.pass(Duration::from_secs(2)).await;
    let store = part("store").await;
    assert_eq!(store.condition, Condition::Up, "an operator looks at them, and nothing is broken");
    assert_eq!(store.detail.as_deref(), Some("2 dead letters: see `purista dead-letters list`"));
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_down_and_its_host_is_not_ready() {
    let (broken, order) = (Arc::new(AtomicU32::new(0)), Arc::default());
    let host = TestHost::start([hearing(&broken, &order)]).await;
    let health = host.host().health();
    let report = health.current().await;
    assert!(report.is_ready && report.condition() == Condition::Up, "{report:?}");
    host.pass(Duration::from_secs(2)).await;
    host.store().fail_next_reads(1);
    let report = health.current().await;
    let store = report.parts.iter().find(|part| part.name == "store").unwrap();
    assert_eq!((store.condition, report.is_ready), (Condition::Down, false), "{report:?}");
    assert!(store.detail.as_deref().unwrap().contains("the read failed"), "{store:?}");
    host.pass(Duration::from_secs(2)).await;
    assert!(health.current().await.is_ready, "it answers again");
}
