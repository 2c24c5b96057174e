//! Durable subscriptions: what is missed comes later, and what is not done comes again.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use purista_conformance::bridge::consumers::{Recorder, consumer, echo};
use purista_conformance::bridge::world::{address, number};
use purista_core::bridge::{BridgeErrorKind, BridgeState, Consumer, Delivery, EventBridge, Outcome};
use purista_core::message::MessageType;
use purista_core::subscription::Subscription;
use purista_mqtt::bridge::MqttBridge;
use tokio::sync::Semaphore;

use crate::messages::{PATIENCE, command, durable, event, until};
use crate::server::Server;

/// Shows what it has in hand, and waits for a place in its gate.
struct Held {
    began: Recorder,
    gate: Arc<Semaphore>,
}

impl Held {
    fn new() -> Self {
        Self { began: Recorder::default(), gate: Arc::new(Semaphore::new(0)) }
    }

    fn consumer(&self) -> Arc<dyn Consumer> {
        let (began, gate) = (self.began.clone(), Arc::clone(&self.gate));
        consumer(move |delivery: Delivery| {
            let gate = Arc::clone(&gate);
            began.keep(delivery);
            async move {
                gate.acquire().await.expect("the gate stays").forget();
                Outcome::Ack
            }
        })
    }
}

async fn publish(bridge: &Arc<dyn EventBridge>, numbers: std::ops::Range<usize>) {
    for n in numbers {
        bridge.publish(event(n)).await.unwrap();
    }
}

async fn expect(recorder: &Recorder, numbers: std::ops::Range<usize>) {
    for n in numbers {
        assert_eq!(number(&recorder.message().await), n);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn what_is_missed_while_away_comes_in_order_also_when_the_broker_was_killed() {
    let mut server = Server::start().await;
    let source = server.bridge("source").await;
    let first = server.durable_alone("email-1").await;
    assert!(first.capabilities().durable);
    let recorder = Recorder::default();
    first.subscribe(durable("mail"), recorder.consumer()).await.unwrap();
    publish(&source, 0..1).await;
    expect(&recorder, 0..1).await;
    first.close().await.unwrap();

    publish(&source, 1..100).await;
    server.written().await;
    server.kill();
    server.restart().await;
    until(&source, BridgeState::Connected).await;
    publish(&source, 100..150).await;
    recorder.expect_nothing_more().await;
    let again = server.durable_alone("email-1").await;
    again.subscribe(durable("mail"), recorder.consumer()).await.unwrap();
    expect(&recorder, 1..150).await;
    again.close().await.unwrap();

    let third = server.durable_alone("email-1").await;
    third.subscribe(durable("mail"), recorder.consumer()).await.unwrap();
    publish(&source, 150..151).await;
    expect(&recorder, 150..151).await;
    third.close().await.unwrap();
    recorder.expect_nothing_more().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_subscriber_that_is_killed_in_its_handler_gets_the_message_again_when_it_comes_back() {
    let server = Server::start().await;
    let source = server.bridge("source").await;
    let program = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples/listener");
    assert!(program.exists(), "run `cargo build -p purista-mqtt --example listener` first");
    let mut child =
        Command::new(program).args([&server.url(), "email-1"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "listening");
    publish(&source, 0..3).await;
    let said = tokio::task::spawn_blocking(move || said.next()).await.unwrap();
    assert_eq!(said.unwrap().unwrap(), "began 0");
    child.kill().unwrap();
    child.wait().unwrap();
    publish(&source, 3..4).await;

    let recorder = Recorder::default();
    let back = server.durable("email-1").await;
    back.subscribe(durable("mail"), recorder.consumer()).await.unwrap();
    expect(&recorder, 0..4).await;
    back.close().await.unwrap();
    recorder.expect_nothing_more().await;
}

/// Once some wait at it, mosquitto 2.0 sends several for each that is acknowledged, whatever Receive Maximum says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_broker_that_sends_more_than_it_may_is_kept_up_with() {
    const WAITING: usize = 800;
    const ALL: usize = 1_200;
    let server = Server::start().await;
    let source = server.bridge("source").await;
    let email = MqttBridge::builder(server.url()).client_id("email-1").durable_in_one_process();
    let email = email.subscription_capacity(256).connect().await.unwrap();
    let (held, mut mail) = (Held::new(), durable("mail"));
    mail.in_flight = 16;
    email.subscribe(mail, held.consumer()).await.unwrap();
    publish(&source, 0..WAITING).await;
    let mut begun = BTreeSet::new();
    while begun.len() < ALL {
        begun.insert(number(&held.began.message().await));
        // One is acknowledged and one comes, and the broker's word for it paces them.
        held.gate.add_permits(1);
        let next = WAITING + begun.len() - 1;
        publish(&source, next..(next + 1).min(ALL)).await;
    }
    email.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn without_a_client_id_and_for_commands_durability_is_refused() {
    let server = Server::start().await;
    let nameless = server.bridge("email").await;
    assert!(!nameless.capabilities().durable);
    let refused = nameless.subscribe(durable("mail"), echo()).await.unwrap_err();
    assert_eq!(refused.kind(), BridgeErrorKind::Rejected);
    assert!(refused.to_string().contains("Listener.1.mail needs a bridge with a client id"), "{refused}");

    let named = server.durable("email-1").await;
    let command = Subscription { durable: true, ..Subscription::command(address("User", "signUp"), 1) };
    let refused = named.subscribe(command, echo()).await.unwrap_err();
    assert!(refused.to_string().contains("cannot be durable"), "{refused}");
    assert_eq!(*named.state().borrow(), BridgeState::Connected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn what_is_in_its_handler_while_the_broker_is_killed_is_handled_once() {
    let mut server = Server::start().await;
    let bridge = server.durable("email-1").await;
    let held = Held::new();
    bridge.subscribe(durable("mail"), held.consumer()).await.unwrap();
    publish(&bridge, 0..2).await;
    expect(&held.began, 0..1).await;
    for is_done_meanwhile in [false, true] {
        server.written().await;
        server.kill();
        until(&bridge, BridgeState::Reconnecting).await;
        if is_done_meanwhile {
            // The second one.
            held.gate.add_permits(1);
        }
        server.restart().await;
        until(&bridge, BridgeState::Connected).await;
        if !is_done_meanwhile {
            held.gate.add_permits(1);
            expect(&held.began, 1..2).await;
        }
    }
    publish(&bridge, 2..3).await;
    expect(&held.began, 2..3).await;
    held.gate.add_permits(1);
    bridge.close().await.unwrap();
    held.began.expect_nothing_more().await;
    let again = server.durable("email-1").await;
    again.subscribe(durable("mail"), held.consumer()).await.unwrap();
    publish(&again, 3..4).await;
    expect(&held.began, 3..4).await;
    held.gate.add_permits(1);
    again.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn what_comes_again_while_it_is_still_in_its_handler_does_not_begin_again() {
    let mut server = Server::start().await;
    let bridge = server.durable_alone("email-1").await;
    let held = Held::new();
    let several = Subscription { in_flight: 8, ..durable("mail") };
    bridge.subscribe(several.clone(), held.consumer()).await.unwrap();
    publish(&bridge, 0..3).await;
    expect(&held.began, 0..3).await;
    server.written().await;
    server.kill();
    until(&bridge, BridgeState::Reconnecting).await;
    server.restart().await;
    until(&bridge, BridgeState::Connected).await;
    // Behind those that come again.
    publish(&bridge, 3..4).await;
    expect(&held.began, 3..4).await;
    held.gate.add_permits(4);
    bridge.close().await.unwrap();
    held.began.expect_nothing_more().await;
    let again = server.durable_alone("email-1").await;
    again.subscribe(several, held.consumer()).await.unwrap();
    publish(&again, 4..5).await;
    expect(&held.began, 4..5).await;
    held.gate.add_permits(1);
    again.close().await.unwrap();
    held.began.expect_nothing_more().await;
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn what_waits_for_its_retry_at_the_end_comes_again() {
    /// Wants everything again, much later.
    struct Later(Recorder);
    impl Consumer for Later {
        fn consume(&self, delivery: Delivery) -> BoxFuture<'static, Outcome> {
            self.0.keep(delivery);
            Box::pin(async { Outcome::Retry { after: PATIENCE * 10 } })
        }
    }
    let server = Server::start().await;
    let first = server.durable("email-1").await;
    let recorder = Recorder::default();
    first.subscribe(durable("mail"), Arc::new(Later(recorder.clone()))).await.unwrap();
    publish(&first, 0..2).await;
    expect(&recorder, 0..1).await;
    tokio::time::timeout(PATIENCE, first.close()).await.expect("nothing waits for the retry").unwrap();
    recorder.expect_nothing_more().await;
    let again = server.durable("email-1").await;
    again.subscribe(durable("mail"), recorder.consumer()).await.unwrap();
    expect(&recorder, 0..2).await;
    again.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn what_can_never_be_done_is_counted_and_does_not_come_again() {
    let server = Server::start().await;
    let bridge = MqttBridge::builder(server.url()).client_id("email-1").connect().await.unwrap();
    let recorder = Recorder::default();
    let keeps = recorder.clone();
    let dead = consumer(move |delivery: Delivery| {
        keeps.keep(delivery);
        async { Outcome::DeadLetter { reason: "it is poison".to_owned() } }
    });
    bridge.subscribe(durable("mail"), dead).await.unwrap();
    let client = server.client("nothing").await;
    let topic = "purista/custom_message/none/none/i1/caller/1/main/user_registered/none/none/none/none";
    for rubbish in ["", "{", "[]", "\u{0}"] {
        client.publish(topic, rubbish).await;
    }
    bridge.publish(event(0)).await.unwrap();
    expect(&recorder, 0..1).await;
    bridge.close().await.unwrap();
    assert_eq!(bridge.messages_dropped(), 5);
    let again = server.durable("email-1").await;
    again.subscribe(durable("mail"), recorder.consumer()).await.unwrap();
    publish(&again, 1..2).await;
    expect(&recorder, 1..2).await;
    again.close().await.unwrap();
    recorder.expect_nothing_more().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_slow_durable_subscription_holds_up_neither_others_nor_replies() {
    let server = Server::start().await;
    let bridge = server.durable("email-1").await;
    let (held, other) = (Held::new(), Recorder::default());
    bridge.subscribe(durable("mail"), held.consumer()).await.unwrap();
    bridge.subscribe(durable("audit"), other.consumer()).await.unwrap();
    bridge.subscribe(Subscription::command(address("User", "signUp"), 64), echo()).await.unwrap();
    publish(&bridge, 0..200).await;
    expect(&other, 0..200).await;
    let answer = bridge.request(Box::new(command("signUp", PATIENCE))).await.unwrap();
    assert_eq!(answer.kind, MessageType::CommandSuccessResponse);
    assert_eq!(held.began.rest().await.len(), 1, "one in flight");
    held.gate.add_permits(200);
    expect(&held.began, 1..200).await;
    bridge.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn two_processes_share_a_durable_subscription() {
    let server = Server::start().await;
    let (first, second) = (server.durable("email-1").await, server.durable("email-2").await);
    let both = Recorder::default();
    first.subscribe(durable("mail"), both.consumer()).await.unwrap();
    second.subscribe(durable("mail"), both.consumer()).await.unwrap();
    publish(&first, 0..50).await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..50 {
        seen.insert(number(&both.message().await));
    }
    assert_eq!(seen.len(), 50);
    first.close().await.unwrap();
    second.close().await.unwrap();
    both.expect_nothing_more().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_session_that_the_broker_knows_and_nothing_is_subscribed_in_is_mended() {
    let server = Server::start().await;
    // As one that was cut off between its connection and its subscription.
    let mut options = rumqttc::MqttOptions::new(
        "email-1.Listener.1.mail",
        rumqttc::Broker::tcp("127.0.0.1", server.port()),
    );
    options.set_clean_start(false).set_session_expiry_interval(Some(1000));
    let (client, mut events) = rumqttc::AsyncClient::builder(options).build();
    events.poll().await.unwrap();
    client.disconnect_now().await.unwrap();
    while tokio::time::timeout(Duration::from_secs(5), events.poll()).await.unwrap().is_ok() {}

    let bridge = server.durable("email-1").await;
    let recorder = Recorder::default();
    bridge.subscribe(durable("mail"), recorder.consumer()).await.unwrap();
    publish(&bridge, 0..1).await;
    expect(&recorder, 0..1).await;
    bridge.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_subscription_that_ceases_to_be_shared_hears_nothing_twice() {
    let server = Server::start().await;
    let recorder = Recorder::default();
    let shared = server.durable("email-1").await;
    shared.subscribe(durable("mail"), recorder.consumer()).await.unwrap();
    shared.close().await.unwrap();
    let alone = server.durable_alone("email-1").await;
    publish(&alone, 0..1).await;
    alone.subscribe(durable("mail"), recorder.consumer()).await.unwrap();
    publish(&alone, 1..20).await;
    expect(&recorder, 0..20).await;
    alone.close().await.unwrap();
    recorder.expect_nothing_more().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_retired_session_takes_no_share_of_the_events() {
    let server = Server::start().await;
    let source = server.bridge("source").await;
    let recorder = Recorder::default();
    let ended = server.durable("email-1").await;
    ended.subscribe(durable("mail"), recorder.consumer()).await.unwrap();
    ended.close().await.unwrap();
    let stays = server.durable("email-2").await;
    stays.subscribe(durable("mail"), recorder.consumer()).await.unwrap();
    publish(&source, 0..20).await;
    tokio::time::sleep(Duration::from_secs(1)).await; // real time: what does not come cannot be waited for
    let heard = recorder.rest().await.len();
    assert!(heard < 20, "the session of the process that ended takes its share: {heard}");

    let operator = MqttBridge::builder(server.url()).instance("operator").connect().await.unwrap();
    operator.retire_session("email-1", &durable("mail").address).await.unwrap();
    publish(&source, 20..40).await;
    expect(&recorder, 20..40).await;
    // Once more for a session that is not there.
    operator.retire_session("email-1", &durable("mail").address).await.unwrap();
    let again = server.durable("email-1").await;
    again.subscribe(durable("mail"), recorder.consumer()).await.unwrap();
    recorder.expect_nothing_more().await;
}
