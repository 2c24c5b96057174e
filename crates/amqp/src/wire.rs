//! Properties, headers and bodies: how a message becomes one of AMQP, and back.

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use purista_core::bridge::{BridgeError, BridgeErrorKind};
use purista_core::clock::Clock;
use purista_core::id::ID_DIGITS;
use purista_core::message::{DecodeError, MESSAGE_ID, Message, MessageType};
use purista_core::trace::PARENT_BYTES;
use serde_json::Value;
use tokio::time::Instant;

use crate::address::{EVENT_NAME, RECEIVER_INSTANCE, REPLY_TO, RESPONSE_RECEIVER_INSTANCE, short, text};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
const MESSAGE_TYPE: &str = "messageType";
/// The most that the headers of one message may hold together; the protocol carries them in one frame.
pub(crate) const HEADERS_BYTES_MAX: usize = 16 << 10;
/// Messages that outlive a restart of the broker where their queue does, as PURISTA's all are.
pub(crate) const PERSISTENT: u8 = 2;

/// The properties of a message, and in them the headers by which it is routed. `reply_to` is, of a command, the queue to
/// which its answer goes, and of a response the queue that the command named.
///
/// The time is in milliseconds, as PURISTA's is, where AMQP says seconds.
pub(crate) fn properties(message: &Message, reply_to: Option<&str>) -> Result<BasicProperties, BridgeError> {
    let is_response = message.kind.is_response();
    let headers = headers(message, reply_to.filter(|_| is_response))?;
    let mut properties = BasicProperties::default()
        .with_message_id(short(message.id.text())?)
        .with_timestamp(message.timestamp_ms)
        .with_type(message.kind.as_str().into())
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_delivery_mode(PERSISTENT)
        .with_headers(headers);
    if let (true, Some(id)) = (is_response || message.kind == MessageType::Command, &message.correlation_id) {
        properties = properties.with_correlation_id(short(id.text())?);
    }
    if let (false, Some(queue)) = (is_response, reply_to) {
        properties = properties.with_reply_to(short(queue)?);
    }
    Ok(properties)
}

fn headers(message: &Message, reply_to: Option<&str>) -> Result<FieldTable, BridgeError> {
    let (mut headers, mut bytes) = (FieldTable::default(), 0_usize);
    let mut put = |name: &'static str, value: Option<&str>| {
        if let Some(value) = value {
            bytes = bytes.saturating_add(name.len()).saturating_add(value.len());
            headers.insert(name.into(), text(value));
        }
    };
    let (sender, mut digits) = (&message.sender, [0; ID_DIGITS]);
    put(MESSAGE_TYPE, Some(message.kind.as_str()));
    put("senderServiceName", Some(sender.address.service()));
    put("senderServiceVersion", Some(sender.address.version()));
    put("senderServiceTarget", Some(sender.address.target()));
    put("senderInstanceId", sender.instance.as_ref().map(|id| id.text_in(&mut digits)));
    if let Some(receiver) = &message.receiver {
        put("receiverServiceName", Some(receiver.address.service()));
        put("receiverServiceVersion", Some(receiver.address.version()));
        put("receiverServiceTarget", Some(receiver.address.target()));
        let name = if message.kind.is_response() { RESPONSE_RECEIVER_INSTANCE } else { RECEIVER_INSTANCE };
        put(name, receiver.instance.as_ref().map(|id| id.text_in(&mut digits)));
    }
    if let Some(trace) = message.trace_context() {
        put(TRACEPARENT, Some(trace.parent_in(&mut [0; PARENT_BYTES])));
        put(TRACESTATE, trace.state());
    }
    put(REPLY_TO, reply_to);
    put(EVENT_NAME, message.routed_event());
    put("principalId", message.principal_id.as_deref());
    put("tenantId", message.tenant_id.as_deref());
    if bytes > HEADERS_BYTES_MAX {
        let what = format!("the headers hold {bytes} bytes, more than {HEADERS_BYTES_MAX}");
        return Err(BridgeError::new(BridgeErrorKind::TooLarge, what));
    }
    Ok(headers)
}

/// The text in a header, if it is one.
pub(crate) fn header<'p>(properties: &'p BasicProperties, name: &str) -> Option<&'p str> {
    match properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        AMQPValue::ShortString(text) => Some(text.as_str()),
        _ => None,
    }
}

/// Reads a message. The trace context of the headers goes before the body's, as at PURISTA; and what else a peer may leave out
/// of the body is taken from the properties, as PURISTA's receiver does.
pub(crate) fn decode(
    body: &Bytes,
    properties: &BasicProperties,
    clock: &Clock,
) -> Result<Message, DecodeError> {
    let received = Instant::now();
    let told = |name: &str| match name {
        MESSAGE_ID => properties.message_id().as_ref().map(ShortString::as_str),
        name => header(properties, name),
    };
    let read = |body: &Bytes| Message::decode_with_headers(body, clock, received, told);
    match read(body) {
        Ok(message) => Ok(message),
        Err(error @ DecodeError::TooDeep) => Err(error),
        Err(error) => read(&completed(body, properties, clock).ok_or(error)?),
    }
}

/// The body with what it lacks and the properties hold; `None` when they hold nothing more.
fn completed(body: &Bytes, properties: &BasicProperties, clock: &Clock) -> Option<Bytes> {
    // Off the hot path, and bounded by the limit on a message and by the parser's on depth.
    let mut object: serde_json::Map<String, Value> = serde_json::from_slice(body).ok()?;
    let lacks =
        |object: &serde_json::Map<String, Value>, name: &str| object.get(name).is_none_or(Value::is_null);
    let mut is_changed = false;
    if lacks(&object, MESSAGE_TYPE) {
        object.insert(MESSAGE_TYPE.to_owned(), header(properties, MESSAGE_TYPE)?.into());
        is_changed = true;
    }
    if lacks(&object, "correlationId") {
        // A caller that names none has something of its own to know the answer by.
        let is_command = object.get(MESSAGE_TYPE).is_some_and(|kind| kind == MessageType::Command.as_str());
        let named = properties.correlation_id().as_ref().map(ToString::to_string);
        if let Some(id) = named.or_else(|| is_command.then(|| clock.id().to_string())) {
            object.insert("correlationId".to_owned(), id.into());
            is_changed = true;
        }
    }
    is_changed.then(|| serde_json::to_vec(&object).ok().map(Bytes::from))?
}

#[cfg(test)]
mod tests {
    use purista_core::address::AddressParts;
    use purista_core::id::Id;
    use purista_core::message::Party;

    use super::*;

    fn party(target: &str, instance: &str) -> Party {
        let parts =
            AddressParts { service: "User".into(), version: "1".into(), target: target.to_owned().into() };
        Party { address: parts.into(), instance: Id::parse(instance).ok() }
    }

    fn info() -> Message {
        Message::new(Id::from_random(1), MessageType::InfoServiceInit, 7, party("", "i1"), Id::from_random(2))
    }

    #[test]
    fn what_is_absent_is_left_out_and_what_is_empty_is_empty() {
        let properties = properties(&info(), None).unwrap();
        assert_eq!(header(&properties, "senderServiceTarget"), Some(""));
        for absent in ["principalId", "eventName", "receiverServiceName", "receiverInstanceId", "replyTo"] {
            assert_eq!(header(&properties, absent), None, "{absent}");
        }
        assert!(properties.correlation_id().is_none() && properties.reply_to().is_none());
    }

    #[test]
    fn headers_that_no_frame_would_carry_are_refused() {
        let mut message = info();
        message.principal_id = Some("p".repeat(HEADERS_BYTES_MAX).into());
        let error = properties(&message, None).unwrap_err();
        assert!(!error.may_have_happened());
    }

    #[test]
    fn the_trace_of_the_headers_goes_first() {
        const BODY: &str = r#"{"messageType":"infoServiceReady","otp":"{\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"}"}"#;
        let parent = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
        let mut headers = FieldTable::default();
        headers.insert(TRACEPARENT.into(), text(parent));
        let with = BasicProperties::default().with_headers(headers);
        let read = |properties| decode(&Bytes::from(BODY), &properties, &Clock::system()).unwrap();
        assert_eq!(read(with).trace.unwrap().to_string(), parent);
        assert!(read(BasicProperties::default()).trace.unwrap().to_string().contains("b7ad6b7169203331"));
    }

    #[test]
    fn what_a_peer_leaves_out_of_the_body_is_taken_from_the_properties() {
        let body = Bytes::from(r#"{"receiver":{"serviceName":"User"},"payload":{}}"#);
        let mut headers = FieldTable::default();
        headers.insert(MESSAGE_TYPE.into(), text("command"));
        let properties = BasicProperties::default().with_headers(headers);
        let made_up = decode(&body, &properties, &Clock::system()).unwrap();
        assert!(made_up.correlation_id.is_some());
        let named = decode(&body, &properties.with_correlation_id("c1".into()), &Clock::system()).unwrap();
        assert_eq!(named.correlation_id, Id::parse("c1").ok());
        assert!(decode(&body, &BasicProperties::default(), &Clock::system()).is_err());
        let nobody = Bytes::from(r#"{"messageType":"command","correlationId":"c1"}"#);
        assert!(decode(&nobody, &BasicProperties::default(), &Clock::system()).is_err());
    }
}
