//! Runs projections: what a host is given, what it runs, and how others learn how far it is.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use purista_core::clock::Clock;
use purista_core::text::Text;
use tokio::sync::{Notify, watch};

use crate::lag::{LAG_COUNTED_MAX, Lag};
use crate::position::Position;
use crate::projection::Projection;
use crate::query::Query;
use crate::read_models::{Build, BuildPause, ReadModels};
use crate::store::{EventStore, StoreError};
use crate::upcast::Upcasters;

pub mod fold;
mod lane;
pub mod request;
pub mod sink;
mod tables;
mod turn;

use turn::Turn;

/// How long a projection waits before it asks a store again that refused.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// A projection that is bound to its store. It does nothing before somebody runs it: a host, or [`Projected::run`].
#[must_use = "a projection does nothing before a host runs it"]
pub struct Projected {
    control: Arc<Control>,
    worker: Box<dyn Worker>,
}

/// What is behind a projection.
trait Worker: Send + Sync {
    /// Reads events of older forms through these, unless it was given its own; and what it follows then. `None` when it reads
    /// events as they are stored.
    fn take_upcasters(&mut self, _: &Upcasters) -> Option<Query> {
        None
    }
    /// Makes what is missing, so that readers find it.
    fn begin(&self) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Whether one process does it for all; else each does it for itself.
    fn is_one_for_all(&self) -> bool {
        true
    }
    /// Works until its turn is over, or the store fails.
    fn work<'a>(&'a self, turn: &'a mut Turn) -> BoxFuture<'a, Result<(), StoreError>>;
    /// Tells what another process has done, as the store keeps it, and hands on to it what is asked for here. When it is dropped,
    /// what it was about to hand on is still asked for.
    fn look_on<'a>(&'a self, _: &'a Clock) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Projected {
    /// A projection into a store's own read models, for a host to run. Stores have it as a method, `store.projected(..)`.
    pub fn of_tables<M: ReadModels + Clone>(store: M, projection: Projection<M::Tx>) -> Self {
        let (name, version) = (projection.name().clone(), projection.version());
        let control = Arc::new(Control::new(name, version, projection.query(), Arc::new(store.clone())));
        let worker = tables::Tables::new(store, projection, Arc::clone(&control));
        Self::with(control, worker)
    }

    fn with(control: Arc<Control>, worker: impl Worker + 'static) -> Self {
        Self { control, worker: Box::new(worker) }
    }

    /// By which others learn how far it is.
    pub fn handle(&self) -> ProjectionHandle {
        ProjectionHandle(Arc::clone(&self.control))
    }

    /// Names the log that it follows.
    pub fn origin(&self) -> Arc<str> {
        self.control.store.origin()
    }

    /// Reads events of older forms through these, unless the projection was given its own. A host says it with its upcasters;
    /// say it before it is begun or run. A place outside of the store takes events as they are stored.
    pub fn upcasters(mut self, upcasters: &Upcasters) -> Self {
        if let Some(query) = self.worker.take_upcasters(upcasters) {
            *self.control.query.write().unwrap_or_else(PoisonError::into_inner) = query;
        }
        self
    }

    /// Makes what is missing, so that readers find it. A host calls it before it starts its services.
    pub async fn begin(&self) -> Result<(), StoreError> {
        self.worker.begin().await
    }
}

impl fmt::Debug for Projected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Projected").field(&self.control.name).field(&self.control.version).finish()
    }
}

/// What the runner of a projection shares with its handles.
struct Control {
    name: Text,
    version: u32,
    /// What it follows; it changes once at most, before it runs.
    query: RwLock<Query>,
    store: Arc<dyn EventStore>,
    state: watch::Sender<ProjectionState>,
    /// Up to where readers see everything.
    reached: watch::Sender<Position>,
    wake: Notify,
    wants_resume: AtomicBool,
    wants_rebuild: AtomicBool,
    /// How many wait until readers see what they wrote.
    waiting: AtomicUsize,
}

/// Somebody waits until readers see what he wrote: who looks on looks more often.
struct Waiting<'c>(&'c Control);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Control {
    fn new(name: Text, version: u32, query: Query, store: Arc<dyn EventStore>) -> Self {
        Self {
            name,
            version,
            query: RwLock::new(query),
            store,
            state: watch::Sender::default(),
            reached: watch::Sender::new(Position::START),
            wake: Notify::new(),
            wants_resume: AtomicBool::new(false),
            wants_rebuild: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
        }
    }

    fn query(&self) -> Query {
        self.query.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether somebody resumed it, and nobody has taken that up yet.
    fn wants_resume(&self) -> bool {
        self.wants_resume.load(Ordering::Acquire)
    }

    /// Whether somebody asked for it to be made anew, and nobody has taken that up yet.
    fn wants_rebuild(&self) -> bool {
        self.wants_rebuild.load(Ordering::Acquire)
    }

    /// Whether somebody resumed it, since it was last asked.
    fn takes_resume(&self) -> bool {
        self.wants_resume.swap(false, Ordering::AcqRel)
    }

    /// Whether somebody asked for it to be made anew, since it was last asked.
    fn takes_rebuild(&self) -> bool {
        self.wants_rebuild.swap(false, Ordering::AcqRel)
    }

    fn waits(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        if self.state.borrow().is_elsewhere {
            self.wake.notify_one();
        }
        Waiting(self)
    }

    fn change(&self, change: impl FnOnce(&mut ProjectionState)) {
        self.state.send_modify(change);
    }
}

/// How a projection is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ProjectionState {
    /// Whether it works.
    pub condition: Condition,
    /// Its builds: the one that readers see, and one that is being made.
    pub builds: Vec<BuildProgress>,
    /// Whether another process runs it: what is told here is what that one has kept, a second ago at most.
    pub is_elsewhere: bool,
}

/// Whether a projection works.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Condition {
    /// It follows the log.
    #[default]
    Running,
    /// An event could not be taken in; it stands before it until it is resumed.
    Paused(BuildPause),
    /// The store does not do what it must.
    Failing(String),
}

/// How far one build is.
#[derive(Debug, Clone, PartialEq)]
pub struct BuildProgress {
    /// Which.
    pub build: Build,
    /// Everything up to here is in it.
    pub position: Position,
    /// Whether it is what readers see.
    pub is_current: bool,
    /// How many events it took in a second of late; 0 when it is not known, as of another process.
    pub per_second: f64,
}

/// Watches and steers one projection. Clones are the same projection.
#[derive(Clone)]
pub struct ProjectionHandle(Arc<Control>);

impl ProjectionHandle {
    /// Its name.
    pub fn name(&self) -> &Text {
        &self.0.name
    }

    /// Its version.
    pub fn version(&self) -> u32 {
        self.0.version
    }

    /// The events that it reads.
    pub fn query(&self) -> Query {
        self.0.query()
    }

    /// How it is.
    pub fn state(&self) -> ProjectionState {
        self.0.state.borrow().clone()
    }

    /// How it is, as it changes. A receiver that missed values sees the latest.
    pub fn states(&self) -> watch::Receiver<ProjectionState> {
        self.0.state.subscribe()
    }

    /// Waits until readers see everything up to this position: who reads what he wrote asks it with the position of his
    /// receipt. Cancel safe.
    pub async fn reached(&self, position: Position, within: Duration) -> Result<(), NotReached> {
        let mut reached = self.0.reached.subscribe();
        let _waiting = (*reached.borrow() < position).then(|| self.0.waits());
        // The sender lives as long as this handle.
        let wait = reached.wait_for(|reached| *reached >= position);
        if matches!(tokio::time::timeout(within, wait).await, Ok(Ok(_))) {
            return Ok(());
        }
        let at = *self.0.reached.borrow();
        let left =
            self.0.store.count(&self.0.query(), at, position, LAG_COUNTED_MAX).await.unwrap_or_default();
        Err(NotReached {
            projection: self.0.name.clone(),
            wanted: position,
            at,
            behind: left.events,
            is_at_least: left.is_at_least,
            reason: match self.state().condition {
                Condition::Running => None,
                Condition::Paused(pause) => Some(format!("it is paused at {}: {}", pause.at, pause.reason)),
                Condition::Failing(reason) => Some(reason),
            },
        })
    }

    /// How far what readers see is behind the log.
    pub async fn lag(&self, now: Timestamp) -> Result<Lag, StoreError> {
        let at = *self.0.reached.borrow();
        let of_current = |build: &&BuildProgress| build.is_current;
        let per_second = self.state().builds.iter().find(of_current).map_or(0.0, |build| build.per_second);
        Lag::measure(&*self.0.store, &self.0.query(), at, now, per_second).await
    }

    /// How far a build is that does not show yet, with its rate and an estimate; `None` when none is being made.
    pub async fn rebuilding(&self, now: Timestamp) -> Result<Option<Lag>, StoreError> {
        let builds = self.state().builds;
        let Some(new) = builds.iter().find(|build| !build.is_current) else { return Ok(None) };
        Lag::measure(&*self.0.store, &self.0.query(), new.position, now, new.per_second).await.map(Some)
    }

    /// Lets it try again the event at which it is paused. Another process that runs it is asked by way of the store.
    pub fn resume(&self) {
        self.0.wants_resume.store(true, Ordering::Release);
        self.0.wake.notify_one();
    }

    /// Makes its read model anew from the first event on, beside the one that readers see, and shows it when it has caught
    /// up. Another process that runs it is asked by way of the store. A value in memory is made anew in this process
    /// alone, and a place outside of the store by another version only.
    pub fn rebuild(&self) {
        self.0.wants_rebuild.store(true, Ordering::Release);
        self.0.wake.notify_one();
    }
}

impl fmt::Debug for ProjectionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProjectionHandle").field(&self.0.name).field(&self.0.version).finish()
    }
}

/// A projection did not reach a position in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the projection `{projection}` is at {at} and did not reach {wanted} in time: {}{behind} events behind{}",
    if *.is_at_least { "at least " } else { "" },
    .reason.as_ref().map(|reason| format!(", {reason}")).unwrap_or_default()
)]
#[non_exhaustive]
pub struct NotReached {
    /// Which.
    pub projection: Text,
    /// What was waited for.
    pub wanted: Position,
    /// Where it is.
    pub at: Position,
    /// How many of its events lie between.
    pub behind: u64,
    /// Whether there may be more.
    pub is_at_least: bool,
    /// What holds it up, when something does.
    pub reason: Option<String>,
}
