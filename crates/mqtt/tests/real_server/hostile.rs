//! What a peer can send to harm, and that the service lives on.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use purista_conformance::bridge::consumers::{Recorder, echo};
use purista_conformance::bridge::world::address;
use purista_core::bridge::{BridgeErrorKind, Consumer, Delivery, EventBridge, Outcome};
use purista_core::message::{MessageType, Party};
use purista_core::payload::Payload;
use purista_core::subscription::Subscription;
use purista_mqtt::bridge::MqttBridge;
use serde_json::Value;
use tokio::time::Instant;

use crate::messages::{PATIENCE, command, event, listening};
use crate::server::Server;

const SIGN_UP: &str = "purista/command/none/none/p1/peer/1/main/none/none/user/1/sign_up";
const SENDER: &str =
    r#""sender":{"serviceName":"Peer","serviceVersion":"1","serviceTarget":"main","instanceId":"p1"}"#;

async fn serving(server: &Server) -> Arc<dyn EventBridge> {
    let user = server.bridge("userInstance1").await;
    user.subscribe(Subscription::command(address("User", "signUp"), 64), echo()).await.unwrap();
    user
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_command_that_cannot_be_read_is_rejected_to_the_sender_of_its_body_or_of_its_topic_and_counted() {
    let server = Server::start().await;
    let user = MqttBridge::builder(server.url()).instance("userInstance1").connect().await.unwrap();
    user.subscribe(Subscription::command(address("User", "signUp"), 64), echo()).await.unwrap();
    let mut peer = server.client("purista/+/+/+/+/+/+/+/+/p1/+/+/+").await;
    let told = [
        format!(r#"{{"messageType":"command","id":"a1","correlationId":"c1",{SENDER}}}"#),
        format!(r#"{{"messageType":"command","correlationId":"c1",{SENDER},"receiver":7}}"#),
        format!(r#"{{"messageType":"noSuchType","correlationId":"c1",{SENDER}}}"#),
    ];
    for broken in &told {
        peer.publish(SIGN_UP, broken.clone()).await;
        let raw = peer.next().await;
        let reply: Value = serde_json::from_slice(&raw.payload).unwrap();
        assert_eq!(reply["messageType"], "commandErrorResponse", "{broken}");
        assert_eq!(reply["isHandledError"], true);
        assert_eq!(reply["payload"]["status"], 400);
        assert_eq!(reply["correlationId"], "c1");
        assert_eq!(reply["sender"]["instanceId"], "userInstance1");
    }
    let deep = format!("{}1{}", "[".repeat(1000), "]".repeat(1000));
    let without_sender =
        ["", "{", "no json", "[]", "{}", "null", "\u{0}", r#"{"messageType":"command"}"#, &deep];
    for broken in without_sender {
        peer.publish(SIGN_UP, broken).await;
        let reply: Value = serde_json::from_slice(&peer.next().await.payload).unwrap();
        assert_eq!(reply["payload"]["status"], 400, "{broken:.40}: the topic names the sender: {reply}");
    }
    let nameless = SIGN_UP.replace("/p1/", "/none/");
    peer.publish(&nameless, "{").await;
    peer.publish(&nameless, vec![0xff, 0xfe, 0x00]).await;
    let answer = user.request(Box::new(command("signUp", PATIENCE))).await.unwrap();
    assert_eq!(answer.kind, MessageType::CommandSuccessResponse);
    assert_eq!(user.messages_dropped(), (told.len() + without_sender.len() + 2) as u64);
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_command_without_a_sender_is_answered_on_the_way_back_in_its_topic() {
    let server = Server::start().await;
    let _user = serving(&server).await;
    let mut peer = server.client("purista/+/+/+/+/+/+/+/+/p1/+/+/+").await;
    for sender in ["", r#""sender":{"serviceName":"Peer"},"#] {
        let body = format!(
            r#"{{"messageType":"command",{sender}"correlationId":"c1","receiver":{{"serviceName":"User","serviceVersion":"1","serviceTarget":"signUp"}},"payload":{{"payload":{{}},"parameter":{{}}}}}}"#
        );
        peer.publish(SIGN_UP, body).await;
        let reply: Value = serde_json::from_slice(&peer.next().await.payload).unwrap();
        assert_eq!(reply["messageType"], "commandSuccessResponse", "{reply}");
        assert_eq!(reply["correlationId"], "c1");
    }
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_command_larger_than_accepted_gets_413_and_an_event_so_large_is_counted() {
    let server = Server::start().await;
    let user = MqttBridge::builder(server.url()).instance("userInstance1").connect().await.unwrap();
    user.subscribe(Subscription::command(address("User", "signUp"), 64), echo()).await.unwrap();
    let recorder = Recorder::default();
    user.subscribe(listening("mail"), recorder.consumer()).await.unwrap();
    let mut peer = server.client("purista/+/+/+/+/+/+/+/+/p1/+/+/+").await;
    let topic = "purista/custom_message/none/none/i1/caller/1/main/user_registered/none/none/none/none";
    peer.publish(topic, vec![b'x'; 8 << 20]).await;
    peer.publish(SIGN_UP, vec![b'x'; 8 << 20]).await;
    let reply: Value = serde_json::from_slice(&peer.next().await.payload).unwrap();
    assert_eq!(
        (reply["payload"]["status"].as_u64(), reply["isHandledError"].as_bool()),
        (Some(413), Some(true))
    );
    // Both came over one connection, the event first.
    let event = event(1);
    user.publish(event.clone()).await.unwrap();
    assert_eq!(recorder.message().await.id, event.id);
    assert_eq!(user.messages_dropped(), 2);
    user.close().await.unwrap();
    recorder.expect_nothing_more().await;
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_message_beyond_every_limit_stays_with_the_broker_and_the_next_one_comes() {
    let server = Server::start().await;
    let user = serving(&server).await;
    let recorder = Recorder::default();
    user.subscribe(listening("mail"), recorder.consumer()).await.unwrap();
    let client = server.client("nothing").await;
    let topic = "purista/custom_message/none/none/i1/caller/1/main/user_registered/none/none/none/none";
    client.publish(topic, vec![b'x'; 20 << 20]).await;
    client.publish(SIGN_UP, vec![b'x'; 20 << 20]).await;
    let event = event(1);
    user.publish(event.clone()).await.unwrap();
    assert_eq!(recorder.message().await.id, event.id);
    user.request(Box::new(command("signUp", PATIENCE))).await.unwrap();
    user.close().await.unwrap();
    recorder.expect_nothing_more().await;
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_message_larger_than_carried_is_rejected_and_a_reply_so_large_becomes_an_error() {
    struct Large;
    impl Consumer for Large {
        fn consume(&self, delivery: Delivery) -> BoxFuture<'static, Outcome> {
            let sender = Party::anywhere(address("User", "large"));
            let payload = Payload::encoded(format!("\"{}\"", "x".repeat(2 << 20)).into());
            let reply = delivery.message.response(MessageType::CommandSuccessResponse, 0, sender, payload);
            Box::pin(async { Outcome::Reply(Box::new(reply)) })
        }
    }
    let server = Server::start().await;
    let user = serving(&server).await;
    assert_eq!(user.capabilities().message_bytes_max, 1 << 20);
    let mut large = command("signUp", PATIENCE);
    large.payload = Payload::encoded(format!("\"{}\"", "x".repeat(1 << 20)).into());
    let error = user.request(Box::new(large)).await.unwrap_err();
    assert_eq!(error.kind(), BridgeErrorKind::TooLarge, "{error}");
    let mut long = event(1);
    long.principal_id = Some("p".repeat(100_000).into());
    let error = user.publish(long).await.unwrap_err();
    assert_eq!(error.kind(), BridgeErrorKind::TooLarge, "a topic has its bounds: {error}");

    user.subscribe(Subscription::command(address("User", "large"), 1), Arc::new(Large)).await.unwrap();
    let answer = user.request(Box::new(command("large", PATIENCE))).await.unwrap();
    assert_eq!(answer.kind, MessageType::CommandErrorResponse);
    let answer = user.request(Box::new(command("signUp", PATIENCE))).await.unwrap();
    assert_eq!(answer.kind, MessageType::CommandSuccessResponse);
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn the_brokers_limit_is_kept_where_it_is_the_smaller_one() {
    let lines = "allow_anonymous true\nmax_packet_size 300000\n";
    let server = Server::start_with(lines, |_| ()).await;
    let user = serving(&server).await;
    let most = user.capabilities().message_bytes_max;
    assert_eq!(most, 300_000 - (4 << 10));
    for (bytes, is_carried) in [(most - 2000, true), (most, false)] {
        let mut one = event(1);
        one.payload = Payload::encoded(format!("\"{}\"", "x".repeat(bytes)).into());
        assert_eq!(user.publish(one).await.is_ok(), is_carried, "{bytes}");
    }
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_reply_that_cannot_be_read_ends_its_call_at_once_and_a_forged_one_changes_nothing() {
    let server = Server::start().await;
    let mut tap = server.client("purista/command/#").await;
    let caller = server.bridge("caller").await;
    let topic = "purista/command_success_response/none/none/u/user/1/sign_up/none/caller/caller/1/main";
    let forged = r#"{"messageType":"commandSuccessResponse","correlationId":"another","payload":1}"#;
    tap.next().await;
    for (body, is_paired, ends_at_once) in
        [("{", true, true), ("{", false, false), (forged, true, false), ("", true, true)]
    {
        let answering = async {
            let asked = tap.next().await;
            let data = asked.properties.unwrap().correlation_data.filter(|_| is_paired);
            tap.publish_paired(topic, body, data).await;
        };
        let timeout = Duration::from_millis(400);
        let began = Instant::now();
        let calling =
            caller.request(Box::new(command("signUp", if ends_at_once { PATIENCE } else { timeout })));
        let (ended, ()) = tokio::join!(calling, answering);
        let kind = ended.unwrap_err().kind();
        assert_eq!(kind, if ends_at_once { BridgeErrorKind::Unknown } else { BridgeErrorKind::Timeout });
        assert!(began.elapsed() < PATIENCE / 2);
    }
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn texts_that_a_broker_would_not_read_travel_in_the_body_and_harm_no_connection() {
    let server = Server::start().await;
    let user = serving(&server).await;
    let recorder = Recorder::default();
    user.subscribe(listening("mail"), recorder.consumer()).await.unwrap();
    for text in ["\u{0}", "a\u{fffe}", "\u{fdd0}", "\u{10ffff}", "\u{85}", "+/#", "$share/x/#"] {
        let mut odd = event(1);
        odd.principal_id = Some(text.into());
        odd.tenant_id = Some(text.into());
        user.publish(odd).await.unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!(recorder.message().await.tenant_id.as_deref(), Some(text));
    }
}
