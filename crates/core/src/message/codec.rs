//! A message as JSON, in PURISTA's names. The only place that knows them.
//!
//! Written: what is absent is left out, `otp` is a JSON text. Read: `null` is absent, unknown fields are ignored, and
//! what a peer left out is made up (id, timestamp, trace). The form is that of PURISTA 2.x; the extra keys `ttl`, `hops`,
//! `idempotencyKey`, `origin`, `causationId` and `eventVersion` are ours, and peers ignore them.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{Content, Message, MessageType, Party, Record};
use crate::address::{Address, AddressParts};
use crate::clock::Clock;
use crate::contract::ContractError;
use crate::id::Id;
use crate::payload::Payload;
use crate::schema::nests_too_deep;
use crate::text::Text;
use crate::trace::TraceContext;

const JSON: &str = "application/json";
const UTF_8: &str = "utf-8";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireParty<'a> {
    #[serde(default, borrow)]
    service_name: Cow<'a, str>,
    #[serde(default, borrow)]
    service_version: Cow<'a, str>,
    #[serde(default, borrow)]
    service_target: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "receiverServiceInstanceId")]
    instance_id: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    message_type: MessageType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation_id: Option<Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace_id: Option<Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timestamp: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    principal_id: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant_id: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event_name: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_encoding: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    is_handled_error: Option<bool>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    sender: Option<WireParty<'a>>,
    // PURISTA's AMQP responses bear it twice, once misspelled.
    #[serde(default, borrow, skip_serializing)]
    sennder: Option<WireParty<'a>>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    receiver: Option<WireParty<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    otp: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hops: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    causation_id: Option<Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event_version: Option<u32>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
}

/// What PURISTA puts into the payload of a command.
#[derive(Serialize, Deserialize)]
struct CommandPayload<'a> {
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    parameter: Option<&'a RawValue>,
}

/// A message cannot be written: its payload is no JSON.
#[derive(Debug, thiserror::Error)]
#[error("the message cannot be encoded")]
#[non_exhaustive]
pub struct EncodeError {
    #[source]
    source: ContractError,
}

/// Bytes that are no message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It is no JSON, or a field has the wrong type or an unknown message type.
    #[error("not a message")]
    Malformed(#[source] serde_json::Error),
    /// It nests deeper than [`crate::schema::JSON_DEPTH_MAX`].
    #[error("the message nests too deep")]
    TooDeep,
    /// A field without which this kind of message has no meaning is absent.
    #[error("a message of this type needs `{0}`")]
    Missing(&'static str),
}

impl Message {
    /// Writes the message as PURISTA's JSON. `now` turns the deadline into the milliseconds that are left.
    pub fn encode(&self, now: Instant) -> Result<Bytes, EncodeError> {
        let is_command = self.kind == MessageType::Command;
        let (payload, split_off) =
            if is_command { self.payload.split() } else { self.payload.bytes().map(|bytes| (bytes, None)) }
                .map_err(|source| EncodeError { source })?;
        // Who answers with nothing has no payload, as at PURISTA, and none that is `null`.
        let raw = payload.as_deref().filter(|json| *json != b"null").map(as_raw).transpose()?;
        let parameter =
            self.parameter.as_ref().or(split_off.as_ref()).map(|bytes| as_raw(bytes)).transpose()?;
        let nested = is_command
            .then(|| to_raw(&CommandPayload { payload: raw, parameter: parameter.or_else(empty_object) }));
        let nested = nested.transpose()?;
        let (media_type, encoding) = self
            .content
            .as_deref()
            .map_or((JSON, UTF_8), |content| (content.media_type.as_str(), content.encoding.as_str()));
        let ttl = self
            .deadline
            .filter(|_| is_command)
            .map(|deadline| deadline.saturating_duration_since(now).as_millis());
        let record = self.record.as_deref();
        let wire = Wire {
            message_type: self.kind,
            id: Some(self.id.clone()),
            correlation_id: self.correlation_id.clone(),
            trace_id: Some(self.trace_id.clone()),
            timestamp: None,
            principal_id: self.principal_id.clone(),
            tenant_id: self.tenant_id.clone(),
            event_name: self.event_name.clone(),
            content_type: Some(media_type.into()),
            content_encoding: Some(encoding.into()),
            is_handled_error: (self.kind == MessageType::CommandErrorResponse)
                .then_some(self.is_handled_error),
            sender: Some(wire_party(&self.sender)),
            sennder: None,
            receiver: self.receiver.as_ref().map(wire_party),
            otp: Some(self.trace_context().map_or("{}".into(), |context| context.to_otp().into())),
            ttl: ttl.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX)),
            hops: (self.hops > 0).then_some(self.hops),
            idempotency_key: self.idempotency_key.clone(),
            origin: record.and_then(|record| record.origin.clone()),
            causation_id: record.and_then(|record| record.causation_id.clone()),
            event_version: record.map(|record| record.event_version).filter(|version| *version != 1),
            payload: nested.as_deref().or(raw),
        };
        // Milliseconds are written as an integer but read as any number, since a peer may send a fraction.
        let stamped = Stamped { wire, timestamp: self.timestamp_ms };
        serde_json::to_vec(&stamped).map(Bytes::from).map_err(|error| EncodeError { source: error.into() })
    }

    /// Reads a message. The payload stays a part of `json`; `clock` makes up what a peer left out, and `received` is
    /// when the milliseconds of `ttl` began to run.
    pub fn decode(json: &Bytes, clock: &Clock, received: Instant) -> Result<Self, DecodeError> {
        if nests_too_deep(json) {
            return Err(DecodeError::TooDeep);
        }
        let wire: Wire<'_> = serde_json::from_slice(json).map_err(DecodeError::Malformed)?;
        let (payload, parameter) = match (wire.message_type, wire.payload) {
            (MessageType::Command, Some(raw)) => {
                let inner: CommandPayload<'_> =
                    serde_json::from_str(raw.get()).map_err(DecodeError::Malformed)?;
                (inner.payload, inner.parameter)
            }
            (_, raw) => (raw, None),
        };
        let part = |raw: &RawValue| json.slice_ref(raw.get().as_bytes());
        let payload = payload
            .filter(|raw| raw.get() != "null")
            .map_or_else(Payload::empty, |raw| Payload::encoded(part(raw)));
        let parameter = parameter.filter(|raw| !matches!(raw.get(), "null" | "{}")).map(part);
        require(&wire)?;
        let id = wire.id.unwrap_or_else(|| clock.id());
        let trace_id = wire.trace_id.unwrap_or_else(|| clock.id());
        let is_recorded =
            wire.origin.is_some() || wire.causation_id.is_some() || wire.event_version.is_some();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float saturates when it is cast"
        )]
        let timestamp_ms = wire.timestamp.map_or_else(|| clock.now_ms(), |ms| ms as u64);
        Ok(Self {
            receiver: wire.receiver.map(party),
            correlation_id: wire.correlation_id,
            trace: wire.otp.as_deref().and_then(TraceContext::from_otp),
            principal_id: wire.principal_id,
            tenant_id: wire.tenant_id,
            event_name: wire.event_name,
            content: content(wire.content_type.as_deref(), wire.content_encoding.as_deref()),
            is_handled_error: wire.is_handled_error.unwrap_or_default(),
            payload,
            parameter,
            deadline: wire.ttl.and_then(|ms| received.checked_add(Duration::from_millis(ms))),
            hops: wire.hops.unwrap_or_default(),
            idempotency_key: wire.idempotency_key,
            record: is_recorded.then(|| {
                let event_version = wire.event_version.unwrap_or(1);
                Box::new(Record { origin: wire.origin, causation_id: wire.causation_id, event_version })
            }),
            ..Self::new(
                id,
                wire.message_type,
                timestamp_ms,
                party(wire.sender.or(wire.sennder).unwrap_or_else(nobody)),
                trace_id,
            )
        })
    }
}

#[derive(Serialize)]
struct Stamped<'a> {
    #[serde(flatten)]
    wire: Wire<'a>,
    timestamp: u64,
}

/// The fields that PURISTA's own receivers die without; ours says which one is absent.
fn require(wire: &Wire<'_>) -> Result<(), DecodeError> {
    let pairs = wire.message_type == MessageType::Command || wire.message_type.is_response();
    if pairs && wire.correlation_id.is_none() {
        return Err(DecodeError::Missing("correlationId"));
    }
    if wire.message_type == MessageType::Command && wire.receiver.is_none() {
        return Err(DecodeError::Missing("receiver"));
    }
    if wire.message_type == MessageType::CustomMessage && wire.event_name.is_none() {
        return Err(DecodeError::Missing("eventName"));
    }
    Ok(())
}

fn content(media_type: Option<&str>, encoding: Option<&str>) -> Option<Box<Content>> {
    let (media_type, encoding) = (media_type.unwrap_or(JSON), encoding.unwrap_or(UTF_8));
    (media_type != JSON || encoding != UTF_8)
        .then(|| Box::new(Content { media_type: media_type.into(), encoding: encoding.into() }))
}

fn wire_party(party: &Party) -> WireParty<'_> {
    WireParty {
        service_name: party.address.service().into(),
        service_version: party.address.version().into(),
        service_target: party.address.target().into(),
        instance_id: party.instance.as_ref().map(Id::text),
    }
}

fn party(wire: WireParty<'_>) -> Party {
    let parts = AddressParts {
        service: Cow::Owned(wire.service_name.into_owned()),
        version: Cow::Owned(wire.service_version.into_owned()),
        target: Cow::Owned(wire.service_target.into_owned()),
    };
    // What is no id names nobody: peers send an empty text where they have none.
    let instance = wire.instance_id.and_then(|text| Id::parse(&text).ok());
    Party { address: Address::from(parts), instance }
}

fn nobody<'a>() -> WireParty<'a> {
    WireParty {
        service_name: "".into(),
        service_version: "".into(),
        service_target: "".into(),
        instance_id: None,
    }
}

fn as_raw(json: &[u8]) -> Result<&RawValue, EncodeError> {
    serde_json::from_slice(json).map_err(|error| EncodeError { source: error.into() })
}

fn to_raw(payload: &CommandPayload<'_>) -> Result<Box<RawValue>, EncodeError> {
    serde_json::value::to_raw_value(payload).map_err(|error| EncodeError { source: error.into() })
}

fn empty_object<'a>() -> Option<&'a RawValue> {
    serde_json::from_str("{}").ok()
}

#[cfg(test)]
mod tests;
