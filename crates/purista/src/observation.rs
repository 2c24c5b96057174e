//! What a handler did, as tests see it.

use bytes::Bytes;
use purista_core::address::Address;
use purista_core::id::Id;

/// How a delivery ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// It did its work.
    Done,
    /// It refused on purpose, with this status and text: final.
    Refused(u16, String),
    /// A command failed, for this reason.
    Failed(String),
    /// A subscription failed and is tried again.
    Retried(String),
    /// It became a dead letter.
    DeadLettered(String),
    /// It was given up.
    Dropped(String),
    /// Its subscription was stopped.
    Paused(String),
}

/// One delivery to one handler: what it saw, what it did, how it was settled.
#[derive(Debug, Clone)]
pub struct Observation {
    /// Which command or subscription.
    pub handler: Address,
    /// Which message.
    pub message_id: Id,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// What it saw, as JSON.
    pub input: Bytes,
    /// The events that left with it, name and JSON, in order.
    pub emitted: Vec<(String, Bytes)>,
    /// The commands that it called, in order.
    pub invoked: Vec<Address>,
    /// How it was settled.
    pub ending: Ending,
}

/// Is told of every delivery once it is settled.
pub(crate) trait Observer: Send + Sync {
    fn settled(&self, observation: Observation);
}
