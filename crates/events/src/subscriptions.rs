//! What a store keeps for durable subscriptions: how far they are, what waits for another attempt, what was given up.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use purista_core::address::Address;
use purista_core::id::Id;

use crate::position::Position;

/// Under which the relay keeps its place, beside the subscriptions.
pub const RELAY: &str = "purista.relay";

/// Names a durable subscription: service, version and the subscription's name. A renamed one is a new one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionId(Arc<str>);

impl SubscriptionId {
    /// The name of the subscription at this address, as `Email.1.sendWelcomeEmail`.
    pub fn of(address: &Address) -> Self {
        Self(address.to_string().into())
    }

    /// A name as a store keeps it.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far a subscription is: everything up to `low` is finished, and beyond it what is in `done`. Parked counts as
/// finished, since it is kept on its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// Everything up to here is finished.
    pub low: Position,
    /// What is finished beyond it.
    pub done: BTreeSet<Position>,
}

impl Progress {
    /// Whether this position is finished.
    pub fn is_finished(&self, position: Position) -> bool {
        position <= self.low || self.done.contains(&position)
    }
}

/// A change of progress. Changes commute, so that handlers that end at the same time need not wait for one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgressChange {
    /// Whose.
    pub subscription: SubscriptionId,
    /// Everything up to here is finished; a store never goes back.
    pub up_to: Option<Position>,
    /// This position is finished. A batch that finishes what is finished already is refused as
    /// [`crate::store::StoreErrorKind::AlreadyDone`], so an effect in the store happens once.
    pub done: Option<Position>,
}

/// An event that waits for another attempt, or for the one before it with the same key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// Whose.
    pub subscription: SubscriptionId,
    /// Which event.
    pub position: Position,
    /// How often it was tried.
    pub attempts: u32,
    /// Its order key; events of one key go one after another.
    pub key: Option<String>,
    /// When it is tried again; `None` waits for the one before it.
    pub due: Option<Timestamp>,
    /// What went wrong, newest last, at most [`HISTORY_MAX`].
    pub history: Vec<Failure>,
}

/// The most failures that are kept for one message.
pub const HISTORY_MAX: usize = 20;

/// One failed attempt.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    /// When.
    pub at: Timestamp,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Why, as the log has it.
    pub reason: String,
}

/// A change of what is parked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParkedChange {
    /// Keeps it, in place of what was kept for its subscription and position.
    Keep(Parked),
    /// Forgets it: it was handled, or became a dead letter.
    Forget(SubscriptionId, Position),
}

/// A subscription that somebody or something stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub reason: String,
}

/// What a dead letter was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadLetterSource {
    /// An event of this store's log: its place, so that it is read with today's upcasters when it is tried again.
    Event(Position),
    /// A message of a bridge, as it came.
    Message(Bytes),
}

/// A message that was given up, with the reason and what was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Names it.
    pub id: Id,
    /// Whose.
    pub subscription: SubscriptionId,
    /// What it was.
    pub source: DeadLetterSource,
    /// Since when.
    pub at: Timestamp,
    /// Why it was given up.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// The flow that it belongs to.
    pub trace_id: Id,
    /// What went wrong, newest last, at most [`HISTORY_MAX`].
    pub history: Vec<Failure>,
}

/// Everything that a store keeps for one durable subscription.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubscriptionRecord {
    /// How far it is.
    pub progress: Progress,
    /// What waits, by position.
    pub parked: Vec<Parked>,
    /// Whether it is stopped.
    pub pause: Option<Pause>,
}
