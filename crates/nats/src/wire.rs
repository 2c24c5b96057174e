//! Headers and bodies: how a message becomes one of NATS, and back.

use async_nats::{HeaderMap, HeaderValue};
use bytes::Bytes;
use purista_core::address::{Address, AddressParts};
use purista_core::clock::Clock;
use purista_core::id::Id;
use purista_core::message::{DecodeError, ErrorPayload, Message, MessageType, Party};
use purista_core::status::Status;
use purista_core::trace::TraceContext;
use serde_json::Value;
use tokio::time::Instant;

use crate::address::routed_event;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// The headers of a message: what PURISTA writes on everything but requests. They repeat the body for who looks at the
/// broker; what is absent is left out, and so is a text that no header can hold.
pub(crate) fn headers(message: &Message) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut put = |name: &'static str, value: Option<&str>| {
        let value = value.filter(|value| !value.is_empty() && !value.contains(char::is_control));
        if let Some(value) = value.and_then(|value| value.parse::<HeaderValue>().ok()) {
            headers.insert(name, value);
        }
    };
    let sender = &message.sender;
    put("messageType", Some(message.kind.as_str()));
    put("senderServiceName", Some(sender.address.service()));
    put("senderServiceVersion", Some(sender.address.version()));
    put("senderServiceTarget", Some(sender.address.target()));
    put("senderInstanceId", sender.instance.as_ref().map(Id::text).as_deref());
    if let Some(receiver) = &message.receiver {
        put("receiverServiceName", Some(receiver.address.service()));
        put("receiverServiceVersion", Some(receiver.address.version()));
        put("receiverServiceTarget", Some(receiver.address.target()));
        put("receiverInstanceId", receiver.instance.as_ref().map(Id::text).as_deref());
    }
    if let Some(trace) = message.trace_context() {
        put(TRACEPARENT, Some(&trace.to_string()));
        put(TRACESTATE, trace.state());
    }
    put("eventName", routed_event(message));
    put("principalId", message.principal_id.as_deref());
    put("tenantId", message.tenant_id.as_deref());
    headers
}

/// Reads a message. The trace context of the headers goes before the body's, as at PURISTA.
pub(crate) fn decode(raw: &async_nats::Message, clock: &Clock) -> Result<Message, DecodeError> {
    let mut message = Message::decode(&raw.payload, clock, Instant::now())?;
    let header =
        |name: &str| raw.headers.as_ref().and_then(|headers| headers.get(name)).map(HeaderValue::as_str);
    if let Some(trace) =
        header(TRACEPARENT).and_then(|parent| TraceContext::parse(parent, header(TRACESTATE)))
    {
        message.trace = Some(trace);
    }
    Ok(message)
}

/// The answer to a command that cannot be read: what of it could be saved pairs the answer with its caller.
pub(crate) fn refusal(body: &Bytes, server: &Party, error: &DecodeError, clock: &Clock) -> Message {
    // Off the hot path, and bounded by the broker's limit and by the parser's on depth.
    let saved: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).map(str::to_owned);
    let id = |name: &str| text(&saved, name).and_then(|text| Id::parse(&text).ok());
    let caller = saved.get("sender").map(|sender| Party {
        address: Address::from(AddressParts {
            service: text(sender, "serviceName").unwrap_or_default().into(),
            version: text(sender, "serviceVersion").unwrap_or_default().into(),
            target: text(sender, "serviceTarget").unwrap_or_default().into(),
        }),
        instance: text(sender, "instanceId").and_then(|text| Id::parse(&text).ok()),
    });
    let sender = caller.clone().unwrap_or_else(|| server.clone());
    let trace_id = id("traceId").unwrap_or_else(|| clock.id());
    let mut command = Message::new(
        id("id").unwrap_or_else(|| clock.id()),
        MessageType::Command,
        clock.now_ms(),
        sender,
        trace_id.clone(),
    );
    command.correlation_id = id("correlationId");
    let told = ErrorPayload {
        status: Status::BAD_REQUEST,
        message: format!("the command cannot be read: {error}"),
        data: None,
        trace_id: Some(trace_id),
    };
    let response = command.error_response(clock.now_ms(), server.clone(), &told, true);
    Message { receiver: caller, ..response }
}

/// The answer to a command that its consumer settled without one.
pub(crate) fn failure(command: &Message, server: &Party, clock: &Clock) -> Message {
    let status = Status::INTERNAL_SERVER_ERROR;
    let told = ErrorPayload {
        status,
        message: status.text().to_owned(),
        data: None,
        trace_id: Some(command.trace_id.clone()),
    };
    command.error_response(clock.now_ms(), server.clone(), &told, false)
}

#[cfg(test)]
mod tests {
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
        headers.insert(TRACEPARENT, parent);
        let with = decode(&raw(BODY, Some(headers)), &clock).unwrap();
        assert_eq!(with.trace.unwrap().to_string(), parent);
        let without = decode(&raw(BODY, None), &clock).unwrap();
        assert!(without.trace.unwrap().to_string().contains("b7ad6b7169203331"));
    }

    #[test]
    fn a_refusal_saves_what_pairs_it_with_its_caller() {
        let clock = Clock::system();
        let body = r#"{"messageType":"command","id":"a1","correlationId":"c1","traceId":"t1","sender":{"serviceName":"Caller","instanceId":"i1"}}"#;
        let error = decode(&raw(body, None), &clock).unwrap_err();
        let refusal = refusal(&Bytes::from(body), &server(), &error, &clock);
        assert_eq!(refusal.kind, MessageType::CommandErrorResponse);
        assert_eq!(refusal.correlation_id, Some(Id::parse("c1").unwrap()));
        assert_eq!(refusal.trace_id, Id::parse("t1").unwrap());
        assert_eq!(refusal.receiver.unwrap().instance, Id::parse("i1").ok());
        let told: ErrorPayload = serde_json::from_slice(&refusal.payload.bytes().unwrap().unwrap()).unwrap();
        assert_eq!(told.status, Status::BAD_REQUEST);
        assert!(told.message.contains("`receiver`"), "{}", told.message);
    }

    #[test]
    fn a_refusal_of_broken_json_names_nobody() {
        let clock = Clock::system();
        let error = decode(&raw("{", None), &clock).unwrap_err();
        let refusal = refusal(&Bytes::from("{"), &server(), &error, &clock);
        assert!(refusal.receiver.is_none() && refusal.correlation_id.is_none());
        assert!(refusal.encode(Instant::now()).is_ok());
    }
}
