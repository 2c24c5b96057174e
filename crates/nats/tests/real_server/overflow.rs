//! What comes faster than it is consumed.

use std::sync::Arc;
use std::time::Duration;

use purista_conformance::bridge::consumers::Recorder;
use purista_conformance::bridge::world::{address, listening};
use purista_core::bridge::{BridgeState, EventBridge};
use purista_core::clock::Clock;
use purista_core::message::{Message, MessageType, Party};
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

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn a_full_queue_is_counted_and_harms_no_other() {
    let server = Server::start().await;
    let slow = NatsBridge::builder(server.url()).subscription_capacity(4).connect().await.unwrap();
    let source = server.bridge("source").await;
    let (goes_on, recorder) = (Arc::new(Notify::new()), Recorder::default());
    let mut one = listening("mail", "userRegistered");
    one.in_flight = 1;
    slow.subscribe(one, recorder.holding(&goes_on)).await.unwrap();
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
