//! A value follows the log, is kept, and is never the truth.

use garde::Validate;
use purista_core::address::{Address, ServiceId};
use purista_core::clock::Clock;
use purista_core::event::{Event, Tags};
use purista_core::message::Party;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::batch::{Append, Batch, Condition as If};
use crate::memory::MemoryStore;
use crate::recorded::{Cause, NewEvent};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
struct Raised {
    by: u64,
}

impl Event for Raised {
    const NAME: &'static str = "raised";
}

async fn raise(store: &MemoryStore, by: &str) -> Position {
    let clock = Clock::system();
    let cause = Cause {
        sender: Party::anywhere(Address::of(ServiceId::new("Test", "1"), "raise")),
        principal_id: None,
        trace_id: clock.id(),
        trace: None,
        correlation_id: None,
        causation_id: None,
        hops: 0,
    };
    let body = format!("{{\"by\":{by}}}").into();
    let event =
        NewEvent { id: clock.id(), name: Text::known("raised"), version: 1, tags: Tags::new(), body, cause };
    let mut batch = Batch::new(clock.id(), None);
    batch.appends.push(Append { events: vec![event], condition: If::Always });
    store.commit(batch).await.unwrap().position
}

struct Running {
    folded: Folded<u64>,
    handle: crate::projector::ProjectionHandle,
    stop: CancellationToken,
    task: JoinSet<()>,
}

fn run(store: &MemoryStore, version: u32, start: u64) -> Running {
    let sum = folding("sum", version, start).on(|sum: &mut u64, event: Recorded<Raised>| {
        assert_ne!(event.body.by, 13, "an unlucky number");
        *sum += event.body.by;
    });
    let (projected, folded) = sum.of(store);
    let (handle, stop) = (projected.handle(), CancellationToken::new());
    let mut task = JoinSet::new();
    task.spawn(projected.run(stop.clone(), Clock::system()));
    Running { folded, handle, stop, task }
}

impl Running {
    async fn is(&self, sum: u64, at: Position) {
        self.handle.reached(at, Duration::from_secs(9)).await.unwrap();
        assert_eq!(self.folded.read(|sum| *sum), sum);
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.join_all().await;
    }
}

#[tokio::test]
async fn a_value_follows_the_log_and_goes_on_where_it_was_kept() {
    let store = MemoryStore::default();
    let mut last = Position::START;
    for _ in 0..2_500 {
        last = raise(&store, "2").await;
    }
    let running = run(&store, 1, 0);
    running.is(5_000, last).await;
    running.stop().await;
    assert_eq!(store.snapshots().await.unwrap().len(), 1);
    last = raise(&store, "1").await;
    // From the snapshot: the start that is given now would show.
    let running = run(&store, 1, 1_000_000);
    running.is(5_001, last).await;
    running.stop().await;
    // Without it, or in another version, from the first event on.
    let running = run(&store, 2, 100).folded.clone();
    drop(running);
    store.forget_snapshots(None).await.unwrap();
    let running = run(&store, 1, 1_000);
    running.is(6_001, last).await;
    running.handle.rebuild();
    last = raise(&store, "1").await;
    running.is(6_002, last).await;
    running.stop().await;
}

#[tokio::test]
async fn a_fold_of_the_content_sees_what_one_of_the_whole_event_sees() {
    let store = MemoryStore::default();
    for by in ["1", "2", "3"] {
        raise(&store, by).await;
    }
    let last = raise(&store, "-1").await;
    let content = folding("content", 1, 0).on(|sum: &mut u64, event: Raised| {
        assert_ne!(event.by, 13, "an unlucky number");
        *sum += event.by;
    });
    let (projected, folded) = content.of(&store);
    let (handle, stop) = (projected.handle(), CancellationToken::new());
    let mut task = JoinSet::new();
    task.spawn(projected.run(stop.clone(), Clock::system()));
    let error = handle.reached(last, Duration::from_millis(50)).await.unwrap_err();
    let reason = error.reason.unwrap();
    assert!(reason.contains("paused at 4") && reason.contains("raised v1 at position 4"), "{reason}");
    assert_eq!(folded.read(|sum| *sum), 6);
    Running { folded, handle, stop, task }.stop().await;
    // One that panics is not to be trusted any more: it stands where it was kept.
    let store = MemoryStore::default();
    let last = raise(&store, "13").await;
    let unlucky = folding("content", 2, 0).on(|_: &mut u64, event: Raised| assert_ne!(event.by, 13));
    let (projected, folded) = unlucky.of(&store);
    let (handle, stop) = (projected.handle(), CancellationToken::new());
    let mut task = JoinSet::new();
    task.spawn(projected.run(stop.clone(), Clock::system()));
    let error = handle.reached(last, Duration::from_millis(50)).await.unwrap_err();
    assert!(error.reason.unwrap().contains("paused at 1"));
    Running { folded, handle, stop, task }.stop().await;
}

#[tokio::test]
async fn what_cannot_be_taken_in_pauses_it_and_loses_nothing() {
    for bad in ["13", "-1"] {
        let store = MemoryStore::default();
        raise(&store, "5").await;
        let running = run(&store, 1, 0);
        running.is(5, Position::new(1)).await;
        let last = raise(&store, bad).await;
        let error = running.handle.reached(last, Duration::from_millis(50)).await.unwrap_err();
        assert!(error.reason.is_some_and(|reason| reason.contains("paused at 2")), "{bad}");
        assert!(matches!(running.handle.state().condition, Condition::Paused(_)));
        running.stop().await;
    }
}
