//! A place outside gets every event, in order, and again what it refused.

use std::sync::Mutex;
use std::time::Duration;

use purista_core::address::{Address, ServiceId};
use purista_core::event::Tags;
use purista_core::message::Party;

use super::*;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::batch::{Append, Condition as If};
use crate::memory::MemoryStore;
use crate::recorded::{Cause, NewEvent};

async fn append(store: &MemoryStore, names: &[&str]) -> Position {
    let clock = Clock::system();
    let event = |name: &&str| NewEvent {
        id: clock.id(),
        name: Text::from(*name),
        version: 1,
        tags: Tags::new(),
        body: "{}".into(),
        cause: Cause {
            sender: Party::anywhere(Address::of(ServiceId::new("Test", "1"), "append")),
            principal_id: None,
            trace_id: clock.id(),
            trace: None,
            correlation_id: None,
            causation_id: None,
            hops: 0,
        },
    };
    let mut batch = Batch::new(clock.id(), None);
    batch.appends.push(Append { events: names.iter().map(event).collect(), condition: If::Always });
    store.commit(batch).await.unwrap().position
}

fn run(
    store: &MemoryStore,
    taken: &Arc<Mutex<Vec<u64>>>,
    fails: bool,
) -> (super::super::ProjectionHandle, CancellationToken, JoinSet<()>) {
    let taken = Arc::clone(taken);
    let sink = move |page: Arc<[Recorded]>| -> BoxFuture<'static, Result<(), HandlerError>> {
        let taken = Arc::clone(&taken);
        Box::pin(async move {
            if fails && page.iter().any(|event| event.position.number() > 1_200) {
                return Err(HandlerError::failed("the place is full"));
            }
            assert!(page.iter().all(|event| event.name.as_str() != "broken"), "the place is broken");
            taken.lock().unwrap().extend(page.iter().map(|event| event.position.number()));
            Ok(())
        })
    };
    let projected =
        Projected::to_sink(store, "outside", 1, Query::types(["a".into(), "broken".into()]), sink);
    let (handle, stop) = (projected.handle(), CancellationToken::new());
    let mut task = JoinSet::new();
    task.spawn(projected.run(stop.clone(), Clock::system()));
    (handle, stop, task)
}

#[tokio::test]
async fn a_place_outside_gets_each_event_in_order_and_again_what_it_refused() {
    let (store, taken) = (MemoryStore::default(), Arc::default());
    for _ in 0..1_500 {
        append(&store, &["a", "b"]).await;
    }
    let last = *store.head().borrow();
    let (handle, stop, task) = run(&store, &taken, true);
    let error = handle.reached(last, Duration::from_millis(200)).await.unwrap_err();
    assert!(error.reason.is_some_and(|reason| reason.contains("the place is full")));
    assert_eq!(taken.lock().unwrap().len(), 0, "the first page holds what is refused");
    stop.cancel();
    task.join_all().await;

    // It stays paused over a restart, until somebody resumes it.
    let (handle, _stop, _task) = run(&store, &taken, false);
    assert!(handle.reached(last, Duration::from_millis(50)).await.is_err());
    handle.resume();
    handle.reached(last, Duration::from_secs(9)).await.unwrap();
    assert_eq!(*taken.lock().unwrap(), (0..1_500).map(|number| 2 * number + 1).collect::<Vec<_>>());
    let last = append(&store, &["a"]).await;
    handle.reached(last, Duration::from_secs(9)).await.unwrap();
    assert_eq!(taken.lock().unwrap().len(), 1_501);
}

#[tokio::test(start_paused = true)]
async fn of_two_processes_one_carries_and_the_other_tells_of_it_and_lets_it_go_on() {
    let (memory, taken) = (MemoryStore::default(), Arc::default());
    let (one, two) = (memory.open_beside(), memory.open_beside());
    let (carries, stop, task) = run(&one, &taken, true);
    let last = append(&one, &["a", "b", "a"]).await;
    carries.reached(last, Duration::from_secs(9)).await.unwrap();
    let (tells, _stop, _task) = run(&two, &taken, false);
    tells.reached(last, Duration::from_secs(9)).await.unwrap();
    assert_eq!(*taken.lock().unwrap(), [1, 3]);
    assert!(tells.state().is_elsewhere && !carries.state().is_elsewhere);

    for _ in 0..1_200 {
        append(&one, &["a"]).await;
    }
    let last = *one.head().borrow();
    let since = async |after: Option<jiff::Timestamp>| {
        let mut states = tells.states();
        let newer = |state: &super::super::ProjectionState| match &state.condition {
            Condition::Paused(pause) => after.is_none_or(|after| pause.since > after),
            _ => false,
        };
        let state = tokio::time::timeout(Duration::from_secs(9), states.wait_for(newer)).await.unwrap();
        let Condition::Paused(pause) = &state.unwrap().condition else { panic!("it is paused") };
        pause.since
    };
    let paused = since(None).await;
    tells.resume();
    since(Some(paused)).await;

    // It goes on where another place is not full.
    stop.cancel();
    task.join_all().await;
    tokio::time::sleep(Duration::from_secs(2)).await; // real time: paused, it passes at once
    tells.resume();
    tells.reached(last, Duration::from_secs(9)).await.unwrap();
    assert_eq!(taken.lock().unwrap().len(), 1_202);
    assert!(!tells.state().is_elsewhere);
}

#[tokio::test]
async fn a_place_outside_that_panics_pauses_its_projection_with_the_reason() {
    let (store, taken) = (MemoryStore::default(), Arc::default());
    append(&store, &["broken"]).await;
    let (handle, stop, mut task) = run(&store, &taken, false);
    let mut states = handle.states();
    let paused = states.wait_for(|state| matches!(state.condition, Condition::Paused(_)));
    let state = tokio::time::timeout(Duration::from_secs(20), paused).await.unwrap().unwrap().clone();
    let Condition::Paused(pause) = state.condition else { panic!("{state:?}") };
    assert!(pause.reason.contains("the place is broken"), "{}", pause.reason);
    stop.cancel();
    task.join_next().await.unwrap().unwrap();
}
