//! The store: a handle that hands batches to the writer and reads to the readers.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use purista_core::clock::Clock;
use purista_core::id::Id;
use purista_core::store::Versioned;
use purista_events::batch::{Batch, Receipt, ReplyKey, StoredReply};
use purista_events::form::{Counted, Form};
use purista_events::head::HeadWatch;
use purista_events::occurrence::{OccurrencePage, Occurrences};
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::recorded::Recorded;
use purista_events::snapshot::{Snapshot, SnapshotGroup, SnapshotKey, Snapshots};
use purista_events::store::{
    Direction, EventStore, FollowPage, PAGE_MAX, StoreError, StoreErrorKind, WriterState,
};
use purista_events::subscriptions::{DeadLetter, SubscriptionId, SubscriptionRecord};
use purista_events::view_read::ViewRead;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use crate::error::{closed, read_failed};
use crate::file::{Known, OpenFile};
use crate::guard::Guard;
pub use crate::queue::QUEUE_WAIT;
use crate::queue::{Job, Limits, Order, Shared, units};
use crate::readers::{self, Readers};
use crate::statistics::Statistics;
use crate::watchdog::{self, Inbox};
use crate::writer::Writer;
use crate::{codec, dead_letter, fetch, folding, forms, progress, receipts, snapshot, state};

pub use crate::queue::QUEUE_MAX;

/// A store in one file of SQLite. Clones are the same store; with the last one the writer ends, after what was handed
/// over is written.
///
/// ```no_run
/// use purista_sqlite::store::SqliteStore;
///
/// # fn main() -> Result<(), purista_events::store::StoreError> {
/// let store = SqliteStore::open("data/app.db")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SqliteStore {
    handle: Arc<Handle>,
}

pub(crate) struct Handle {
    origin: Arc<str>,
    pub(crate) orders: SyncSender<Order>,
    pub(crate) room: Arc<Semaphore>,
    readers: Readers,
    pub(crate) shared: Arc<Shared>,
    pub(crate) guard: Guard,
    pub(crate) path: PathBuf,
    pub(crate) is_read_only: bool,
    is_closing: AtomicBool,
}

impl SqliteStore {
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// What the writer did since the store was opened.
    pub fn statistics(&self) -> Statistics {
        self.handle.shared.counters.snapshot()
    }

    pub(crate) fn start(file: OpenFile, clock: Clock, limits: Limits) -> Result<Self, StoreError> {
        let OpenFile { mut writer, readers, lock, sums, path, known } = file;
        let guard = Guard::set(&mut writer);
        let shared = Shared::new(&known, clock);
        let counters = Arc::clone(&shared.counters);
        writer
            .wal_hook(Some(move |_: &mut _, pages: std::ffi::c_int| {
                counters.wal_pages.store(u64::try_from(pages).unwrap_or(0), Ordering::Relaxed);
                Ok(())
            }))
            .map_err(read_failed("start of the writer"))?;
        let (orders, waiting) = sync_channel(QUEUE_MAX + 1);
        let (readers, threads) = readers::start(readers).map_err(not_started)?;
        let inbox = Inbox::new(waiting);
        watchdog::start(Arc::clone(&shared), inbox.clone()).map_err(not_started)?;
        let thread_of_writer = Writer {
            orders: inbox,
            asides: VecDeque::new(),
            limits,
            shared: Arc::clone(&shared),
            head: known.head,
            checkpoint_at: limits.checkpoint_pages,
            warned_at: None,
            readers: Some(threads),
            sums,
            path: path.clone(),
            _lock: lock,
        };
        // Nobody joins it: `close` waits for its word that it has ended.
        let thread = std::thread::Builder::new().name("purista-write".to_owned());
        thread.spawn(move || thread_of_writer.run(writer)).map_err(not_started)?;
        let room = Arc::new(Semaphore::new(QUEUE_MAX));
        let guard = guard.map_err(read_failed("start of the writer"))?;
        let (is_read_only, is_closing) = (false, AtomicBool::new(false));
        let origin = known.origin;
        Ok(Self {
            handle: Arc::new(Handle {
                origin,
                orders,
                room,
                readers,
                shared,
                guard,
                path,
                is_read_only,
                is_closing,
            }),
        })
    }

    pub(crate) fn start_read_only(
        path: PathBuf,
        (readers, known): (Vec<Connection>, Known),
        clock: Clock,
    ) -> Result<Self, StoreError> {
        let shared = Shared::new(&known, clock);
        let (orders, waiting) = sync_channel(1);
        let (readers, threads) = readers::start(readers).map_err(not_started)?;
        let ended = Arc::clone(&shared);
        // In the writer's place: waits for the end.
        let thread = std::thread::Builder::new().name("purista-close".to_owned());
        let wait = move || {
            let _ = waiting.recv();
            threads.stop();
            ended.ended.send_replace(true);
        };
        thread.spawn(wait).map_err(not_started)?;
        let room = Arc::new(Semaphore::new(0));
        let guard = Guard::idle();
        let (is_read_only, is_closing) = (true, AtomicBool::new(false));
        let origin = known.origin;
        Ok(Self {
            handle: Arc::new(Handle {
                origin,
                orders,
                room,
                readers,
                shared,
                guard,
                path,
                is_read_only,
                is_closing,
            }),
        })
    }
}

fn not_started(error: std::io::Error) -> StoreError {
    StoreError::new(StoreErrorKind::Closed, "start of the store's threads failed").with_source(error)
}

impl Handle {
    /// Runs a read on one of the readers' connections.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.readers.run(read).await
    }

    async fn commit(&self, batch: Batch) -> Result<Receipt, StoreError> {
        if self.is_read_only {
            return Err(StoreError::new(StoreErrorKind::Closed, "the store was opened for reading only"));
        }
        let id = batch.id.clone();
        if let Err(beyond) = batch.check_bounds() {
            // It never reaches the writer; but what was committed under its id is its answer all the same.
            let now = self.shared.time.now();
            let look = move |connection: &mut Connection| {
                let select = connection.prepare_cached(receipts::SELECT);
                let found = select.and_then(|mut select| receipts::receipt(&mut select, &id, now));
                found.map_err(read_failed("read of a receipt"))
            };
            return self.readers.run(look).await?.ok_or(beyond);
        }
        let state_texts = state::texts(&batch.state);
        let room = self.room_for(&batch, &state_texts).await?;
        let (answer, answered) = oneshot::channel();
        let order = Order::Commit(Box::new(Job {
            batch,
            state_texts,
            answer,
            queued_at: std::time::Instant::now(),
            _room: room,
        }));
        // There is a slot for each unit of room, so it is never full.
        self.orders.try_send(order).map_err(|_| self.refusal())?;
        answered.await.unwrap_or_else(|_| {
            let what = format!("the writer ended without an answer to {id}");
            Err(StoreError::new(StoreErrorKind::Unknown, what))
        })
    }

    async fn room_for(
        &self,
        batch: &Batch,
        state_texts: &[Option<String>],
    ) -> Result<OwnedSemaphorePermit, StoreError> {
        let units = units(batch, state_texts);
        if let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(units) {
            return Ok(room);
        }
        let until = batch.deadline.unwrap_or_else(|| Instant::now() + QUEUE_WAIT);
        match tokio::time::timeout_at(until, Arc::clone(&self.room).acquire_many_owned(units)).await {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(_)) => Err(self.refusal()),
            Err(_) => {
                let what = format!("too much waits to be written: no room for {}", batch.id);
                Err(StoreError::new(StoreErrorKind::Overloaded, what))
            }
        }
    }

    pub(crate) fn refusal(&self) -> StoreError {
        self.shared.poisoned_error().unwrap_or_else(closed)
    }

    fn begin_close(&self) {
        self.room.close();
        if !self.is_closing.swap(true, Ordering::AcqRel) {
            // The queue has one slot more than room, for this.
            let _ = self.orders.try_send(Order::Close);
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.begin_close();
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = *self.handle.shared.head.borrow();
        f.debug_struct("SqliteStore").field("origin", &self.handle.origin).field("head", &head).finish()
    }
}

impl EventStore for SqliteStore {
    fn origin(&self) -> Arc<str> {
        Arc::clone(&self.handle.origin)
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Receipt, StoreError>> {
        Box::pin(self.handle.commit(batch))
    }

    fn read_view<'a>(
        &'a self,
        query: &'a Query,
        after: Position,
    ) -> BoxFuture<'a, Result<ViewRead, StoreError>> {
        Box::pin(async move { Ok(self.read_view_from(query.clone(), after, Vec::new()).await?.1) })
    }

    fn read_view_behind<'a>(
        &'a self,
        query: &'a Query,
        keys: &'a [Option<SnapshotKey>],
    ) -> BoxFuture<'a, Result<(Snapshots, ViewRead), StoreError>> {
        Box::pin(self.read_view_from(query.clone(), Position::START, keys.to_vec()))
    }

    fn read_occurrences<'a>(
        &'a self,
        query: &'a Query,
        after: Position,
        keys: &'a [Option<SnapshotKey>],
        with_tags: bool,
    ) -> BoxFuture<'a, Result<(Snapshots, ViewRead<Occurrences>), StoreError>> {
        Box::pin(self.occurrences_from(query.clone(), after, keys.to_vec(), with_tags))
    }

    fn follow_occurrences<'a>(
        &'a self,
        query: &'a Query,
        from: Position,
        into: Occurrences,
    ) -> BoxFuture<'a, Result<OccurrencePage, StoreError>> {
        let query = query.clone();
        Box::pin(self.handle.readers.run(move |connection| folding::follow(connection, &query, from, into)))
    }

    fn read<'a>(
        &'a self,
        query: &'a Query,
        from: Position,
        direction: Direction,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Recorded>, StoreError>> {
        let query = query.clone();
        let limit = limit.min(PAGE_MAX);
        let read = move |connection: &mut _| fetch::page(connection, &query, from, direction, limit);
        Box::pin(self.handle.readers.run(read))
    }

    fn follow<'a>(
        &'a self,
        query: &'a Query,
        from: Position,
        limit: usize,
    ) -> BoxFuture<'a, Result<FollowPage, StoreError>> {
        let query = query.clone();
        let limit = limit.min(PAGE_MAX);
        Box::pin(self.handle.readers.run(move |connection| fetch::follow(connection, &query, from, limit)))
    }

    fn head(&self) -> HeadWatch {
        HeadWatch::new(self.handle.shared.head.subscribe())
    }

    fn writer(&self) -> WriterState {
        self.handle.shared.busy.state()
    }

    fn position_at(&self, time: Timestamp) -> BoxFuture<'_, Result<Position, StoreError>> {
        Box::pin(self.handle.readers.run(move |connection| fetch::position_at(connection, time)))
    }

    fn recorded_at(&self, position: Position) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>> {
        Box::pin(self.handle.readers.run(move |connection| {
            fetch::recorded_at(connection, position).map_err(read_failed("read of a time"))
        }))
    }

    fn count<'a>(
        &'a self,
        query: &'a Query,
        after: Position,
        up_to: Position,
        at_most: u64,
    ) -> BoxFuture<'a, Result<Counted, StoreError>> {
        let query = query.clone();
        Box::pin(self.handle.readers.run(move |connection| {
            fetch::count(connection, &query, [after, up_to], at_most).map_err(read_failed("count of events"))
        }))
    }

    fn forms(&self) -> BoxFuture<'_, Result<Vec<Form>, StoreError>> {
        let read = |connection: &mut _| forms::read(connection).map_err(read_failed("read of the forms"));
        Box::pin(self.handle.readers.run(read))
    }

    fn snapshot<'a>(&'a self, key: &'a SnapshotKey) -> BoxFuture<'a, Result<Option<Snapshot>, StoreError>> {
        let key = key.clone();
        Box::pin(self.handle.readers.run(move |connection| {
            snapshot::read(connection, &key).map_err(read_failed("read of a snapshot"))
        }))
    }

    fn save_snapshot(&self, snapshot: Snapshot) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            snapshot.check_bounds()?;
            self.handle.aside(move |connection| Ok(snapshot::save(connection, &snapshot)?)).await
        })
    }

    fn forget_snapshots<'a>(&'a self, name: Option<&'a str>) -> BoxFuture<'a, Result<u64, StoreError>> {
        let name = name.map(str::to_owned);
        Box::pin(self.handle.aside(move |connection| Ok(snapshot::forget(connection, name.as_deref())?)))
    }

    fn snapshots(&self) -> BoxFuture<'_, Result<Vec<SnapshotGroup>, StoreError>> {
        let read =
            |connection: &mut _| snapshot::groups(connection).map_err(read_failed("read of snapshots"));
        Box::pin(self.handle.readers.run(read))
    }

    fn state<'a>(
        &'a self,
        tenant: Option<&'a str>,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<BTreeMap<String, Versioned>, StoreError>> {
        let (tenant, keys, now) = (codec::tenant_key(tenant).into_owned(), keys.to_vec(), self.now());
        Box::pin(self.handle.readers.run(move |connection| {
            state::read(connection, &tenant, &keys, now).map_err(read_failed("read of state"))
        }))
    }

    fn reply<'a>(
        &'a self,
        tenant: Option<&'a str>,
        key: &'a ReplyKey,
    ) -> BoxFuture<'a, Result<Option<StoredReply>, StoreError>> {
        let (tenant, key, now) = (codec::tenant_key(tenant).into_owned(), key.clone(), self.now());
        Box::pin(self.handle.readers.run(move |connection| {
            receipts::reply(connection, &tenant, &key, now).map_err(read_failed("read of a reply"))
        }))
    }

    fn subscription<'a>(
        &'a self,
        id: &'a SubscriptionId,
    ) -> BoxFuture<'a, Result<Option<SubscriptionRecord>, StoreError>> {
        let id = id.clone();
        Box::pin(self.handle.readers.run(move |connection| {
            let failed = "read of a subscription";
            let transaction = connection.transaction().map_err(read_failed(failed))?;
            progress::record(&transaction, &id).map_err(read_failed(failed))
        }))
    }

    fn subscriptions(&self) -> BoxFuture<'_, Result<Vec<SubscriptionId>, StoreError>> {
        let now = self.now();
        Box::pin(self.handle.readers.run(move |connection| {
            progress::subscriptions(connection, now).map_err(read_failed("read of the subscriptions"))
        }))
    }

    fn is_consumed<'a>(
        &'a self,
        subscription: &'a SubscriptionId,
        message: &'a Id,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let (subscription, message, now) = (subscription.clone(), message.clone(), self.now());
        Box::pin(self.handle.readers.run(move |connection| {
            receipts::is_consumed(connection, &subscription, &message, now)
                .map_err(read_failed("read of a handled message"))
        }))
    }

    fn dead_letters<'a>(
        &'a self,
        subscription: Option<&'a SubscriptionId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<DeadLetter>, StoreError>> {
        let subscription = subscription.cloned();
        let limit = limit.min(PAGE_MAX);
        Box::pin(self.handle.readers.run(move |connection| {
            dead_letter::read(connection, subscription.as_ref(), limit)
                .map_err(read_failed("read of dead letters"))
        }))
    }

    fn dead_letter_count<'a>(
        &'a self,
        subscription: Option<&'a SubscriptionId>,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(self.count_dead_letters(subscription))
    }

    fn poisoned(&self) -> Option<String> {
        self.handle.shared.poison.get().cloned()
    }

    fn attention(&self) -> Option<String> {
        self.handle.shared.time.fault()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async {
            self.handle.begin_close();
            // The sender lives as long as this handle, so the wait ends with the writer's word.
            let _ = self.handle.shared.ended.subscribe().wait_for(|has_ended| *has_ended).await;
            Ok(())
        })
    }
}

impl SqliteStore {
    fn now(&self) -> i64 {
        self.handle.shared.time.now()
    }
}
