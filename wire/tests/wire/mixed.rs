//! Our services beside the strict peer's, in one group and each for himself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::try_join_all;
use purista::{Context, HandlerError, Host, RunningHost, Service, ServiceId, subscription};
use purista_core::address::Address;
use purista_core::client::Request;
use purista_core::invoke_error::InvokeError;
use purista_core::message::{ErrorPayload, MessageType};
use purista_core::payload::Payload;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::amqp::Amqp;
use crate::carrier::{Bridge, Carrier, PATIENCE, TAP_CAPACITY};
use crate::peer::Peer;
use crate::plain::{Plain, verdict};
use crate::running::{Running, client};
use crate::services::{self, NewUserRegistered, SendMail, Slow, USER, UserSignUp};

/// How many calls or events are enough for everybody in a group to get some.
const MANY: usize = 60;

fn sign_up(name: &str) -> UserSignUp {
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
    let is_last = |message: &Value| {
        message["body"]["payload"]["userId"] == "id-of-last"
            && (C::NAME != "nats" || !message["subject"].as_str().unwrap().starts_with("_INBOX"))
    };
    let mut answered = BTreeMap::<String, usize>::new();
    let mut correlations = BTreeSet::new();
    for message in tap.until(is_last).await {
        let body = &message["body"];
        // Over NATS a response with an event goes out twice, to its caller and for the event.
        let is_copy = message["subject"].as_str().is_some_and(|subject| subject.starts_with("_INBOX"));
        if body["messageType"] == "commandSuccessResponse" && !is_copy {
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

/// Who heard of which user: the group of those that share, and who of it.
type Heard = (&'static str, String, String);

#[derive(Debug, Clone)]
struct Listener {
    group: &'static str,
    host: String,
    heard: mpsc::Sender<Heard>,
}

async fn hears(ctx: Context<Listener>, event: NewUserRegistered) -> Result<(), HandlerError> {
    let Listener { group, host, heard } = ctx.resources().clone();
    Ok(heard.send((group, host, event.user_id)).await?)
}

/// A service of ours that hears of new users.
async fn listening(bridge: Bridge, id: ServiceId, listener: Listener, durable: bool) -> RunningHost {
    let hearing = subscription("hears", hears);
    let hearing = if durable { hearing.durable() } else { hearing };
    let service = Service::builder(id, "hears of new users", listener).subscription(hearing).build();
    Host::builder().bridge(bridge).service(service).start().await.unwrap()
}

/// Tells what a peer hears, for as long as the test runs.
fn forward(mut peer: Peer, listener: Listener) {
    let Listener { group, host, heard } = listener;
    let telling = async move {
        loop {
            let event = peer.next_heard().await;
            let user = event["payload"]["userId"].as_str().unwrap().to_owned();
            if heard.send((group, host.clone(), user)).await.is_err() {
                return;
            }
        }
    };
    TaskTracker::new().spawn(telling);
}

/// Events of the peer and of ours: every service gets each of them, one instance of it; so does the peer's service, of which
/// one of ours is an instance too.
async fn every_service_gets_every_event_and_its_instances_share_them<C: Carrier>() {
    const SHARED: ServiceId = ServiceId::new("Shared", "1");
    const ALONE: ServiceId = ServiceId::new("Alone", "1");
    const DURABLE: ServiceId = ServiceId::new("Durable", "1");
    const PEER: ServiceId = ServiceId::new("Peer", "1");
    let carrier = C::start().await;
    let (heard, mut hearing) = mpsc::channel(TAP_CAPACITY);
    let listener = |group, host: &str| Listener { group, host: host.to_owned(), heard: heard.clone() };
    let _hosts = [
        listening(carrier.bridge("shared1").await, SHARED, listener("shared", "shared1"), false).await,
        listening(carrier.bridge("shared2").await, SHARED, listener("shared", "shared2"), false).await,
        listening(carrier.bridge("alone1").await, ALONE, listener("alone", "alone1"), false).await,
        listening(carrier.durable_bridge("durable1").await, DURABLE, listener("durable", "durable1"), true)
            .await,
        listening(carrier.sharing_bridge("ours1").await, PEER, listener("peer", "ours1"), false).await,
    ];
    let mut groups = vec!["alone", "durable", "peer", "shared"];
    for instance in ["peer1", "peer2"] {
        let mut peer = Peer::on(&carrier, instance).await;
        peer.hear("Peer", "newUserRegistered", false).await;
        forward(peer, listener("peer", instance));
    }
    // Over MQTT all of PURISTA's services are one group: a second one would only take events from the first.
    if C::NAME != "mqtt" {
        let mut peer = Peer::on(&carrier, "peer3").await;
        peer.hear("PeerDurable", "newUserRegistered", true).await;
        forward(peer, listener("peer durable", "peer3"));
        groups.push("peer durable");
    }

    let user = Host::builder().bridge(carrier.bridge("userInstance1").await).service(services::user());
    let _user = user.start().await.unwrap();
    let caller = carrier.bridge("callerInstance1").await;
    let client = client(&caller);
    let mut emitter = Peer::on(&carrier, "emitter").await;
    let mut expected = BTreeSet::new();
    for number in 0..MANY {
        expected.insert(client.invoke(sign_up(&number.to_string())).await.unwrap().user_id);
        emitter.emit("newUserRegistered", json!({"userId": format!("of-peer-{number}")})).await;
        expected.insert(format!("of-peer-{number}"));
    }
    let mut by_group = BTreeMap::<_, Vec<String>>::new();
    let mut members = BTreeMap::<_, BTreeSet<String>>::new();
    let all_heard = expected.len() * groups.len();
    let mut count = async |wanted: usize| {
        for _ in 0..wanted {
            let event = tokio::time::timeout(PATIENCE, hearing.recv()).await;
            let (group, host, user) = event.expect("everybody hears everything").unwrap();
            by_group.entry(group).or_default().push(user);
            members.entry(group).or_default().insert(host);
        }
    };
    count(all_heard).await;
    // And nothing twice: behind this one nothing is on its way.
    emitter.emit("newUserRegistered", json!({"userId": "last"})).await;
    count(groups.len()).await;
    expected.insert("last".to_owned());
    for group in groups {
        let mut users = by_group[group].clone();
        users.sort();
        assert_eq!(users, expected.iter().cloned().collect::<Vec<_>>(), "{group}");
    }
    assert_eq!(members["shared"].len(), 2, "both instances have their share");
    assert_eq!(members["peer"].len(), 3, "the peer's and ours have their share: {members:?}");
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

/// On AMQP a queue belongs to both: whoever declares it otherwise than the first is refused.
#[tokio::test]
#[ignore = "needs rabbitmq-server and pika: cargo xtask test"]
async fn both_declare_the_same_queues_whoever_comes_first() {
    const PEER: ServiceId = ServiceId::new("Peer", "1");
    const PEER_DURABLE: ServiceId = ServiceId::new("PeerDurable", "1");
    for ours_first in [true, false] {
        let carrier = Amqp::start().await;
        let (heard, _hearing) = mpsc::channel(TAP_CAPACITY);
        let listener = || Listener { group: "", host: String::new(), heard: heard.clone() };
        let ours = async || {
            let user =
                Host::builder().bridge(carrier.bridge("userInstance1").await).service(services::user());
            let bridge = carrier.bridge("ours1").await;
            [
                user.start().await.unwrap(),
                listening(bridge.clone(), PEER, listener(), false).await,
                listening(bridge, PEER_DURABLE, listener(), true).await,
            ]
        };
        let theirs = async || {
            let mut peer = Peer::on(&carrier, "peerInstance1").await;
            peer.serve("User", "userSignUp", "signUp").await;
            peer.hear("Peer", "newUserRegistered", false).await;
            peer.hear("PeerDurable", "newUserRegistered", true).await;
            peer
        };
        if ours_first {
            let _ours = ours().await;
            theirs().await;
        } else {
            let _theirs = theirs().await;
            ours().await;
        }
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

macro_rules! on {
    ($carrier:ident, $type:ty, $reason:literal: $($name:ident),*) => {
        mod $carrier {$(
            #[tokio::test]
            #[ignore = $reason]
            async fn $name() {
                super::$name::<$type>().await;
            }
        )*}
    };
}

macro_rules! everywhere {
    ($($name:ident),*) => {
        on!(nats, crate::nats::Nats, "needs nats-server and nats-py: cargo xtask test": $($name),*);
        on!(amqp, crate::amqp::Amqp, "needs rabbitmq-server and pika: cargo xtask test": $($name),*);
        on!(mqtt, crate::mqtt::Mqtt, "needs mosquitto and paho-mqtt: cargo xtask test": $($name),*);
    };
}

everywhere!(
    the_peer_calls_ours,
    ours_call_the_peer,
    one_group_serves_a_command_when_ours_is_first,
    one_group_serves_a_command_when_the_peer_is_first,
    every_service_gets_every_event_and_its_instances_share_them,
    the_peer_dies_of_what_ours_answers
);
