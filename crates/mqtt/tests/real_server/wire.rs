//! What a third party sees of the bridges: PURISTA's topics, properties and bodies.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use purista_conformance::bridge::consumers::Recorder;
use purista_conformance::bridge::world::subscription;
use purista_core::address::{Address, ServiceId};
use purista_core::bridge::{Consumer, Delivery, EventBridge, Outcome};
use purista_core::clock::Clock;
use purista_core::id::Id;
use purista_core::message::{Message, MessageType, Party, Record};
use purista_core::payload::Payload;
use purista_core::subscription::{Filter, Subscription};
use purista_core::text::Text;
use purista_core::trace::TraceContext;
use rumqttc::{Publish, QoS};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::server::Server;

const USER: ServiceId = ServiceId::new("User", "1");
const CALLER: ServiceId = ServiceId::new("Caller", "1");
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const COMMAND_TOPIC: &str =
    "purista/command/none/none/caller_instance1/caller/1/main/none/none/user/1/user_sign_up";

/// Serves `User.1.userSignUp`: answers with an id, and marks the answer with an event.
struct SignUp {
    record: Option<Record>,
    is_marked: bool,
}

impl Consumer for SignUp {
    fn consume(&self, delivery: Delivery) -> BoxFuture<'static, Outcome> {
        let sender =
            Party { address: Address::of(USER, "userSignUp"), instance: Id::parse("userInstance1").ok() };
        let payload = Payload::encoded(r#"{"userId":"id-of-Ada"}"#.into());
        let now = Clock::system().now_ms();
        let mut reply = delivery.message.response(MessageType::CommandSuccessResponse, now, sender, payload);
        reply.event_name = self.is_marked.then(|| Text::known("newUserRegistered"));
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
    command.trace = TraceContext::parse(TRACEPARENT, None);
    command.deadline = Some(Instant::now() + std::time::Duration::from_secs(30));
    command
}

fn topic(raw: &Publish) -> &str {
    std::str::from_utf8(&raw.topic).unwrap()
}

/// A body without what differs from message to message, and without the extra keys that peers ignore.
fn body(raw: &Publish) -> Value {
    let mut body: Value = serde_json::from_slice(&raw.payload).unwrap();
    let object = body.as_object_mut().unwrap();
    for varying in ["id", "timestamp", "otp"] {
        assert!(object.remove(varying).is_some(), "PURISTA sends {varying}");
    }
    for extra in ["correlationId", "ttl", "origin"] {
        object.remove(extra);
    }
    body
}

/// The user properties are these, in this order, and the trace context.
#[track_caller]
fn assert_properties(raw: &Publish, expected: &[(&str, &str)], expiry_s: u32) {
    let properties = raw.properties.as_ref().unwrap();
    let (traces, others): (Vec<_>, Vec<_>) =
        properties.user_properties.iter().partition(|(name, _)| name == "traceparent");
    let others: Vec<_> = others.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(others, expected);
    assert!(matches!(traces.as_slice(), [(_, parent)] if parent.starts_with("00-0af76519")), "{traces:?}");
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
    assert_eq!(properties.message_expiry_interval, Some(expiry_s));
    assert_eq!(properties.response_topic, None);
    assert_eq!((raw.qos, raw.retain), (QoS::AtLeastOnce, false));
}

fn correlation(raw: &Publish) -> String {
    let data = raw.properties.as_ref().unwrap().correlation_data.clone().unwrap();
    let text = String::from_utf8(data.to_vec()).unwrap();
    let body: Value = serde_json::from_slice(&raw.payload).unwrap();
    assert_eq!(body.get("correlationId").and_then(Value::as_str), Some(text.as_str()), "as in the body");
    text
}

fn command_properties() -> Vec<(&'static str, &'static str)> {
    vec![
        ("messageType", "command"),
        ("senderServiceName", "Caller"),
        ("senderServiceVersion", "1"),
        ("senderServiceTarget", "main"),
        ("senderInstanceId", "callerInstance1"),
        ("receiverServiceName", "User"),
        ("receiverServiceVersion", "1"),
        ("receiverServiceTarget", "userSignUp"),
    ]
}

fn response_properties() -> Vec<(&'static str, &'static str)> {
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

async fn two_bridges(server: &Server, serving: SignUp) -> (Arc<dyn EventBridge>, Arc<dyn EventBridge>) {
    let (user, caller) = (server.bridge("userInstance1").await, server.bridge("callerInstance1").await);
    let sign_up = Subscription::command(Address::of(USER, "userSignUp"), 64);
    user.subscribe(sign_up, Arc::new(serving)).await.unwrap();
    (user, caller)
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_sign_up_looks_as_puristas_does() {
    let server = Server::start().await;
    let (user, caller) = two_bridges(&server, SignUp { record: None, is_marked: true }).await;
    let mut captured = server.client("#").await;

    let sent = sign_up();
    let answer = caller.request(Box::new(sent.clone())).await.unwrap();
    assert_eq!(answer.id, sent.id, "a response bears the id of its command");

    let command = captured.next().await;
    assert_eq!(topic(&command), COMMAND_TOPIC);
    assert_eq!(body(&command), command_body());
    assert_properties(&command, &command_properties(), 30);
    let correlation_id = correlation(&command);

    let reply = captured.next().await;
    assert_eq!(
        topic(&reply),
        "purista/command_success_response/none/none/user_instance1/user/1/user_sign_up/new_user_registered/caller_instance1/caller/1/main"
    );
    assert_eq!(body(&reply), response_body());
    let mut properties = response_properties();
    properties.push(("eventName", "newUserRegistered"));
    assert_properties(&reply, &properties, 2_592_000);
    assert_eq!(correlation(&reply), correlation_id);
    user.close().await.unwrap();
    caller.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn principal_and_tenant_are_in_topic_and_properties() {
    let server = Server::start().await;
    let (_user, caller) = two_bridges(&server, SignUp { record: None, is_marked: false }).await;
    let mut captured = server.client("#").await;
    let mut command = sign_up();
    command.principal_id = Some("principalOne".into());
    command.tenant_id = Some("tenant-Two".into());
    caller.request(Box::new(command)).await.unwrap();
    let ids = [("principalId", "principalOne"), ("tenantId", "tenant-Two")];
    let command = captured.next().await;
    assert!(topic(&command).starts_with("purista/command/principal_one/tenant_two/"), "{}", topic(&command));
    assert_properties(&command, &[command_properties(), ids.to_vec()].concat(), 30);
    let reply = captured.next().await;
    assert_eq!(
        topic(&reply),
        "purista/command_success_response/principal_one/tenant_two/user_instance1/user/1/user_sign_up/none/caller_instance1/caller/1/main"
    );
    assert_properties(&reply, &[response_properties(), ids.to_vec()].concat(), 30);
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_recorded_event_leaves_no_trace_on_its_responses_way() {
    let server = Server::start().await;
    let record = Record { origin: Some("store-1".into()), causation_id: None, event_version: 1 };
    let (_user, caller) = two_bridges(&server, SignUp { record: Some(record), is_marked: true }).await;
    let mut captured = server.client("#").await;
    caller.request(Box::new(sign_up())).await.unwrap();
    captured.next().await;
    let reply = captured.next().await;
    assert!(topic(&reply).contains("/user_sign_up/none/caller_instance1/"), "{}", topic(&reply));
    assert_eq!(body(&reply), response_body(), "the body bears the event's name");
    assert_properties(&reply, &response_properties(), 30);
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn events_and_infos_look_as_puristas_do() {
    let server = Server::start().await;
    let user = server.bridge("userInstance1").await;
    let mut captured = server.client("#").await;
    let sender =
        |target| Party { address: Address::of(USER, target), instance: Id::parse("userInstance1").ok() };
    let make = |kind, target| {
        let mut message = Message::new(Id::from_random(1), kind, 7, sender(target), Id::from_random(2));
        message.trace = TraceContext::parse(TRACEPARENT, None);
        message
    };
    let mut touched = make(MessageType::CustomMessage, "touchUser");
    touched.event_name = Some(Text::known("userTouched"));
    user.publish(touched).await.unwrap();
    let raw = captured.next().await;
    assert_eq!(
        topic(&raw),
        "purista/custom_message/none/none/user_instance1/user/1/touch_user/user_touched/none/none/none/none"
    );
    let expected = [
        ("messageType", "customMessage"),
        ("senderServiceName", "User"),
        ("senderServiceVersion", "1"),
        ("senderServiceTarget", "touchUser"),
        ("senderInstanceId", "userInstance1"),
        ("eventName", "userTouched"),
    ];
    assert_properties(&raw, &expected, 2_592_000);
    assert_eq!(raw.properties.unwrap().correlation_data, None);

    user.publish(make(MessageType::InfoServiceFunctionAdded, "userSignUp")).await.unwrap();
    assert_eq!(
        topic(&captured.next().await),
        "purista/info_service_function_added/none/none/user_instance1/user/1/user_sign_up/none/none/none/none/none"
    );
    user.publish(make(MessageType::InfoServiceReady, "")).await.unwrap();
    assert_eq!(
        topic(&captured.next().await),
        "purista/info_service_ready/none/none/user_instance1/user/1/none/none/none/none/none/none"
    );
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_hand_made_command_of_a_peer_is_answered() {
    let server = Server::start().await;
    let (_user, _caller) = two_bridges(&server, SignUp { record: None, is_marked: false }).await;
    let mut peer = server.client("purista/+/+/+/+/+/+/+/+/p1/+/+/+").await;
    let minimal = json!({
        "messageType": "command", "correlationId": "c-1",
        "sender": {"serviceName": "Peer", "serviceVersion": "1", "serviceTarget": "main", "instanceId": "p1"},
        "receiver": {"serviceName": "User", "serviceVersion": "1", "serviceTarget": "userSignUp"},
        "payload": {"payload": {"email": "ada@example.com", "name": "Ada"}, "parameter": {}}
    });
    // Eight parts of the topic may be anything.
    peer.publish("purista/command/a/b/c/d/e/f/g/h/user/1/user_sign_up", minimal.to_string()).await;
    let reply = peer.next().await;
    let reply: Value = serde_json::from_slice(&reply.payload).unwrap();
    assert_eq!(reply["messageType"], "commandSuccessResponse");
    assert_eq!(reply["correlationId"], "c-1");
    assert_eq!(reply["payload"], json!({"userId": "id-of-Ada"}));
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn the_word_for_what_is_absent_brings_no_recorded_response_to_an_event_of_that_name() {
    let server = Server::start().await;
    let bridge = server.bridge("a").await;
    let recorder = Recorder::default();
    let filter = Filter::event(Text::known("none"));
    bridge.subscribe(subscription("mail", filter), recorder.consumer()).await.unwrap();
    let mut logged = sign_up();
    logged.kind = MessageType::CommandSuccessResponse;
    logged.event_name = Some(Text::known("none"));
    let record = Record { origin: Some("store-1".into()), causation_id: None, event_version: 1 };
    logged.record = Some(Box::new(record));
    let event = Message { kind: MessageType::CustomMessage, id: Id::from_random(7), ..logged.clone() };
    bridge.publish(logged).await.unwrap();
    bridge.publish(event).await.unwrap();
    assert_eq!(recorder.message().await.id, Id::from_random(7), "the log delivers it");
    bridge.close().await.unwrap();
    recorder.expect_nothing_more().await;
}
