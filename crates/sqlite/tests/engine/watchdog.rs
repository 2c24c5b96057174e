//! A projection whose handler does not return: commits get a clear answer, and what holds the writer has a name.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use garde::Validate;
use purista_core::clock::Clock;
use purista_core::event::Event;
use purista_events::projector::Condition;
use purista_events::recorded::Recorded;
use purista_events::store::{EventStore as _, StoreErrorKind};
use purista_sqlite::read_models::projection;
use purista_sqlite::store::SqliteStore;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::folder::Folder;
use crate::given::batch;

/// What [`batch`] appends.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
struct Happened {
    what: String,
}

impl Event for Happened {
    const NAME: &'static str = "happened";
}

#[tokio::test]
async fn a_handler_that_holds_the_writer_is_named_and_then_paused_and_commits_are_refused_in_time() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file()).unwrap();
    let (began, has_begun) = mpsc::sync_channel(8);
    let (release, released) = mpsc::sync_channel::<()>(1);
    let released = Arc::new(Mutex::new(released));
    let slow = projection("slow", 1).set_up(|tx| tx.create_table("slow", "what TEXT")).on(
        move |_, _: Recorded<Happened>| {
            let _ = began.try_send(());
            // Until it is released, and then at once.
            let _ = released.lock().unwrap().recv();
            Ok(())
        },
    );
    let (projected, stop) = (store.projected(slow), CancellationToken::new());
    let handle = projected.handle();
    let mut running = JoinSet::new();
    running.spawn(projected.run(stop.clone(), Clock::system()));
    store.commit(batch("one")).await.unwrap();
    tokio::task::spawn_blocking(move || has_begun.recv().map(|()| has_begun)).await.unwrap().unwrap();

    let held = std::time::Instant::now();
    let mut late = batch("late");
    let deadline = Instant::now() + Duration::from_secs(2);
    late.deadline = Some(deadline);
    let mut patient = JoinSet::new();
    patient.spawn({
        let store = store.clone();
        async move { store.commit(batch("patient")).await }
    });
    let error = tokio::time::timeout_at(deadline, store.commit(late))
        .await
        .expect("before its deadline")
        .unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Overloaded, "{error}");
    assert!(!error.may_have_happened());
    assert!(error.to_string().contains("did not happen"), "{error}");
    assert!(error.to_string().contains("the projection slow 1 held the writer"), "{error}");
    let writer = store.writer();
    assert_eq!(writer.busy_with.as_deref(), Some("the projection slow 1"));
    assert!(writer.busy_for.unwrap() >= Duration::from_secs(1), "{writer:?}");
    assert!(writer.oldest_waits_for.unwrap() >= Duration::from_secs(1), "{writer:?}");

    // A handler that takes longer than it may is stopped when it returns.
    let rest = Duration::from_millis(5_200).saturating_sub(held.elapsed());
    tokio::time::sleep(rest).await; // real time: the bound is of the handler's own time
    drop(release);
    for committed in patient.join_all().await {
        committed.unwrap();
    }
    let mut states = handle.states();
    let paused =
        states.wait_for(|state| matches!(state.condition, Condition::Paused(_))).await.unwrap().clone();
    let Condition::Paused(pause) = &paused.condition else { unreachable!("it was waited for") };
    assert!(pause.reason.contains("at most 5 s are allowed"), "{pause:?}");
    assert_eq!(pause.at.number(), 1);
    drop(paused);
    store.commit(batch("two")).await.unwrap();
    assert_eq!(store.writer().busy_for, None);
    stop.cancel();
    running.join_all().await;
}

#[tokio::test]
async fn a_position_that_is_held_holds_no_commit_back() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file()).unwrap();
    let head = store.head();
    let before = head.borrow();
    let committed = tokio::time::timeout(Duration::from_secs(20), store.commit(batch("one"))).await;
    let receipt = committed.expect("the writer waits for no reader").unwrap();
    assert_eq!((before.number(), head.borrow().number()), (0, receipt.position.number()));
}
