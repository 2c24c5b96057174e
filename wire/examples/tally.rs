//! A process with a store of its own, which counts each event that it hears over a bridge: the tests kill it again and again.
//!
//! `tally BRIDGE FILE`, where the first is the address of a broker. It says when it listens, and ends with its input.

#![expect(clippy::unwrap_used, reason = "what cannot be set up is a failed test")]

use std::io::Read as _;
use std::time::Duration;

use garde::Validate;
use purista::{Context, Event, HandlerError, Host, HostBuilder, Service, ServiceId, subscription};
use purista_amqp::bridge::AmqpBridge;
use purista_mqtt::bridge::MqttBridge;
use purista_nats::bridge::NatsBridge;
use purista_nats::jetstream::JetStream;
use purista_sqlite::store::SqliteStore;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const TALLY: ServiceId = ServiceId::new("Tally", "1");
/// Long enough that a kill meets several handlers at work.
const WORK: Duration = Duration::from_millis(5);

/// Heard from elsewhere.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
struct Counted {
    number: u32,
}

impl Event for Counted {
    const NAME: &'static str = "counted";
}

/// Recorded for each of them, in this process' own store.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
struct Tallied {
    number: u32,
}

impl Event for Tallied {
    const NAME: &'static str = "tallied";
}

async fn tally(ctx: Context<()>, event: Counted) -> Result<(), HandlerError> {
    let key = event.number.to_string();
    let times: u32 = ctx.state().get(&key).await?.unwrap_or(0);
    ctx.state().set(&key, &(times + 1))?;
    ctx.emit(Tallied { number: event.number })?;
    tokio::time::sleep(WORK).await;
    Ok(())
}

async fn over(bridge: &str, host: HostBuilder) -> HostBuilder {
    let scheme = bridge.split(':').next().unwrap();
    match scheme {
        "nats" => {
            let bridge = NatsBridge::builder(bridge).instance("tally").jetstream(JetStream::default());
            host.bridge(bridge.connect().await.unwrap())
        }
        "amqp" => host.bridge(AmqpBridge::builder(bridge).instance("tally").connect().await.unwrap()),
        _ => {
            let bridge = MqttBridge::builder(bridge).client_id("tally").durable_in_one_process();
            host.bridge(bridge.connect().await.unwrap())
        }
    }
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let (bridge, file) = (arguments.next().unwrap(), arguments.next().unwrap());
    let tally = subscription("tally", tally).emits::<Tallied>().durable();
    let service = Service::builder(TALLY, "counts", ()).subscription(tally).build();
    let host = Host::builder().store(SqliteStore::open(file).unwrap()).service(service);
    let running = over(&bridge, host).await.start().await.unwrap();
    println!("listening");
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    running.stop().await;
}
