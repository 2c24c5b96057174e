//! A mosquitto of the test's own, with bridges and clients of it.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use purista_core::bridge::EventBridge;
use purista_mqtt::bridge::MqttBridge;
use purista_servers::mosquitto::Mosquitto;
use rumqttc::{
    AsyncClient, Broker, Event, MqttOptions, Packet, Publish, PublishOptions, PublishProperties, QoS,
};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub(crate) struct Server(Mosquitto);

impl Server {
    pub(crate) async fn start() -> Self {
        Self(Mosquitto::start().await)
    }

    pub(crate) async fn start_in_memory() -> Self {
        Self(Mosquitto::start_in_memory().await)
    }

    /// Starts one with these lines in its configuration, which call the broker's folder `FOLDER`.
    pub(crate) async fn start_with(lines: &str, prepare: impl FnOnce(&Path)) -> Self {
        Self(Mosquitto::start_with(lines, prepare).await)
    }

    pub(crate) async fn bridge(&self, instance: &str) -> Arc<dyn EventBridge> {
        Arc::new(MqttBridge::builder(self.url()).instance(instance).connect().await.unwrap())
    }

    /// A bridge with a client id, for durable subscriptions.
    pub(crate) async fn durable(&self, client_id: &str) -> Arc<dyn EventBridge> {
        Arc::new(MqttBridge::builder(self.url()).client_id(client_id).connect().await.unwrap())
    }

    /// The same for a process that shares its durable subscriptions with no other.
    pub(crate) async fn durable_alone(&self, client_id: &str) -> Arc<dyn EventBridge> {
        let builder = MqttBridge::builder(self.url()).client_id(client_id).durable_in_one_process();
        Arc::new(builder.connect().await.unwrap())
    }

    /// A client that knows nothing of bridges, and hears this filter from now on.
    pub(crate) async fn client(&self, filter: &str) -> Client {
        Client::connect(self.port(), filter).await
    }

    /// Waits until what it has confirmed is written: it confirms first, and writes before it reads the next packet.
    pub(crate) async fn written(&self) {
        self.client("nothing").await.publish("nothing", "").await;
    }
}

impl Deref for Server {
    type Target = Mosquitto;

    fn deref(&self) -> &Mosquitto {
        &self.0
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut Mosquitto {
        &mut self.0
    }
}

/// A client that knows nothing of bridges.
pub(crate) struct Client {
    sender: AsyncClient,
    heard: mpsc::Receiver<Publish>,
    /// Ends its task.
    _stop: DropGuard,
}

impl Client {
    async fn connect(port: u16, filter: &str) -> Self {
        static NUMBERS: AtomicU32 = AtomicU32::new(0);
        let name = format!("peer-{}", NUMBERS.fetch_add(1, Ordering::Relaxed));
        let mut options = MqttOptions::new(name, Broker::tcp("127.0.0.1", port));
        options.set_max_packet_size(Some(64 << 20));
        let (client, mut events) = AsyncClient::builder(options).capacity(64).build();
        let (to_test, heard) = mpsc::channel(10_000);
        let pumping = async move {
            while let Ok(event) = events.poll().await {
                if let Event::Incoming(Packet::Publish(raw)) = event {
                    to_test.try_send(raw).expect("the test reads what it hears");
                }
            }
        };
        let stop = CancellationToken::new();
        TaskTracker::new().spawn(stop.clone().run_until_cancelled_owned(pumping));
        let granted = client.subscribe_tracked(filter.to_owned(), QoS::AtLeastOnce).await.unwrap();
        granted.wait_async().await.unwrap();
        Self { sender: client, heard, _stop: stop.drop_guard() }
    }

    /// Publishes, and waits until the broker has it.
    pub(crate) async fn publish(&self, topic: &str, body: impl Into<Vec<u8>>) {
        self.publish_paired(topic, body, None).await;
    }

    /// The same with correlation data.
    pub(crate) async fn publish_paired(
        &self,
        topic: &str,
        body: impl Into<Vec<u8>>,
        correlation_data: Option<bytes::Bytes>,
    ) {
        let properties = PublishProperties { correlation_data, ..PublishProperties::default() };
        let options = PublishOptions::at_least_once().properties(properties);
        let sent = self.sender.publish_tracked(topic.to_owned(), body.into(), options).await.unwrap();
        sent.wait_async().await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Publish {
        let hearing = tokio::time::timeout(Duration::from_secs(10), self.heard.recv());
        hearing.await.expect("something is heard").unwrap()
    }
}
