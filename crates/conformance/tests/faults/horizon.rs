//! An engine that is right, and whose followers never reach the head: what is recorded may still be overtaken for a while, as
//! behind a server with many writers. So it can be said exactly when a build is shown.

use std::time::Duration;

use purista_conformance::read_models::{Counted, ReadModelSystem as _};
use purista_core::address::{Address, ServiceId};
use purista_core::clock::Clock;
use purista_core::event::{Event as _, Tags};
use purista_core::message::Party;
use purista_core::text::Text;
use purista_events::batch::{Append, Batch, Condition};
use purista_events::position::Position;
use purista_events::projector::{BuildProgress, Projected, ProjectionHandle};
use purista_events::recorded::{Cause, NewEvent};
use purista_events::store::EventStore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::faulty::System;
use crate::way::Way;

const RECORDED: u64 = 3_000;
/// A build is near within so many positions of the head.
const NEAR: u64 = 1_000;
const PATIENCE: Duration = Duration::from_secs(30);

/// What is followed ends so many events before the head.
fn behind(events: u64) -> System {
    System::new(Way::Follow(Box::new(move |engine, from, page| {
        let horizon = Position::new(engine.head().number().saturating_sub(events)).max(from);
        page.events.retain(|event| event.position <= horizon);
        page.looked_up_to = page.looked_up_to.min(horizon);
    })))
}

async fn record(store: &dyn EventStore, events: u64) {
    let clock = Clock::system();
    let cause = Cause {
        sender: Party::anywhere(Address::of(ServiceId::new("Test", "1"), "count")),
        principal_id: None,
        trace_id: clock.id(),
        trace: None,
        correlation_id: None,
        causation_id: None,
        hops: 0,
    };
    let (name, tags, body) = (Text::known(Counted::NAME), Tags::new(), "{\"thing\":\"a\"}");
    let event = |_| {
        let (id, name, tags, cause) = (clock.id(), name.clone(), tags.clone(), cause.clone());
        NewEvent { id, name, version: 1, tags, body: body.into(), cause }
    };
    let mut batch = Batch::new(clock.id(), None);
    batch.appends.push(Append { events: (0..events).map(event).collect(), condition: Condition::Always });
    store.commit(batch).await.unwrap();
}

/// Waits until the second build is so; whether it is what readers see then.
async fn second_is(handle: &ProjectionHandle, what: &str, is_so: impl Fn(&BuildProgress) -> bool) -> bool {
    let mut states = handle.states();
    let second = |build: &&BuildProgress| build.build.generation == 2;
    let waits = states.wait_for(|state| state.builds.iter().find(second).is_some_and(&is_so));
    let Ok(found) = tokio::time::timeout(PATIENCE, waits).await else {
        panic!("the second build never was {what}: {:?}", handle.state());
    };
    found.unwrap().builds.iter().find(second).is_some_and(|build| build.is_current)
}

/// Rebuilds behind such a horizon, and hands over when the second build stands there.
async fn rebuilt(horizon: u64, looks: impl AsyncFnOnce(&ProjectionHandle, &dyn EventStore, bool)) {
    let system = behind(horizon);
    let store = system.open(Clock::system());
    for _ in 0..RECORDED / NEAR {
        record(&store, NEAR).await;
    }
    let one = std::sync::Arc::new(|_: &_| Ok(1));
    let projected = Projected::of_tables(store.clone(), system.counting("counts", 1, one));
    let (handle, stop, mut task) = (projected.handle(), CancellationToken::new(), JoinSet::new());
    task.spawn(projected.run(stop.clone(), Clock::system()));
    // It looks again and again for what is not shown yet, and never waits: only this ends it when a look fails.
    let stops = stop.drop_guard();
    let end = Position::new(RECORDED - horizon);
    handle.reached(end, PATIENCE).await.unwrap();
    handle.rebuild();
    let is_current = second_is(&handle, "at its horizon", |build| build.position == end).await;
    looks(&handle, &store, is_current).await;
    drop(stops);
    task.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_is_shown_when_it_is_near_although_the_head_is_never_reached() {
    rebuilt(NEAR, async |handle, store, _| {
        let is_shown = |build: &BuildProgress| build.is_current && build.position.number() == RECORDED - NEAR;
        assert!(second_is(handle, "shown where it stands", is_shown).await);
        assert_eq!(store.head().borrow().number(), RECORDED, "nothing was written meanwhile");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_is_not_shown_before_it_is_near() {
    rebuilt(NEAR + 1, async |handle, store, mut is_current| {
        for written in 1..=20 {
            assert!(!is_current, "it is further away, after {written} more");
            record(store, 1).await;
            let end = Position::new(RECORDED + written - NEAR - 1);
            is_current = second_is(handle, "at its horizon", |build| build.position == end).await;
        }
    })
    .await;
}
