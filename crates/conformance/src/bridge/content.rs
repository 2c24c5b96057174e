//! Duties towards the content: what goes in comes out.

use purista_core::bridge::{BridgeErrorKind, Delivery};
use purista_core::id::Id;
use purista_core::message::{Message, MessageType, Record};
use purista_core::subscription::Subscription;
use purista_core::trace::TraceContext;
use tokio::time::Instant;

use super::consumers::{Recorder, consumer, reply};
use super::world::{World, address, listening, publish, request, serve, subscribe, text};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// What tempts escapes, topics and headers.
const AWKWARD: &str = "Ärger & 日本 \"quoted\" \\ / . * > # +\u{1F600}";

/// Gives a message everything that a message can bear, save a reply's or an event's own.
fn laden(message: Message) -> Message {
    Message {
        trace_id: Id::parse("s01-signUp").expect("a short text is an id"),
        trace: TraceContext::parse(TRACE, Some("vendor=1")),
        principal_id: Some(AWKWARD.into()),
        tenant_id: Some("tenant-Two".into()),
        hops: 3,
        payload: purista_core::payload::Payload::encoded(payload().into_bytes().into()),
        ..message
    }
}

fn payload() -> String {
    serde_json::json!({ "name": AWKWARD, "list": [1, 2.5, null, {"deep": [true]}], "big": 9_007_199_254_740_991_i64 })
        .to_string()
}

/// Fails where two messages differ in what must survive.
#[track_caller]
fn assert_same(got: &Message, sent: &Message) {
    assert_eq!(got.id, sent.id);
    assert_eq!(got.kind, sent.kind);
    assert_eq!(got.timestamp_ms, sent.timestamp_ms);
    assert_eq!(got.sender, sent.sender);
    assert_eq!(got.receiver, sent.receiver);
    assert_eq!(got.correlation_id, sent.correlation_id);
    assert_eq!(got.trace_id, sent.trace_id);
    assert_eq!(got.trace, sent.trace, "the trace context with its vendors' state");
    assert_eq!(got.principal_id, sent.principal_id);
    assert_eq!(got.tenant_id, sent.tenant_id);
    assert_eq!(got.event_name, sent.event_name);
    assert_eq!(got.content, sent.content);
    assert_eq!(got.hops, sent.hops);
    assert_eq!(got.idempotency_key, sent.idempotency_key);
    assert_eq!(got.record, sent.record);
    assert_eq!(got.parameter, sent.parameter);
    assert_eq!(got.is_handled_error, sent.is_handled_error);
    assert_eq!(text(got), text(sent), "byte by byte");
}

/// A command arrives with everything that it bears, its parameter and its key among it, and with the time that is left.
pub async fn command_survives_the_way_unchanged(world: &World) {
    let (server, caller) = (world.bridge().await, world.bridge().await);
    let kept = Recorder::default();
    serve(&server, "User", "signUp", kept.consumer()).await;
    let mut command = laden(world.command("User", "signUp", ""));
    command.parameter = Some(r#"{"id":"ä/1","page":2}"#.into());
    command.idempotency_key = Some("order-17".into());
    let deadline = command.deadline.expect("a command of a duty has one");
    request(&caller, command.clone()).await;
    let got = kept.message().await;
    assert_same(&got, &command);
    let left = got.deadline.expect("the deadline comes along");
    let difference = left.max(deadline) - left.min(deadline);
    assert!(difference.as_secs() < 2 && left > Instant::now(), "{difference:?}");
}

/// A reply arrives with everything that it bears.
pub async fn reply_survives_the_way_unchanged(world: &World) {
    let (server, caller) = (world.bridge().await, world.bridge().await);
    let sent = Recorder::default();
    let keeps = sent.clone();
    let serving = consumer(move |delivery: Delivery| {
        let mut answer = reply(&delivery.message, payload());
        answer.trace = TraceContext::parse(TRACE, None);
        keeps.keep(Delivery { message: answer.clone().into(), attempt: 1 });
        async move { purista_core::bridge::Outcome::Reply(Box::new(answer)) }
    });
    serve(&server, "User", "signUp", serving).await;
    let got = request(&caller, laden(world.command("User", "signUp", ""))).await;
    assert_same(&got, &sent.message().await);
}

/// An event arrives with everything that it bears, its place in a log among it.
pub async fn event_survives_the_way_unchanged(world: &World) {
    let (listener, source) = (world.bridge().await, world.bridge().await);
    let recorder = Recorder::default();
    subscribe(&listener, listening("mail", "userRegistered"), recorder.consumer()).await;
    let mut event = laden(world.event("userRegistered"));
    event.record = Some(Box::new(Record {
        origin: Some("store-1".into()),
        causation_id: Some(Id::from_random(42)),
        event_version: 3,
    }));
    publish(&source, event.clone()).await;
    assert_same(&recorder.message().await, &event);
}

/// What a message does not bear is not made up on the way.
pub async fn absent_parts_stay_absent(world: &World) {
    let (listener, source) = (world.bridge().await, world.bridge().await);
    let recorder = Recorder::default();
    subscribe(&listener, listening("mail", "userRegistered"), recorder.consumer()).await;
    let mut event = world.event("userRegistered");
    event.trace = TraceContext::parse(TRACE, None);
    event.sender.instance = None;
    publish(&source, event.clone()).await;
    let got = recorder.message().await;
    assert_same(&got, &event);
    assert!(got.payload.is_empty());
}

/// A payload of 512 KiB arrives whole.
pub async fn large_payload_survives_the_way(world: &World) {
    let (listener, source) = (world.bridge().await, world.bridge().await);
    let recorder = Recorder::default();
    subscribe(&listener, listening("mail", "userRegistered"), recorder.consumer()).await;
    let mut event = world.event("userRegistered");
    let content = format!("\"{}\"", "x".repeat(512 * 1024));
    event.payload = purista_core::payload::Payload::encoded(content.clone().into_bytes().into());
    publish(&source, event).await;
    assert_eq!(text(&recorder.message().await), content);
}

/// A message that is larger than the bridge says ends as too large, whether it is an event or a command; nothing of it is
/// sent, the connection stays, and what fits goes on.
pub async fn message_above_the_limit_is_too_large_and_the_bridge_works_on(world: &World) {
    let (listener, source) = (world.bridge().await, world.bridge().await);
    let (heard, kept) = (Recorder::default(), Recorder::default());
    subscribe(&listener, listening("mail", "userRegistered"), heard.consumer()).await;
    serve(&listener, "User", "signUp", kept.consumer()).await;
    let (state, most) = (source.state(), source.capabilities().message_bytes_max);
    let content = format!("\"{}\"", "x".repeat(most));
    let mut large = world.event("userRegistered");
    large.payload = purista_core::payload::Payload::encoded(content.clone().into_bytes().into());
    let published = source.publish(large).await.expect_err("it is too large");
    let asked = source.request(Box::new(world.command("User", "signUp", &content))).await;
    let asked = asked.expect_err("it is too large");
    for error in [published, asked] {
        assert_eq!(error.kind(), BridgeErrorKind::TooLarge, "{error}");
        assert!(!error.may_have_happened(), "{error}");
    }
    let event = world.numbered("userRegistered", 1);
    publish(&source, event.clone()).await;
    assert_eq!(heard.message().await.id, event.id);
    request(&source, world.command("User", "signUp", "1")).await;
    assert_eq!(text(&kept.message().await), "1");
    assert!(!state.has_changed().unwrap_or(true), "the connection was not lost over it");
    world.close().await;
    heard.expect_nothing_more().await;
    kept.expect_nothing_more().await;
}

/// Bytes that are no message reach no consumer and stop no feed, neither of an event nor of a command.
pub async fn message_that_is_no_message_changes_nothing(world: &World) {
    let (listener, source) = (world.bridge().await, world.bridge().await);
    let (heard, kept) = (Recorder::default(), Recorder::default());
    let mail = listening("mail", "userRegistered");
    subscribe(&listener, mail.clone(), heard.consumer()).await;
    serve(&listener, "User", "signUp", kept.consumer()).await;
    for subscription in [mail, Subscription::command(address("User", "signUp"), 64)] {
        if let Some(sending) = world.system().send_rubbish(&subscription) {
            sending.await;
        }
    }
    let event = world.event("userRegistered");
    publish(&source, event.clone()).await;
    assert_eq!(heard.message().await.id, event.id);
    let answer = request(&source, world.command("User", "signUp", "1")).await;
    assert_eq!(answer.kind, MessageType::CommandSuccessResponse);
    assert_eq!(text(&kept.message().await), "1");
    world.close().await;
    heard.expect_nothing_more().await;
    kept.expect_nothing_more().await;
}
