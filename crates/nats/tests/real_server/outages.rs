//! A server that goes away and comes back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use purista_conformance::bridge::consumers::Recorder;
use purista_conformance::bridge::world::address;
use purista_core::bridge::{BridgeErrorKind, BridgeState, Consumer, Delivery, EventBridge, Outcome};
use purista_core::clock::Clock;
use purista_core::message::{Message, MessageType, Party};
use purista_core::subscription::{Filter, IN_FLIGHT_DEFAULT, Sharing, Subscription};
use purista_core::text::Text;
use purista_nats::bridge::NatsBridge;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::server::Server;

const PATIENCE: Duration = Duration::from_secs(20);

fn command(target: &str, timeout: Duration) -> Message {
    let clock = Clock::system();
    let sender = Party::anywhere(address("Caller", "main"));
    let mut command = Message::new(clock.id(), MessageType::Command, clock.now_ms(), sender, clock.id());
    command.receiver = Some(Party::anywhere(address("User", target)));
    command.correlation_id = Some(clock.id());
    command.deadline = Some(Instant::now() + timeout);
    command
}

fn event() -> Message {
    let clock = Clock::system();
    let sender = Party::anywhere(address("Caller", "main"));
    let mut event = Message::new(clock.id(), MessageType::CustomMessage, clock.now_ms(), sender, clock.id());
    event.event_name = Some(Text::known("userRegistered"));
    event.deadline = Some(Instant::now() + PATIENCE);
    event
}

fn listening() -> Subscription {
    Subscription {
        address: address("Listener", "mail"),
        filter: Filter::event(Text::known("userRegistered")),
        sharing: Sharing::Shared,
        durable: false,
        in_flight: IN_FLIGHT_DEFAULT,
        answers: false,
    }
}

async fn until(bridge: &Arc<dyn EventBridge>, wanted: BridgeState) {
    let mut state = bridge.state();
    let waiting = state.wait_for(|state| *state == wanted);
    tokio::time::timeout(PATIENCE, waiting).await.expect("the state follows").expect("the bridge lives");
}

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
#[ignore = "needs nats-server: cargo xtask test"]
async fn subscriptions_come_back_after_the_server_was_killed() {
    let mut server = Server::start().await;
    let (user, caller) = (server.bridge("user").await, server.bridge("caller").await);
    let (kept, heard) = (Recorder::default(), Recorder::default());
    user.subscribe(Subscription::command(address("User", "signUp"), 64), kept.consumer()).await.unwrap();
    user.subscribe(listening(), heard.consumer()).await.unwrap();
    caller.request(Box::new(command("signUp", PATIENCE))).await.unwrap();
    for round in 0..2 {
        server.kill();
        until(&user, BridgeState::Reconnecting).await;
        until(&caller, BridgeState::Reconnecting).await;
        server.restart().await;
        until(&user, BridgeState::Connected).await;
        until(&caller, BridgeState::Connected).await;
        let answer = caller.request(Box::new(command("signUp", PATIENCE))).await.unwrap();
        assert_eq!(answer.kind, MessageType::CommandSuccessResponse, "round {round}");
        let event = event();
        caller.publish(event.clone()).await.unwrap();
        assert_eq!(heard.message().await.id, event.id);
    }
    user.close().await.unwrap();
    caller.close().await.unwrap();
    assert_eq!(kept.rest().await.len(), 3, "no call ran twice");
    heard.expect_nothing_more().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: cargo xtask test"]
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
#[ignore = "needs nats-server: cargo xtask test"]
async fn what_is_asked_while_the_server_is_away_waits_for_it_or_never_happened() {
    let mut server = Server::start().await;
    let (user, caller) = (server.bridge("user").await, server.bridge("caller").await);
    let (kept, heard) = (Recorder::default(), Recorder::default());
    user.subscribe(Subscription::command(address("User", "signUp"), 64), kept.consumer()).await.unwrap();
    user.subscribe(listening(), heard.consumer()).await.unwrap();
    server.kill();
    until(&caller, BridgeState::Reconnecting).await;
    let short = caller.request(Box::new(command("signUp", Duration::from_millis(100)))).await.unwrap_err();
    assert_eq!(short.kind(), BridgeErrorKind::Rejected, "it was never sent");
    let mut brief = event();
    brief.deadline = Some(Instant::now() + Duration::from_millis(100));
    assert_eq!(caller.publish(brief).await.unwrap_err().kind(), BridgeErrorKind::Rejected);

    let event = event();
    let coming_back = async {
        server.restart().await;
        until(&user, BridgeState::Connected).await;
    };
    let (published, ()) = tokio::join!(caller.publish(event.clone()), coming_back);
    published.expect("it waited for the server");
    // The two bridges come back one after the other; until the user's is there, nobody hears and nobody serves.
    caller.publish(event.clone()).await.unwrap();
    assert_eq!(heard.message().await.id, event.id);
    caller.request(Box::new(command("signUp", PATIENCE))).await.unwrap();
    assert_eq!(kept.rest().await.len(), 1, "the rejected one never ran");
    user.close().await.unwrap();
    caller.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
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
    let slow = NatsBridge::builder(server.url()).subscription_capacity(4).connect().await.unwrap();
    let source = server.bridge("source").await;
    let (goes_on, recorder) = (Arc::new(Notify::new()), Recorder::default());
    let mut one = listening();
    one.in_flight = 1;
    slow.subscribe(one, Arc::new(Held(Arc::clone(&goes_on), recorder.clone()))).await.unwrap();
    source.publish(event()).await.unwrap();
    recorder.next().await;
    for _ in 0..20 {
        source.publish(event()).await.unwrap();
    }
    let counted = async {
        while slow.messages_dropped() < 16 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.expect("16 of 20 found no place");
    goes_on.notify_one();
    for _ in 0..4 {
        recorder.next().await;
    }
    assert_eq!(*slow.state().borrow(), BridgeState::Connected);
    slow.close().await.unwrap();
    recorder.expect_nothing_more().await;
}
