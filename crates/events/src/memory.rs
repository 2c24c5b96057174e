//! The memory engine: the executable specification of a store. What it does, every other engine does too.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream;
use jiff::Timestamp;
use purista_core::clock::Clock;
use purista_core::id::Id;
use purista_core::store::Versioned;
use tokio::sync::watch;

use crate::batch::{Batch, Receipt, ReplyKey, StoredReply};
use crate::form::{Counted, Form};
use crate::head::HeadWatch;
use crate::lease::Lease;
use crate::log_time::LogTime;
use crate::position::{Position, ReadToken};
use crate::query::Query;
use crate::recorded::Recorded;
use crate::snapshot::{Snapshot, SnapshotGroup, SnapshotKey};
use crate::store::{Direction, EventStore, FollowPage, PAGE_MAX, StoreError, StoreErrorKind};
use crate::subscriptions::{DeadLetter, SubscriptionId, SubscriptionRecord};
use crate::view_read::ViewRead;

pub mod clock;
mod commit;
mod leases;
mod log;
mod read;
mod read_models;
pub mod tables;
#[cfg(test)]
mod tests;

use leases::{Leases, Process};
use log::Log;

/// A store that keeps everything in memory: for tests, for a first start, and as the model of every other engine.
///
/// Clones are the same open store. After [`EventStore::close`], [`MemoryStore::reopen`] opens the same data again, as a
/// new process would open the same file.
///
/// It promises what an engine on disk promises, except that nothing survives the process.
#[derive(Clone)]
pub struct MemoryStore {
    medium: Arc<Medium>,
    open: Arc<Open>,
}

/// What a disk would hold.
struct Medium {
    clock: Clock,
    origin: Arc<str>,
    head: watch::Sender<Position>,
    content: Mutex<Content>,
    leases: Arc<Leases>,
}

struct Content {
    log: Log,
    commit_faults: VecDeque<Fault>,
    read_faults: usize,
}

/// One opening of the medium, until it is closed or fails.
struct Open {
    time: LogTime,
    closed: OnceLock<()>,
    poison: OnceLock<String>,
    /// Present when it stands for a process among others.
    process: Option<Arc<Process>>,
}

/// What a test lets go wrong, see [`MemoryStore::fail_next`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The commit fails with this kind, and nothing is written. `Refuse(Unknown)` is the batch that was lost on its way.
    Refuse(StoreErrorKind),
    /// The commit goes its way, and its answer is lost: `Unknown`, whatever it was.
    LoseAnswer,
}

impl From<StoreErrorKind> for Fault {
    fn from(kind: StoreErrorKind) -> Self {
        Self::Refuse(kind)
    }
}

impl Open {
    fn new(medium: &Medium, process: Option<Arc<Process>>) -> Self {
        let latest = medium.content.lock().unwrap_or_else(PoisonError::into_inner).log.time;
        let latest = i64::try_from(latest.as_nanosecond()).unwrap_or(i64::MAX);
        let time = LogTime::new(medium.clock.clone(), latest);
        Self { time, closed: OnceLock::new(), poison: OnceLock::new(), process }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanosecond(self.time.now().into()).unwrap_or(Timestamp::MAX)
    }
}

impl MemoryStore {
    /// An empty store with the time of this clock.
    pub fn new(clock: Clock) -> Self {
        let origin = clock.id().to_string().into();
        let content = Content { log: Log::default(), commit_faults: VecDeque::new(), read_faults: 0 };
        let head = watch::Sender::new(Position::START);
        let medium = Medium { clock, origin, head, content: Mutex::new(content), leases: Arc::default() };
        let open = Open::new(&medium, None);
        Self { medium: Arc::new(medium), open: Arc::new(open) }
    }

    /// Opens the same data again, after this one was closed or failed.
    #[must_use]
    pub fn reopen(&self) -> Self {
        let open = Open::new(&self.medium, self.open.process.clone());
        Self { medium: Arc::clone(&self.medium), open: Arc::new(open) }
    }

    /// For tests: opens the same data as one process among others that have it open: each of them works at what it has the lease
    /// of, see [`EventStore::lease`].
    #[must_use]
    pub fn open_beside(&self) -> Self {
        let open = Open::new(&self.medium, Some(Arc::default()));
        Self { medium: Arc::clone(&self.medium), open: Arc::new(open) }
    }

    /// For tests: this process loses its leases, others may have them at once, and it gets none for a while; as when its connection
    /// is cut. It does nothing to one that is not [open beside](Self::open_beside) others.
    pub fn lose_leases(&self, and_none_for: Duration) {
        if let Some(process) = &self.open.process {
            self.medium.leases.lose(process, and_none_for);
        }
    }

    /// For tests: lets the next commits go wrong, after those for which this was said before.
    ///
    /// ```
    /// # use purista_events::{batch::Batch, memory::{Fault, MemoryStore}, store::{EventStore, StoreErrorKind}};
    /// # use purista_core::id::Id;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let store = MemoryStore::default();
    /// store.fail_next(1, StoreErrorKind::NoSpace);
    /// store.fail_next(1, Fault::LoseAnswer);
    /// let batch = || Batch::new(Id::from_random(7), None);
    ///
    /// assert_eq!(store.commit(batch()).await.unwrap_err().kind(), StoreErrorKind::NoSpace);
    /// assert_eq!(store.commit(batch()).await.unwrap_err().kind(), StoreErrorKind::Unknown);
    /// // Asked again, it is found to have happened.
    /// assert!(store.commit(batch()).await.unwrap().is_repeated);
    /// # }
    /// ```
    pub fn fail_next(&self, commits: usize, fault: impl Into<Fault>) {
        let fault = fault.into();
        self.content().commit_faults.extend(std::iter::repeat_n(fault, commits));
    }

    /// For tests: lets the next reads fail with [`StoreErrorKind::ReadFailed`].
    pub fn fail_next_reads(&self, reads: usize) {
        self.content().read_faults += reads;
    }

    /// For tests: from now on it takes no commits, as after a failed write. Reads go on; [`Self::reopen`] heals it.
    pub fn poison(&self, reason: impl Into<String>) {
        // It keeps its first reason.
        let _ = self.open.poison.set(reason.into());
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        // A commit changes nothing before all its checks have passed, and cannot fail after them.
        self.medium.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit_now(&self, batch: Batch) -> Result<Receipt, StoreError> {
        let mut content = self.content();
        self.check_writable()?;
        let fault = content.commit_faults.pop_front();
        if let Some(Fault::Refuse(kind)) = fault {
            return Err(StoreError::new(
                kind,
                format!("commit of {} failed, as its test wants it", batch.id),
            ));
        }
        let id = batch.id.clone();
        let answer = content.log.commit(batch, self.open.now());
        let head = content.log.head();
        self.medium.head.send_if_modified(|known| std::mem::replace(known, head) != head);
        match fault {
            None => answer,
            Some(_) => Err(StoreError::new(StoreErrorKind::Unknown, format!("the answer to {id} was lost"))),
        }
    }

    /// Every read sees the log at one moment, and as it is at this time.
    fn look<T>(&self, read: impl FnOnce(&Log) -> T) -> Result<T, StoreError> {
        let mut content = self.content();
        self.check_open()?;
        if content.read_faults > 0 {
            content.read_faults -= 1;
            return Err(StoreError::new(StoreErrorKind::ReadFailed, "the read failed, as its test wants it"));
        }
        content.log.let_time_pass(self.open.now());
        Ok(read(&content.log))
    }

    /// Changes what is kept beside the log, and is no part of a batch.
    fn change<T>(&self, change: impl FnOnce(&mut Log) -> T) -> Result<T, StoreError> {
        let mut content = self.content();
        self.check_writable()?;
        Ok(change(&mut content.log))
    }

    fn check_writable(&self) -> Result<(), StoreError> {
        if let Some(reason) = self.open.poison.get() {
            let what = format!("the store takes no commits since a write failed: {reason}");
            return Err(StoreError::new(StoreErrorKind::Closed, what));
        }
        self.check_open()
    }

    fn check_open(&self) -> Result<(), StoreError> {
        match self.open.closed.get() {
            None => Ok(()),
            Some(()) => Err(StoreError::new(StoreErrorKind::Closed, "the store is closed")),
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(Clock::system())
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = *self.medium.head.borrow();
        f.debug_struct("MemoryStore").field("origin", &self.medium.origin).field("head", &head).finish()
    }
}

impl EventStore for MemoryStore {
    fn origin(&self) -> Arc<str> {
        Arc::clone(&self.medium.origin)
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Receipt, StoreError>> {
        Box::pin(async move { self.commit_now(batch) })
    }

    fn read_view<'a>(
        &'a self,
        query: &'a Query,
        after: Position,
    ) -> BoxFuture<'a, Result<ViewRead, StoreError>> {
        Box::pin(async move {
            let read = |log: &Log| (log.head(), log.page(query, after, Direction::Forwards, PAGE_MAX));
            let (head, first) = self.look(read)?;
            // What is recorded stays as it is: everything up to the head is of that moment, whenever it is read.
            let last = first.last().map(|event| event.position).filter(|_| first.len() == PAGE_MAX);
            let rest = last.map(|last| {
                let (store, query) = (self.clone(), query.clone());
                stream::try_unfold(last, move |last| {
                    let read = |log: &Log| log.page(&query, last, Direction::Forwards, PAGE_MAX);
                    let page = store.look(read).map(|mut page| {
                        page.retain(|event| event.position <= head);
                        page.last().map(|event| event.position).map(|last| (page, last))
                    });
                    std::future::ready(page)
                })
                .boxed()
            });
            Ok(ViewRead::new(ReadToken::seen_up_to(head), first, rest))
        })
    }

    fn read<'a>(
        &'a self,
        query: &'a Query,
        from: Position,
        direction: Direction,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Recorded>, StoreError>> {
        Box::pin(async move { self.look(|log| log.page(query, from, direction, limit.min(PAGE_MAX))) })
    }

    fn follow<'a>(
        &'a self,
        query: &'a Query,
        from: Position,
        limit: usize,
    ) -> BoxFuture<'a, Result<FollowPage, StoreError>> {
        Box::pin(async move { self.look(|log| log.follow(query, from, limit.min(PAGE_MAX))) })
    }

    fn head(&self) -> HeadWatch {
        HeadWatch::new(self.medium.head.subscribe())
    }

    fn position_at(&self, time: Timestamp) -> BoxFuture<'_, Result<Position, StoreError>> {
        Box::pin(async move { self.look(|log| log.position_at(time)) })
    }

    fn recorded_at(&self, position: Position) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>> {
        Box::pin(async move { self.look(|log| log.recorded_at(position)) })
    }

    fn count<'a>(
        &'a self,
        query: &'a Query,
        after: Position,
        up_to: Position,
        at_most: u64,
    ) -> BoxFuture<'a, Result<Counted, StoreError>> {
        Box::pin(async move { self.look(|log| log.count(query, after, up_to, at_most)) })
    }

    fn forms(&self) -> BoxFuture<'_, Result<Vec<Form>, StoreError>> {
        Box::pin(async move { self.look(Log::forms) })
    }

    fn snapshot<'a>(&'a self, key: &'a SnapshotKey) -> BoxFuture<'a, Result<Option<Snapshot>, StoreError>> {
        Box::pin(async move { self.look(|log| log.snapshots.get(key).cloned()) })
    }

    fn save_snapshot(&self, snapshot: Snapshot) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            snapshot.check_bounds()?;
            self.change(|log| {
                let kept = log.snapshots.get(&snapshot.key);
                if kept.is_none_or(|kept| kept.position < snapshot.position) {
                    log.snapshots.insert(snapshot.key.clone(), snapshot);
                }
            })
        })
    }

    fn forget_snapshots<'a>(&'a self, name: Option<&'a str>) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            self.change(|log| {
                let before = log.snapshots.len();
                log.snapshots.retain(|key, _| name.is_some_and(|name| key.name.as_str() != name));
                u64::try_from(before - log.snapshots.len()).unwrap_or(u64::MAX)
            })
        })
    }

    fn snapshots(&self) -> BoxFuture<'_, Result<Vec<SnapshotGroup>, StoreError>> {
        Box::pin(async move { self.look(Log::snapshots) })
    }

    fn state<'a>(
        &'a self,
        tenant: Option<&'a str>,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<BTreeMap<String, Versioned>, StoreError>> {
        Box::pin(async move { self.look(|log| log.state(tenant, keys)) })
    }

    fn reply<'a>(
        &'a self,
        tenant: Option<&'a str>,
        key: &'a ReplyKey,
    ) -> BoxFuture<'a, Result<Option<StoredReply>, StoreError>> {
        Box::pin(async move { self.look(|log| log.reply(tenant, key)) })
    }

    fn subscription<'a>(
        &'a self,
        id: &'a SubscriptionId,
    ) -> BoxFuture<'a, Result<Option<SubscriptionRecord>, StoreError>> {
        Box::pin(async move { self.look(|log| log.subscription(id)) })
    }

    fn subscriptions(&self) -> BoxFuture<'_, Result<Vec<SubscriptionId>, StoreError>> {
        Box::pin(async move { self.look(Log::subscriptions) })
    }

    fn is_consumed<'a>(
        &'a self,
        subscription: &'a SubscriptionId,
        message: &'a Id,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move { self.look(|log| log.is_consumed(subscription, message)) })
    }

    fn dead_letters<'a>(
        &'a self,
        subscription: Option<&'a SubscriptionId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<DeadLetter>, StoreError>> {
        Box::pin(async move { self.look(|log| log.dead_letters(subscription, limit.min(PAGE_MAX))) })
    }

    fn lease<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Lease, StoreError>> {
        Box::pin(async move {
            self.check_open()?;
            match &self.open.process {
                None => Ok(Lease::alone()),
                Some(process) => {
                    let lease = Leases::take(&self.medium.leases, name, process).await;
                    self.check_open().map(|()| lease)
                }
            }
        })
    }

    fn poisoned(&self) -> Option<String> {
        self.open.poison.get().cloned()
    }

    fn attention(&self) -> Option<String> {
        self.open.time.fault()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            // Under the lock, so that a commit comes wholly before it or not at all.
            let _content = self.content();
            let _ = self.open.closed.set(());
            self.lose_leases(Duration::ZERO);
            Ok(())
        })
    }
}
