//! Our services beside the strict peer's, in one group and each for himself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::try_join_all;
use purista::Host;
use purista_core::address::Address;
use purista_core::client::Request;
use purista_core::invoke_error::InvokeError;
use purista_core::message::{ErrorPayload, MessageType};
use purista_core::payload::Payload;
use serde_json::{Value, json};

use crate::amqp::Amqp;
use crate::carrier::{Carrier, PATIENCE};
use crate::peer::Peer;
use crate::plain::{Plain, verdict};
use crate::running::{Running, client};
use crate::services::{self, SendMail, Slow, USER, UserSignUp};

/// How many calls or events are enough for everybody in a group to get some.
pub(crate) const MANY: usize = 60;

pub(crate) fn sign_up(name: &str) -> UserSignUp {
    UserSignUp { email: "ada@example.com".to_owned(), name: name.to_owned() }
}

async fn the_peer_calls_ours<C: Carrier>() {
    let running = Running::<C>::untapped().await;
    let mut peer = Peer::on(&running.carrier, "peerInstance1").await;
    let answer = peer.invoke("User", "userSignUp", json!({"email": "ada@example.com", "name": "Ada"})).await;
    assert_eq!(verdict(&answer), "ok");
    assert_eq!(answer["payload"], json!({"userId": "id-of-Ada"}));
    assert_eq!(answer["eventName"], "newUserRegistered");
    let refused = peer.invoke("User", "userSignUp", json!({"email": "nope"})).await;
    assert_eq!((verdict(&refused).as_str(), &refused["isHandledError"]), ("400", &json!(true)));
    let faults = refused["payload"]["data"].as_array().unwrap();
    let paths: Vec<_> = faults.iter().map(|fault| fault["path"].clone()).collect();
    assert_eq!(paths, [json!(["email"]), json!(["name"])]);
    let nothing = peer.invoke("User", "noResult", Value::Null).await;
    assert_eq!((verdict(&nothing).as_str(), nothing.get("payload")), ("ok", None));
    let handled = peer.invoke("User", "throwHandled", Value::Null).await;
    assert_eq!(handled["payload"]["status"], 404);
    // It gives up before ours has ended, and drops what comes then. Over NATS its client does so.
    let slow =
        json!({"invoke": crate::peer::address("User", "slow"), "payload": {"ms": 1500}, "timeout_ms": 300});
    let late = peer.order(slow).await["answer"].take();
    assert!(late.get("timeout").is_some() || late["payload"]["message"] == "TimeoutError", "{late}");
    assert_eq!(verdict(&peer.invoke("User", "noResult", Value::Null).await), "ok");
}

async fn ours_call_the_peer<C: Carrier>() {
    let carrier = C::start().await;
    let mut tap = carrier.tap().await;
    let mut peer = Peer::on(&carrier, "peerInstance1").await;
    for (service, target, way) in [
        ("Email", "sendMail", "mail"),
        ("User", "userSignUp", "signUp"),
        ("User", "throwHandled", "fail"),
        ("User", "slow", "slow"),
    ] {
        peer.serve(service, target, way).await;
    }
    let caller = carrier.bridge("callerInstance1").await;
    let client = client(&caller);
    let mail = SendMail { to: "ada".to_owned(), template: "welcome".to_owned() };
    assert!(client.invoke(mail).await.unwrap().sent);
    let call = client.call(sign_up("Ada")).principal("principalOne").tenant("tenant-Two");
    assert_eq!(call.send().await.unwrap().user_id, "id-of-Ada");

    let invalid = Payload::encoded(r#"{"email":"nope"}"#.into());
    let refused = client.request(Request::new(Address::of(USER, "userSignUp"), invalid));
    let refused = refused.await.unwrap();
    assert_eq!((refused.kind, refused.is_handled_error), (MessageType::CommandErrorResponse, true));
    let told: ErrorPayload = serde_json::from_slice(&refused.payload.bytes().unwrap().unwrap()).unwrap();
    assert_eq!(told.data.unwrap()[0]["path"], json!(["name"]));
    let empty = Request::new(Address::of(USER, "throwHandled"), Payload::empty());
    let handled = InvokeError::of_response(&client.request(empty).await.unwrap()).unwrap();
    assert_eq!((handled.status().code(), handled.to_string().contains("user not found")), (404, true));

    let slow = client.call(Slow { ms: 800 }).timeout(Duration::from_millis(300)).send();
    assert_eq!(slow.await.unwrap_err().status().code(), 504);
    // Its answer comes when nobody waits any more.
    tap.until(|message| message["body"]["payload"]["slept"] == 800).await;
    assert_eq!(client.invoke(sign_up("Bob")).await.unwrap().user_id, "id-of-Bob");
    assert_eq!((caller.unclaimed)(), 1);
    peer.until_served(6).await;
}

/// A name is converted by ours as by the peer, or the one would not find the other.
async fn names_are_converted_as_the_peers_are<C: Carrier>() {
    const NAMES: [&str; 8] = [
        "getOAuth2Token",
        "HTTPServerV2",
        "ABCd",
        "getURLs",
        "HTTP_Server",
        "ID42x",
        "user-service_X",
        "a1B2c3",
    ];
    let carrier = C::start().await;
    let mut peer = Peer::on(&carrier, "peerInstance1").await;
    let caller = carrier.bridge("callerInstance1").await;
    let client = client(&caller);
    for name in NAMES {
        peer.serve("User", name, "mail").await;
        let mut request = Request::new(Address::of(USER, name), Payload::empty());
        request.tenant_id = Some(name.into());
        let answer = client.request(request).await.unwrap();
        assert_eq!(answer.kind, MessageType::CommandSuccessResponse, "{name}");
        assert_eq!((answer.sender.address.target(), answer.tenant_id.as_deref()), (name, Some(name)));
    }
    peer.until_served(NAMES.len()).await;
}

/// One group of ours and the peer's: each message is answered once, and both answer some.
async fn one_group_serves_a_command<C: Carrier>(ours_first: bool) {
    let carrier = C::start().await;
    let mut tap = carrier.tap().await;
    let ours = async || {
        let host = Host::builder().bridge(carrier.bridge("userInstance1").await);
        host.service(services::user()).start().await.unwrap()
    };
    let mut peer = Peer::on(&carrier, "peerInstance1").await;
    let _user = if ours_first {
        let user = ours().await;
        peer.serve("User", "userSignUp", "signUp").await;
        user
    } else {
        peer.serve("User", "userSignUp", "signUp").await;
        ours().await
    };
    let caller = carrier.bridge("callerInstance1").await;
    let client = client(&caller);
    let calls = (0..MANY).map(|number| client.call(sign_up(&number.to_string())).send());
    let answers = try_join_all(calls).await.unwrap();
    let ids: BTreeSet<_> = answers.into_iter().map(|answer| answer.user_id).collect();
    assert_eq!(ids.len(), MANY, "each call has its own answer");

    // What came after all of them is the answer to this call, so nothing is answered twice.
    let last = sign_up("last");
    client.invoke(last).await.unwrap();
    // Over NATS a response with an event goes out twice: to its caller, then for the event.
    let is_copy = |message: &Value| message["subject"].as_str().is_some_and(|to| !to.starts_with("_INBOX"));
    let is_last = |message: &Value| message["body"]["payload"]["userId"] == "id-of-last" && !is_copy(message);
    let mut answered = BTreeMap::<String, usize>::new();
    let mut correlations = BTreeSet::new();
    for message in tap.until(is_last).await {
        let body = &message["body"];
        if body["messageType"] == "commandSuccessResponse" && !is_copy(&message) {
            assert!(correlations.insert(body["correlationId"].to_string()), "answered twice: {body}");
            *answered.entry(body["sender"]["instanceId"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    assert_eq!(correlations.len(), MANY + 1);
    assert_eq!(answered.keys().collect::<Vec<_>>(), ["peerInstance1", "userInstance1"], "{answered:?}");
    peer.until_served(answered["peerInstance1"]).await;
    assert_eq!((caller.unclaimed)(), 0);
}

async fn one_group_serves_a_command_when_ours_is_first<C: Carrier>() {
    one_group_serves_a_command::<C>(true).await;
}

async fn one_group_serves_a_command_when_the_peer_is_first<C: Carrier>() {
    one_group_serves_a_command::<C>(false).await;
}

/// What the peer is good for: it dies of what PURISTA dies of, and ours does not.
async fn the_peer_dies_of_what_ours_answers<C: Carrier>() {
    let carrier = C::start().await;
    // The exchange of AMQP comes with the first of a system.
    let mut peer = Peer::on(&carrier, "peerInstance1").await;
    peer.serve("User", "userSignUp", "signUp").await;
    let mut plain = Plain::on(&carrier).await;
    plain.good_call().await;
    let mut body = plain.minimal();
    body.as_object_mut().unwrap().remove("sender");
    let sent = json!({"target": "userSignUp", "body": body.to_string(), "answers": 1});
    if C::NAME == "amqp" {
        // There the queue is the way back, and nobody looks at the sender.
        let answer = plain.call(json!({"body": body.to_string()}), 1).await.remove(0);
        assert_eq!(verdict(&answer), "ok");
    } else {
        plain.send(&sent).await;
        let ended = tokio::time::timeout(PATIENCE, peer.python.process.wait()).await;
        assert!(!ended.expect("the peer dies").unwrap().success());
    }
}

/// The peer notices: with any other argument than PURISTA's its declaration is refused, and that is its end.
#[tokio::test]
#[ignore = "needs rabbitmq-server and pika: cargo xtask test"]
async fn the_peer_dies_of_a_queue_that_was_declared_otherwise() {
    let carrier = Amqp::start().await;
    carrier.declare_durable("cmd.User.1.userSignUp").await;
    let mut peer = Peer::on(&carrier, "peerInstance1").await;
    let order = json!({"serve": crate::peer::address("User", "userSignUp"), "as": "signUp"});
    peer.python.tell(&order).await;
    let ended = tokio::time::timeout(PATIENCE, peer.python.process.wait()).await;
    assert!(!ended.expect("the peer dies").unwrap().success());
}

crate::carrier::everywhere!(
    the_peer_calls_ours,
    ours_call_the_peer,
    names_are_converted_as_the_peers_are,
    one_group_serves_a_command_when_ours_is_first,
    one_group_serves_a_command_when_the_peer_is_first,
    the_peer_dies_of_what_ours_answers
);
