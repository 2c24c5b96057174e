//! The commit of a unit of work: all of it together where there is a store, one after another where there is none.

use std::fmt;
use std::sync::Arc;

use purista_core::bounds::BoundError;
use purista_core::bridge::BridgeError;
use purista_core::error::chain;
use purista_core::id::Id;
use purista_core::message::Message;
use purista_core::span;
use purista_core::store::{KeyValueError, KeyValueErrorKind};
use purista_events::batch::{Append, Batch, Condition, StoredReply};
use purista_events::lost_answer::commit_until_known;
use purista_events::recorded::NewEvent;
use purista_events::store::{EventStore, StoreError, StoreErrorKind};
use purista_events::subscriptions::{ParkedChange, ProgressChange, SubscriptionId};
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::runtime::Runtime;
use crate::state::{StateBackend, changes_of_state};
use crate::unit_of_work::{Changes, Guarded};

/// What is committed with a unit beside its own changes.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    pub(crate) reply: Option<StoredReply>,
    pub(crate) consumed: Option<(SubscriptionId, Id)>,
    pub(crate) progress: Vec<ProgressChange>,
    pub(crate) parked: Vec<ParkedChange>,
    pub(crate) deadline: Option<Instant>,
}

/// Why a unit was not committed.
#[derive(Debug)]
pub(crate) enum CommitError {
    /// Somebody else changed what was read; nothing of it was written.
    LostRace(String),
    /// Another reply is kept under the key; nothing of it was written.
    KeyTaken,
    /// It was handled before; nothing of it was written.
    AlreadyDone,
    /// Nothing of it was written, and it never will be.
    Rejected(String),
    /// A name or key is too long; nothing of it was written.
    TooLong(BoundError),
    /// Some of it may have been written.
    Unknown(String),
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LostRace(what) => write!(f, "somebody else was faster: {what}"),
            Self::KeyTaken => f.write_str("another reply is kept under this idempotency key"),
            Self::AlreadyDone => f.write_str("it was handled before"),
            Self::Rejected(what) => write!(f, "the unit of work was refused: {what}"),
            Self::TooLong(bound) => write!(f, "the unit of work was refused: {bound}"),
            Self::Unknown(what) => write!(f, "the unit of work may have been committed: {what}"),
        }
    }
}

impl std::error::Error for CommitError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::TooLong(bound) => Some(bound),
            _ => None,
        }
    }
}

impl From<StoreError> for CommitError {
    fn from(error: StoreError) -> Self {
        let what = chain(&error);
        match error.kind() {
            StoreErrorKind::Conflict | StoreErrorKind::StateConflict => Self::LostRace(what),
            StoreErrorKind::KeyTaken => Self::KeyTaken,
            StoreErrorKind::AlreadyDone => Self::AlreadyDone,
            StoreErrorKind::Unknown => Self::Unknown(what),
            StoreErrorKind::Invalid => {
                error.into_source::<BoundError>().map_or(Self::Rejected(what), Self::TooLong)
            }
            _ => Self::Rejected(what),
        }
    }
}

/// Commits what a handler wants, and publishes afterwards what is not recorded.
pub(crate) async fn commit(
    runtime: &Runtime,
    message: &Message,
    changes: Option<Box<Changes>>,
    beside: Beside,
) -> Result<(), CommitError> {
    let mut changes = changes.map(|changes| *changes).unwrap_or_default();
    let published = std::mem::take(&mut changes.published);
    let state = if changes.state.is_empty() {
        Vec::new()
    } else {
        let tenant = message.tenant_id.as_deref();
        let state = changes_of_state(&runtime.state, tenant, &mut changes).await;
        state.map_err(|error| CommitError::Rejected(chain(&error)))?
    };
    match &runtime.store {
        Some(store) => {
            let mut batch = Batch::new(runtime.clock.id(), message.tenant_id.clone());
            batch.appends = appends(changes.recorded, changes.guarded);
            batch.state = state;
            batch.reply = beside.reply;
            batch.consumed = beside.consumed;
            batch.progress = beside.progress;
            batch.parked = beside.parked;
            batch.deadline = beside.deadline;
            if !batch.is_empty() {
                let span = commit_span(&batch, message);
                let committed = settled(store, batch).instrument(span.clone()).await;
                committed.inspect_err(|error| span::failed(&span, kind_of(error.kind())))?;
            }
        }
        None => write_state(runtime, message, state.into_iter()).await?,
    }
    for event in published {
        span::publish(&*runtime.bridge, event)
            .await
            .map_err(|error: BridgeError| CommitError::Unknown(chain(&error)))?;
    }
    Ok(())
}

fn commit_span(batch: &Batch, message: &Message) -> Span {
    if !span::is_on() {
        return Span::none();
    }
    let events: usize = batch.appends.iter().map(|append| append.events.len()).sum();
    tracing::info_span!(
        "purista.eventStore.commit",
        otel.kind = "internal",
        otel.status_code = Empty,
        error.type = Empty,
        purista.traceId = %message.trace_id,
        purista.store.events = i64::try_from(events).unwrap_or(i64::MAX),
        purista.store.states = i64::try_from(batch.state.len()).unwrap_or(i64::MAX),
    )
}

fn kind_of(kind: StoreErrorKind) -> &'static str {
    match kind {
        StoreErrorKind::Conflict | StoreErrorKind::StateConflict => "conflict",
        StoreErrorKind::KeyTaken => "key_taken",
        StoreErrorKind::AlreadyDone => "already_done",
        StoreErrorKind::Unknown => "unknown",
        _ => "rejected",
    }
}

/// The events under the first condition; the others guard the batch by themselves.
fn appends(events: Vec<NewEvent>, guarded: Option<Box<Guarded>>) -> Vec<Append> {
    let conditions = guarded.map(|guarded| guarded.conditions).unwrap_or_default();
    if events.is_empty() && conditions.is_empty() {
        return Vec::new();
    }
    let mut conditions = conditions.into_iter();
    let first = Append { events, condition: conditions.next().unwrap_or(Condition::Always) };
    let others = conditions.map(|condition| Append { events: Vec::new(), condition });
    std::iter::once(first).chain(others).collect()
}

/// Commits a batch; when the answer is lost, commits it again under the same id.
pub(crate) async fn settled(store: &Arc<dyn EventStore>, batch: Batch) -> Result<(), StoreError> {
    commit_until_known(batch, |batch| store.commit(batch)).await.map(drop)
}

async fn write_state(
    runtime: &Runtime,
    message: &Message,
    changes: impl Iterator<Item = purista_core::store::StateChange>,
) -> Result<(), CommitError> {
    let StateBackend::Apart(store) = &runtime.state else { return Ok(()) };
    for (written, change) in changes.enumerate() {
        store.change(message.tenant_id.as_deref(), change).await.map_err(
            |error: KeyValueError| match error.kind() {
                // Without a store that commits together, a failure half-way leaves the first half.
                _ if written > 0 => CommitError::Unknown(chain(&error)),
                KeyValueErrorKind::Conflict => CommitError::LostRace(chain(&error)),
                KeyValueErrorKind::Unknown => CommitError::Unknown(chain(&error)),
                _ => CommitError::Rejected(chain(&error)),
            },
        )?;
    }
    Ok(())
}
