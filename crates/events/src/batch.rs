//! What is committed together.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use purista_core::bounds::{BoundError, PRINCIPAL_BYTES_MAX, SCOPE_BYTES_MAX, TENANT_BYTES_MAX};
use purista_core::encoding;
use purista_core::event::TAGS_MAX;
use purista_core::id::Id;
use purista_core::payload::{EVENT_BYTES_MAX, PAYLOAD_BYTES_MAX};
use purista_core::store::{KEY_BYTES_MAX, STATE_BYTES_MAX, STORED_KEY_BYTES_MAX, StateChange};
use tokio::time::Instant;

use crate::error::{StoreError, StoreErrorKind};
use crate::fingerprint::Fingerprint;
use crate::position::{Position, ReadToken};
use crate::query::Query;
use crate::recorded::NewEvent;
use crate::subscriptions::{
    DeadLetter, DeadLetterSource, HISTORY_MAX, Parked, ParkedChange, Pause, ProgressChange, SubscriptionId,
};

/// The most events of one batch.
pub const EVENTS_MAX: usize = 1_000;

/// The largest reply that is kept under a key, in bytes: what a message may carry.
pub const REPLY_BYTES_MAX: usize = PAYLOAD_BYTES_MAX;

/// The most bytes of event bodies in one batch.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One unit of work: all of it is committed, or nothing.
///
/// All conditions are checked against the log as it stood before the batch. Committing a batch with the same id again
/// returns the first receipt, for [`RECEIPTS_KEPT_DAYS`]: so a lost answer is settled by asking again.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Names the batch.
    pub id: Id,
    /// Whose events, state and reply these are.
    pub tenant: Option<Arc<str>>,
    /// Events, each group under its condition.
    pub appends: Vec<Append>,
    /// Changes of state.
    pub state: Vec<StateChange>,
    /// The reply to the command, when its caller gave a key.
    pub reply: Option<StoredReply>,
    /// A message of a bridge that was handled for a subscription: a second one of its id is refused as already done.
    pub consumed: Option<(SubscriptionId, Id)>,
    /// Progress of durable subscriptions.
    pub progress: Vec<ProgressChange>,
    /// What waits for another attempt.
    pub parked: Vec<ParkedChange>,
    /// Subscriptions that stop (`Some`) or go on (`None`).
    pub pauses: Vec<(SubscriptionId, Option<Pause>)>,
    /// What is given up.
    pub dead_letters: Vec<DeadLetter>,
    /// Dead letters that go, by their ids: each must be there, so of two who take one up, one does it.
    pub forgotten_dead_letters: Vec<Id>,
    /// A batch whose deadline passed before its write began is refused; after that the commit wins.
    pub deadline: Option<Instant>,
}

/// How long a store knows the ids of batches, the replies under a key and the messages that were handled.
pub const RECEIPTS_KEPT_DAYS: i64 = 7;

impl Batch {
    /// An empty batch.
    pub fn new(id: Id, tenant: Option<Arc<str>>) -> Self {
        Self {
            id,
            tenant,
            appends: Vec::new(),
            state: Vec::new(),
            reply: None,
            consumed: None,
            progress: Vec::new(),
            parked: Vec::new(),
            pauses: Vec::new(),
            dead_letters: Vec::new(),
            forgotten_dead_letters: Vec::new(),
            deadline: None,
        }
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.appends.iter().all(|append| append.events.is_empty() && append.condition == Condition::Always)
            && self.state.is_empty()
            && self.reply.is_none()
            && self.consumed.is_none()
            && self.progress.is_empty()
            && self.parked.is_empty()
            && self.pauses.is_empty()
            && self.dead_letters.is_empty()
            && self.forgotten_dead_letters.is_empty()
    }

    /// Tries a dead letter again, from its first attempt on: in one commit it goes, and its event is parked. `key` is the
    /// [`crate::recorded::Recorded::order_key`] of that event. For a message of a bridge it goes, and nothing more: whoever
    /// commits this delivers it again, under its id.
    pub fn trying_again(id: Id, letter: &DeadLetter, key: Option<String>) -> Self {
        let mut batch = Self::new(id, None);
        batch.forgotten_dead_letters.push(letter.id.clone());
        if let DeadLetterSource::Event(position) = letter.source {
            batch.parked.push(ParkedChange::Keep(Parked {
                subscription: letter.subscription.clone(),
                position,
                attempts: 0,
                key,
                due: None,
                history: letter.history.clone(),
            }));
        }
        batch
    }

    /// Refuses what is larger than its bound, as [`StoreErrorKind::Invalid`]; every engine asks it before it writes.
    pub fn check_bounds(&self) -> Result<(), StoreError> {
        let events = || self.appends.iter().flat_map(|append| &append.events);
        let parked = self.parked.iter().filter_map(|change| match change {
            ParkedChange::Keep(parked) => Some(parked.history.len()),
            ParkedChange::Forget(..) => None,
        });
        let histories = parked.chain(self.dead_letters.iter().map(|letter| letter.history.len()));
        let keys = self.state.iter().map(|change| change.key.as_str());
        at_most(events().count(), EVENTS_MAX, "events of a batch")?;
        at_most(events().map(|event| event.body.len()).sum(), BATCH_BYTES_MAX, "bytes of a batch's events")?;
        let tenant = self.tenant.iter().map(|tenant| ("tenant", tenant, TENANT_BYTES_MAX));
        let principals = events().filter_map(|event| event.cause.principal_id.as_ref());
        let principals = principals.map(|principal| ("principal", principal, PRINCIPAL_BYTES_MAX));
        let scope = self.reply.iter().map(|reply| ("principal", &reply.key.scope, SCOPE_BYTES_MAX));
        let mut names = tenant.chain(principals).chain(scope);
        names.try_for_each(|(field, text, bound)| BoundError::check(field, text, bound)).map_err(too_long)?;
        for event in events() {
            at_most(event.body.len(), EVENT_BYTES_MAX, "bytes of an event")?;
            at_most(event.tags.len(), TAGS_MAX, "tags of an event")?;
            BoundError::check_tags(&event.tags).map_err(too_long)?;
        }
        for change in &self.state {
            let Some(value) = &change.value else { continue };
            if let Err(error) = encoding::check_size(value, STATE_BYTES_MAX) {
                let what =
                    format!("the state `{}` is no value of at most {STATE_BYTES_MAX} bytes", change.key);
                return Err(StoreError::new(StoreErrorKind::Invalid, what).with_source(error));
            }
        }
        let body = self.reply.as_ref().and_then(|reply| reply.body.as_ref());
        at_most(body.map_or(0, Bytes::len), REPLY_BYTES_MAX, "bytes of a reply")?;
        let keys = keys.map(|key| ("state key", key, STORED_KEY_BYTES_MAX));
        let reply = self.reply.iter().map(|reply| ("idempotency key", &*reply.key.key, KEY_BYTES_MAX));
        for (field, key, bytes_max) in keys.chain(reply) {
            BoundError::check(field, key, bytes_max).map_err(too_long)?;
            if key.is_empty() {
                return Err(StoreError::new(StoreErrorKind::Invalid, "a key is empty"));
            }
        }
        histories.into_iter().try_for_each(|failures| at_most(failures, HISTORY_MAX, "failures of a message"))
    }
}

fn too_long(bound: BoundError) -> StoreError {
    StoreError::new(StoreErrorKind::Invalid, bound.to_string()).with_source(bound)
}

fn at_most(count: usize, bound: usize, what: &str) -> Result<(), StoreError> {
    if count <= bound {
        return Ok(());
    }
    Err(StoreError::new(StoreErrorKind::Invalid, format!("{count} {what} are more than {bound}")))
}

/// Events under one condition. Without events the condition alone guards the batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Append {
    /// The events, in order.
    pub events: Vec<NewEvent>,
    /// What must be so.
    pub condition: Condition,
}

/// What must be so in the log for events to be appended.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Condition {
    /// Nothing.
    Always,
    /// The stream of this tag has exactly this many events, in the batch's tenant.
    Stream {
        /// Name of the tag.
        name: String,
        /// Value of the tag.
        value: String,
        /// How many events it has; 0 is a stream that does not exist.
        version: u64,
    },
    /// Nothing that the query selects was recorded since it was read.
    Unless(Query, ReadToken),
}

/// Under which a command is asked again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplyKey {
    /// Who asked what: principal and command address. The tenant is the batch's.
    pub scope: Arc<str>,
    /// What the caller gave.
    pub key: Arc<str>,
}

/// The reply to a command, kept under the key that its caller gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReply {
    /// Under which it is found.
    pub key: ReplyKey,
    /// Of the input that it answers.
    pub fingerprint: Fingerprint,
    /// The output as JSON; `None` is an absent payload.
    pub body: Option<Bytes>,
    /// The event that the reply is marked with, and whether that event was recorded.
    pub event_name: Option<Arc<str>>,
}

/// What a commit returns: it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The batch.
    pub id: Id,
    /// The last position that it took; without events, the head at its commit.
    pub position: Position,
    /// The positions of its events, in order.
    pub positions: Vec<Position>,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// The new versions of its state keys, in order; 0 for a removal.
    pub state_versions: Vec<u64>,
    /// Whether an earlier commit of the same id did it.
    pub is_repeated: bool,
}
