//! A RabbitMQ of the test's own, with systems of bridges on it and clients of it.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use lapin::{Channel, Connection, ConnectionProperties};
use purista_amqp::bridge::AmqpBridge;
use purista_amqp::connect::Builder;
use purista_core::bridge::EventBridge;
use purista_servers::rabbitmq::RabbitMq;
use tokio::sync::OnceCell;

static SYSTEMS: AtomicU32 = AtomicU32::new(0);
static SHARED: OnceCell<Server> = OnceCell::const_new();

pub(crate) struct Server(RabbitMq);

/// One system of bridges on a broker: its exchange and its queues have names that no other system has.
#[derive(Clone)]
pub(crate) struct System {
    url: String,
    pub(crate) name: String,
}

impl Server {
    /// The broker that all tests share that neither stop it nor configure it.
    pub(crate) async fn shared() -> &'static Self {
        SHARED.get_or_init(Self::start).await
    }

    pub(crate) async fn start() -> Self {
        Self(RabbitMq::start().await)
    }

    /// A broker with more lines in its configuration, which call a free port `TLS_PORT` and the broker's folder `FOLDER`; who
    /// is let in is named before the host of its address. The folder may be prepared.
    pub(crate) async fn start_with(configuration: &str, user: &str, prepare: impl FnOnce(&Path)) -> Self {
        Self(RabbitMq::start_with(configuration, user, prepare).await)
    }

    /// One more system on this broker.
    pub(crate) fn system(&self) -> System {
        let number = SYSTEMS.fetch_add(1, Ordering::Relaxed);
        System { url: self.url(), name: format!("system-{number}") }
    }
}

impl Deref for Server {
    type Target = RabbitMq;

    fn deref(&self) -> &RabbitMq {
        &self.0
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut RabbitMq {
        &mut self.0
    }
}

impl System {
    pub(crate) fn builder(&self) -> Builder {
        AmqpBridge::builder(&self.url).exchange(&self.name).prefix(&self.name)
    }

    pub(crate) async fn bridge(&self, instance: &str) -> Arc<dyn EventBridge> {
        Arc::new(self.builder().instance(instance).connect().await.unwrap())
    }

    /// A client that knows nothing of bridges; its connection lives as long as the channel.
    pub(crate) async fn client(&self) -> Channel {
        let connection = Connection::connect(&self.url, ConnectionProperties::default()).await.unwrap();
        connection.create_channel().await.unwrap()
    }
}
