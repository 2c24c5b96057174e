//! What a broker does not take: messages above its own limit.

use std::time::Duration;

use purista_core::address::{Address, ServiceId};
use purista_core::bridge::BridgeErrorKind;
use purista_core::clock::Clock;
use purista_core::message::{Message, MessageType, Party};
use purista_core::payload::Payload;
use tokio::time::Instant;

use crate::server::Server;

const PATIENCE: Duration = Duration::from_secs(20);

fn event(bytes: usize) -> Message {
    let (clock, sender) =
        (Clock::system(), Party::anywhere(Address::of(ServiceId::new("Source", "1"), "main")));
    let mut event = Message::new(clock.id(), MessageType::CustomMessage, clock.now_ms(), sender, clock.id());
    event.event_name = Some("grown".into());
    event.payload = Payload::encoded(format!("\"{}\"", "x".repeat(bytes)).into());
    event.deadline = Some(Instant::now() + PATIENCE);
    event
}

#[tokio::test]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn a_message_above_the_brokers_own_limit_is_too_large_and_the_bridge_works_on() {
    let server = Server::start_with("max_message_size = 65536", "", |_| ()).await;
    let bridge = server.system().bridge("i1").await;
    let error = bridge.publish(event(100_000)).await.unwrap_err();
    assert_eq!(error.kind(), BridgeErrorKind::TooLarge, "{error}");
    bridge.publish(event(1_000)).await.unwrap();
}
