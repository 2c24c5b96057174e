//! What a store keeps beside its events, row by row: so that another engine can take a whole log over.
//!
//! Rows of projections' tables are not among it: they are their handlers' own, in the SQL of one engine.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use purista_core::id::Id;

use crate::batch::{Receipt, StoredReply};
use crate::snapshot::Snapshot;
use crate::subscriptions::{DeadLetter, SubscriptionId, SubscriptionRecord};

/// The most rows that are handed on together.
pub const ROWS_MAX: usize = 500;

/// One row.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Kept {
    /// A key of state, also one that was removed and whose version is remembered.
    State(StateRow),
    /// The highest version of any key of state that is remembered no more.
    StateVersionsForgotten(u64),
    /// The reply to a command under its caller's key.
    Reply {
        /// Whose.
        tenant: Option<Arc<str>>,
        /// The reply.
        reply: StoredReply,
        /// Since when it is kept.
        recorded_at: Timestamp,
    },
    /// The receipt of a batch.
    Receipt(Receipt),
    /// A message of a bridge that was handled.
    Consumed {
        /// For whom.
        subscription: SubscriptionId,
        /// Which.
        message: Id,
        /// When.
        recorded_at: Timestamp,
    },
    /// A durable subscription, or the checkpoint of a projection into another place: how far it is, and what waits.
    Subscription(SubscriptionId, SubscriptionRecord),
    /// What was given up, oldest first.
    DeadLetter(DeadLetter),
    /// A folded state, so that no fold begins anew.
    Snapshot(Snapshot),
}

/// A key of state as it lies in its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRow {
    /// Whose.
    pub tenant: Option<Arc<str>>,
    /// The key.
    pub key: String,
    /// Its value, JSON; `None` where it was removed.
    pub value: Option<String>,
    /// The version of the value, or of the last one.
    pub version: u64,
    /// From when on it counts as absent.
    pub expires_at: Option<Timestamp>,
}

/// What a row is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// State of services.
    State,
    /// Replies under keys.
    Replies,
    /// Receipts of batches.
    Receipts,
    /// Handled messages of bridges.
    Messages,
    /// Durable subscriptions.
    Subscriptions,
    /// Dead letters.
    DeadLetters,
    /// Snapshots.
    Snapshots,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::State,
        Self::Replies,
        Self::Receipts,
        Self::Messages,
        Self::Subscriptions,
        Self::DeadLetters,
        Self::Snapshots,
    ];
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::State => "state",
            Self::Replies => "replies",
            Self::Receipts => "receipts",
            Self::Messages => "messages",
            Self::Subscriptions => "subscriptions",
            Self::DeadLetters => "dead letters",
            Self::Snapshots => "snapshots",
        })
    }
}

impl Kept {
    /// What it is of.
    pub fn part(&self) -> Part {
        match self {
            Self::State(_) | Self::StateVersionsForgotten(_) => Part::State,
            Self::Reply { .. } => Part::Replies,
            Self::Receipt(_) => Part::Receipts,
            Self::Consumed { .. } => Part::Messages,
            Self::Subscription(..) => Part::Subscriptions,
            Self::DeadLetter(_) => Part::DeadLetters,
            Self::Snapshot(_) => Part::Snapshots,
        }
    }
}
