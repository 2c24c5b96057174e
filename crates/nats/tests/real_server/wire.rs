//! What a third party sees of the bridges: PURISTA's subjects, headers and bodies.

use std::time::Duration;

use async_nats::{HeaderMap, Subscriber};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use purista_core::address::{Address, ServiceId};
use purista_core::bridge::{BridgeErrorKind, Consumer, Delivery, EventBridge, Outcome};
use purista_core::clock::Clock;
use purista_core::id::Id;
use purista_core::message::{Message, MessageType, Party, Record};
use purista_core::payload::Payload;
use purista_core::subscription::Subscription;
use purista_core::text::Text;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::time::Instant;

use crate::server::Server;

const USER: ServiceId = ServiceId::new("User", "1");
const CALLER: ServiceId = ServiceId::new("Caller", "1");
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves `User.1.userSignUp`: answers with an id, and marks the answer with an event.
struct SignUp {
    instance: &'static str,
    record: Option<Record>,
}

impl Consumer for SignUp {
    fn consume(&self, delivery: Delivery) -> BoxFuture<'static, Outcome> {
        let sender =
            Party { address: Address::of(USER, "userSignUp"), instance: Id::parse(self.instance).ok() };
        let payload = Payload::encoded(r#"{"userId":"id-of-Ada"}"#.into());
        let mut reply = delivery.message.response(
            MessageType::CommandSuccessResponse,
            Clock::system().now_ms(),
            sender,
            payload,
        );
        reply.event_name = Some(Text::known("newUserRegistered"));
        reply.record = self.record.clone().map(Box::new);
        Box::pin(async { Outcome::Reply(Box::new(reply)) })
    }
}

fn sign_up() -> Message {
    let clock = Clock::system();
    let sender = Party { address: Address::of(CALLER, "main"), instance: Id::parse("callerInstance1").ok() };
    let trace_id = Id::parse("s01-signUp").unwrap();
    let mut command = Message::new(clock.id(), MessageType::Command, clock.now_ms(), sender, trace_id);
    command.receiver = Some(Party::anywhere(Address::of(USER, "userSignUp")));
    command.correlation_id = Some(clock.id());
    command.payload = Payload::encoded(r#"{"email":"ada@example.com","name":"Ada"}"#.into());
    command.trace = purista_core::trace::TraceContext::parse(TRACEPARENT, None);
    command.deadline = Some(Instant::now() + PATIENCE);
    command
}

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

async fn next(captured: &mut Subscriber) -> async_nats::Message {
    loop {
        let raw = tokio::time::timeout(PATIENCE, captured.next()).await.unwrap().unwrap();
        // The echoes by which a bridge knows what the server has read carry nothing.
        if !raw.payload.is_empty() {
            return raw;
        }
    }
}

/// A body without what differs from message to message, and without the extra keys that peers ignore.
fn body(raw: &async_nats::Message) -> Value {
    let mut body: Value = serde_json::from_slice(&raw.payload).unwrap();
    let object = body.as_object_mut().unwrap();
    for varying in ["id", "correlationId", "timestamp", "otp"] {
        assert!(object.remove(varying).is_some(), "PURISTA sends {varying}");
    }
    for extra in ["ttl", "origin"] {
        object.remove(extra);
    }
    body
}

fn header(raw: &async_nats::Message, name: &str) -> Option<String> {
    raw.headers.as_ref()?.get(name).map(ToString::to_string)
}

fn command_body() -> Value {
    json!({
        "sender": {"serviceName": "Caller", "serviceVersion": "1", "serviceTarget": "main", "instanceId": "callerInstance1"},
        "receiver": {"serviceName": "User", "serviceVersion": "1", "serviceTarget": "userSignUp"},
        "traceId": "s01-signUp",
        "contentType": "application/json",
        "contentEncoding": "utf-8",
        "payload": {"payload": {"email": "ada@example.com", "name": "Ada"}, "parameter": {}},
        "messageType": "command"
    })
}

fn response_body() -> Value {
    json!({
        "traceId": "s01-signUp",
        "contentType": "application/json",
        "contentEncoding": "utf-8",
        "eventName": "newUserRegistered",
        "messageType": "commandSuccessResponse",
        "sender": {"serviceName": "User", "serviceVersion": "1", "serviceTarget": "userSignUp", "instanceId": "userInstance1"},
        "receiver": {"serviceName": "Caller", "serviceVersion": "1", "serviceTarget": "main", "instanceId": "callerInstance1"},
        "payload": {"userId": "id-of-Ada"}
    })
}

fn response_headers() -> Vec<(&'static str, &'static str)> {
    vec![
        ("messageType", "commandSuccessResponse"),
        ("senderServiceName", "User"),
        ("senderServiceVersion", "1"),
        ("senderServiceTarget", "userSignUp"),
        ("senderInstanceId", "userInstance1"),
        ("receiverServiceName", "Caller"),
        ("receiverServiceVersion", "1"),
        ("receiverServiceTarget", "main"),
        ("receiverInstanceId", "callerInstance1"),
    ]
}

#[track_caller]
fn assert_headers(raw: &async_nats::Message, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(header(raw, name).as_deref(), Some(*value), "{name}");
    }
    assert!(header(raw, "traceparent").is_some_and(|parent| parent.starts_with("00-0af76519")));
    let count = raw.headers.as_ref().map_or(0, HeaderMap::len);
    assert_eq!(count, expected.len() + 1, "{:?}", raw.headers);
}

async fn two_bridges(
    server: &Server,
    record: Option<Record>,
) -> (Arc<dyn EventBridge>, Arc<dyn EventBridge>) {
    let (user, caller) = (server.bridge("userInstance1").await, server.bridge("callerInstance1").await);
    let serving = Arc::new(SignUp { instance: "userInstance1", record });
    user.subscribe(Subscription::command(Address::of(USER, "userSignUp"), 64), serving).await.unwrap();
    (user, caller)
}

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn a_sign_up_looks_as_puristas_does() {
    let server = Server::start().await;
    let (user, caller) = two_bridges(&server, None).await;
    let client = server.client().await;
    let mut captured = server.captured(&client, ">").await;

    let sent = sign_up();
    let answer = caller.request(Box::new(sent.clone())).await.unwrap();
    assert_eq!(answer.id, sent.id, "a response bears the id of its command");

    let command = next(&mut captured).await;
    assert_eq!(
        command.subject.as_str(),
        "purista.command.empty.empty.caller_instance1.caller.1.main.empty.empty.user.1.user_sign_up"
    );
    let inbox = command.reply.clone().unwrap();
    assert!(inbox.starts_with("_INBOX."));
    assert_eq!(body(&command), command_body());

    let reply = next(&mut captured).await;
    assert_eq!(reply.subject, inbox);
    assert_eq!(body(&reply), response_body());
    let mut headers = response_headers();
    headers.push(("eventName", "newUserRegistered"));
    assert_headers(&reply, &headers);

    let event = next(&mut captured).await;
    assert_eq!(
        event.subject.as_str(),
        "purista.command_success_response.empty.empty.user_instance1.user.1.user_sign_up.new_user_registered.caller_instance1.caller.1.main"
    );
    assert_eq!(event.payload, reply.payload, "the same bytes");
    assert_headers(&event, &headers);
    user.close().await.unwrap();
    caller.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn a_recorded_event_leaves_no_trace_on_its_responses_way() {
    let server = Server::start().await;
    let record = Record { origin: Some("store-1".into()), causation_id: None, event_version: 1 };
    let (user, caller) = two_bridges(&server, Some(record)).await;
    let client = server.client().await;
    let mut captured = server.captured(&client, ">").await;
    caller.request(Box::new(sign_up())).await.unwrap();
    next(&mut captured).await;
    let reply = next(&mut captured).await;
    assert_eq!(body(&reply), response_body(), "the body bears the event's name");
    assert_headers(&reply, &response_headers());
    let mut marker = Message::new(
        Id::from_random(1),
        MessageType::CustomMessage,
        0,
        Party::anywhere(Address::of(USER, "userSignUp")),
        Id::from_random(2),
    );
    marker.event_name = Some(Text::known("marker"));
    user.publish(marker).await.unwrap();
    assert!(next(&mut captured).await.subject.contains(".marker."), "there is no second message");
}

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn a_hand_made_command_of_a_peer_is_answered() {
    let server = Server::start().await;
    let (_user, _caller) = two_bridges(&server, None).await;
    let client = server.client().await;
    let minimal = json!({
        "messageType": "command", "correlationId": "c-1",
        "sender": {"serviceName": "Peer", "serviceVersion": "1", "serviceTarget": "main", "instanceId": "p1"},
        "receiver": {"serviceName": "User", "serviceVersion": "1", "serviceTarget": "userSignUp"},
        "payload": {"payload": {"email": "ada@example.com", "name": "Ada"}, "parameter": {}}
    });
    // Nine parts of the subject may be anything.
    let subject = "purista.command.a.b.c.d.e.f.g.h.user.1.user_sign_up";
    let reply = client.request(subject, minimal.to_string().into()).await.unwrap();
    let reply: Value = serde_json::from_slice(&reply.payload).unwrap();
    assert_eq!(reply["messageType"], "commandSuccessResponse");
    assert_eq!(reply["correlationId"], "c-1");
    assert_eq!(reply["payload"], json!({"userId": "id-of-Ada"}));
}

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn a_command_that_cannot_be_read_is_refused_and_harms_nobody() {
    let server = Server::start().await;
    let (_user, caller) = two_bridges(&server, None).await;
    let client = server.client().await;
    let subject = "purista.command.empty.empty.i.caller.1.main.empty.empty.user.1.user_sign_up";
    let no_receiver = r#"{"messageType":"command","id":"a1","correlationId":"c1","sender":{"serviceName":"Peer","serviceVersion":"1","serviceTarget":"main","instanceId":"p1"},"payload":{}}"#;
    let deep = format!("{}1{}", "[".repeat(1000), "]".repeat(1000));
    for broken in ["", "{", "no json", "[]", "{}", r#"{"messageType":"command"}"#, no_receiver, &deep] {
        let reply = client.request(subject, broken.to_owned().into()).await.unwrap();
        assert_eq!(header(&reply, "messageType").as_deref(), Some("commandErrorResponse"), "{broken:.40}");
        let reply: Value = serde_json::from_slice(&reply.payload).unwrap();
        assert_eq!(reply["messageType"], "commandErrorResponse");
        assert_eq!(reply["isHandledError"], true);
        assert_eq!(reply["payload"]["status"], 400);
        assert_eq!(reply["sender"]["instanceId"], "userInstance1");
        if broken == no_receiver {
            assert_eq!(reply["receiver"]["instanceId"], "p1");
            assert_eq!(reply["id"], "a1");
        }
    }
    // Without a place for the answer there is silence, and life goes on.
    client.publish(subject, "{".into()).await.unwrap();
    client.flush().await.unwrap();
    let answer = caller.request(Box::new(sign_up())).await.unwrap();
    assert_eq!(answer.kind, MessageType::CommandSuccessResponse);
}

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn a_reply_that_is_no_answer_ends_its_call_at_once() {
    let server = Server::start().await;
    let caller = server.bridge("callerInstance1").await;
    let client = server.client().await;
    let mut calls = server.captured(&client, "purista.command.*.*.*.*.*.*.*.*.user.1.user_sign_up").await;
    let foreign = r#"{"messageType":"commandSuccessResponse","correlationId":"another","payload":1}"#;
    for answer in ["", "{", "{}", foreign] {
        let answering = async {
            let inbox = calls.next().await.unwrap().reply.unwrap();
            client.publish(inbox, answer.to_owned().into()).await.unwrap();
        };
        let began = Instant::now();
        let (ended, ()) = tokio::join!(caller.request(Box::new(sign_up())), answering);
        assert!(ended.unwrap_err().may_have_happened(), "{answer:?}");
        assert!(began.elapsed() < PATIENCE / 2);
    }
}

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn a_message_larger_than_the_server_takes_is_rejected_and_a_reply_so_large_becomes_an_error() {
    struct Large;
    impl Consumer for Large {
        fn consume(&self, delivery: Delivery) -> BoxFuture<'static, Outcome> {
            let sender = Party::anywhere(Address::of(USER, "large"));
            let payload = Payload::encoded(format!("\"{}\"", "x".repeat(2 << 20)).into());
            let reply = delivery.message.response(MessageType::CommandSuccessResponse, 0, sender, payload);
            Box::pin(async { Outcome::Reply(Box::new(reply)) })
        }
    }
    let server = Server::start().await;
    let (_user, caller) = two_bridges(&server, None).await;
    assert_eq!(caller.capabilities().message_bytes_max, 1 << 20);
    let mut large = sign_up();
    large.payload = Payload::encoded(format!("\"{}\"", "x".repeat(1 << 20)).into());
    let error = caller.request(Box::new(large)).await.unwrap_err();
    assert_eq!(error.kind(), BridgeErrorKind::TooLarge, "{error}");
    // The server would end the connection over a line that is longer than its `max_control_line`.
    let mut long = sign_up();
    long.principal_id = Some("p".repeat(5_000).into());
    let error = caller.request(Box::new(long)).await.unwrap_err();
    assert_eq!(error.kind(), BridgeErrorKind::TooLarge, "{error}");

    caller.subscribe(Subscription::command(Address::of(USER, "large"), 1), Arc::new(Large)).await.unwrap();
    let mut command = sign_up();
    command.receiver = Some(Party::anywhere(Address::of(USER, "large")));
    let answer = caller.request(Box::new(command)).await.unwrap();
    assert_eq!(answer.kind, MessageType::CommandErrorResponse);
}
