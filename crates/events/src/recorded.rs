//! Events before and after they are recorded.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use purista_core::contract::ContractError;
use purista_core::event::{Event, Tags};
use purista_core::id::Id;
use purista_core::message::{Message, MessageType, Party, Record};
use purista_core::payload::Payload;
use purista_core::text::Text;
use purista_core::trace::TraceContext;

use crate::position::Position;

/// An event to be recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// Names it for ever; the id of the message that carries it.
    pub id: Id,
    /// Its type.
    pub name: Text,
    /// The version of its form.
    pub version: u32,
    /// By what it is found; the first names its stream.
    pub tags: Tags,
    /// Its content, JSON.
    pub body: Bytes,
    /// Why it happened, and on whose behalf.
    pub cause: Cause,
}

/// Why an event happened, and on whose behalf: what an audit asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Cause {
    /// The command or subscription that recorded it.
    pub sender: Party,
    /// On whose behalf.
    pub principal_id: Option<Arc<str>>,
    /// The flow.
    pub trace_id: Id,
    /// The technical trace, from which whoever hears of the event continues. Most events have none, so they lie on the heap.
    pub trace: Option<Box<TraceContext>>,
    /// The correlation of the command that caused it.
    pub correlation_id: Option<Id>,
    /// The message that caused it.
    pub causation_id: Option<Id>,
    /// How many messages led to it.
    pub hops: u8,
}

impl NewEvent {
    /// The event of a contract type. It must have been checked.
    pub fn of<E: Event>(event: &E, id: Id, cause: Cause) -> Result<Self, ContractError> {
        Ok(Self {
            id,
            name: Text::known(E::NAME),
            version: E::VERSION,
            tags: event.tags(),
            body: event.encode()?,
            cause,
        })
    }
}

/// An event that is stored, with a body as it lies in the log or decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded<E = Bytes> {
    /// Its place in the whole log.
    pub position: Position,
    /// Names it for ever.
    pub id: Id,
    /// Its type.
    pub name: Text,
    /// The version of its form.
    pub version: u32,
    /// By what it is found.
    pub tags: Tags,
    /// Its place in its stream, from 1 without gaps; `None` for an event without tags, which has no stream.
    pub stream_version: Option<u64>,
    /// When it was recorded; never before the one at the position before it.
    pub recorded_at: Timestamp,
    /// Whose it is.
    pub tenant_id: Option<Arc<str>>,
    /// Why it happened.
    pub cause: Cause,
    /// Its content.
    pub body: E,
}

impl Recorded {
    /// The key by which order is kept: the first tag. `None` has no order.
    pub fn order_key(&self) -> Option<String> {
        let (name, value) = self.tags.first()?;
        // The tenant belongs to it: two tenants' streams of one name are two streams.
        Some(format!("{}\u{0}{name}\u{0}{value}", self.tenant_id.as_deref().unwrap_or_default()))
    }

    /// The message that carries it: a `customMessage` with the event's own id, whose sender is who recorded it.
    /// `origin` names the store, so that it is known where it comes back.
    pub fn to_message(&self, origin: &Arc<str>) -> Message {
        let timestamp_ms = u64::try_from(self.recorded_at.as_millisecond()).unwrap_or(0);
        let Cause { sender, principal_id, trace_id, trace, correlation_id, causation_id, hops } =
            self.cause.clone();
        Message {
            correlation_id,
            trace: trace.map(|trace| *trace),
            principal_id,
            tenant_id: self.tenant_id.clone(),
            event_name: Some(self.name.clone()),
            payload: Payload::encoded(self.body.clone()),
            hops,
            record: Some(Box::new(Record {
                origin: Some(Arc::clone(origin)),
                causation_id,
                event_version: self.version,
            })),
            ..Message::new(self.id.clone(), MessageType::CustomMessage, timestamp_ms, sender, trace_id)
        }
    }
}
