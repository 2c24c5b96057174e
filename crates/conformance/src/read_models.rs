//! What every engine that keeps read models owes to projections, one test a duty.
//!
//! An engine gives its tests a [`ReadModelSystem`] and calls [`crate::read_model_suite!`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use garde::Validate;
use purista_core::address::{Address, ServiceId};
use purista_core::clock::Clock;
use purista_core::error::HandlerError;
use purista_core::event::{Event, Tags};
use purista_core::message::Party;
use purista_core::text::Text;
use purista_events::batch::{Append, Batch, Condition};
use purista_events::position::Position;
use purista_events::projection::Projection;
use purista_events::projector::{self, Projected, ProjectionHandle};
use purista_events::read_models::{Build, BuildRecord, ReadModels};
use purista_events::recorded::{Cause, NewEvent, Recorded};
use purista_events::store::{EventStore as _, StoreErrorKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a projection may take to get anywhere here.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often is written while a projection is made anew; how often after it was shown; and how much there is in the end at
/// most: a build that is not shown by then waits for a pause.
const WRITTEN_EVERY: Duration = Duration::from_millis(1);
const WRITTEN_AFTER: u32 = 50;
const WRITTEN_MAX: i64 = 40_000;

/// The one event of these duties.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
pub struct Counted {
    /// What is counted.
    pub thing: String,
}

impl Event for Counted {
    const NAME: &'static str = "counted";
    fn tags(&self) -> Tags {
        Tags::new().with("thing", &self.thing)
    }
}

/// By how much an event raises the count of its thing, or why not.
pub type Raise = Arc<dyn Fn(&Recorded<Counted>) -> Result<i64, HandlerError> + Send + Sync>;

/// What an engine gives these duties: data that is empty at first, and a projection in the engine's own way of writing.
pub trait ReadModelSystem: Send + Sync + 'static {
    /// The engine.
    type Store: ReadModels + Clone;
    /// Opens the data. What was opened before is closed by then.
    fn open(&self, clock: Clock) -> Self::Store;
    /// A projection that makes a table `name` with a row for each thing, and raises its count.
    fn counting(
        &self,
        name: &'static str,
        version: u32,
        raise: Raise,
    ) -> Projection<<Self::Store as ReadModels>::Tx>;
    /// What readers find in the table of a projection now.
    fn counts<'a>(
        &'a self,
        store: &'a Self::Store,
        name: &'static str,
    ) -> BoxFuture<'a, BTreeMap<String, i64>>;
}

/// A projection that runs.
struct Running {
    handle: ProjectionHandle,
    stop: CancellationToken,
    task: JoinSet<()>,
}

impl Running {
    fn start(projected: Projected) -> Self {
        let (handle, stop) = (projected.handle(), CancellationToken::new());
        let mut task = JoinSet::new();
        task.spawn(projected.run(stop.clone(), Clock::system()));
        Self { handle, stop, task }
    }

    async fn reaches(&self, position: Position) {
        self.handle.reached(position, PATIENCE).await.expect("the projection reaches it");
    }

    async fn becomes(&self, what: &str, is_so: impl FnMut(&projector::ProjectionState) -> bool) {
        let mut states = self.handle.states();
        let waited = tokio::time::timeout(PATIENCE, states.wait_for(is_so)).await.is_ok();
        assert!(waited, "it never was {what}: {:?}", self.handle.state());
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.join_all().await;
    }
}

fn one() -> Raise {
    Arc::new(|_| Ok(1))
}

fn counts(pairs: &[(&str, i64)]) -> BTreeMap<String, i64> {
    pairs.iter().map(|(thing, count)| ((*thing).to_owned(), *count)).collect()
}

fn event(thing: &str, body: &str) -> NewEvent {
    let clock = Clock::system();
    NewEvent {
        id: clock.id(),
        name: Text::known(Counted::NAME),
        version: 1,
        tags: Tags::new().with("thing", thing),
        body: body.to_owned().into(),
        cause: Cause {
            sender: Party::anywhere(Address::of(ServiceId::new("Test", "1"), "count")),
            principal_id: None,
            trace_id: clock.id(),
            trace: None,
            correlation_id: None,
            causation_id: None,
            hops: 0,
        },
    }
}

fn counted(thing: &str) -> NewEvent {
    event(thing, &format!("{{\"thing\":\"{thing}\"}}"))
}

async fn append<S: ReadModels>(store: &S, events: Vec<NewEvent>) -> Position {
    recorded(store, events).await.last().copied().unwrap_or_default()
}

/// The places of events that are recorded, once they can be followed.
async fn recorded<S: ReadModels>(store: &S, events: Vec<NewEvent>) -> Vec<Position> {
    let mut batch = Batch::new(Clock::system().id(), None);
    batch.appends.push(Append { events, condition: Condition::Always });
    let receipt = store.commit(batch).await.expect("the batch is committed");
    let mut head = store.head();
    let reached = tokio::time::timeout(PATIENCE, head.wait_for(|head| *head >= receipt.position)).await;
    reached.expect("the head reaches what was committed").expect("the store is open");
    receipt.positions
}

async fn record<S: ReadModels>(store: &S, name: &str, version: u32) -> Vec<BuildRecord> {
    let mut records = store.builds().await.expect("builds are read");
    records.retain(|record| *record.build.name == *name && record.build.version == version);
    records
}

/// A step and the position that it reaches are one commit: after an error, or a panic's place, neither is there.
pub async fn a_step_and_its_position_are_one<S: ReadModelSystem>(system: S) {
    let store = system.open(Clock::system());
    let places = recorded(&store, vec![counted("a"), counted("b"), counted("a")]).await;
    let [_, second, last] = places.try_into().expect("there are three");
    let fails = Arc::new(AtomicBool::new(true));
    let raise: Raise = {
        let fails = Arc::clone(&fails);
        Arc::new(move |event| {
            let is_bad = event.position == last && fails.load(Ordering::SeqCst);
            if is_bad { Err(HandlerError::failed("not yet")) } else { Ok(1) }
        })
    };
    let running = Running::start(Projected::of_tables(store.clone(), system.counting("counts", 1, raise)));
    running.becomes("paused", |state| matches!(state.condition, projector::Condition::Paused(_))).await;
    // What lies before it is there, and nothing of it twice.
    assert_eq!(system.counts(&store, "counts").await, counts(&[("a", 1), ("b", 1)]));
    let kept = record(&store, "counts", 1).await;
    assert_eq!(kept.iter().map(|record| record.position).collect::<Vec<_>>(), [second]);
    let pause = kept.first().and_then(|record| record.pause.clone()).expect("the pause is kept");
    assert_eq!((pause.at, pause.reason.as_str()), (last, "not yet"));

    fails.store(false, Ordering::SeqCst);
    running.handle.resume();
    running.reaches(last).await;
    assert_eq!(system.counts(&store, "counts").await, counts(&[("a", 2), ("b", 1)]));
    assert_eq!(record(&store, "counts", 1).await.first().and_then(|record| record.pause.clone()), None);
    running.stop().await;
    store.close().await.expect("a store closes");
}

/// A step that names another position than the build's is refused and never run.
pub async fn a_step_from_elsewhere_is_refused<S: ReadModelSystem>(system: S) {
    let store = system.open(Clock::system());
    Projected::of_tables(store.clone(), system.counting("counts", 1, one()))
        .begin()
        .await
        .expect("the tables are made");
    let build = Build { name: Text::known("counts"), version: 1, generation: 1 };
    let step = |to: u64| -> purista_events::read_models::Step<_> { Box::new(move |_| Ok(Position::new(to))) };
    let stepped = store.step(&build, Position::START, step(5)).await.expect("it is at the start");
    assert_eq!(stepped.ok(), Some(Position::new(5)));
    for from in [0, 4, 6] {
        let refused: purista_events::read_models::Step<_> = Box::new(|_| panic!("a refused step was run"));
        let error = store.step(&build, Position::new(from), refused).await.expect_err("it is at 5");
        assert_eq!(error.kind(), StoreErrorKind::Conflict);
    }
    let failed: purista_events::read_models::Step<_> = Box::new(|_| Err(HandlerError::failed("no")));
    assert!(store.step(&build, Position::new(5), failed).await.expect("the engine is well").is_err());
    assert_eq!(
        record(&store, "counts", 1).await.first().map(|record| record.position),
        Some(Position::new(5))
    );
    let panics: purista_events::read_models::Step<_> = Box::new(|_| panic!("as its test wants it"));
    assert!(store.step(&build, Position::new(5), panics).await.expect("the engine is well").is_err());
    let unknown = Build { generation: 2, ..build };
    assert!(store.step(&unknown, Position::START, step(1)).await.is_err());
    let panics = system.counting("panics", 1, one()).set_up(|_| panic!("as its test wants it"));
    assert!(Projected::of_tables(store.clone(), panics).begin().await.is_err());
    assert_eq!(store.builds().await.expect("builds are read").len(), 1);
    append(&store, vec![counted("a")]).await;
    store.close().await.expect("a store closes");
}

/// Each event is counted once, however often the projection is stopped, and while others write.
pub async fn each_event_is_counted_once<S: ReadModelSystem>(system: S) {
    let mut store = system.open(Clock::system());
    let mut expected = 0;
    for round in 0..6_u32 {
        let running =
            Running::start(Projected::of_tables(store.clone(), system.counting("counts", 1, one())));
        for _ in 0..20 {
            append(&store, vec![counted("a"), counted("a"), counted("b")]).await;
            expected += 1;
        }
        if round % 2 == 1 {
            // Read by itself: what is borrowed here would keep the engine from moving its head on.
            let head = *store.head().borrow();
            running.reaches(head).await;
            assert_eq!(
                system.counts(&store, "counts").await,
                counts(&[("a", 2 * expected), ("b", expected)])
            );
        }
        running.stop().await;
        store.close().await.expect("a store closes");
        store = system.open(Clock::system());
    }
    store.close().await.expect("a store closes");
}

/// An event that nobody can read stops its projection, is named, also after a restart; another projection goes on.
pub async fn an_event_that_nobody_reads_stops_one_projection<S: ReadModelSystem>(system: S) {
    let store = system.open(Clock::system());
    let odd = event("a", "{\"thing\":7}");
    let places = recorded(&store, vec![counted("a"), odd, counted("a")]).await;
    let [before, at, last] = places.try_into().expect("there are three");
    let unread = NewEvent { version: 9, ..counted("b") };
    let raise: Raise = Arc::new(|_| Ok(1));
    let paused =
        |state: &projector::ProjectionState| matches!(state.condition, projector::Condition::Paused(_));
    let first = Running::start(Projected::of_tables(store.clone(), system.counting("counts", 1, raise)));
    first.becomes("paused", paused).await;
    let of_none = system.counting("nothing", 1, one()).of_tenant(Some("nobody".into()));
    let other = Running::start(Projected::of_tables(store.clone(), of_none));
    other.reaches(last).await;
    let error = first.handle.reached(last, Duration::from_millis(20)).await.expect_err("it is paused");
    assert_eq!((error.at, error.behind, error.is_at_least), (before, 2, false));
    let text = error.to_string();
    assert!(
        text.contains("`counts`")
            && text.contains("2 events behind")
            && text.contains(&format!("paused at {at}")),
        "{text}"
    );
    first.stop().await;

    // A restart does not try it again by itself.
    let first = Running::start(Projected::of_tables(store.clone(), system.counting("counts", 1, one())));
    first.becomes("paused", paused).await;
    assert_eq!(system.counts(&store, "counts").await, counts(&[("a", 1)]));
    let last = append(&store, vec![unread]).await;
    first.handle.resume();
    other.reaches(last).await;
    first.becomes("paused again", paused).await;
    assert_eq!(system.counts(&store, "counts").await, counts(&[("a", 1)]));
    let lag = first.handle.lag(Clock::system().now()).await.expect("a lag is measured");
    assert_eq!((lag.position, lag.events.events), (before, 3));
    first.stop().await;
    other.stop().await;
    store.close().await.expect("a store closes");
}

/// A new version is built beside the old one, which readers see and which goes on, until it has caught up.
pub async fn a_new_version_takes_the_place_of_the_old_one<S: ReadModelSystem>(system: S) {
    let store = system.open(Clock::system());
    let mut places = Vec::new();
    for _ in 0..20 {
        places.extend(recorded(&store, (0..100).map(|_| counted("a")).collect()).await);
    }
    let [middle, next] =
        [1_499, 1_500].map(|index| places.get(index).copied().expect("there are two thousand"));
    let old = Running::start(Projected::of_tables(store.clone(), system.counting("counts", 1, one())));
    old.reaches(places.last().copied().unwrap_or_default()).await;
    let gate = Arc::new(AtomicU64::new(0));
    let raise: Raise = {
        let gate = Arc::clone(&gate);
        Arc::new(move |event| {
            let is_closed = event.position > middle && gate.load(Ordering::SeqCst) == 0;
            if is_closed { Err(HandlerError::failed("wait")) } else { Ok(10) }
        })
    };
    let new = Running::start(Projected::of_tables(store.clone(), system.counting("counts", 2, raise)));
    new.becomes("stopped half-way", |state| matches!(state.condition, projector::Condition::Paused(_))).await;
    let on_its_way = new.handle.rebuilding(Clock::system().now()).await.expect("a lag is measured");
    let lag = on_its_way.expect("a build is on its way");
    assert!(lag.position >= middle && lag.position < next, "it stands between the two: {lag:?}");
    assert_eq!(lag.events.events, 500);
    let last = append(&store, vec![counted("a")]).await;
    old.reaches(last).await;
    assert_eq!(system.counts(&store, "counts").await, counts(&[("a", 2_001)]));

    gate.store(1, Ordering::SeqCst);
    new.handle.resume();
    let reads = async {
        loop {
            // Readers see the one or the other, and never half of one.
            let seen = system.counts(&store, "counts").await;
            if seen == counts(&[("a", 20_010)]) {
                return;
            }
            assert_eq!(seen, counts(&[("a", 2_001)]));
        }
    };
    tokio::time::timeout(PATIENCE, reads).await.expect("readers see the new version");
    new.reaches(last).await;
    // The old one follows, and does not push itself in front again.
    let last = append(&store, vec![counted("b")]).await;
    new.reaches(last).await;
    old.becomes("there as well", |state| state.builds.iter().all(|build| build.position == last)).await;
    assert_eq!(system.counts(&store, "counts").await, counts(&[("a", 20_010), ("b", 10)]));
    old.stop().await;
    new.stop().await;
    store.close().await.expect("a store closes");
}

/// A projection that is made anew ends as it was, is shown whole, and leaves nothing of the one before.
pub async fn a_projection_is_made_anew_on_demand<S: ReadModelSystem>(system: S) {
    let store = system.open(Clock::system());
    let last = append(&store, ["a", "b", "c"].into_iter().cycle().take(900).map(counted).collect()).await;
    let raises = Arc::new(AtomicU64::new(1));
    let raise: Raise = {
        let raises = Arc::clone(&raises);
        Arc::new(move |_| Ok(i64::try_from(raises.load(Ordering::SeqCst)).unwrap_or(0)))
    };
    let running = Running::start(Projected::of_tables(store.clone(), system.counting("counts", 1, raise)));
    running.reaches(last).await;
    raises.store(2, Ordering::SeqCst);
    running.handle.rebuild();
    running
        .becomes("made anew", |state| {
            state.builds.iter().any(|build| build.build.generation == 2 && build.is_current)
        })
        .await;
    assert_eq!(system.counts(&store, "counts").await, counts(&[("a", 600), ("b", 600), ("c", 600)]));
    let last = append(&store, vec![counted("a")]).await;
    running.reaches(last).await;
    let kept = record(&store, "counts", 1).await;
    assert_eq!(kept.iter().map(|record| record.build.generation).collect::<Vec<_>>(), [2]);
    running.stop().await;
    store.close().await.expect("a store closes");
    let store = system.open(Clock::system());
    assert_eq!(system.counts(&store, "counts").await, counts(&[("a", 602), ("b", 600), ("c", 600)]));
    store.close().await.expect("a store closes");
}

/// A projection that is made anew is shown although somebody writes without an end, and readers never see less than before.
pub async fn a_rebuild_is_shown_while_others_write<S: ReadModelSystem>(system: S) {
    let store = system.open(Clock::system());
    let (mut written, mut last) = (0, Position::START);
    for _ in 0..3 {
        last = append(&store, (0..1_000).map(|_| counted("a")).collect()).await;
        written += 1_000;
    }
    let running = Running::start(Projected::of_tables(store.clone(), system.counting("counts", 1, one())));
    running.reaches(last).await;
    running.handle.rebuild();
    let is_shown = |build: &projector::BuildProgress| build.build.generation == 2 && build.is_current;
    let (mut seen, mut left) = (0, WRITTEN_AFTER);
    while left > 0 {
        assert!(written < WRITTEN_MAX, "it is not shown while somebody writes: {:?}", running.handle.state());
        last = append(&store, vec![counted("a"), counted("a")]).await;
        written += 2;
        let now = system.counts(&store, "counts").await.get("a").copied().unwrap_or(0);
        assert!(now >= seen, "readers went back from {seen} to {now}");
        seen = now;
        if running.handle.state().builds.iter().any(is_shown) {
            left -= 1;
        }
        tokio::time::sleep(WRITTEN_EVERY).await;
    }
    running.reaches(last).await;
    assert_eq!(system.counts(&store, "counts").await, counts(&[("a", written)]));
    running.stop().await;
    store.close().await.expect("a store closes");
}

/// Gives an engine one named test for every duty of read models. The expression is a [`ReadModelSystem`], made anew in each.
/// With `each = duty` each is handed to a macro of yours, as `duty!(read_models name)`.
///
/// With `read_model_suite!(ignore = "needs postgres: cargo xtask test", system())` every test is ignored for that reason.
#[macro_export]
macro_rules! read_model_suite {
    (each = $each:ident) => {
        $crate::read_model_suite!(@duties () (each $each));
    };
    (ignore = $reason:literal, $system:expr) => {
        $crate::read_model_suite!(@duties (#[ignore = $reason]) ($system));
    };
    (@duties $attributes:tt $system:tt) => {
        $crate::read_model_suite!(@tests $attributes $system
            a_step_and_its_position_are_one
            a_step_from_elsewhere_is_refused
            each_event_is_counted_once
            an_event_that_nobody_reads_stops_one_projection
            a_new_version_takes_the_place_of_the_old_one
            a_projection_is_made_anew_on_demand
            a_rebuild_is_shown_while_others_write
        );
    };
    (@tests $attributes:tt $system:tt $($duty:ident)+) => {
        $( $crate::read_model_suite!(@test $attributes $system $duty); )+
    };
    (@test $attributes:tt (each $each:ident) $duty:ident) => {
        $each!(read_models $duty);
    };
    (@test ($($attribute:tt)*) ($system:expr) $duty:ident) => {
        #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $($attribute)*
        async fn $duty() {
            $crate::read_models::$duty($system).await;
        }
    };
    ($system:expr) => {
        $crate::read_model_suite!(@duties () ($system));
    };
}
