//! A broker that goes away and comes back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use purista_conformance::bridge::consumers::Recorder;
use purista_conformance::bridge::world::{address, number};
use purista_core::bridge::{BridgeErrorKind, BridgeState, Consumer, Delivery, EventBridge, Outcome};
use purista_core::message::MessageType;
use purista_core::subscription::Subscription;
use purista_mqtt::bridge::MqttBridge;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::messages::{PATIENCE, command, durable, event, listening, until};
use crate::server::Server;

/// Within which time everything goes on by itself once the broker is back.
const BACK_WITHIN: Duration = Duration::from_secs(10);

/// Serves a command and never answers.
struct Silent(Arc<Notify>);

impl Consumer for Silent {
    fn consume(&self, _delivery: Delivery) -> BoxFuture<'static, Outcome> {
        self.0.notify_one();
        Box::pin(async {
            tokio::time::sleep(Duration::from_secs(3)).await; // real time: longer than the outage
            Outcome::DeadLetter { reason: "nobody waits any more".to_owned() }
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn subscriptions_come_back_after_the_broker_was_killed() {
    let mut server = Server::start().await;
    let (user, caller) = (server.bridge("user").await, server.bridge("caller").await);
    let (kept, heard) = (Recorder::default(), Recorder::default());
    user.subscribe(Subscription::command(address("User", "signUp"), 64), kept.consumer()).await.unwrap();
    user.subscribe(listening("mail"), heard.consumer()).await.unwrap();
    caller.request(Box::new(command("signUp", PATIENCE))).await.unwrap();
    for round in 0..2 {
        server.kill();
        until(&user, BridgeState::Reconnecting).await;
        until(&caller, BridgeState::Reconnecting).await;
        server.restart().await;
        let back = Instant::now();
        until(&user, BridgeState::Connected).await;
        until(&caller, BridgeState::Connected).await;
        let answer = caller.request(Box::new(command("signUp", PATIENCE))).await.unwrap();
        assert!(back.elapsed() < BACK_WITHIN, "it took {:?}", back.elapsed());
        assert_eq!(answer.kind, MessageType::CommandSuccessResponse, "round {round}");
        let event = event(round);
        caller.publish(event.clone()).await.unwrap();
        assert_eq!(heard.message().await.id, event.id);
    }
    user.close().await.unwrap();
    caller.close().await.unwrap();
    assert_eq!(kept.rest().await.len(), 3, "no call ran twice");
    heard.expect_nothing_more().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn no_confirmed_event_is_lost_for_a_durable_subscription_while_the_broker_is_killed_twice() {
    let mut server = Server::start().await;
    let (source, listener) = (server.bridge("source").await, server.durable_alone("email-1").await);
    let recorder = Recorder::default();
    listener.subscribe(durable("mail"), recorder.consumer()).await.unwrap();
    let stop = Arc::new(tokio::sync::Semaphore::new(0));
    // How often the broker was killed. It confirms before it writes, and writes before it reads on: what it confirmed is
    // written when it confirms something else in the same life.
    let killed = AtomicUsize::new(0);
    let publishing = async {
        let (mut confirmed, mut unknown, mut number, mut last) = (BTreeSet::new(), 0, 0, None);
        while stop.available_permits() == 0 {
            match source.publish(event(number)).await {
                Ok(()) => {
                    let life = killed.load(Ordering::SeqCst);
                    confirmed.extend(last.take().filter(|(_, then)| *then == life).map(|(number, _)| number));
                    last = Some((number, life));
                }
                Err(error) => {
                    assert!(error.may_have_happened(), "it waits for the broker: {error}");
                    unknown += 1;
                }
            }
            number += 1;
            tokio::time::sleep(Duration::from_millis(10)).await; // real time: a steady flow
        }
        (confirmed, unknown)
    };
    let killing = async {
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(500)).await; // real time: under the flow
            killed.fetch_add(1, Ordering::SeqCst);
            server.kill();
            tokio::time::sleep(Duration::from_millis(500)).await; // real time: an outage
            server.restart().await;
            let back = Instant::now();
            until(&source, BridgeState::Connected).await;
            until(&listener, BridgeState::Connected).await;
            assert!(back.elapsed() < BACK_WITHIN, "it took {:?}", back.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(500)).await; // real time: under the flow
        stop.add_permits(1);
    };
    let ((confirmed, unknown), ()) = tokio::join!(publishing, killing);
    assert!(confirmed.len() > 50, "{} confirmed", confirmed.len());
    assert!(unknown <= 2, "at most one is in flight when the broker is killed: {unknown}");
    source.publish(event(usize::MAX)).await.unwrap();
    let mut seen = BTreeSet::new();
    loop {
        let number = number(&recorder.message().await);
        if number == usize::MAX {
            break;
        }
        seen.insert(number);
    }
    let lost: Vec<_> = confirmed.difference(&seen).collect();
    assert!(lost.is_empty(), "LOST {lost:?} of {}", confirmed.len());
    listener.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_request_in_flight_ends_as_unknown_when_the_connection_is_lost() {
    let mut server = Server::start().await;
    let (user, caller) = (server.bridge("user").await, server.bridge("caller").await);
    let began = Arc::new(Notify::new());
    let silent = Arc::new(Silent(Arc::clone(&began)));
    user.subscribe(Subscription::command(address("User", "signUp"), 64), silent).await.unwrap();
    let asked = Instant::now();
    let calling = caller.request(Box::new(command("signUp", PATIENCE)));
    let killing = async {
        began.notified().await;
        // Behind its answer the broker's word for the command has come too: nothing but the reply is missing.
        caller.publish(event(1)).await.unwrap();
        server.kill();
    };
    let (ended, ()) = tokio::join!(calling, killing);
    assert_eq!(ended.unwrap_err().kind(), BridgeErrorKind::Unknown);
    assert!(asked.elapsed() < PATIENCE / 2, "it is said when it is known");
    server.restart().await;
    until(&caller, BridgeState::Connected).await;
    user.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn what_is_asked_while_the_broker_is_away_waits_for_it_or_never_happened() {
    let mut server = Server::start().await;
    let (user, caller) = (server.bridge("user").await, server.bridge("caller").await);
    let (kept, heard) = (Recorder::default(), Recorder::default());
    user.subscribe(Subscription::command(address("User", "signUp"), 64), kept.consumer()).await.unwrap();
    user.subscribe(listening("mail"), heard.consumer()).await.unwrap();
    server.kill();
    until(&caller, BridgeState::Reconnecting).await;
    let short = caller.request(Box::new(command("signUp", Duration::from_millis(100)))).await.unwrap_err();
    assert_eq!(short.kind(), BridgeErrorKind::Rejected, "it was never sent");
    let mut brief = event(0);
    brief.deadline = Some(Instant::now() + Duration::from_millis(100));
    assert_eq!(caller.publish(brief).await.unwrap_err().kind(), BridgeErrorKind::Rejected);

    let event = event(1);
    let coming_back = async {
        server.restart().await;
        until(&user, BridgeState::Connected).await;
    };
    let (published, ()) = tokio::join!(caller.publish(event.clone()), coming_back);
    published.expect("it waited for the broker");
    // The two bridges come back one after the other; until the user's is there, nobody hears and nobody serves.
    caller.publish(event.clone()).await.unwrap();
    assert_eq!(heard.message().await.id, event.id);
    caller.request(Box::new(command("signUp", PATIENCE))).await.unwrap();
    assert_eq!(kept.rest().await.len(), 1, "the rejected one never ran");
    user.close().await.unwrap();
    caller.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_full_queue_is_counted_and_harms_no_other() {
    /// Holds its one message until it is told.
    struct Held(Arc<Notify>, Recorder);
    impl Consumer for Held {
        fn consume(&self, delivery: Delivery) -> BoxFuture<'static, Outcome> {
            let (goes_on, recorder) = (Arc::clone(&self.0), self.1.clone());
            Box::pin(async move {
                recorder.keep(delivery);
                goes_on.notified().await;
                goes_on.notify_one();
                Outcome::Ack
            })
        }
    }
    let server = Server::start().await;
    let slow = MqttBridge::builder(server.url()).subscription_capacity(4).connect().await.unwrap();
    let (goes_on, recorder, other) = (Arc::new(Notify::new()), Recorder::default(), Recorder::default());
    let mut one = listening("mail");
    one.in_flight = 1;
    slow.subscribe(one, Arc::new(Held(Arc::clone(&goes_on), recorder.clone()))).await.unwrap();
    slow.subscribe(listening("audit"), other.consumer()).await.unwrap();
    slow.publish(event(0)).await.unwrap();
    recorder.next().await;
    for n in 1..=20 {
        slow.publish(event(n)).await.unwrap();
        other.next().await;
    }
    assert_eq!(slow.messages_dropped(), 16, "of 20 found no place");
    goes_on.notify_one();
    slow.close().await.unwrap();
    assert_eq!(recorder.rest().await.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn who_loses_its_name_to_another_process_comes_back_with_growing_delays() {
    let server = Server::start().await;
    let first = server.bridge("same").await;
    let second = server.bridge("same").await;
    until(&first, BridgeState::Reconnecting).await;
    until(&first, BridgeState::Connected).await;
    second.close().await.unwrap();
    until(&first, BridgeState::Connected).await;
    first.close().await.unwrap();
}
