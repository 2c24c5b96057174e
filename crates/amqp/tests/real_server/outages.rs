//! A broker that goes away and comes back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use purista_conformance::bridge::consumers::Recorder;
use purista_conformance::bridge::world::{address, number};
use purista_core::bridge::{BridgeErrorKind, BridgeState, Consumer, Delivery, EventBridge, Outcome};
use purista_core::clock::Clock;
use purista_core::message::{Message, MessageType, Party};
use purista_core::payload::Payload;
use purista_core::subscription::{Filter, IN_FLIGHT_DEFAULT, Sharing, Subscription};
use purista_core::text::Text;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::server::Server;

const PATIENCE: Duration = Duration::from_secs(60);
/// Within this time everything goes on, once the broker takes connections.
const RESUMED: Duration = Duration::from_secs(10);

fn command(target: &str, timeout: Duration) -> Message {
    let clock = Clock::system();
    let sender = Party::anywhere(address("Caller", "main"));
    let mut command = Message::new(clock.id(), MessageType::Command, clock.now_ms(), sender, clock.id());
    command.receiver = Some(Party::anywhere(address("User", target)));
    command.correlation_id = Some(clock.id());
    command.deadline = Some(Instant::now() + timeout);
    command
}

fn event(number: usize) -> Message {
    let clock = Clock::system();
    let sender = Party::anywhere(address("Caller", "main"));
    let mut event = Message::new(clock.id(), MessageType::CustomMessage, clock.now_ms(), sender, clock.id());
    event.event_name = Some(Text::known("userRegistered"));
    event.payload = Payload::encoded(number.to_string().into());
    event.deadline = Some(Instant::now() + PATIENCE);
    event
}

fn listening(name: &str, durable: bool) -> Subscription {
    Subscription {
        address: address("Listener", name),
        filter: Filter::event(Text::known("userRegistered")),
        sharing: Sharing::Shared,
        durable,
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
            tokio::time::sleep(Duration::from_secs(2)).await; // real time: it outlasts the loss
            Outcome::DeadLetter { reason: "nobody waits any more".to_owned() }
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn everything_goes_on_by_itself_after_the_broker_was_killed() {
    let mut server = Server::start().await;
    let system = server.system();
    let (user, caller) = (system.bridge("user").await, system.bridge("caller").await);
    let (kept, durable, fleeting, everywhere) =
        (Recorder::default(), Recorder::default(), Recorder::default(), Recorder::default());
    user.subscribe(Subscription::command(address("User", "signUp"), 64), kept.consumer()).await.unwrap();
    user.subscribe(listening("mail", true), durable.consumer()).await.unwrap();
    user.subscribe(listening("log", false), fleeting.consumer()).await.unwrap();
    let own = Subscription { sharing: Sharing::EveryInstance, ..listening("cache", false) };
    user.subscribe(own, everywhere.consumer()).await.unwrap();
    caller.request(Box::new(command("signUp", PATIENCE))).await.unwrap();
    for round in 0..2 {
        server.kill();
        until(&user, BridgeState::Reconnecting).await;
        until(&caller, BridgeState::Reconnecting).await;
        // What is asked while the broker is away waits for it, or never happened.
        let short =
            caller.request(Box::new(command("signUp", Duration::from_millis(100)))).await.unwrap_err();
        assert_eq!(short.kind(), BridgeErrorKind::Rejected, "it was never sent");
        let coming_back = async {
            server.restart().await;
            let back = Instant::now();
            until(&user, BridgeState::Connected).await;
            until(&caller, BridgeState::Connected).await;
            let answer = caller.request(Box::new(command("signUp", PATIENCE))).await.unwrap();
            assert_eq!(answer.kind, MessageType::CommandSuccessResponse, "round {round}");
            assert!(back.elapsed() < RESUMED, "it took {:?}", back.elapsed());
        };
        let waiting = event(round);
        let (published, ()) = tokio::join!(caller.publish(waiting.clone()), coming_back);
        published.expect("it waited for the broker");
        // Its queue was there before the broker went away. What was acknowledged just before that may come again.
        while durable.message().await.id != waiting.id {}
        let next = event(10 + round);
        caller.publish(next.clone()).await.unwrap();
        for recorder in [&durable, &fleeting, &everywhere] {
            // The one that waited may have found the queues that went with the broker, or not.
            while recorder.message().await.id != next.id {}
        }
    }
    user.close().await.unwrap();
    caller.close().await.unwrap();
    assert_eq!(kept.rest().await.len(), 3, "no call ran twice, and the rejected ones never");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn a_request_in_flight_ends_as_unknown_when_the_connection_is_lost() {
    let mut server = Server::start().await;
    let system = server.system();
    let (user, caller) = (system.bridge("user").await, system.bridge("caller").await);
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
    // Closing while the broker is away ends too.
    tokio::time::timeout(PATIENCE, user.close()).await.expect("close ends").unwrap();
    caller.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn no_confirmed_event_is_lost_when_the_broker_is_killed_meanwhile() {
    const EVENTS: usize = 3000;
    let mut server = Server::start().await;
    let system = server.system();
    let (user, source) = (system.bridge("user").await, system.bridge("source").await);
    let recorder = Recorder::default();
    user.subscribe(listening("mail", true), recorder.consumer()).await.unwrap();
    let publishing = async {
        let mut confirmed = BTreeSet::new();
        for first in (0..EVENTS).step_by(50) {
            // Many in flight, so that the broker dies with some.
            let window = (first..first + 50).map(|n| {
                let published = source.publish(event(n));
                async move { (n, published.await) }
            });
            for (n, published) in futures_util::future::join_all(window).await {
                match published {
                    Ok(()) => drop(confirmed.insert(n)),
                    Err(error) => assert!(error.may_have_happened(), "it waited for the broker: {error}"),
                }
            }
        }
        confirmed
    };
    let killing = async {
        recorder.next().await;
        server.kill();
        server.restart().await;
    };
    let (confirmed, ()) = tokio::join!(publishing, killing);
    assert!(confirmed.len() > EVENTS / 2, "only {} were confirmed", confirmed.len());
    let end = event(usize::MAX);
    source.publish(end.clone()).await.unwrap();
    let mut heard = BTreeSet::from([0]);
    loop {
        let message = recorder.message().await;
        if message.id == end.id {
            break;
        }
        heard.insert(number(&message));
    }
    let lost: Vec<_> = confirmed.difference(&heard).collect();
    // The first was taken to know when to kill.
    assert!(lost.iter().all(|n| **n < 50) && lost.len() <= 1, "lost: {lost:?}");
    for bridge in [user, source] {
        tokio::time::timeout(PATIENCE, bridge.close()).await.expect("close ends").unwrap();
    }
}
