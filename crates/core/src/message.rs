//! What travels: one message of any kind, independent of the broker that carries it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use crate::address::Address;
use crate::id::Id;
use crate::payload::Payload;
use crate::status::Status;
use crate::text::Text;
use crate::trace::TraceContext;

mod as_read;
mod codec;
mod headers;
pub use as_read::AsRead;
pub use codec::{DecodeError, EncodeError, MESSAGE_ID};

/// How many messages may cause one another before the chain is cut with 508.
pub const HOPS_MAX: u8 = 32;

/// What a message is, with PURISTA's names on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "PURISTA's names, each says what it is")]
pub enum MessageType {
    Command,
    CommandSuccessResponse,
    CommandErrorResponse,
    CustomMessage,
    InfoServiceInit,
    InfoServiceReady,
    InfoServiceNotReady,
    InfoServiceFunctionAdded,
    InfoServiceDrain,
    InfoServiceShutdown,
    InfoInvokeTimeout,
    InfoSubscriptionError,
}

impl MessageType {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::CommandSuccessResponse => "commandSuccessResponse",
            Self::CommandErrorResponse => "commandErrorResponse",
            Self::CustomMessage => "customMessage",
            Self::InfoServiceInit => "infoServiceInit",
            Self::InfoServiceReady => "infoServiceReady",
            Self::InfoServiceNotReady => "infoServiceNotReady",
            Self::InfoServiceFunctionAdded => "infoServiceFunctionAdded",
            Self::InfoServiceDrain => "infoServiceDrain",
            Self::InfoServiceShutdown => "infoServiceShutdown",
            Self::InfoInvokeTimeout => "infoInvokeTimeout",
            Self::InfoSubscriptionError => "infoSubscriptionError",
        }
    }

    /// Whether it answers a command.
    pub const fn is_response(self) -> bool {
        matches!(self, Self::CommandSuccessResponse | Self::CommandErrorResponse)
    }
}

/// One end of a message: an address, and the process that speaks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    /// Service, version and target.
    pub address: Address,
    /// The instance of the bridge, when it is known: a command names the service it wants, not the process.
    pub instance: Option<Id>,
}

impl Party {
    /// An end whose process does not matter.
    pub const fn anywhere(address: Address) -> Self {
        Self { address, instance: None }
    }
}

/// The media type and character encoding of a payload, when it is not JSON in UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The media type; the payload is then a JSON text that holds the content.
    pub media_type: Text,
    /// The character encoding.
    pub encoding: Text,
}

/// What a recorded event adds to its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The store whose log holds it.
    pub origin: Option<Arc<str>>,
    /// The message that caused it.
    pub causation_id: Option<Id>,
    /// The version of the event's form, from 1.
    pub event_version: u32,
}

/// One message. Its parts are PURISTA's; what PURISTA lacks is left out on the wire when it is absent.
#[derive(Debug, Clone)]
pub struct Message {
    /// Names this message; the id of a recorded event is the event's.
    pub id: Id,
    /// What it is.
    pub kind: MessageType,
    /// When it was made, in milliseconds since 1970.
    pub timestamp_ms: u64,
    /// Who made it.
    pub sender: Party,
    /// Whom it is for; events and infos are for whoever listens.
    pub receiver: Option<Party>,
    /// Pairs one command with its reply.
    pub correlation_id: Option<Id>,
    /// Names the flow that it belongs to, from the browser to the last event.
    pub trace_id: Id,
    /// The technical trace; where it is absent the ids stand for it, see [`Message::trace_context`].
    pub trace: Option<TraceContext>,
    /// On whose behalf.
    pub principal_id: Option<Arc<str>>,
    /// In whose part of the system.
    pub tenant_id: Option<Arc<str>>,
    /// The name under which events, and responses marked with one, are found.
    pub event_name: Option<Text>,
    /// What the payload is, when it is not JSON.
    pub content: Option<Box<Content>>,
    /// Whether an error response tells of an error made for the caller.
    pub is_handled_error: bool,
    /// The content. Of a command: the input without the fields that travel as [`Message::parameter`].
    pub payload: Payload,
    /// The fields of a command that PURISTA carries apart, as a JSON object.
    pub parameter: Option<Bytes>,
    /// Until when the answer is of use, on this machine's monotonic clock; travels as the milliseconds that are left.
    pub deadline: Option<Instant>,
    /// How many messages caused this one, one another.
    pub hops: u8,
    /// Under which the caller may ask again without its being done twice.
    pub idempotency_key: Option<Arc<str>>,
    /// What a recorded event adds.
    pub record: Option<Box<Record>>,
}

impl Message {
    /// A message with nothing but what every message has.
    pub fn new(id: Id, kind: MessageType, timestamp_ms: u64, sender: Party, trace_id: Id) -> Self {
        Self {
            id,
            kind,
            timestamp_ms,
            sender,
            receiver: None,
            correlation_id: None,
            trace_id,
            trace: None,
            principal_id: None,
            tenant_id: None,
            event_name: None,
            content: None,
            is_handled_error: false,
            payload: Payload::empty(),
            parameter: None,
            deadline: None,
            hops: 0,
            idempotency_key: None,
            record: None,
        }
    }

    /// A message caused by this one: trace, principal, tenant and hops go on.
    #[must_use]
    pub fn causes(&self, id: Id, kind: MessageType, timestamp_ms: u64, sender: Party) -> Self {
        Self {
            trace: self.trace.clone(),
            principal_id: self.principal_id.clone(),
            tenant_id: self.tenant_id.clone(),
            hops: self.hops.saturating_add(1),
            ..Self::new(id, kind, timestamp_ms, sender, self.trace_id.clone())
        }
    }

    /// A response to this command. It bears the command's id and correlation, as PURISTA's do.
    #[must_use]
    pub fn response(&self, kind: MessageType, timestamp_ms: u64, sender: Party, payload: Payload) -> Self {
        Self {
            receiver: Some(self.sender.clone()),
            correlation_id: self.correlation_id.clone(),
            trace: self.trace.clone(),
            principal_id: self.principal_id.clone(),
            tenant_id: self.tenant_id.clone(),
            hops: self.hops,
            payload,
            ..Self::new(self.id.clone(), kind, timestamp_ms, sender, self.trace_id.clone())
        }
    }

    /// Turns this command into a response to itself, as [`Message::response`] makes one, in its place: for who has no
    /// more use for the command.
    pub fn turn_into_response(
        &mut self,
        kind: MessageType,
        timestamp_ms: u64,
        sender: Party,
        payload: Payload,
    ) {
        self.kind = kind;
        self.timestamp_ms = timestamp_ms;
        self.receiver = Some(std::mem::replace(&mut self.sender, sender));
        self.payload = payload;
        self.event_name = None;
        self.content = None;
        self.is_handled_error = false;
        self.parameter = None;
        self.deadline = None;
        self.idempotency_key = None;
        self.record = None;
    }

    /// An error response to this command.
    #[must_use]
    pub fn error_response(
        &self,
        timestamp_ms: u64,
        sender: Party,
        error: &ErrorPayload,
        is_handled: bool,
    ) -> Self {
        let json = serde_json::to_vec(error)
            .unwrap_or_else(|_| br#"{"status":500,"message":"Internal Server Error"}"#.to_vec());
        let payload = Payload::encoded(json.into());
        let response = self.response(MessageType::CommandErrorResponse, timestamp_ms, sender, payload);
        Self { is_handled_error: is_handled, ..response }
    }

    /// The event's name by which the message is routed. A response whose event a log holds is not: the log delivers it.
    pub fn routed_event(&self) -> Option<&str> {
        let is_recorded = self.record.as_ref().is_some_and(|record| record.origin.is_some());
        self.event_name.as_deref().filter(|_| !(self.kind.is_response() && is_recorded))
    }

    /// The technical trace context: the one that came, else one made of the message's own ids.
    pub fn trace_context(&self) -> Option<TraceContext> {
        self.trace.clone().or_else(|| TraceContext::of_ids(&self.trace_id, &self.id))
    }
}

/// The payload of an error response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorPayload {
    /// The status; HTTP's numbers.
    pub status: Status,
    /// What the caller may read.
    pub message: String,
    /// Details that the caller may read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// The flow in which it happened: by it the log is searched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<Id>,
    /// Whether nothing that the command did was kept. Only our own error responses say so: PURISTA's commands emit at once, so
    /// a response without this key may be that of a command that has happened.
    #[serde(default, skip_serializing_if = "is_false")]
    pub nothing_kept: bool,
    /// Whether the framework raised it because of a concurrent change: the same command may succeed when it is sent again.
    #[serde(default, skip_serializing_if = "is_false")]
    pub concurrent_change: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands the field over by reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

impl ErrorPayload {
    /// An error of which nothing is known but its status and text.
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            data: None,
            trace_id: None,
            nothing_kept: false,
            concurrent_change: false,
        }
    }
}

impl fmt::Display for ErrorPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status.code(), self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Address, ServiceId};

    #[test]
    fn a_response_is_routed_by_its_event_unless_a_log_holds_it() {
        let sender = Party::anywhere(Address::of(ServiceId::new("Email", "1"), "sendMail"));
        let kind = MessageType::CommandSuccessResponse;
        let mut response = Message::new(Id::from_random(1), kind, 0, sender, Id::from_random(2));
        response.event_name = Some("mailSent".into());
        assert_eq!(response.routed_event(), Some("mailSent"));
        let recorded = |origin| Some(Box::new(Record { origin, causation_id: None, event_version: 1 }));
        response.record = recorded(None);
        assert_eq!(response.routed_event(), Some("mailSent"));
        response.record = recorded(Some("store".into()));
        assert_eq!(response.routed_event(), None);
        response.kind = MessageType::CustomMessage;
        assert_eq!(response.routed_event(), Some("mailSent"), "what the log relays is routed");
    }
}
