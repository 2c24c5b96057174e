//! PURISTA's messages as one struct for serde: the same keys and values as a bridge writes, borrowed where they can be.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use bytes::Bytes;
use purista_core::bridge::COMMAND_TIMEOUT;
use purista_core::clock::Clock;
use purista_core::contract::Command as _;
use purista_core::event::Event as _;
use serde::{Deserialize, Serialize};

use crate::registered::UserRegistered;
use crate::sign_up::{SignUp, SignedUp, USER};

/// What stands in `messageType` of a command.
pub const COMMAND: &str = "command";
/// The same of its answer.
pub const RESPONSE: &str = "commandSuccessResponse";
/// The same of an event.
pub const EVENT: &str = "customMessage";
/// The header of the trace.
pub const TRACEPARENT: &str = "traceparent";
/// The header of the instance that an answer is for, and that of the event's name.
pub const RECEIVER_INSTANCE: &str = "receiverInstanceId";
/// The header by which events are routed.
pub const EVENT_NAME: &str = "eventName";
/// How those who ask call themselves.
pub const CALLER: &str = "Caller";

/// Who sends, or is sent to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Party<'m> {
    #[serde(borrow)]
    service_name: Cow<'m, str>,
    #[serde(borrow)]
    service_version: Cow<'m, str>,
    #[serde(borrow)]
    service_target: Cow<'m, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    instance_id: Option<Cow<'m, str>>,
}

/// A message with its payload.
#[expect(clippy::struct_field_names, reason = "PURISTA's names")]
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message<'m, P> {
    #[serde(borrow)]
    message_type: Cow<'m, str>,
    #[serde(borrow)]
    id: Cow<'m, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    correlation_id: Option<Cow<'m, str>>,
    #[serde(borrow)]
    trace_id: Cow<'m, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    event_name: Option<Cow<'m, str>>,
    #[serde(borrow)]
    content_type: Cow<'m, str>,
    #[serde(borrow)]
    content_encoding: Cow<'m, str>,
    #[serde(borrow)]
    sender: Party<'m>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    receiver: Option<Party<'m>>,
    #[serde(borrow)]
    otp: Cow<'m, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl: Option<u64>,
    /// What it carries.
    pub payload: P,
    timestamp: u64,
}

/// The payload of a command.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Input {
    payload: SignUp,
    parameter: Nothing,
}

/// An empty object.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Nothing {}

/// A process: its name among the others, and the ids that it gives.
#[derive(Debug)]
pub struct Process {
    /// Its name.
    pub instance: String,
    begun: u64,
    given: AtomicU64,
    clock: Clock,
}

/// What was written: the body, and what the broker is told beside it.
#[derive(Debug)]
pub struct Written {
    /// The message as JSON.
    pub body: Bytes,
    /// Names and values, as PURISTA's headers are.
    pub headers: Vec<(&'static str, String)>,
    /// The message's own id.
    pub id: String,
    /// The id that pairs a command and its answer.
    pub correlation_id: String,
}

impl Default for Process {
    fn default() -> Self {
        let (clock, begun) = (Clock::system(), u64::from(std::process::id()) << 16);
        Self { instance: clock.id().to_string(), begun, given: AtomicU64::new(0), clock }
    }
}

impl Process {
    /// An id that this process has not given before: 32 hex digits.
    fn id(&self) -> String {
        let nth = self.given.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}{nth:016x}", self.begun.wrapping_add(nth))
    }

    /// A sign-up, asked by this process.
    pub fn command(&self, input: SignUp) -> Result<Written> {
        let (id, correlation_id) = (self.id(), self.id());
        let payload = Input { payload: input, parameter: Nothing {} };
        let deadline_ms = u64::try_from(COMMAND_TIMEOUT.as_millis())?;
        let receiver = party(USER.name(), SignUp::NAME, None);
        let more = |message: &mut Message<'_, Input>| {
            message.correlation_id = Some(correlation_id.clone().into());
            message.receiver = Some(receiver);
            message.ttl = Some(deadline_ms);
        };
        self.begin(COMMAND, id, correlation_id.clone(), payload, more)
    }

    /// Somebody has registered, told by this process.
    pub fn event(&self, event: UserRegistered) -> Result<Written> {
        let more = |message: &mut Message<'_, UserRegistered>| {
            message.event_name = Some(UserRegistered::NAME.into());
        };
        self.begin(EVENT, self.id(), String::new(), event, more)
    }

    fn begin<'m, P: Serialize>(
        &'m self,
        kind: &'static str,
        id: String,
        correlation_id: String,
        payload: P,
        more: impl FnOnce(&mut Message<'m, P>),
    ) -> Result<Written> {
        let trace_id = self.id();
        let traceparent = format!("00-{trace_id}-{}-01", id.get(..16).unwrap_or_default());
        let mut message = Message {
            message_type: kind.into(),
            id: id.clone().into(),
            correlation_id: None,
            trace_id: trace_id.into(),
            event_name: None,
            content_type: "application/json".into(),
            content_encoding: "utf-8".into(),
            sender: party(CALLER, "main", Some(&self.instance)),
            receiver: None,
            otp: format!(r#"{{"traceparent":"{traceparent}"}}"#).into(),
            ttl: None,
            payload,
            timestamp: self.clock.now_ms(),
        };
        more(&mut message);
        let headers = message.headers(&traceparent);
        Ok(Written { body: serde_json::to_vec(&message)?.into(), headers, id, correlation_id })
    }

    /// Reads a command, does what it asks, and writes the answer.
    pub fn answered(
        &self,
        body: &[u8],
        traceparent: Option<&str>,
        done: impl FnOnce(SignUp) -> SignedUp,
    ) -> Result<Written> {
        let command: Message<'_, Input> = serde_json::from_slice(body)?;
        let answer = Message {
            message_type: RESPONSE.into(),
            sender: party(USER.name(), SignUp::NAME, Some(&self.instance)),
            receiver: Some(command.sender),
            event_name: None,
            ttl: None,
            payload: done(command.payload.payload),
            timestamp: self.clock.now_ms(),
            id: command.id,
            correlation_id: command.correlation_id,
            trace_id: command.trace_id,
            content_type: command.content_type,
            content_encoding: command.content_encoding,
            otp: command.otp,
        };
        Ok(Written {
            body: serde_json::to_vec(&answer)?.into(),
            headers: answer.headers(traceparent.unwrap_or_default()),
            id: answer.id.clone().into_owned(),
            correlation_id: answer.correlation_id.map(Cow::into_owned).unwrap_or_default(),
        })
    }
}

/// Reads an answer.
pub fn answer(body: &[u8]) -> Result<SignedUp> {
    Ok(serde_json::from_slice::<Message<'_, SignedUp>>(body)?.payload)
}

/// Reads an event.
pub fn event(body: &[u8]) -> Result<UserRegistered> {
    Ok(serde_json::from_slice::<Message<'_, UserRegistered>>(body)?.payload)
}

fn party<'m>(service: &'m str, target: &'m str, instance: Option<&'m str>) -> Party<'m> {
    Party {
        service_name: service.into(),
        service_version: "1".into(),
        service_target: target.into(),
        instance_id: instance.map(Cow::Borrowed),
    }
}

impl<P> Message<'_, P> {
    fn headers(&self, traceparent: &str) -> Vec<(&'static str, String)> {
        let mut headers = Vec::with_capacity(12);
        let mut put = |name, value: &str| headers.push((name, value.to_owned()));
        put("messageType", &self.message_type);
        put("senderServiceName", &self.sender.service_name);
        put("senderServiceVersion", &self.sender.service_version);
        put("senderServiceTarget", &self.sender.service_target);
        self.sender.instance_id.iter().for_each(|instance| put("senderInstanceId", instance));
        if let Some(receiver) = &self.receiver {
            put("receiverServiceName", &receiver.service_name);
            put("receiverServiceVersion", &receiver.service_version);
            put("receiverServiceTarget", &receiver.service_target);
            receiver.instance_id.iter().for_each(|instance| put(RECEIVER_INSTANCE, instance));
        }
        put(TRACEPARENT, traceparent);
        self.event_name.iter().for_each(|name| put(EVENT_NAME, name));
        headers
    }
}

#[cfg(test)]
mod tests;
