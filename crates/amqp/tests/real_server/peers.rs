//! What peers may send: commands made by hand, commands and answers that are none, and what is too large.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use lapin::message::Delivery as Raw;
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel};
use purista_conformance::bridge::consumers::Recorder;
use purista_core::address::Address;
use purista_core::bridge::{BridgeErrorKind, Consumer, Delivery, Outcome};
use purista_core::invoke_error::{InvokeError, InvokeErrorKind};
use purista_core::message::{MessageType, Party};
use purista_core::payload::Payload;
use purista_core::subscription::Subscription;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::server::{Server, System};
use crate::wire::{PATIENCE, USER, captured, headers, next, sign_up, two_bridges};

/// Sends a command by hand, as a peer does that knows only PURISTA's form, and waits for the answer.
async fn ask_by_hand(system: &System, client: &Channel, text: &[u8], more: &[(&str, &str)]) -> Raw {
    let own = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let queue = client.queue_declare("".into(), own, FieldTable::default()).await.unwrap();
    let (name, exchange) = (queue.name().clone(), system.name.as_str());
    let bound = headers(&[("x-match", "all"), ("replyTo", name.as_str())]);
    client
        .queue_bind(name.clone(), exchange.into(), "".into(), QueueBindOptions::default(), bound)
        .await
        .unwrap();
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut replies =
        client.basic_consume(name.clone(), "".into(), options, FieldTable::default()).await.unwrap();
    let mut routed = vec![
        ("messageType", "command"),
        ("receiverServiceName", "User"),
        ("receiverServiceVersion", "1"),
        ("receiverServiceTarget", "userSignUp"),
    ];
    routed.extend(more);
    let properties = BasicProperties::default()
        .with_headers(headers(&routed))
        .with_reply_to(name)
        .with_correlation_id("property-1".into());
    let sent =
        client.basic_publish(exchange.into(), "".into(), BasicPublishOptions::default(), text, properties);
    sent.await.unwrap();
    next(&mut replies).await
}

#[tokio::test]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn a_hand_made_command_of_a_peer_is_answered() {
    let system = Server::shared().await.system();
    let (_user, _caller) = two_bridges(&system, None).await;
    let client = system.client().await;
    // Neither a sender nor an id, nor a type or a correlation: PURISTA's receiver needs none of them here.
    let minimal = json!({
        "receiver": {"serviceName": "User", "serviceVersion": "1", "serviceTarget": "userSignUp"},
        "payload": {"payload": {"email": "ada@example.com", "name": "Ada"}, "parameter": {}}
    });
    let reply = ask_by_hand(&system, &client, minimal.to_string().as_bytes(), &[]).await;
    assert_eq!(reply.properties.correlation_id().as_ref().unwrap().as_str(), "property-1");
    let reply: Value = serde_json::from_slice(&reply.data).unwrap();
    assert_eq!(reply["messageType"], "commandSuccessResponse");
    assert_eq!(reply["payload"], json!({"userId": "id-of-Ada"}));
}

#[tokio::test]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn a_command_that_cannot_be_read_is_refused_and_harms_nobody() {
    let system = Server::shared().await.system();
    let (_user, caller) = two_bridges(&system, None).await;
    let client = system.client().await;
    let no_receiver = r#"{"messageType":"command","id":"a1","correlationId":"c1","sender":{"serviceName":"Peer","serviceVersion":"1","serviceTarget":"main","instanceId":"p1"},"payload":{}}"#;
    let (deep, large) = (format!("{}1{}", "[".repeat(1000), "]".repeat(1000)), "x".repeat(2 << 20));
    for broken in ["", "{", "no json", "[]", "{}", r#"{"messageType":"command"}"#, no_receiver, &deep, &large]
    {
        let reply = ask_by_hand(&system, &client, broken.as_bytes(), &[]).await;
        assert_eq!(reply.properties.correlation_id().as_ref().unwrap().as_str(), "property-1");
        let reply: Value = serde_json::from_slice(&reply.data).unwrap();
        assert_eq!(reply["messageType"], "commandErrorResponse", "{broken:.40}");
        assert_eq!(reply["isHandledError"], true);
        assert_eq!(reply["payload"]["status"], if broken.len() > 1 << 20 { 413 } else { 400 });
        assert_eq!(reply["sender"]["instanceId"], "userInstance1");
        if broken == no_receiver {
            assert_eq!(reply["receiver"]["instanceId"], "p1");
            assert_eq!(reply["id"], "a1");
            assert_eq!(reply["correlationId"], "c1");
        }
    }
    let answer = caller.request(Box::new(sign_up())).await.unwrap();
    assert_eq!(answer.kind, MessageType::CommandSuccessResponse);
}

#[tokio::test]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn a_reply_that_is_no_answer_ends_its_call_at_once_and_a_forged_one_ends_none() {
    let system = Server::shared().await.system();
    let caller = system.bridge("callerInstance1").await;
    let client = system.client().await;
    let mut calls = captured(&system, &client).await;
    // Somebody takes the calls and does not answer them.
    let silent = QueueDeclareOptions { auto_delete: true, ..QueueDeclareOptions::default() };
    client.queue_declare(system.name.as_str().into(), silent, FieldTable::default()).await.unwrap();
    for answer in ["", "{", "{}", r#"{"messageType":"infoServiceReady"}"#] {
        let answering = async {
            let command = loop {
                let seen = next(&mut calls).await;
                if seen.properties.reply_to().is_some() {
                    break seen.properties;
                }
            };
            let reply_to = command.reply_to().clone().unwrap();
            let routed = headers(&[("replyTo", reply_to.as_str())]);
            for correlation in ["forged", command.correlation_id().as_ref().unwrap().as_str()] {
                let properties = BasicProperties::default()
                    .with_headers(routed.clone())
                    .with_correlation_id(correlation.into());
                let (exchange, options) = (system.name.as_str().into(), BasicPublishOptions::default());
                client
                    .basic_publish(exchange, "".into(), options, answer.as_bytes(), properties)
                    .await
                    .unwrap();
            }
        };
        let began = Instant::now();
        let (ended, ()) = tokio::join!(caller.request(Box::new(sign_up())), answering);
        assert!(ended.unwrap_err().may_have_happened(), "{answer:?}");
        assert!(began.elapsed() < PATIENCE / 2);
    }
}

#[tokio::test]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn what_is_too_large_is_rejected_and_a_reply_so_large_becomes_an_error() {
    struct Large;
    impl Consumer for Large {
        fn consume(&self, delivery: Delivery) -> BoxFuture<'static, Outcome> {
            let sender = Party::anywhere(Address::of(USER, "large"));
            let payload = Payload::encoded(format!("\"{}\"", "x".repeat(2 << 20)).into());
            let reply = delivery.message.response(MessageType::CommandSuccessResponse, 0, sender, payload);
            Box::pin(async { Outcome::Reply(Box::new(reply)) })
        }
    }
    let system = Server::shared().await.system();
    let (_user, caller) = two_bridges(&system, None).await;
    assert_eq!(caller.capabilities().message_bytes_max, 1 << 20);
    let (mut body, mut header) = (sign_up(), sign_up());
    body.payload = Payload::encoded(format!("\"{}\"", "x".repeat(1 << 20)).into());
    // The client would end the whole connection over headers that fill a frame.
    header.principal_id = Some("p".repeat(200_000).into());
    for large in [body, header] {
        let error = caller.request(Box::new(large)).await.unwrap_err();
        assert_eq!(error.kind(), BridgeErrorKind::TooLarge, "{error}");
    }
    caller.subscribe(Subscription::command(Address::of(USER, "large"), 1), Arc::new(Large)).await.unwrap();
    let mut command = sign_up();
    command.receiver = Some(Party::anywhere(Address::of(USER, "large")));
    let answer = caller.request(Box::new(command)).await.unwrap();
    assert_eq!(answer.kind, MessageType::CommandErrorResponse);
}

#[tokio::test]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn a_command_whose_server_went_away_is_not_done_again_and_its_caller_hears_of_it() {
    let system = Server::shared().await.system();
    let (caller, user) = (system.bridge("callerInstance1").await, system.bridge("userInstance1").await);
    let client = system.client().await;
    let options = QueueDeclareOptions { auto_delete: true, ..QueueDeclareOptions::default() };
    let queue = format!("{}.cmd.User.1.userSignUp", system.name);
    client.queue_declare(queue.as_str().into(), options, FieldTable::default()).await.unwrap();
    let (exchange, all) =
        (system.name.as_str().into(), headers(&[("x-match", "all"), ("messageType", "command")]));
    client
        .queue_bind(queue.as_str().into(), exchange, "".into(), QueueBindOptions::default(), all)
        .await
        .unwrap();
    let recorder = Recorder::default();
    let dying = async {
        // Somebody takes it, and goes away before it is acknowledged.
        let taken = loop {
            let taken = client.basic_get(queue.as_str().into(), BasicGetOptions::default()).await.unwrap();
            if let Some(taken) = taken {
                break taken;
            }
            tokio::task::yield_now().await;
        };
        taken.delivery.acker.nack(BasicNackOptions { requeue: true, multiple: false }).await.unwrap();
        let serving = Subscription::command(Address::of(USER, "userSignUp"), 64);
        user.subscribe(serving, recorder.consumer()).await.unwrap();
    };
    let began = Instant::now();
    let (answer, ()) = tokio::join!(caller.request(Box::new(sign_up())), dying);
    let answer = answer.unwrap();
    assert_eq!(answer.kind, MessageType::CommandErrorResponse);
    let told: Value = serde_json::from_slice(&answer.payload.bytes().unwrap().unwrap()).unwrap();
    assert_eq!(told["status"], 503);
    let error = InvokeError::of_response(&answer).unwrap();
    assert_eq!((error.kind(), error.may_have_happened()), (InvokeErrorKind::Unknown, true), "{error}");
    assert!(began.elapsed() < PATIENCE / 2, "before its deadline");
    user.close().await.unwrap();
    caller.close().await.unwrap();
    recorder.expect_nothing_more().await;
}
