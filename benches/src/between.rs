//! What is compared between two processes: one that asks and tells, another that answers and hears.

mod second;

use std::sync::Arc;

use anyhow::{Result, bail};
use purista::host::{Host, HostBuilder, RunningHost};
use purista_amqp::bridge::AmqpBridge;
use purista_core::address::{Address, AddressParts, ServiceId};
use purista_core::bridge::EventBridge;
use purista_core::client::{CALLS_IN_FLIGHT_DEFAULT, Client};
use purista_core::clock::Clock;
use purista_mqtt::bridge::MqttBridge;
use purista_nats::bridge::NatsBridge;
use purista_nats::jetstream::JetStream;

pub use second::{Second, say, until_left};

use crate::registered::{Heard, UserRegistered, listening_services};
use crate::sign_up::{SignUp, SignedUp, user_service};

/// Who speaks with the other process.
pub trait Caller: Clone + Send + Sync + 'static {
    /// Asks the other process, and waits for its answer.
    fn ask(&self, input: SignUp) -> impl Future<Output = Result<SignedUp>> + Send;
    /// Tells everybody, and waits until the broker has it.
    fn tell(&self, event: UserRegistered) -> impl Future<Output = Result<()>> + Send;
}

static CALLER: AddressParts = AddressParts::known(ServiceId::new(crate::bare::wire::CALLER, "1"), "main");

/// A client of ours over a bridge.
#[derive(Debug, Clone)]
pub struct Ours(Client);

impl Ours {
    /// A client over this bridge.
    pub fn over(bridge: impl EventBridge) -> Self {
        let (bridge, caller) = (Arc::new(bridge), Address::known(&CALLER));
        Self(Client::new(bridge, caller, Clock::system(), CALLS_IN_FLIGHT_DEFAULT))
    }

    /// The same over NATS, where a stream keeps events.
    pub async fn with_streams(url: &str) -> Result<Self> {
        Ok(Self::over(NatsBridge::builder(url).jetstream(JetStream::default()).connect().await?))
    }

    /// The bridge for the broker at this address.
    pub async fn at(url: &str) -> Result<Self> {
        Ok(match url.split(':').next() {
            Some("nats") => Self::over(NatsBridge::connect(url).await?),
            Some("amqp") => Self::over(AmqpBridge::connect(url).await?),
            Some("mqtt") => Self::over(MqttBridge::connect(url).await?),
            _ => bail!("{url} is no broker's address"),
        })
    }

    /// Ends the connection.
    pub async fn close(&self) -> Result<()> {
        Ok(self.0.bridge().close().await?)
    }
}

impl Caller for Ours {
    async fn ask(&self, input: SignUp) -> Result<SignedUp> {
        Ok(self.0.invoke(input).await?)
    }

    async fn tell(&self, event: UserRegistered) -> Result<()> {
        Ok(self.0.emit(event).await?)
    }
}

/// A host of ours that answers and hears, without a store.
pub async fn serve(url: &str, heard: &Arc<Heard>) -> Result<RunningHost> {
    let host = match url.split(':').next() {
        Some("nats") => Host::builder().bridge(NatsBridge::connect(url).await?),
        Some("amqp") => Host::builder().bridge(AmqpBridge::connect(url).await?),
        Some("mqtt") => Host::builder().bridge(MqttBridge::connect(url).await?),
        _ => bail!("{url} is no broker's address"),
    };
    let services = listening_services(heard).into_iter().chain([user_service()]);
    Ok(services.fold(host, HostBuilder::service).start().await?)
}
