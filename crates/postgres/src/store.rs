//! The store: a handle that hands batches to the writers and reads to a pool of connections.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Client, Pool};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use purista_core::id::Id;
use purista_core::lag::Holder;
use purista_core::store::Versioned;
use purista_events::batch::{Batch, Receipt, ReplyKey, StoredReply};
use purista_events::form::{Counted, Form};
use purista_events::head::HeadWatch;
use purista_events::lease::Lease;
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::recorded::Recorded;
use purista_events::snapshot::{Snapshot, SnapshotGroup, SnapshotKey};
use purista_events::store::{Direction, EventStore, FollowPage, PAGE_MAX, StoreError, StoreErrorKind};
use purista_events::subscriptions::{DeadLetter, SubscriptionId, SubscriptionRecord};
use purista_events::view_read::ViewRead;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ahead::{Place, ReadAhead};
use crate::blocked::Blocked;
use crate::connect::{self, Server};
use crate::error::{closed, unconnected};
use crate::lane::Lane;
use crate::leases::Leases;
use crate::opening::{OpenSchema, Opening};
use crate::queue::{Job, Queue, units};
use crate::shared::Shared;
use crate::tail::{Page, Tail};
use crate::{ahead, fetch, horizon, pool, receipts, snapshot, state, subscriptions, upkeep};

pub use crate::queue::QUEUE_MAX;

/// How long a batch without a deadline waits for room in the queue, and a read for a connection.
pub const QUEUE_WAIT: Duration = Duration::from_secs(30);

/// A store in a schema of a Postgres database. Clones are the same store; other processes may have it open as well.
///
/// ```no_run
/// use purista_postgres::store::PostgresStore;
///
/// # async fn example() -> Result<(), purista_events::store::StoreError> {
/// let store = PostgresStore::connect("postgres://app:secret@localhost/app").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PostgresStore {
    handle: Arc<Handle>,
}

pub(crate) struct Handle {
    origin: Arc<str>,
    jobs: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
    pub(crate) pool: Pool,
    pub(crate) shared: Arc<Shared>,
    pub(crate) server: Server,
    leases: Leases,
    ahead: ReadAhead,
    tail: Tail,
    stop: CancellationToken,
    /// The lanes.
    writers: TaskTracker,
}

impl PostgresStore {
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) async fn start(opening: Opening) -> Result<Self, StoreError> {
        let OpenSchema { server, time, opened, head } = opening.open().await?;
        let Opening { group_max, writers, readers, .. } = opening;
        let (jobs, waiting) = mpsc::channel(QUEUE_MAX);
        let blocked = Blocked::new(opening.blocked_after);
        let shared = Shared::new(Queue::new(waiting, writers), time, blocked);
        shared.reached(head);
        let (stop, lanes) = (CancellationToken::new(), TaskTracker::new());
        for _ in 0..writers {
            lanes.spawn(Lane::new(server.clone(), Arc::clone(&shared), group_max).run());
        }
        let pool = pool::pool(&server, readers, QUEUE_WAIT)?;
        server.tasks.spawn(horizon::watch(server.clone(), Arc::clone(&shared), stop.clone()));
        server.tasks.spawn(upkeep::run(
            pool.clone(),
            server.schema.clone(),
            Arc::clone(&shared),
            stop.clone(),
        ));
        let room = Arc::new(Semaphore::new(QUEUE_MAX));
        let leases = Leases::new(server.clone(), stop.clone());
        let (origin, writers) = (opened.origin.into(), lanes);
        let ahead = ReadAhead::new(readers);
        let handle = Handle {
            origin,
            jobs,
            room,
            pool,
            shared,
            server,
            leases,
            ahead,
            tail: Tail::default(),
            stop,
            writers,
        };
        Ok(Self { handle: Arc::new(handle) })
    }
}

impl Handle {
    /// A connection of the pool.
    pub(crate) async fn client(&self, what: &'static str) -> Result<Client, StoreError> {
        if self.is_closed() {
            return Err(closed());
        }
        self.pool.get().await.map_err(unconnected(what))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.room.is_closed()
    }

    async fn commit(&self, batch: Batch) -> Result<Receipt, StoreError> {
        let id = batch.id.clone();
        if let Err(beyond) = batch.check_bounds() {
            // It never reaches a writer; but what was committed under its id is its answer all the same.
            let client = self.client("read of a receipt").await?;
            return receipts::receipt(&client, &id, self.shared.time.now()).await?.ok_or(beyond);
        }
        let state_texts = state::texts(&batch.state);
        let room = self.room_for(&batch, &state_texts).await?;
        let (answer, answered) = oneshot::channel();
        // There is a slot for each unit of room, so it is never full.
        self.jobs.try_send(Job { batch, state_texts, answer, _room: room }).map_err(|_| closed())?;
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
        let until = batch.deadline.unwrap_or_else(|| Instant::now() + QUEUE_WAIT);
        if let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(units) {
            return Ok(room);
        }
        match tokio::time::timeout_at(until, Arc::clone(&self.room).acquire_many_owned(units)).await {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(_)) => Err(closed()),
            Err(_) => {
                let what = format!("too much waits to be written: no room for {}", batch.id);
                Err(StoreError::new(StoreErrorKind::Overloaded, what))
            }
        }
    }

    /// The next page. Those who ask for the same near the log's end have it of one who reads it.
    async fn follow(&self, query: &Query, from: Position, limit: usize) -> Result<FollowPage, StoreError> {
        if self.is_closed() {
            return Err(closed());
        }
        if let Some(page) = self.ahead.page(query, from, limit).await {
            return Ok(page);
        }
        let head = self.head();
        // Another process may have written more than is known here. And who asks for one event asks how far the log can be
        // followed.
        if head <= from || limit <= 1 {
            return self.read_page(query, from, limit, None).await;
        }
        let mut page = self.page_up_to(query, from, limit, head).await?;
        page.is_caught_up &= page.looked_up_to >= self.head();
        Ok(page)
    }

    /// The last position that the watch knows the log can be followed up to.
    fn head(&self) -> Position {
        *self.shared.head.borrow()
    }

    async fn page_up_to(
        &self,
        query: &Query,
        from: Position,
        limit: usize,
        head: Position,
    ) -> Result<FollowPage, StoreError> {
        let slot = self.tail.slot(&Place { query: query.clone(), from, limit }, head);
        let mut known = slot.lock().await;
        match &*known {
            Page::Kept(page) => Ok(page.clone()),
            Page::Apart => {
                drop(known);
                self.read_page(query, from, limit, Some(head)).await
            }
            Page::Unread => {
                let page = self.read_page(query, from, limit, Some(head)).await;
                *known = Page::of(&page, limit);
                page
            }
        }
    }

    /// Reads the next page, up to a position or as far as the server says; when it is full, those behind it too.
    async fn read_page(
        &self,
        query: &Query,
        from: Position,
        limit: usize,
        up_to: Option<Position>,
    ) -> Result<FollowPage, StoreError> {
        let client = self.client("read of what follows").await?;
        let page = match up_to {
            Some(head) => fetch::follow_to(&client, query, from, limit, head).await?,
            None => fetch::follow(&client, query, from, limit).await?,
        };
        if limit > 0 && page.events.len() == limit {
            let place = Place { query: query.clone(), from: page.looked_up_to, limit };
            if let Some(pages) = self.ahead.reader(place.clone()) {
                let reading = ahead::read(client, place, pages);
                self.server.tasks.spawn(self.stop.clone().run_until_cancelled_owned(reading));
            }
        }
        Ok(page)
    }

    async fn close(&self) {
        self.room.close();
        self.shared.queue.close();
        self.writers.close();
        self.writers.wait().await;
        self.stop.cancel();
        self.pool.close();
        self.server.tasks.close();
        self.server.tasks.wait().await;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The lanes end after what was handed over is written.
        self.shared.queue.close();
        self.stop.cancel();
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = self.handle.head();
        let Handle { origin, server, .. } = &*self.handle;
        f.debug_struct("PostgresStore")
            .field("origin", origin)
            .field("hosts", &connect::hosts(&server.config))
            .field("schema", &server.schema)
            .field("head", &head)
            .finish()
    }
}

impl EventStore for PostgresStore {
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
        Box::pin(self.view(query, after, &[]))
    }

    fn read_view_after_each<'a>(
        &'a self,
        query: &'a Query,
        after: &'a [Position],
    ) -> BoxFuture<'a, Result<ViewRead, StoreError>> {
        let lowest = query.lowest(after);
        // One statement for all reads that have one lower bound.
        let each = if after.iter().all(|position| *position == lowest) { &[] } else { after };
        Box::pin(self.view(query, lowest, each))
    }

    fn read<'a>(
        &'a self,
        query: &'a Query,
        from: Position,
        direction: Direction,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Recorded>, StoreError>> {
        Box::pin(async move {
            let client = self.handle.client("read of a page").await?;
            fetch::page(&client, query, from, direction, limit.min(PAGE_MAX)).await
        })
    }

    fn follow<'a>(
        &'a self,
        query: &'a Query,
        from: Position,
        limit: usize,
    ) -> BoxFuture<'a, Result<FollowPage, StoreError>> {
        Box::pin(self.handle.follow(query, from, limit.min(PAGE_MAX)))
    }

    fn head(&self) -> HeadWatch {
        HeadWatch::new(self.handle.shared.head.subscribe())
    }

    fn last_position(&self) -> BoxFuture<'_, Result<Position, StoreError>> {
        Box::pin(async move {
            let client = self.handle.client("read of the last position").await?;
            Ok(fetch::last_position(&client).await?.max(self.handle.head()))
        })
    }

    fn position_at(&self, time: Timestamp) -> BoxFuture<'_, Result<Position, StoreError>> {
        Box::pin(async move {
            let client = self.handle.client("search for a time").await?;
            fetch::position_at(&client, time).await
        })
    }

    fn between(&self, after: Position, up_to: Position) -> Option<u64> {
        // A position is made of the number of a transaction, and most transactions of a database are not ours.
        (after >= up_to).then_some(0)
    }

    fn recorded_at(&self, position: Position) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>> {
        Box::pin(async move {
            let client = self.handle.client("read of a time").await?;
            fetch::recorded_at(&client, position).await
        })
    }

    fn count<'a>(
        &'a self,
        query: &'a Query,
        after: Position,
        up_to: Position,
        at_most: u64,
    ) -> BoxFuture<'a, Result<Counted, StoreError>> {
        Box::pin(async move {
            let client = self.handle.client("count of events").await?;
            fetch::count(&client, query, [after, up_to], at_most).await
        })
    }

    fn forms(&self) -> BoxFuture<'_, Result<Vec<Form>, StoreError>> {
        Box::pin(async move { fetch::forms(&self.handle.client("read of the forms").await?).await })
    }

    fn snapshot<'a>(&'a self, key: &'a SnapshotKey) -> BoxFuture<'a, Result<Option<Snapshot>, StoreError>> {
        Box::pin(async move { snapshot::read(&self.handle.client("read of a snapshot").await?, key).await })
    }

    fn save_snapshot(&self, snapshot: Snapshot) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            snapshot.check_bounds()?;
            snapshot::save(&self.handle.client("keeping a snapshot").await?, &snapshot).await
        })
    }

    fn forget_snapshots<'a>(&'a self, name: Option<&'a str>) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(
            async move { snapshot::forget(&self.handle.client("forgetting snapshots").await?, name).await },
        )
    }

    fn snapshots(&self) -> BoxFuture<'_, Result<Vec<SnapshotGroup>, StoreError>> {
        Box::pin(async move { snapshot::groups(&self.handle.client("count of snapshots").await?).await })
    }

    fn state<'a>(
        &'a self,
        tenant: Option<&'a str>,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<BTreeMap<String, Versioned>, StoreError>> {
        Box::pin(async move {
            let client = self.handle.client("read of state").await?;
            state::read(&client, tenant, keys, self.handle.shared.time.now()).await
        })
    }

    fn reply<'a>(
        &'a self,
        tenant: Option<&'a str>,
        key: &'a ReplyKey,
    ) -> BoxFuture<'a, Result<Option<StoredReply>, StoreError>> {
        Box::pin(async move {
            let client = self.handle.client("read of a reply").await?;
            receipts::reply(&client, tenant, key, self.handle.shared.time.now()).await
        })
    }

    fn subscription<'a>(
        &'a self,
        id: &'a SubscriptionId,
    ) -> BoxFuture<'a, Result<Option<SubscriptionRecord>, StoreError>> {
        Box::pin(async move {
            subscriptions::record(&self.handle.client("read of a subscription").await?, id).await
        })
    }

    fn subscriptions(&self) -> BoxFuture<'_, Result<Vec<SubscriptionId>, StoreError>> {
        Box::pin(async move {
            let client = self.handle.client("read of subscriptions").await?;
            subscriptions::names(&client, self.handle.shared.time.now()).await
        })
    }

    fn is_consumed<'a>(
        &'a self,
        subscription: &'a SubscriptionId,
        message: &'a Id,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let client = self.handle.client("read of a message").await?;
            receipts::is_consumed(&client, subscription, message, self.handle.shared.time.now()).await
        })
    }

    fn dead_letters<'a>(
        &'a self,
        subscription: Option<&'a SubscriptionId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<DeadLetter>, StoreError>> {
        Box::pin(async move {
            let client = self.handle.client("read of dead letters").await?;
            subscriptions::dead_letters(&client, subscription, limit.min(PAGE_MAX)).await
        })
    }

    fn dead_letter_count<'a>(
        &'a self,
        subscription: Option<&'a SubscriptionId>,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(self.count_dead_letters(subscription))
    }

    fn lease<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Lease, StoreError>> {
        Box::pin(self.handle.leases.take(name))
    }

    fn holders(&self) -> BoxFuture<'_, Result<Vec<Holder>, StoreError>> {
        Box::pin(Self::holders(self))
    }

    /// Never: what a connection cannot do, the next one can.
    fn poisoned(&self) -> Option<String> {
        None
    }

    fn attention(&self) -> Option<String> {
        let Shared { blocked, time, .. } = &*self.handle.shared;
        let faults: Vec<String> = blocked.report().into_iter().chain(time.fault()).collect();
        (!faults.is_empty()).then(|| faults.join("; "))
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.handle.close().await;
            Ok(())
        })
    }
}
