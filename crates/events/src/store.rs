//! The contract of a log.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use purista_core::id::Id;
use purista_core::store::Versioned;
use tokio::sync::watch;

use crate::batch::{Batch, Receipt, ReplyKey, StoredReply};
use crate::position::{Position, ReadToken};
use crate::query::Query;
use crate::recorded::Recorded;
use crate::subscriptions::{DeadLetter, SubscriptionId, SubscriptionRecord};

pub use crate::error::{StoreError, StoreErrorKind};

/// The most events that one read returns.
pub const PAGE_MAX: usize = 1_000;

/// Keeps events, and beside them in the same commit: state, replies, progress, parked and dead letters.
///
/// Duties, each tested by name in `purista-conformance`:
///
/// * A commit is all or nothing, and durable before it returns `Ok`. Of many at the same time, each has its own end.
/// * Conditions hold against the log as it stood before the batch.
/// * Positions grow in commit order; a reader that has seen position p never later finds an event at or below p. Recorded
///   times never run backwards.
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
    ///    position once in it. It comes before the conditions, because what is done needs no second decision.
    /// 5. The key of the reply: `KeyTaken`. It comes before the conditions, so that the loser of a race with its own key
    ///    learns of it.
    /// 6. Conditions, all of them against the log as it stood before the batch: `Conflict`.
    /// 7. State, change after change, each against what those before it leave: `StateConflict`.
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Receipt, StoreError>>;

    /// Everything that the query selects, seen at one moment, for a decision; and the token by which the decision says
    /// "unless something was added".
    fn read_view<'a>(
        &'a self,
        query: &'a Query,
    ) -> BoxFuture<'a, Result<(Vec<Recorded>, ReadToken), StoreError>>;

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

    /// The position of the last event, as it grows. A receiver that missed values sees the latest.
    fn head(&self) -> watch::Receiver<Position>;

    /// The last position that was recorded at or before this time.
    fn position_at(&self, time: Timestamp) -> BoxFuture<'_, Result<Position, StoreError>>;

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

    /// Why it takes no more commits, when it does not: after a failed write only a restart helps.
    fn poisoned(&self) -> Option<String>;

    /// Waits until what was handed over is written, and lets go of the file or connection. Later commits are rejected.
    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>>;
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
