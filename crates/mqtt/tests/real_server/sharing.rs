//! Who shares messages with whom, and that nobody takes another's.

use std::sync::Arc;

use futures_util::FutureExt;
use purista_conformance::bridge::consumers::{Recorder, echo};
use purista_conformance::bridge::world::{address, number};
use purista_core::bridge::{BridgeErrorKind, EventBridge};
use purista_core::subscription::{Sharing, Subscription};
use purista_mqtt::address::ShareNames;
use purista_mqtt::bridge::MqttBridge;
use tokio::time::Instant;

use crate::messages::{PATIENCE, command, event, listening};
use crate::server::Server;

async fn shared_as_purista(server: &Server, instance: &str) -> Arc<dyn EventBridge> {
    let builder = MqttBridge::builder(server.url()).instance(instance);
    Arc::new(builder.share_names(ShareNames::AsPurista).connect().await.unwrap())
}

/// Three subscriptions in one process with one and the same filter at the broker each get every event, and the last to be
/// stopped gets them still.
async fn none_shadows_another(bridge: &Arc<dyn EventBridge>, sharing: Sharing) {
    let mut all = Vec::new();
    for name in ["mail", "audit", "search"] {
        let recorder = Recorder::default();
        let mut subscription = listening(name);
        (subscription.sharing, subscription.in_flight) = (sharing, 1);
        let registration = bridge.subscribe(subscription, recorder.consumer()).await.unwrap();
        all.push((recorder, registration));
    }
    for n in 0..20 {
        bridge.publish(event(n)).await.unwrap();
    }
    for (recorder, _) in &all {
        for n in 0..20 {
            assert_eq!(number(&recorder.message().await), n);
        }
    }
    let (last, _) = all.pop().unwrap();
    for (_, registration) in &all {
        registration.stop().await;
    }
    bridge.publish(event(20)).await.unwrap();
    assert_eq!(number(&last.message().await), 20);
    bridge.close().await.unwrap();
    for recorder in all.into_iter().map(|(recorder, _)| recorder).chain([last]) {
        recorder.expect_nothing_more().await;
    }
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn identical_filters_of_one_process_do_not_shadow_one_another() {
    let server = Server::start().await;
    none_shadows_another(&server.bridge("a").await, Sharing::EveryInstance).await;
    none_shadows_another(&server.bridge("b").await, Sharing::Shared).await;
    none_shadows_another(&shared_as_purista(&server, "c").await, Sharing::Shared).await;
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn one_subscription_that_is_fed_twice_in_one_process_shares_its_events() {
    let server = Server::start().await;
    let bridge = server.bridge("a").await;
    let (first, second) = (Recorder::default(), Recorder::default());
    for recorder in [&first, &second] {
        bridge.subscribe(listening("mail"), recorder.consumer()).await.unwrap();
    }
    for n in 0..10 {
        bridge.publish(event(n)).await.unwrap();
    }
    bridge.close().await.unwrap();
    let (one, two) = (first.rest().await.len(), second.rest().await.len());
    assert_eq!((one, two), (5, 5));
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn different_subscriptions_to_one_event_share_it_only_under_puristas_name() {
    let server = Server::start().await;
    for (is_puristas, expected) in [(false, 40), (true, 20)] {
        let (one, two) = if is_puristas {
            (shared_as_purista(&server, "one").await, shared_as_purista(&server, "two").await)
        } else {
            (server.bridge("one").await, server.bridge("two").await)
        };
        let (mail, audit) = (Recorder::default(), Recorder::default());
        one.subscribe(listening("mail"), mail.consumer()).await.unwrap();
        two.subscribe(listening("audit"), audit.consumer()).await.unwrap();
        for n in 0..20 {
            one.publish(event(n)).await.unwrap();
        }
        // Each has heard all that was published before, once it has heard itself.
        for bridge in [&one, &two] {
            let (marker, mut hearing) = (Recorder::default(), listening("marker"));
            hearing.sharing = Sharing::EveryInstance;
            bridge.subscribe(hearing, marker.consumer()).await.unwrap();
            bridge.publish(event(99)).await.unwrap();
            marker.next().await;
            bridge.close().await.unwrap();
        }
        let events = [mail.rest().await, audit.rest().await].concat();
        let seen = events.iter().filter(|delivery| number(&delivery.message) < 20).count();
        assert_eq!(seen, expected);
    }
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_command_is_shared_with_a_server_of_puristas() {
    let server = Server::start().await;
    let (user, caller) = (server.bridge("user").await, server.bridge("caller").await);
    let kept = Recorder::default();
    user.subscribe(Subscription::command(address("User", "signUp"), 64), kept.consumer()).await.unwrap();
    let mut peer = server.client("$share/sharedpurista/purista/command/+/+/+/+/+/+/+/+/user/1/sign_up").await;
    let calls: Vec<_> = (0..10).map(|_| caller.request(Box::new(command("signUp", PATIENCE / 20)))).collect();
    let answered = futures_util::future::join_all(calls).await.iter().filter(|ended| ended.is_ok()).count();
    assert_eq!(answered, 5, "the peer has the others, and answers none");
    for _ in 0..5 {
        peer.next().await;
    }
    assert_eq!(kept.rest().await.len(), 5);
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn where_somebody_taps_commands_nobody_serving_is_known_at_the_deadline_only() {
    let server = Server::start().await;
    let tap = server.client("purista/command/#").await;
    let caller = server.bridge("caller").await;
    assert!(!caller.capabilities().unroutable_at_once, "the broker has somebody to give commands to");
    let began = Instant::now();
    let error = caller.request(Box::new(command("signUp", PATIENCE / 40))).await.unwrap_err();
    assert_eq!(error.kind(), BridgeErrorKind::Timeout);
    assert!(began.elapsed() >= PATIENCE / 40);
    drop(tap);
    let other = server.bridge("other").await;
    let at_once = async {
        // The broker notices the end of the tap by itself, soon.
        while !server.bridge("asks").await.capabilities().unroutable_at_once {}
        other.request(Box::new(command("signUp", PATIENCE))).await.unwrap_err()
    };
    let error = tokio::time::timeout(PATIENCE / 2, at_once).await.expect("it is said at once");
    assert_eq!(error.kind(), BridgeErrorKind::Unroutable);
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_command_in_another_instances_name_is_answered_too() {
    let server = Server::start().await;
    let (user, caller) = (server.bridge("user").await, server.bridge("caller").await);
    user.subscribe(Subscription::command(address("User", "signUp"), 64), echo()).await.unwrap();
    for instance in ["another", "another", "a-third"] {
        let mut foreign = command("signUp", PATIENCE);
        foreign.sender.instance = purista_core::id::Id::parse(instance).ok();
        caller.request(Box::new(foreign)).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_caller_who_goes_away_while_subscribing_takes_nobodys_messages() {
    let server = Server::start().await;
    let bridge = server.bridge("a").await;
    let (gone, here) = (Recorder::default(), Recorder::default());
    for _ in 0..3 {
        let subscribing = bridge.subscribe(listening("mail"), gone.consumer());
        assert!(subscribing.now_or_never().is_none(), "the broker has not answered yet");
    }
    bridge.subscribe(listening("mail"), here.consumer()).await.unwrap();
    for n in 0..10 {
        bridge.publish(event(n)).await.unwrap();
    }
    bridge.close().await.unwrap();
    assert_eq!((gone.rest().await.len(), here.rest().await.len()), (0, 10));
}
