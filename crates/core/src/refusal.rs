//! The answers that a carrier gives in a service's place: to a command that cannot be read, and to one that ended without
//! an answer. Every bridge owes them, so that no caller waits in vain.

use serde_json::Value;

use crate::address::{Address, AddressParts};
use crate::clock::Clock;
use crate::id::Id;
use crate::message::{DecodeError, ErrorPayload, Message, MessageType, Party};
use crate::status::Status;

/// The answer to a command that cannot be read: what of it could be saved pairs the answer with its caller.
pub fn unreadable(body: &[u8], server: &Party, error: &DecodeError, clock: &Clock) -> Message {
    refused(body, server, Status::BAD_REQUEST, &format!("the command cannot be read: {error}"), clock)
}

/// The answer to a command that never ran, of which at least the caller may be readable, with a status and a text for the
/// caller.
pub fn refused(body: &[u8], server: &Party, status: Status, told: &str, clock: &Clock) -> Message {
    let error = ErrorPayload { nothing_kept: true, ..ErrorPayload::new(status, told) };
    answer(body, server, error, true, clock)
}

/// The answer to a command that may have run: the process that received it first ended before it replied. Its caller reads it
/// as [`Unknown`](crate::invoke_error::InvokeErrorKind::Unknown).
pub fn uncertain(body: &[u8], server: &Party, told: &str, clock: &Clock) -> Message {
    answer(body, server, ErrorPayload::new(Status::SERVICE_UNAVAILABLE, told), false, clock)
}

fn answer(body: &[u8], server: &Party, error: ErrorPayload, is_handled: bool, clock: &Clock) -> Message {
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
    let error = ErrorPayload { trace_id: Some(trace_id), ..error };
    let response = command.error_response(clock.now_ms(), server.clone(), &error, is_handled);
    Message { receiver: caller, ..response }
}

/// The answer to a command that its consumer settled without one; it may have run.
pub fn unanswered(command: &Message, server: &Party, clock: &Clock) -> Message {
    let status = Status::INTERNAL_SERVER_ERROR;
    let told =
        ErrorPayload { trace_id: Some(command.trace_id.clone()), ..ErrorPayload::new(status, status.text()) };
    command.error_response(clock.now_ms(), server.clone(), &told, false)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::time::Instant;

    use super::*;

    fn server() -> Party {
        let parts = AddressParts { service: "User".into(), version: "1".into(), target: "userSignUp".into() };
        Party { address: parts.into(), instance: Id::parse("userInstance1").ok() }
    }

    fn refusal(body: &str) -> Message {
        let clock = Clock::system();
        let body = Bytes::from(body.to_owned());
        let error = Message::decode(&body, &clock, Instant::now()).unwrap_err();
        unreadable(&body, &server(), &error, &clock)
    }

    #[test]
    fn a_refusal_saves_what_pairs_it_with_its_caller() {
        let refusal = refusal(
            r#"{"messageType":"command","id":"a1","correlationId":"c1","traceId":"t1","sender":{"serviceName":"Caller","instanceId":"i1"}}"#,
        );
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
        let refusal = refusal("{");
        assert!(refusal.receiver.is_none() && refusal.correlation_id.is_none());
        assert!(refusal.encode(Instant::now()).is_ok());
    }
}
