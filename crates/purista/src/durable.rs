//! Feeds a durable subscription from the log: in order per key, at least once, with its progress kept in the store.
//!
//! One task a subscription. It keeps a [`Ledger`] of what is under way, runs up to `in_flight` attempts, and saves progress
//! as attempts end. Whatever changes the store does so in one commit with the progress that it makes, so an effect in our
//! store happens once, also after a crash at any point.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use purista_core::running::Running;
use purista_events::batch::Batch;
use purista_events::position::Position;
use purista_events::query::{Query, QueryItem, TenantScope};
use purista_events::recorded::Recorded;
use purista_events::store::{Direction, EventStore, FollowPage, StoreError, StoreErrorKind};
use purista_events::subscriptions::{ProgressChange, SubscriptionId, SubscriptionRecord};
use purista_events::upcast::Upcasters;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::commit::settled;
use crate::listener::Listener;
use crate::listening::Listening;
use crate::runtime::Runtime;

pub(crate) mod attempt;
mod due;
mod ledger;
mod turn;

use attempt::{Attempt, Ended, How};
use due::Moment;
use ledger::{Job, Ledger, Saving};
use turn::{Sign, Turn};

/// How many events wait for another attempt for one subscription. An event that fails beyond it becomes a dead letter at once, and
/// health says so; what was under way when it was reached may still be added.
pub(crate) const PARKED_MAX: usize = 10_000;

/// How many events of one key wait, so that one key does not use all of [`PARKED_MAX`]. Those beyond it become dead letters.
pub(crate) const PARKED_KEY_MAX: usize = 1_000;

/// How many events a subscription holds that are fetched and not finished, those behind one of their key included.
const WINDOW_MAX: usize = 512;

/// How many finished positions above the watermark are stored one by one before the watermark is saved in their place.
pub(crate) const FINISHED_SAVED_MAX: usize = 256;

/// How many positions above the watermark may be finished before no more is fetched: those that finish while one handler takes
/// long.
const FINISHED_MAX: usize = 10_000;

/// How often the watermark is saved where nothing else is: an operator sees from it how far a subscription is.
const ADVANCED_EVERY: Duration = Duration::from_secs(1);

/// How a durable subscription is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DurableState {
    Running,
    Paused(String),
    /// [`PARKED_MAX`] events wait: the next that fails becomes a dead letter.
    Full,
    /// The store does not do what it must.
    Failing(String),
    /// Another process feeds it.
    Elsewhere,
}

/// The handle of one durable subscription.
pub(crate) struct DurableControl {
    pub(crate) id: SubscriptionId,
    /// The events that it hears.
    pub(crate) query: Query,
    state: Mutex<DurableState>,
    resume: Notify,
    /// Somebody parked an event for it.
    parked_anew: Notify,
    /// How many attempts have ended.
    ended: AtomicU64,
    /// How many are under way.
    under_way: AtomicUsize,
    /// How many events it has fetched and not finished, and up to where it has fetched.
    held: AtomicUsize,
    fetched_up_to: AtomicU64,
    /// How many events wait for another attempt, or behind one that does.
    deferred: AtomicUsize,
    /// Up to where everything is finished and nothing waits; `None` while something is under way.
    pub(crate) settled_up_to: watch::Sender<Option<Position>>,
}

impl DurableControl {
    pub(crate) fn new(id: SubscriptionId, query: Query) -> Self {
        Self {
            id,
            query,
            state: Mutex::new(DurableState::Running),
            resume: Notify::new(),
            parked_anew: Notify::new(),
            ended: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            fetched_up_to: AtomicU64::new(0),
            deferred: AtomicUsize::new(0),
            settled_up_to: watch::channel(None).0,
        }
    }

    pub(crate) fn state(&self) -> DurableState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many attempts have ended since it was started.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// How many events wait for another attempt, or behind one that does.
    pub(crate) fn deferred(&self) -> usize {
        self.deferred.load(Ordering::Relaxed)
    }

    /// Whether an attempt is under way.
    pub(crate) fn is_at_work(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }

    /// How many events it has not finished, at most: events of others may be among those that it has not fetched. `None`
    /// where positions do not tell.
    pub(crate) fn left(&self, store: &dyn EventStore, head: Position) -> Option<u64> {
        let fetched = u64::try_from(self.held.load(Ordering::Relaxed)).unwrap_or(u64::MAX);
        let fetched_up_to = Position::new(self.fetched_up_to.load(Ordering::Relaxed));
        store.between(fetched_up_to, head).map(|beyond| fetched.saturating_add(beyond))
    }

    fn set(&self, state: DurableState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    #[cfg(feature = "testing")]
    /// Whether it is paused, or another process feeds it.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.state(), DurableState::Paused(_) | DurableState::Elsewhere)
    }

    #[cfg(feature = "testing")]
    /// Whether everything up to here is finished, or it is idle.
    pub(crate) fn is_settled_at(&self, head: Position) -> bool {
        self.is_idle() || self.settled_up_to.borrow().is_some_and(|place| place >= head)
    }

    pub(crate) fn resume(&self) {
        self.resume.notify_one();
    }

    /// Tells it that something was parked for it in the store.
    pub(crate) fn look_again(&self) {
        // Whoever waits for it to settle does not take what it says now for the answer.
        self.settled_up_to.send_replace(None);
        self.parked_anew.notify_one();
    }
}

/// Runs one durable subscription.
pub(crate) struct Durable {
    pub(crate) listener: Arc<dyn Listener>,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) control: Arc<DurableControl>,
    pub(crate) stop: CancellationToken,
}

/// Why serving ended.
enum End {
    Stopped,
    /// Its lease is lost: another process may feed it already.
    Lost,
    /// What the store knows is to be read anew: it is paused.
    ReadAnew,
    /// Somebody else has finished something of what is to be saved.
    Overtaken,
    Failed(StoreError),
}

impl Durable {
    /// Makes the subscription known to the store, so that nothing recorded from now on is missed. Without `from_start` it
    /// begins at the head.
    pub(crate) async fn register(&self) -> Result<(), StoreError> {
        // Before it is looked for: what is recorded after another process has made it known lies behind this.
        let head = *self.store.head().borrow();
        if self.store.subscription(&self.control.id).await?.is_some() {
            return Ok(());
        }
        let start = if self.listener.listening().terms.from_start { Position::START } else { head };
        let mut batch = Batch::new(self.runtime.clock.id(), None);
        let subscription = self.control.id.clone();
        batch.progress.push(ProgressChange { subscription, up_to: Some(start), done: None });
        settled(&self.store, batch).await
    }

    async fn load(&self) -> Result<SubscriptionRecord, StoreError> {
        Ok(self.store.subscription(&self.control.id).await?.unwrap_or_default())
    }

    async fn serve(&self, record: SubscriptionRecord, turn: &mut Turn) -> End {
        self.control.fetched_up_to.store(record.progress.low.number(), Ordering::Relaxed);
        if let Some(pause) = &record.pause {
            return self.wait_for_resume(pause.reason.clone(), turn).await.unwrap_or_else(End::Failed);
        }
        self.control.set(DurableState::Running);
        let query = &self.control.query;
        let in_flight = self.listener.listening().terms.in_flight;
        let mut ledger = Ledger::new(record, in_flight, &self.moment());
        let mut running: Running<BoxFuture<'static, Ended>> = Running::default();
        let mut saving: Option<BoxFuture<'_, (Saving, Result<(), StoreError>)>> = None;
        let mut fetching: Option<BoxFuture<'_, Result<FollowPage, StoreError>>> = None;
        let mut head = self.store.head();
        let mut leaving: Option<End> = None;
        let mut saved_at = Instant::now();
        loop {
            if turn.is_lost() {
                leaving.get_or_insert(End::Lost);
            }
            while leaving.is_none() && running.len() < in_flight {
                let Some(job) = ledger.next_job(Instant::now()) else { break };
                running.push(self.begin(job, ledger.is_full()));
            }
            // A store that has failed is not asked again until everything was read anew.
            if saving.is_none() && !matches!(leaving, Some(End::Failed(_) | End::Overtaken)) {
                let is_stopping = matches!(leaving, Some(End::Stopped)) && running.is_empty();
                let advances = is_stopping || saved_at.elapsed() >= ADVANCED_EVERY;
                saving = ledger.to_save(advances).map(|next| self.save(next));
            }
            if running.is_empty()
                && saving.is_none()
                && let Some(end) = leaving
            {
                return end;
            }
            self.control.under_way.store(running.len(), Ordering::Relaxed);
            self.control.held.store(ledger.window(), Ordering::Relaxed);
            self.control.fetched_up_to.store(ledger.cursor().number(), Ordering::Relaxed);
            let seen = *head.borrow_and_update();
            self.control.deferred.store(ledger.parked(), Ordering::Relaxed);
            self.control.set(if ledger.is_full() { DurableState::Full } else { DurableState::Running });
            let has_more = ledger.cursor() < seen;
            if fetching.is_none()
                && has_more
                && leaving.is_none()
                && ledger.window() < WINDOW_MAX
                && ledger.finished_ahead() < FINISHED_MAX
            {
                fetching = Some(self.store.follow(query, ledger.cursor(), WINDOW_MAX));
            }
            let is_settled = running.is_empty() && saving.is_none() && ledger.is_empty() && !has_more;
            self.control.settled_up_to.send_replace(is_settled.then(|| ledger.cursor()));
            let due = ledger.next_due().filter(|_| leaving.is_none() && running.len() < in_flight);
            let advances = leaving.is_none() && saving.is_none() && ledger.can_advance();
            let due = due.into_iter().chain(advances.then(|| saved_at + ADVANCED_EVERY)).min();
            tokio::select! {
                biased;
                Some(ended) = running.next(), if !running.is_empty() => {
                    self.control.ended.fetch_add(1, Ordering::Relaxed);
                    leaving = leaving.or(Self::after(&mut ledger, ended, &self.moment()));
                }
                (saved, result) = under_way(&mut saving) => {
                    (saving, saved_at) = (None, Instant::now());
                    match result {
                        Ok(()) => ledger.saved(&saved),
                        // By another process, that had the lease before this one or has it since.
                        Err(error) if error.kind() == StoreErrorKind::AlreadyDone => leaving = Some(End::Overtaken),
                        Err(error) => leaving = Some(End::Failed(error)),
                    }
                }
                () = self.stop.cancelled(), if leaving.is_none() => leaving = Some(End::Stopped),
                page = under_way(&mut fetching) => {
                    fetching = None;
                    match page {
                        Ok(page) => ledger.admit(page),
                        Err(error) => leaving = Some(End::Failed(error)),
                    }
                }
                sign = turn.sign(&self.control.parked_anew, leaving.is_some()) => match sign {
                    // Nothing else goes on meanwhile, so what ends in the store is not taken for new.
                    Sign::Look => match self.load().await {
                        Ok(record) if record.pause.is_some() => leaving = Some(End::ReadAnew),
                        Ok(record) => {
                            turn.has_looked(record.parked.len());
                            ledger.take_up(record.parked, &self.moment());
                        }
                        Err(error) => leaving = Some(End::Failed(error)),
                    },
                    Sign::Lost => drop(leaving.get_or_insert(End::Lost)),
                    Sign::GiveUp => return End::Lost,
                },
                () = until(due) => {}
                _ = head.changed(), if fetching.is_none() && leaving.is_none() => {}
            }
        }
    }

    fn moment(&self) -> Moment {
        Moment::now(&self.runtime.clock)
    }

    /// `is_full`: no more events may wait than do already.
    fn begin(&self, job: Job, is_full: bool) -> BoxFuture<'static, Ended> {
        let attempt = Attempt {
            listener: Arc::clone(&self.listener),
            runtime: Arc::clone(&self.runtime),
            store: Arc::clone(&self.store),
            id: self.control.id.clone(),
            is_full,
        };
        Box::pin(attempt.run(job))
    }

    /// Saves progress; at most one save is under way, and what ends meanwhile goes with the next.
    fn save(&self, next: Saving) -> BoxFuture<'static, (Saving, Result<(), StoreError>)> {
        let (store, id) = (Arc::clone(&self.store), self.control.id.clone());
        let mut batch = Batch::new(self.runtime.clock.id(), None);
        let change = |up_to, done| ProgressChange { subscription: id.clone(), up_to, done };
        batch.progress.push(change(Some(next.up_to), None));
        batch.progress.extend(next.done.iter().map(|position| change(None, Some(*position))));
        Box::pin(async move {
            let result = settled(&store, batch).await;
            (next, result)
        })
    }

    fn after(ledger: &mut Ledger, ended: Ended, now: &Moment) -> Option<End> {
        let Ended { position, how } = ended;
        match how {
            How::Finished { is_saved } => ledger.finished(position, is_saved),
            How::Parked(parked) => ledger.parked_now(parked, now),
            How::ParkedBehind(parked) => {
                for one in parked {
                    ledger.parked_behind(one, now);
                }
            }
            How::GivenUp(positions) => positions.into_iter().for_each(|one| ledger.given_up(one)),
            How::Paused => return Some(End::ReadAnew),
            How::Failed(error) => return Some(End::Failed(error)),
        }
        None
    }
}

/// The events that a subscription hears, and those of older names that become them.
pub(crate) fn query(listening: &Listening, upcasters: &Upcasters) -> Query {
    let filter = &listening.terms.filter;
    let names = filter.event_names.iter().cloned();
    let types = match listening.terms.version {
        Some(_) => upcasters.stored_names(names),
        None => names.collect(),
    };
    let item = QueryItem { types, tags: Vec::new() };
    let tenants = filter.tenant_id.clone().map_or(TenantScope::All, |tenant| TenantScope::Only(Some(tenant)));
    Query { tenants, items: vec![item] }
}

/// What is under way; never ends when nothing is.
async fn under_way<T>(work: &mut Option<BoxFuture<'_, T>>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// The event at one position.
pub(crate) async fn event_at(
    store: &dyn EventStore,
    position: Position,
) -> Result<Option<Recorded>, StoreError> {
    let events = store.read(&Query::all(), position.previous(), Direction::Forwards, 1).await?;
    Ok(events.into_iter().find(|event| event.position == position))
}
