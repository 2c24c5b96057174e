//! The ways in which an engine may be wrong.

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use purista_core::clock::Clock;
use purista_core::id::Id;
use purista_core::store::Versioned;
use purista_events::batch::{Append, Batch, Receipt, ReplyKey, StoredReply};
use purista_events::form::{Counted, Form};
use purista_events::memory::MemoryStore;
use purista_events::memory::tables::Tables;
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::read_models::{Build, BuildPause, Step, Stepped};
use purista_events::recorded::Recorded;
use purista_events::snapshot::{Snapshot, SnapshotKey};
use purista_events::store::{Direction, EventStore as _, FollowPage, StoreError};
use purista_events::subscriptions::{DeadLetter, SubscriptionId, SubscriptionRecord};
use purista_events::view_read::ViewRead;

/// Between a look and the write that relies on it, where an engine leaves room between the two: all who race have looked by
/// then.
const BETWEEN: Duration = Duration::from_millis(3);

/// One duty, and an engine that must not pass it.
pub(crate) struct Fault {
    pub(crate) duty: &'static str,
    /// What the engine does.
    pub(crate) wrong: &'static str,
    pub(crate) way: fn() -> Way,
}

pub(crate) const fn fault(duty: &'static str, wrong: &'static str, way: fn() -> Way) -> Fault {
    Fault { duty, wrong, way }
}

type Does<A, T> = Box<dyn Fn(Engine, A) -> BoxFuture<'static, Result<T, StoreError>> + Send + Sync>;
type LooksUp = Box<dyn Fn(&ReplyKey, &mut Option<StoredReply>) + Send + Sync>;
type Follows = Box<dyn Fn(&Engine, Position, &mut FollowPage) + Send + Sync>;

/// The one way in which an engine is wrong: what it does in place of the memory engine, or what it makes of that. It is one,
/// because it is an enum.
pub(crate) enum Way {
    /// In no way.
    Right,
    // What is written.
    Batch(fn(&mut Batch)),
    Commit(Does<Batch, Receipt>),
    Receipt(fn(&Engine, &Batch, &mut Receipt)),
    ReplyKey(fn(&mut ReplyKey)),
    SnapshotKey(fn(&mut SnapshotKey)),
    SaveSnapshot(Does<Snapshot, ()>),
    ForgetSnapshots(fn(&mut Option<&str>)),
    // What is read of the log.
    Query(fn(&mut Query)),
    Events(fn(&mut [Recorded])),
    View(Does<(Query, Position), ViewRead>),
    /// It begins behind the latest of its snapshots.
    BehindLatest,
    /// All items of a view begin behind the earliest of their snapshots.
    BehindEarliest,
    Page(fn(&mut Position, Direction)),
    Follow(Follows),
    PositionAt(fn(&mut Timestamp)),
    RecordedAt(fn(&mut Option<Timestamp>)),
    Forms(fn(&mut [Form])),
    Count(fn(&mut Counted)),
    /// It stays where it was at the opening.
    Head,
    LastPosition(fn(&mut Position)),
    Clock(fn(Clock) -> Clock),
    /// It never reports anything.
    Attention,
    // What is read of what is kept beside the log.
    StateKeys(fn(&mut Vec<String>)),
    State(fn(&mut BTreeMap<String, Versioned>)),
    Reply(LooksUp),
    Record(fn(&Engine, &mut Option<SubscriptionRecord>)),
    Consumed(Does<(SubscriptionId, Id), bool>),
    Limit(fn(&mut usize)),
    DeadLetters(fn(&mut [DeadLetter])),
    // Its life.
    Origin(fn(&Engine) -> Arc<str>),
    /// Closing does nothing.
    Close,
    // Read models.
    Step(Does<(Build, Position, Step<Tables>), Stepped>),
    Pause(Does<(Build, Option<BuildPause>), ()>),
    /// Showing another build does nothing.
    Switch,
    /// Forgetting a build does nothing.
    Discard,
}

pub(crate) fn commit<F>(way: impl Fn(Engine, Batch) -> F + Send + Sync + 'static) -> Way
where
    F: Future<Output = Result<Receipt, StoreError>> + Send + 'static,
{
    Way::Commit(Box::new(move |engine, batch| Box::pin(way(engine, batch))))
}

pub(crate) fn view<F>(way: impl Fn(Engine, Query, Position) -> F + Send + Sync + 'static) -> Way
where
    F: Future<Output = Result<ViewRead, StoreError>> + Send + 'static,
{
    Way::View(Box::new(move |engine, (query, after)| Box::pin(way(engine, query, after))))
}

pub(crate) fn step<F>(way: impl Fn(Engine, Build, Position, Step<Tables>) -> F + Send + Sync + 'static) -> Way
where
    F: Future<Output = Result<Stepped, StoreError>> + Send + 'static,
{
    Way::Step(Box::new(move |engine, (build, from, step)| Box::pin(way(engine, build, from, step))))
}

/// One opening of the memory engine, and what a wrong engine remembers of all openings.
#[derive(Clone)]
pub(crate) struct Engine {
    pub(crate) store: MemoryStore,
    pub(crate) clock: Clock,
    /// From 1.
    pub(crate) opening: usize,
    notes: Arc<Notes>,
}

#[derive(Default)]
pub(crate) struct Notes {
    texts: Mutex<HashSet<String>>,
    counted: AtomicUsize,
}

impl Engine {
    pub(crate) fn new(store: MemoryStore, clock: Clock, opening: usize, notes: Arc<Notes>) -> Self {
        Self { store, clock, opening, notes }
    }

    /// Whether this was noted before.
    pub(crate) fn is_noted(&self, text: &str) -> bool {
        self.notes.texts.lock().unwrap().contains(text)
    }

    pub(crate) fn note(&self, text: impl Into<String>) {
        self.notes.texts.lock().unwrap().insert(text.into());
    }

    /// Counts from 1.
    pub(crate) fn count(&self) -> usize {
        self.notes.counted.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn head(&self) -> Position {
        *self.store.head().borrow()
    }

    /// Where another writer comes in between.
    pub(crate) async fn lets_others_in(&self) {
        tokio::time::sleep(BETWEEN).await; // real time, as everything in the suite that waits
    }

    /// An empty batch under an id that nobody knows.
    pub(crate) fn batch(&self, tenant: Option<Arc<str>>) -> Batch {
        Batch::new(self.clock.id(), tenant)
    }

    /// Whether the conditions of a batch hold at this moment.
    pub(crate) async fn looks(&self, batch: &Batch) -> Result<(), StoreError> {
        let guard = |append: &Append| Append { events: Vec::new(), condition: append.condition.clone() };
        let appends = batch.appends.iter().map(guard).collect();
        self.store.commit(Batch { appends, ..self.batch(batch.tenant.clone()) }).await.map(drop)
    }

    /// Where a build is.
    pub(crate) async fn position_of(&self, build: &Build) -> Result<Position, StoreError> {
        use purista_events::read_models::ReadModels as _;
        let builds = self.store.builds().await?;
        Ok(builds.into_iter().find(|one| one.build == *build).map(|one| one.position).unwrap_or_default())
    }
}
