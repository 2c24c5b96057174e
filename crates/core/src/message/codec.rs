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

use super::headers::trace_of;
use super::{Content, Message, MessageType, Party, Record};
use crate::address::Address;
use crate::clock::Clock;
use crate::contract::{ContractError, json_of};
use crate::id::Id;
use crate::payload::{Payload, append};
use crate::schema::nests_too_deep;
use crate::text::Text;
use crate::trace::{TraceContext, Words};

/// By what name a broker's header or property is asked for that holds the id of a message.
pub const MESSAGE_ID: &str = "messageId";

const JSON: &str = "application/json";
const UTF_8: &str = "utf-8";

/// The longest time that a command of a peer may take: a longer `ttl` counts as this one, so that a peer cannot hold a handler's
/// place for days.
pub(super) const TTL_MAX: Duration = Duration::from_secs(60 * 60);

/// A party as it is read.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadParty<'a> {
    #[serde(default, borrow)]
    service_name: Cow<'a, str>,
    #[serde(default, borrow)]
    service_version: Cow<'a, str>,
    #[serde(default, borrow)]
    service_target: Cow<'a, str>,
    #[serde(default, borrow, alias = "receiverServiceInstanceId")]
    instance_id: Option<Words<'a>>,
}

/// A message as it is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Read<'a> {
    message_type: MessageType,
    id: Option<Id>,
    correlation_id: Option<Id>,
    trace_id: Option<Id>,
    // Any number, since a peer may send a fraction.
    timestamp: Option<f64>,
    principal_id: Option<Arc<str>>,
    tenant_id: Option<Arc<str>>,
    event_name: Option<Text>,
    #[serde(borrow)]
    content_type: Option<Words<'a>>,
    #[serde(borrow)]
    content_encoding: Option<Words<'a>>,
    is_handled_error: Option<bool>,
    #[serde(borrow)]
    sender: Option<ReadParty<'a>>,
    // PURISTA's AMQP responses bear it twice, once misspelled.
    #[serde(borrow)]
    sennder: Option<ReadParty<'a>>,
    #[serde(borrow)]
    receiver: Option<ReadParty<'a>>,
    #[serde(borrow)]
    otp: Option<Words<'a>>,
    ttl: Option<u64>,
    hops: Option<u8>,
    idempotency_key: Option<Arc<str>>,
    origin: Option<Arc<str>>,
    causation_id: Option<Id>,
    event_version: Option<u32>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

/// A party as it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenParty<'a> {
    service_name: &'a str,
    service_version: &'a str,
    service_target: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_id: Option<&'a Id>,
}

/// A message as it is written, but for its payload, which comes behind.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    message_type: MessageType,
    id: &'a Id,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a Id>,
    trace_id: &'a Id,
    timestamp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_name: Option<&'a str>,
    content_type: &'a str,
    content_encoding: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_handled_error: Option<bool>,
    sender: WrittenParty<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receiver: Option<WrittenParty<'a>>,
    otp: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hops: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    causation_id: Option<&'a Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_version: Option<u32>,
}

/// What PURISTA puts into the payload of a command.
#[derive(Default, Deserialize)]
struct CommandPayload<'a> {
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    #[serde(borrow)]
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
        json_of(|json| self.write_into(json, now)).map_err(|source| EncodeError { source })
    }

    /// Everything but the payload, and then that, so that it is written once and to where it stays.
    fn write_into(&self, json: &mut Vec<u8>, now: Instant) -> Result<(), ContractError> {
        let trace = self.trace_context();
        let otp = trace.as_ref().map_or(Cow::Borrowed("{}"), |trace| Cow::Owned(trace.to_otp()));
        serde_json::to_writer(&mut *json, &self.written(now, &otp))?;
        // The brace at the end comes behind the payload.
        json.pop();
        let without = json.len();
        json.extend_from_slice(br#","payload":"#);
        if self.kind == MessageType::Command {
            self.write_command_payload(json)?;
        } else if !write_payload(&self.payload, json)? {
            json.truncate(without);
        }
        json.push(b'}');
        Ok(())
    }

    fn written<'a>(&'a self, now: Instant, otp: &'a str) -> Written<'a> {
        let (content_type, content_encoding) = self
            .content
            .as_deref()
            .map_or((JSON, UTF_8), |content| (content.media_type.as_str(), content.encoding.as_str()));
        let ttl = self
            .deadline
            .filter(|_| self.kind == MessageType::Command)
            .map(|deadline| deadline.saturating_duration_since(now).as_millis());
        let record = self.record.as_deref();
        Written {
            message_type: self.kind,
            id: &self.id,
            correlation_id: self.correlation_id.as_ref(),
            trace_id: &self.trace_id,
            timestamp: self.timestamp_ms,
            principal_id: self.principal_id.as_deref(),
            tenant_id: self.tenant_id.as_deref(),
            event_name: self.event_name.as_deref(),
            content_type,
            content_encoding,
            is_handled_error: (self.kind == MessageType::CommandErrorResponse)
                .then_some(self.is_handled_error),
            sender: written_party(&self.sender),
            receiver: self.receiver.as_ref().map(written_party),
            otp,
            ttl: ttl.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX)),
            hops: (self.hops > 0).then_some(self.hops),
            idempotency_key: self.idempotency_key.as_deref(),
            origin: record.and_then(|record| record.origin.as_deref()),
            causation_id: record.and_then(|record| record.causation_id.as_ref()),
            event_version: record.map(|record| record.event_version).filter(|version| *version != 1),
        }
    }

    fn write_command_payload(&self, json: &mut Vec<u8>) -> Result<(), ContractError> {
        let split = self.payload.split()?;
        let begin = json.len();
        json.extend_from_slice(br#"{"payload":"#);
        let is_there = match &split {
            Some((payload, _)) => {
                json.extend_from_slice(payload);
                true
            }
            None => write_payload(&self.payload, json)?,
        };
        if is_there {
            json.push(b',');
        } else {
            json.truncate(begin + 1);
        }
        json.extend_from_slice(br#""parameter":"#);
        match (&self.parameter, split) {
            (Some(parameter), _) => append(parameter, json)?,
            (None, Some((_, parameter))) => json.extend_from_slice(&parameter),
            (None, None) => json.extend_from_slice(b"{}"),
        }
        json.push(b'}');
        Ok(())
    }

    /// Reads a message. The payload stays a part of `json`; `clock` makes up what a peer left out, and `received` is
    /// when the milliseconds of `ttl` began to run.
    pub fn decode(json: &Bytes, clock: &Clock, received: Instant) -> Result<Self, DecodeError> {
        Self::decode_with_headers(json, clock, received, |_| None)
    }

    /// The same for brokers with headers or properties, of which `header` finds one by its name: a trace context that they
    /// hold goes before the body's, as at PURISTA; and one that is asked for as [`MESSAGE_ID`] is the id of a message whose body
    /// names none, so that it is the same each time the broker brings it.
    pub fn decode_with_headers<'h>(
        json: &Bytes,
        clock: &Clock,
        received: Instant,
        header: impl Fn(&str) -> Option<&'h str>,
    ) -> Result<Self, DecodeError> {
        if nests_too_deep(json) {
            return Err(DecodeError::TooDeep);
        }
        let wire: Read<'_> = read(json).map_err(DecodeError::Malformed)?;
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
        let id = wire.id.or_else(|| Id::parse(header(MESSAGE_ID)?).ok()).unwrap_or_else(|| clock.id());
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
            trace: trace_of(&header).or_else(|| TraceContext::from_otp(&wire.otp?.0)),
            principal_id: wire.principal_id,
            tenant_id: wire.tenant_id,
            event_name: wire.event_name,
            content: content(wire.content_type.as_ref(), wire.content_encoding.as_ref()),
            is_handled_error: wire.is_handled_error.unwrap_or_default(),
            payload,
            parameter,
            deadline: wire.ttl.and_then(|ms| received.checked_add(Duration::from_millis(ms).min(TTL_MAX))),
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
                party(wire.sender.or(wire.sennder).unwrap_or_default()),
                trace_id,
            )
        })
    }
}

/// Looks once whether all of it is UTF-8, and not at each text by itself; an error says where.
fn read<'j, T: Deserialize<'j>>(json: &'j [u8]) -> serde_json::Result<T> {
    std::str::from_utf8(json).map_or_else(|_| serde_json::from_slice(json), serde_json::from_str)
}

/// The fields that PURISTA's own receivers die without; ours says which one is absent.
fn require(wire: &Read<'_>) -> Result<(), DecodeError> {
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

fn content(media_type: Option<&Words<'_>>, encoding: Option<&Words<'_>>) -> Option<Box<Content>> {
    let media_type = media_type.map_or(JSON, |words| &*words.0);
    let encoding = encoding.map_or(UTF_8, |words| &*words.0);
    (media_type != JSON || encoding != UTF_8)
        .then(|| Box::new(Content { media_type: media_type.into(), encoding: encoding.into() }))
}

fn written_party(party: &Party) -> WrittenParty<'_> {
    WrittenParty {
        service_name: party.address.service(),
        service_version: party.address.version(),
        service_target: party.address.target(),
        instance_id: party.instance.as_ref(),
    }
}

fn party(wire: ReadParty<'_>) -> Party {
    let address = Address::read(&wire.service_name, &wire.service_version, &wire.service_target);
    // What is no id names nobody: peers send an empty text where they have none.
    let instance = wire.instance_id.and_then(|text| Id::parse(&text.0).ok());
    Party { address, instance }
}

/// Appends a payload, and says whether there is any: who answers with nothing has none, as at PURISTA, and none that is
/// `null`.
fn write_payload(payload: &Payload, json: &mut Vec<u8>) -> Result<bool, ContractError> {
    let begin = json.len();
    payload.write_into(json)?;
    Ok(!matches!(json.get(begin..), None | Some(b"" | b"null")))
}

#[cfg(test)]
mod tests;
