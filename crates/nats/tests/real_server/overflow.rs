//! What comes faster than it is consumed.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use purista_conformance::bridge::consumers::Recorder;
use purista_conformance::bridge::world::address;
use purista_core::bridge::{BridgeState, Consumer, Delivery, EventBridge, Outcome};
use purista_core::clock::Clock;
use purista_core::message::{Message, MessageType, Party};
use purista_core::subscription::{Filter, IN_FLIGHT_DEFAULT, Sharing, Subscription};
use purista_core::text::Text;
use purista_nats::bridge::NatsBridge;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::server::Server;

const PATIENCE: Duration = Duration::from_secs(20);

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
        from_start: false,
        answers: false,
    }
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
