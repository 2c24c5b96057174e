//! What a third party sees of the bridges: PURISTA's exchange, queues, properties, headers and bodies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use lapin::message::Delivery as Raw;
use lapin::options::{BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer as RawConsumer, ExchangeKind};
use purista_conformance::bridge::consumers::Recorder;
use purista_core::address::{Address, ServiceId};
use purista_core::bridge::{BridgeErrorKind, Consumer, Delivery, EventBridge, Outcome};
use purista_core::clock::Clock;
use purista_core::id::Id;
use purista_core::message::{Message, MessageType, Party, Record};
use purista_core::payload::Payload;
use purista_core::subscription::{Filter, Sharing, Subscription};
use purista_core::text::Text;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::server::{Server, System};

pub(crate) const USER: ServiceId = ServiceId::new("User", "1");
const CALLER: ServiceId = ServiceId::new("Caller", "1");
const EMAIL: ServiceId = ServiceId::new("Email", "1");
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Serves `User.1.userSignUp`: answers with an id, and marks the answer with an event.
struct SignUp(Option<Record>);

impl Consumer for SignUp {
    fn consume(&self, delivery: Delivery) -> BoxFuture<'static, Outcome> {
        let sender =
            Party { address: Address::of(USER, "userSignUp"), instance: Id::parse("userInstance1").ok() };
        let payload = Payload::encoded(r#"{"userId":"id-of-Ada"}"#.into());
        let kind = MessageType::CommandSuccessResponse;
        let mut reply = delivery.message.response(kind, Clock::system().now_ms(), sender, payload);
        reply.event_name = Some(Text::known("newUserRegistered"));
        reply.record = self.0.clone().map(Box::new);
        Box::pin(async { Outcome::Reply(Box::new(reply)) })
    }
}

fn caller() -> Party {
    Party { address: Address::of(CALLER, "main"), instance: Id::parse("callerInstance1").ok() }
}

pub(crate) fn sign_up() -> Message {
    let clock = Clock::system();
    let trace_id = Id::parse("s01-signUp").unwrap();
    let mut command = Message::new(clock.id(), MessageType::Command, clock.now_ms(), caller(), trace_id);
    command.receiver = Some(Party::anywhere(Address::of(USER, "userSignUp")));
    command.correlation_id = Some(clock.id());
    command.payload = Payload::encoded(r#"{"email":"ada@example.com","name":"Ada"}"#.into());
    command.trace = purista_core::trace::TraceContext::parse(TRACEPARENT, None);
    command.deadline = Some(Instant::now() + PATIENCE);
    command
}

fn event(name: &'static str, target: &'static str) -> Message {
    let clock = Clock::system();
    let sender = Party { address: Address::of(USER, target), instance: Id::parse("userInstance1").ok() };
    let mut event = Message::new(clock.id(), MessageType::CustomMessage, clock.now_ms(), sender, clock.id());
    event.event_name = Some(Text::known(name));
    event.trace_id = Id::parse("s09-touchUser-emit").unwrap();
    event.trace = purista_core::trace::TraceContext::parse(TRACEPARENT, None);
    event.payload = Payload::encoded(r#"{"userId":"u-1","at":1700000000000}"#.into());
    event
}

pub(crate) fn headers(pairs: &[(&str, &str)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in pairs {
        table.insert((*name).into(), AMQPValue::LongString((*value).into()));
    }
    table
}

/// A queue of a third party that gets every message of the exchange.
pub(crate) async fn captured(system: &System, client: &Channel) -> RawConsumer {
    let own = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let queue = client.queue_declare("".into(), own, FieldTable::default()).await.unwrap();
    let (name, exchange) = (queue.name().clone(), system.name.as_str());
    let all = headers(&[("x-match", "all")]);
    client
        .queue_bind(name.clone(), exchange.into(), "".into(), QueueBindOptions::default(), all)
        .await
        .unwrap();
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    client.basic_consume(name, "".into(), options, FieldTable::default()).await.unwrap()
}

pub(crate) async fn next(captured: &mut RawConsumer) -> Raw {
    tokio::time::timeout(PATIENCE, captured.next()).await.unwrap().unwrap().unwrap()
}

/// A body without what differs from message to message, and without the extra keys that peers ignore.
fn body(raw: &Raw) -> Value {
    let mut body: Value = serde_json::from_slice(&raw.data).unwrap();
    let object = body.as_object_mut().unwrap();
    for varying in ["id", "timestamp", "otp"] {
        assert!(object.remove(varying).is_some(), "PURISTA sends {varying}");
    }
    for extra in ["correlationId", "ttl", "origin"] {
        object.remove(extra);
    }
    body
}

/// The headers but the trace, which must be there.
fn routing(raw: &Raw) -> BTreeMap<String, String> {
    let text = |value: &AMQPValue| match value {
        AMQPValue::LongString(text) => text.to_string(),
        other => panic!("PURISTA's headers are texts: {other:?}"),
    };
    let headers = raw.properties.headers().as_ref().unwrap().inner();
    let mut headers: BTreeMap<_, _> =
        headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    assert!(headers.remove("traceparent").unwrap().starts_with("00-0af76519"));
    headers
}

fn pairs(expected: &[(&str, &str)]) -> BTreeMap<String, String> {
    expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What the captured properties have in common: nothing more is there than PURISTA sends.
#[track_caller]
fn assert_properties(raw: &Raw, kind: &str, pairs_with: bool, reply_to: Option<&str>) {
    let properties = &raw.properties;
    let wire: Value = serde_json::from_slice(&raw.data).unwrap();
    let text = |value: &Option<lapin::types::ShortString>| value.as_ref().map(ToString::to_string);
    let of_body = |name: &str| wire.get(name).and_then(Value::as_str).map(str::to_owned);
    assert_eq!(text(properties.message_id()), of_body("id"));
    assert_eq!(text(properties.correlation_id()), of_body("correlationId").filter(|_| pairs_with));
    assert_eq!(
        properties.timestamp().unwrap(),
        wire.get("timestamp").and_then(Value::as_u64).unwrap(),
        "in milliseconds"
    );
    assert_eq!(text(properties.kind()).as_deref(), Some(kind));
    assert_eq!(text(properties.content_type()).as_deref(), Some("application/json"));
    assert_eq!(text(properties.content_encoding()).as_deref(), Some("utf-8"));
    assert_eq!(text(properties.reply_to()).as_deref(), reply_to);
    assert_eq!(*properties.delivery_mode(), Some(2));
    let more = [properties.expiration(), properties.user_id(), properties.app_id(), properties.cluster_id()];
    assert!(more.iter().all(|property| property.is_none()) && properties.priority().is_none());
    assert_eq!(raw.routing_key.as_str(), "");
}

pub(crate) async fn two_bridges(
    system: &System,
    record: Option<Record>,
) -> (Arc<dyn EventBridge>, Arc<dyn EventBridge>) {
    let (user, caller) = (system.bridge("userInstance1").await, system.bridge("callerInstance1").await);
    let serving = Subscription::command(Address::of(USER, "userSignUp"), 64);
    user.subscribe(serving, Arc::new(SignUp(record))).await.unwrap();
    (user, caller)
}

fn response_headers(reply_to: &str) -> BTreeMap<String, String> {
    pairs(&[
        ("messageType", "commandSuccessResponse"),
        ("senderServiceName", "User"),
        ("senderServiceVersion", "1"),
        ("senderServiceTarget", "userSignUp"),
        ("senderInstanceId", "userInstance1"),
        ("receiverServiceName", "Caller"),
        ("receiverServiceVersion", "1"),
        ("receiverServiceTarget", "main"),
        ("receiverServiceInstanceId", "callerInstance1"),
        ("replyTo", reply_to),
        ("eventName", "newUserRegistered"),
    ])
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

#[tokio::test]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn a_sign_up_looks_as_puristas_does() {
    let system = Server::shared().await.system();
    let (user, caller) = two_bridges(&system, None).await;
    let client = system.client().await;
    let mut captured = captured(&system, &client).await;

    let sent = sign_up();
    let answer = caller.request(Box::new(sent.clone())).await.unwrap();
    assert_eq!(answer.id, sent.id, "a response bears the id of its command");

    let command = next(&mut captured).await;
    let reply_to = command.properties.reply_to().as_ref().unwrap().to_string();
    assert!(reply_to.starts_with("amq.gen-"), "a name that the broker chose: {reply_to}");
    assert_properties(&command, "command", true, Some(&reply_to));
    assert_eq!(
        routing(&command),
        pairs(&[
            ("messageType", "command"),
            ("senderServiceName", "Caller"),
            ("senderServiceVersion", "1"),
            ("senderServiceTarget", "main"),
            ("senderInstanceId", "callerInstance1"),
            ("receiverServiceName", "User"),
            ("receiverServiceVersion", "1"),
            ("receiverServiceTarget", "userSignUp"),
        ])
    );
    assert_eq!(
        body(&command),
        json!({
            "sender": {"serviceName": "Caller", "serviceVersion": "1", "serviceTarget": "main", "instanceId": "callerInstance1"},
            "receiver": {"serviceName": "User", "serviceVersion": "1", "serviceTarget": "userSignUp"},
            "traceId": "s01-signUp",
            "contentType": "application/json",
            "contentEncoding": "utf-8",
            "payload": {"payload": {"email": "ada@example.com", "name": "Ada"}, "parameter": {}},
            "messageType": "command"
        })
    );

    let reply = next(&mut captured).await;
    assert_properties(&reply, "commandSuccessResponse", true, None);
    assert_eq!(
        routing(&reply),
        response_headers(&reply_to),
        "one publishing for the caller and for the event"
    );
    assert_eq!(body(&reply), response_body());

    // A principal and a tenant are headers too, whatever letters they have.
    let mut named = sign_up();
    (named.principal_id, named.tenant_id) = (Some("Bob Ünïcode €".into()), Some("tenant-Two".into()));
    caller.request(Box::new(named)).await.unwrap();
    for _ in 0..2 {
        let seen = routing(&next(&mut captured).await);
        assert_eq!(seen["principalId"], "Bob Ünïcode €");
        assert_eq!(seen["tenantId"], "tenant-Two");
    }
    user.close().await.unwrap();
    caller.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn events_and_infos_look_as_puristas_do() {
    let system = Server::shared().await.system();
    let user = system.bridge("userInstance1").await;
    let client = system.client().await;
    let mut captured = captured(&system, &client).await;
    user.publish(event("userTouched", "touchUser")).await.unwrap();
    let touched = next(&mut captured).await;
    assert_properties(&touched, "customMessage", false, None);
    let sender = |target| {
        [
            ("senderServiceName", "User"),
            ("senderServiceVersion", "1"),
            ("senderServiceTarget", target),
            ("senderInstanceId", "userInstance1"),
        ]
    };
    let mut expected = vec![("messageType", "customMessage"), ("eventName", "userTouched")];
    expected.extend(sender("touchUser"));
    assert_eq!(routing(&touched), pairs(&expected));
    assert_eq!(
        body(&touched),
        json!({
            "messageType": "customMessage", "traceId": "s09-touchUser-emit",
            "contentType": "application/json", "contentEncoding": "utf-8",
            "sender": {"serviceName": "User", "serviceVersion": "1", "serviceTarget": "touchUser", "instanceId": "userInstance1"},
            "eventName": "userTouched", "payload": {"userId": "u-1", "at": 1_700_000_000_000_u64}
        })
    );
    let mut ready = event("none", "");
    (ready.kind, ready.event_name) = (MessageType::InfoServiceReady, None);
    user.publish(ready).await.unwrap();
    let ready = next(&mut captured).await;
    assert_properties(&ready, "infoServiceReady", false, None);
    let mut expected = vec![("messageType", "infoServiceReady")];
    expected.extend(sender(""));
    assert_eq!(routing(&ready), pairs(&expected), "an empty target is there, and empty");
    user.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn a_recorded_event_leaves_no_trace_in_its_responses_headers() {
    let system = Server::shared().await.system();
    let record = Record { origin: Some("store-1".into()), causation_id: None, event_version: 1 };
    let (_user, caller) = two_bridges(&system, Some(record)).await;
    let client = system.client().await;
    let mut captured = captured(&system, &client).await;
    caller.request(Box::new(sign_up())).await.unwrap();
    let command = next(&mut captured).await;
    let reply = next(&mut captured).await;
    let mut expected = response_headers(command.properties.reply_to().as_ref().unwrap().as_str());
    expected.remove("eventName");
    assert_eq!(routing(&reply), expected);
    assert_eq!(body(&reply), response_body(), "the body bears the event's name");
}

/// Declares, as a PURISTA 2.0.5 does; with other arguments than what is there already the broker refuses.
async fn declare_as_purista(client: &Channel, system: &System) {
    let nothing = FieldTable::default;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let exchange =
        client.exchange_declare(system.name.as_str().into(), ExchangeKind::Headers, durable, nothing());
    exchange.await.unwrap();
    let declared = [
        (
            "cmd.User.1.userSignUp",
            QueueDeclareOptions { auto_delete: true, ..QueueDeclareOptions::default() },
        ),
        ("sub.Email.1.durable", QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() }),
        ("sub.Email.1.fleeting", QueueDeclareOptions::default()),
    ];
    for (name, options) in declared {
        let name = format!("{}.{name}", system.name);
        client.queue_declare(name.into(), options, nothing()).await.unwrap();
    }
}

async fn subscribe_to_all(user: &Arc<dyn EventBridge>) {
    let recorder = Recorder::default();
    user.subscribe(Subscription::command(Address::of(USER, "userSignUp"), 64), recorder.consumer())
        .await
        .unwrap();
    for (target, durable) in [("durable", true), ("fleeting", false)] {
        let subscription = Subscription {
            address: Address::of(EMAIL, target),
            filter: Filter::event(Text::known("newUserRegistered")),
            sharing: Sharing::Shared,
            durable,
            in_flight: 1,
            from_start: false,
            answers: false,
        };
        user.subscribe(subscription, recorder.consumer()).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn exchange_and_queues_are_declared_as_puristas_whoever_comes_first() {
    for is_first in [true, false] {
        let system = Server::shared().await.system();
        let client = system.client().await;
        if !is_first {
            declare_as_purista(&client, &system).await;
        }
        let user = system.bridge("userInstance1").await;
        subscribe_to_all(&user).await;
        declare_as_purista(&client, &system).await;
        user.close().await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn a_queue_that_somebody_declared_otherwise_is_an_error_that_names_it() {
    let system = Server::shared().await.system();
    let client = system.client().await;
    let other = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let name = format!("{}.cmd.User.1.userSignUp", system.name);
    client.queue_declare(name.as_str().into(), other, FieldTable::default()).await.unwrap();
    let user = system.bridge("userInstance1").await;
    let serving = Subscription::command(Address::of(USER, "userSignUp"), 64);
    let error = user.subscribe(serving, Arc::new(SignUp(None))).await.unwrap_err();
    assert_eq!(error.kind(), BridgeErrorKind::Rejected);
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(error.to_string().contains(&name) && source.contains("PRECONDITION_FAILED"), "{error}: {source}");
    // The other subscriptions of this process do not suffer.
    user.publish(event("userTouched", "touchUser")).await.unwrap();
    user.close().await.unwrap();
}
