//! The contract of a log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use purista_core::id::Id;
use purista_core::lag::Holder;
use purista_core::store::Versioned;

use crate::batch::{Batch, Receipt, ReplyKey, StoredReply};
use crate::form::{Counted, Form};
use crate::head::HeadWatch;
use crate::lease::Lease;
use crate::occurrence::{OccurrencePage, Occurrences};
use crate::position::Position;
use crate::query::Query;
use crate::recorded::Recorded;
use crate::snapshot::{Snapshot, SnapshotGroup, SnapshotKey, Snapshots};
use crate::subscriptions::{DeadLetter, SubscriptionId, SubscriptionRecord};
use crate::view_read::ViewRead;

pub use crate::error::{StoreError, StoreErrorKind};

/// The most events that one read returns.
pub const PAGE_MAX: usize = 1_000;

/// Keeps events, and beside them in the same commit: state, replies, progress, parked and dead letters.
///
/// Duties, each tested by name in `purista-conformance`:
///
/// * A commit is all or nothing, and durable before it returns `Ok`. Of many at the same time, each has its own end.
/// * Conditions hold against the log as it stood before the batch.
/// * Positions grow in commit order, with gaps where the engine needs them; who follows and has seen position p never later
///   finds an event at or below p. Recorded times never run backwards.
/// * Versions of a stream are gapless from 1, per tenant.
/// * Tenants see nothing of each other in streams, tags, state and keys.
/// * The same batch id again returns the first receipt; a key holds one reply.
/// * Readers see only what would survive a crash now.
///
/// No method is cancel safe in the sense that dropping its future undoes it: a dropped commit may have happened.
pub trait EventStore: Send + Sync + 'static {
    /// Names this log among others, for ever: it travels as `origin` with each relayed event.
    fn origin(&self) -> Arc<str>;

    /// Commits a batch, all or nothing.
    ///
    /// The checks come in this order, and the first that fails says why; nothing is written then.
    ///
    /// 1. The id was committed before: its first receipt is the answer, whatever has become of the rest since.
    /// 2. Bounds, see [`Batch::check_bounds`]: `Invalid`. An engine may look at them earlier, since no batch beyond them
    ///    was ever committed.
    /// 3. The deadline: `DeadlinePassed`.
    /// 4. What was consumed or finished before: `AlreadyDone`, against the progress as it stood before the batch, and each
    ///    position once in it; and dead letters that it forgets and that are not there, each once in it. It comes before the
    ///    conditions, because what is done needs no second decision.
    /// 5. The key of the reply: `KeyTaken`. It comes before the conditions, so that the loser of a race with its own key
    ///    learns of it.
    /// 6. Conditions, all of them against the log as it stood before the batch: `Conflict`.
    /// 7. State, change after change, each against what those before it leave: `StateConflict`.
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Receipt, StoreError>>;

    /// Everything that the query selects strictly after a position, seen at one moment, for a decision; and the token by
    /// which the decision says "unless something was added". Its first page is read when this returns.
    fn read_view<'a>(
        &'a self,
        query: &'a Query,
        after: Position,
    ) -> BoxFuture<'a, Result<ViewRead, StoreError>>;

    /// What [`EventStore::read_view`] gives, with a lower bound for each item of the query: an event is read when an item
    /// selects it and it lies strictly after the position of the same index. An item without a position is read from the start.
    ///
    /// The default implementation reads after the lowest position and drops what lies below the bound of its items. An engine
    /// with an index overrides it, so that a view with a snapshot does not pay for a view without one.
    fn read_view_after_each<'a>(
        &'a self,
        query: &'a Query,
        after: &'a [Position],
    ) -> BoxFuture<'a, Result<ViewRead, StoreError>> {
        Box::pin(async move {
            let view = self.read_view(query, query.lowest(after)).await?;
            let (query, after) = (query.clone(), after.to_vec());
            Ok(view.retain(move |event| query.selects_after(event, &after)))
        })
    }

    /// The snapshots of these keys, one for each item of the query, and everything that each item selects behind its own
    /// snapshot, as of one moment: what [`EventStore::snapshot`] and [`EventStore::read_view_after_each`] give. An item without
    /// a key or without a snapshot is read from the start. A snapshot that cannot be read counts as none.
    ///
    /// An engine that reads both in one request saves its caller a round trip.
    fn read_view_behind<'a>(
        &'a self,
        query: &'a Query,
        keys: &'a [Option<SnapshotKey>],
    ) -> BoxFuture<'a, Result<(Snapshots, ViewRead), StoreError>> {
        Box::pin(async move {
            let mut snapshots = Vec::with_capacity(keys.len());
            for key in keys {
                let Some(key) = key else {
                    snapshots.push(None);
                    continue;
                };
                snapshots.push(self.snapshot(key).await.unwrap_or_else(|error| {
                    tracing::debug!(name = %key.name, %error, "no snapshot can be read");
                    None
                }));
            }
            let view = self.read_view_after_each(query, &Snapshot::positions(&snapshots)).await?;
            Ok((snapshots, view))
        })
    }

    /// What [`EventStore::read_view_behind`] gives, or without keys [`EventStore::read_view`] after a position, reduced to the
    /// columns that a fold reads. Tags are present if `with_tags` is set.
    ///
    /// An engine that can leave out the rest saves its caller the reading of it.
    fn read_occurrences<'a>(
        &'a self,
        query: &'a Query,
        after: Position,
        keys: &'a [Option<SnapshotKey>],
        with_tags: bool,
    ) -> BoxFuture<'a, Result<(Snapshots, ViewRead<Occurrences>), StoreError>> {
        let _ = with_tags;
        Box::pin(async move {
            let (snapshots, view) = if keys.is_empty() {
                (Vec::new(), self.read_view(query, after).await?)
            } else {
                self.read_view_behind(query, keys).await?
            };
            Ok((snapshots, view.map(Occurrences::from_iter)))
        })
    }

    /// One page in either direction, at most `limit` (and [`PAGE_MAX`]) events strictly beyond `from`.
    fn read<'a>(
        &'a self,
        query: &'a Query,
        from: Position,
        direction: Direction,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Recorded>, StoreError>>;

    /// The next page after `from` of what can no longer be overtaken: for delivery and projections.
    fn follow<'a>(
        &'a self,
        query: &'a Query,
        from: Position,
        limit: usize,
    ) -> BoxFuture<'a, Result<FollowPage, StoreError>>;

    /// What [`EventStore::follow`] gives, as far as a fold needs it: without tags, and as much as one page of occurrences
    /// holds. `into` is such a page that is used up: its memory is taken for this one.
    fn follow_occurrences<'a>(
        &'a self,
        query: &'a Query,
        from: Position,
        mut into: Occurrences,
    ) -> BoxFuture<'a, Result<OccurrencePage, StoreError>> {
        Box::pin(async move {
            let FollowPage { events, looked_up_to, .. } = self.follow(query, from, PAGE_MAX).await?;
            into.clear();
            for event in &events {
                into.push_recorded(event);
            }
            Ok(OccurrencePage { events: into, looked_up_to })
        })
    }

    /// The position of the last event that can no longer be overtaken, as it grows. A receiver that missed values sees the
    /// latest. When a commit returns, it has the commit's position; an engine of which several processes write says so a
    /// little later, when those that began to write before have ended.
    fn head(&self) -> HeadWatch;

    /// The position of the last committed event, also where it can still be overtaken: at or after [`EventStore::head`], and the
    /// same in an engine with one writer. Events between the two wait for a transaction that began earlier and is still open;
    /// lag counts them. Cancel safe.
    ///
    /// # Errors
    ///
    /// Returns `ReadFailed` if the store cannot be read.
    fn last_position(&self) -> BoxFuture<'_, Result<Position, StoreError>> {
        Box::pin(async move { Ok(*self.head().borrow()) })
    }

    /// The last position that was recorded at or before this time.
    fn position_at(&self, time: Timestamp) -> BoxFuture<'_, Result<Position, StoreError>>;

    /// How many events lie behind one position and up to another, at most. `None` where positions do not tell: there
    /// [`EventStore::count`] does.
    fn between(&self, after: Position, up_to: Position) -> Option<u64> {
        Some(up_to.number().saturating_sub(after.number()))
    }

    /// When the event at this position was recorded; `None` where there is none.
    fn recorded_at(&self, position: Position) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>>;

    /// How many events the query selects after one position and up to another, counted up to `at_most`: its cost grows with
    /// that, and not with the log.
    fn count<'a>(
        &'a self,
        query: &'a Query,
        after: Position,
        up_to: Position,
        at_most: u64,
    ) -> BoxFuture<'a, Result<Counted, StoreError>>;

    /// Every form that events of this log have, in order of name and version. It is cheap, whatever the log's length.
    fn forms(&self) -> BoxFuture<'_, Result<Vec<Form>, StoreError>>;

    /// The snapshot of this key, if there is one. One that is damaged counts as none.
    fn snapshot<'a>(&'a self, key: &'a SnapshotKey) -> BoxFuture<'a, Result<Option<Snapshot>, StoreError>>;

    /// Keeps a snapshot, unless one of its key is as new or newer. It is a cache: `Ok` does not mean that it is durable.
    fn save_snapshot(&self, snapshot: Snapshot) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Forgets all snapshots of this name, or all. Returns how many there were.
    fn forget_snapshots<'a>(&'a self, name: Option<&'a str>) -> BoxFuture<'a, Result<u64, StoreError>>;

    /// Which snapshots there are, in order of name and version.
    fn snapshots(&self) -> BoxFuture<'_, Result<Vec<SnapshotGroup>, StoreError>>;

    /// Values of state with their versions; absent and expired keys are left out.
    fn state<'a>(
        &'a self,
        tenant: Option<&'a str>,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<BTreeMap<String, Versioned>, StoreError>>;

    /// The reply that was kept under a key.
    fn reply<'a>(
        &'a self,
        tenant: Option<&'a str>,
        key: &'a ReplyKey,
    ) -> BoxFuture<'a, Result<Option<StoredReply>, StoreError>>;

    /// What is kept for a subscription; `None` when it was never registered.
    fn subscription<'a>(
        &'a self,
        id: &'a SubscriptionId,
    ) -> BoxFuture<'a, Result<Option<SubscriptionRecord>, StoreError>>;

    /// The names of all subscriptions that anything is kept for.
    fn subscriptions(&self) -> BoxFuture<'_, Result<Vec<SubscriptionId>, StoreError>>;

    /// Whether a message of a bridge was handled for a subscription.
    fn is_consumed<'a>(
        &'a self,
        subscription: &'a SubscriptionId,
        message: &'a Id,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Dead letters, oldest first, of one subscription or of all; at most `limit` (and [`PAGE_MAX`]).
    fn dead_letters<'a>(
        &'a self,
        subscription: Option<&'a SubscriptionId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<DeadLetter>, StoreError>>;

    /// How many dead letters there are, of one subscription or of all. An engine that does not count them itself counts the
    /// first [`PAGE_MAX`]. Health and metrics ask it every few seconds, so it must be cheap.
    fn dead_letter_count<'a>(
        &'a self,
        subscription: Option<&'a SubscriptionId>,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            let letters = self.dead_letters(subscription, PAGE_MAX).await?;
            Ok(u64::try_from(letters.len()).unwrap_or(u64::MAX))
        })
    }

    /// Waits until the work of this name is this process's to do, see [`Lease`]. Where several processes share a store, one has it
    /// at a time; when that one ends, however it ends, another has it within seconds. Names are those of [`crate::lease`]. An engine that one process has to itself
    /// gives it at once, to whoever asks. Cancel safe.
    fn lease<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, Result<Lease, StoreError>> {
        Box::pin(std::future::ready(Ok(Lease::alone())))
    }

    /// The blocking transactions at this moment, the oldest first: they have written and are still open, in a session or prepared.
    /// An engine that one process has to itself knows none. Cancel safe.
    fn holders(&self) -> BoxFuture<'_, Result<Vec<Holder>, StoreError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// What the writer of the engine does, and how long commits wait for it: for health. An engine without a writer of its own
    /// returns the default.
    fn writer(&self) -> WriterState {
        WriterState::default()
    }

    /// Why it takes no more commits, when it does not: after a failed write only a restart helps.
    fn poisoned(&self) -> Option<String>;

    /// What needs an operator's attention while it works, when something does: what blocks the safe position, or a clock that is
    /// wrong. Health reports it as degraded.
    fn attention(&self) -> Option<String> {
        None
    }

    /// Waits until what was handed over is written, and lets go of the file or connection. Later commits are rejected.
    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// What the writer of an engine does at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WriterState {
    /// What it works on, where that is code of a user, such as `the projection names v2 #1`.
    pub busy_with: Option<String>,
    /// How long it has been at this piece of work; `None` while it waits for work.
    pub busy_for: Option<Duration>,
    /// How long the oldest commit waits, once the writer is busy for long.
    pub oldest_waits_for: Option<Duration>,
}

/// Which way a page is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From older to newer.
    Forwards,
    /// From newer to older.
    Backwards,
}

/// A page of what is followed.
#[derive(Debug, Clone, PartialEq)]
pub struct FollowPage {
    /// The events, in order.
    pub events: Vec<Recorded>,
    /// Everything up to here was looked at: the next page begins after it.
    pub looked_up_to: Position,
    /// Whether there was nothing more when the page was read.
    pub is_caught_up: bool,
}
