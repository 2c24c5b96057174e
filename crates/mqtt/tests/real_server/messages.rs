//! Messages and subscriptions of the tests, and waiting.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use purista_conformance::bridge::world::address;
use purista_core::bridge::{BridgeState, EventBridge};
use purista_core::clock::Clock;
use purista_core::message::{Message, MessageType, Party};
use purista_core::payload::Payload;
use purista_core::subscription::{Filter, IN_FLIGHT_DEFAULT, Sharing, Subscription};
use purista_core::text::Text;
use tokio::time::Instant;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn command(target: &str, timeout: Duration) -> Message {
    let clock = Clock::system();
    let sender = Party::anywhere(address("Caller", "main"));
    let mut command = Message::new(clock.id(), MessageType::Command, clock.now_ms(), sender, clock.id());
    command.receiver = Some(Party::anywhere(address("User", target)));
    command.correlation_id = Some(clock.id());
    command.deadline = Some(Instant::now() + timeout);
    command
}

pub(crate) fn event(number: usize) -> Message {
    let clock = Clock::system();
    let sender = Party::anywhere(address("Caller", "main"));
    let mut event = Message::new(clock.id(), MessageType::CustomMessage, clock.now_ms(), sender, clock.id());
    event.event_name = Some(Text::known("userRegistered"));
    event.payload = Payload::encoded(Bytes::from(number.to_string()));
    event.deadline = Some(Instant::now() + PATIENCE);
    event
}

pub(crate) fn listening(name: &str) -> Subscription {
    Subscription {
        address: address("Listener", name),
        filter: Filter::event(Text::known("userRegistered")),
        sharing: Sharing::Shared,
        durable: false,
        in_flight: IN_FLIGHT_DEFAULT,
        from_start: false,
        answers: false,
    }
}

/// A durable subscription with one message in flight.
pub(crate) fn durable(name: &str) -> Subscription {
    Subscription { durable: true, in_flight: 1, ..listening(name) }
}

pub(crate) async fn until(bridge: &Arc<dyn EventBridge>, wanted: BridgeState) {
    let mut state = bridge.state();
    let waiting = state.wait_for(|state| *state == wanted);
    tokio::time::timeout(PATIENCE, waiting).await.expect("the state follows").expect("the bridge lives");
}
