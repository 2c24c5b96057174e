//! Headers and bodies: how a message becomes one of NATS, and back.

use std::borrow::Cow;

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::{HeaderMap, HeaderName, HeaderValue};
use purista_core::clock::Clock;
use purista_core::message::{DecodeError, MESSAGE_ID, Message};
use serde_json::{Map, Value};
use tokio::time::Instant;

const CORRELATION_ID: &str = "correlationId";

/// The headers of a message: what PURISTA writes on everything but requests.
pub(crate) fn headers(message: &Message) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // No value has the end of a line in it, which would be one of the protocol's.
    message.headers(|name, value| headers.insert(HeaderName::from_static(name), value));
    headers
}

/// Reads a message. The trace context of the headers goes before the body's, as at PURISTA.
pub(crate) fn decode(raw: &async_nats::Message, clock: &Clock) -> Result<Message, DecodeError> {
    Message::decode_with_headers(&raw.payload, clock, Instant::now(), |asked| match asked {
        MESSAGE_ID => header(raw, NATS_MESSAGE_ID.as_ref()),
        asked => header(raw, asked),
    })
}

/// Reads a message that is kept; where its sender gave it no id, it has the one that `name` makes of its place.
pub(crate) fn decode_kept(
    raw: &async_nats::Message,
    clock: &Clock,
    name: impl FnOnce() -> String,
) -> Result<Message, DecodeError> {
    let id = header(raw, NATS_MESSAGE_ID.as_ref()).map_or_else(|| Cow::Owned(name()), Cow::Borrowed);
    Message::decode_with_headers(&raw.payload, clock, Instant::now(), |asked| match asked {
        MESSAGE_ID => Some(&*id),
        asked => header(raw, asked),
    })
}

fn header<'m>(raw: &'m async_nats::Message, name: &str) -> Option<&'m str> {
    raw.headers.as_ref()?.get(name).map(HeaderValue::as_str)
}

/// Reads a message that may be a command. Its inbox pairs it with its answer, so a peer need not name it in the body, as
/// at PURISTA.
pub(crate) fn decode_asked(raw: &async_nats::Message, clock: &Clock) -> Result<Message, DecodeError> {
    match decode(raw, clock) {
        Err(DecodeError::Missing(field)) if field == CORRELATION_ID && raw.reply.is_some() => {
            // Off the hot path, and bounded by the server's limit on a message.
            let mut body: Map<String, Value> =
                serde_json::from_slice(&raw.payload).map_err(DecodeError::Malformed)?;
            body.insert(CORRELATION_ID.to_owned(), clock.id().to_string().into());
            let payload = serde_json::to_vec(&body).map_err(DecodeError::Malformed)?.into();
            decode(&async_nats::Message { payload, ..raw.clone() }, clock)
        }
        decoded => decoded,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use purista_core::address::AddressParts;
    use purista_core::id::Id;
    use purista_core::message::{MessageType, Party};

    use super::*;

    fn raw(body: &str, headers: Option<HeaderMap>) -> async_nats::Message {
        async_nats::Message {
            subject: "purista".into(),
            reply: None,
            payload: Bytes::from(body.to_owned()),
            headers,
            status: None,
            description: None,
            length: body.len(),
        }
    }

    fn server() -> Party {
        let parts = AddressParts { service: "User".into(), version: "1".into(), target: "userSignUp".into() };
        Party { address: parts.into(), instance: Id::parse("userInstance1").ok() }
    }

    #[test]
    fn headers_hold_what_is_there_and_nothing_that_breaks_their_lines() {
        let clock = Clock::system();
        let mut message =
            Message::new(clock.id(), MessageType::CommandSuccessResponse, 0, server(), clock.id());
        message.principal_id = Some("a\r\nPUB x 0".into());
        message.tenant_id = Some("tenant-Two".into());
        let headers = headers(&message);
        let get = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
        assert_eq!(get("messageType").as_deref(), Some("commandSuccessResponse"));
        assert_eq!(get("senderInstanceId").as_deref(), Some("userInstance1"));
        assert_eq!(get("tenantId").as_deref(), Some("tenant-Two"));
        for absent in ["principalId", "eventName", "receiverServiceName", "receiverInstanceId"] {
            assert_eq!(get(absent), None, "{absent}");
        }
    }

    #[test]
    fn the_trace_of_the_headers_goes_first() {
        const BODY: &str = r#"{"messageType":"infoServiceReady","otp":"{\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"}"}"#;
        let clock = Clock::system();
        let parent = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", parent);
        let with = decode(&raw(BODY, Some(headers)), &clock).unwrap();
        assert_eq!(with.trace.unwrap().to_string(), parent);
        let without = decode(&raw(BODY, None), &clock).unwrap();
        assert!(without.trace.unwrap().to_string().contains("b7ad6b7169203331"));
    }
}
