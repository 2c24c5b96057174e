//! A process with one durable subscription whose handler never ends, to be killed in it by the tests.
//!
//! It says `listening` when it is subscribed, and `began <payload>` for each message that it takes in hand.

use std::error::Error;
use std::io::Write as _;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use purista_core::address::{Address, ServiceId};
use purista_core::bridge::{Consumer, Delivery, EventBridge, Outcome};
use purista_core::subscription::{Filter, Sharing, Subscription};
use purista_core::text::Text;
use purista_mqtt::bridge::MqttBridge;

struct Held;

impl Consumer for Held {
    fn consume(&self, delivery: Delivery) -> BoxFuture<'static, Outcome> {
        let payload = delivery.message.payload.bytes().ok().flatten().unwrap_or_default();
        say(&format!("began {}", String::from_utf8_lossy(&payload)));
        Box::pin(std::future::pending())
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever reads it may have gone.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("the broker's address is missing")?;
    let client_id = arguments.next().ok_or("the client id is missing")?;
    let bridge = MqttBridge::builder(url).client_id(client_id).connect().await?;
    let subscription = Subscription {
        address: Address::of(ServiceId::new("Listener", "1"), "mail"),
        filter: Filter::event(Text::known("userRegistered")),
        sharing: Sharing::Shared,
        durable: true,
        in_flight: 1,
        from_start: false,
        answers: false,
    };
    bridge.subscribe(subscription, Arc::new(Held)).await?;
    say("listening");
    std::future::pending().await
}
