//! What the handles of a store and its writer share: the batches that wait, and what became of the store.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use purista_core::clock::Clock;
use purista_events::batch::{Batch, Receipt};
use purista_events::log_time::LogTime;
use purista_events::position::Position;
use purista_events::store::{StoreError, StoreErrorKind};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use crate::aside::Aside;
use crate::busy::Busy;
use crate::codec;
use crate::file::Known;
use crate::statistics::Counters;

/// The most batches that wait to be written. Each takes at least one unit of the queue.
pub const QUEUE_MAX: usize = 1_024;

/// How long a batch without a deadline waits for room in the queue.
pub const QUEUE_WAIT: Duration = Duration::from_secs(30);

/// How many bytes one unit of the queue holds, so that all waiting batches together hold at most 64 MiB.
const UNIT_BYTES: usize = 64 * 1024;

pub(crate) type Answer = Result<Receipt, StoreError>;

/// A batch that waits to be written.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) batch: Batch,
    /// See [`crate::state::texts`].
    pub(crate) state_texts: Vec<Option<String>>,
    pub(crate) answer: oneshot::Sender<Answer>,
    pub(crate) queued_at: std::time::Instant,
    /// Its room in the queue, given back when it is answered.
    pub(crate) _room: OwnedSemaphorePermit,
}

pub(crate) enum Order {
    Commit(Box<Job>),
    Aside(Box<dyn Aside>),
    /// Write what came before, then let go of the file.
    Close,
}

/// What the writer tells the handles of the store.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) head: watch::Sender<Position>,
    pub(crate) poison: OnceLock<String>,
    pub(crate) ended: watch::Sender<bool>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) time: LogTime,
    pub(crate) busy: Busy,
}

impl Shared {
    pub(crate) fn new(known: &Known, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            head: watch::Sender::new(codec::position(known.head)),
            poison: OnceLock::new(),
            ended: watch::Sender::new(false),
            counters: Arc::default(),
            time: LogTime::new(clock, known.latest),
            busy: Busy::default(),
        })
    }

    pub(crate) fn poisoned_error(&self) -> Option<StoreError> {
        let reason = self.poison.get()?;
        let what = format!("the store takes no commits since a write failed: {reason}");
        Some(StoreError::new(StoreErrorKind::Closed, what))
    }
}

/// How the writer groups and checkpoints.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The most batches of one group.
    pub(crate) group_max: usize,
    /// From how many pages on the write-ahead log is copied into the file.
    pub(crate) checkpoint_pages: u64,
    /// How long a statement waits for another program that holds the file.
    pub(crate) busy_timeout: Duration,
}

/// How much of the queue a batch takes.
pub(crate) fn units(batch: &Batch, state_texts: &[Option<String>]) -> u32 {
    let state = state_texts.iter().flatten().map(String::len);
    let events = batch.appends.iter().flat_map(|append| &append.events).map(|event| event.body.len());
    let reply = batch.reply.iter().filter_map(|reply| reply.body.as_ref()).map(bytes::Bytes::len);
    let bytes: usize = events.chain(reply).chain(state).sum();
    u32::try_from((1 + bytes / UNIT_BYTES).min(QUEUE_MAX)).unwrap_or(1)
}
