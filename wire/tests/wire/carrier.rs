//! What the tests ask of a broker with its bridge, its tap and a client that knows nothing of bridges.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use purista_core::bridge::{
    Asking, BridgeError, BridgeState, Capabilities, Consumer, EventBridge, Registration,
};
use purista_core::id::Id;
use purista_core::message::Message;
use purista_core::subscription::Subscription;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

/// How long anything may take that is awaited.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// More messages than any test lets pass its tap.
pub(crate) const TAP_CAPACITY: usize = 10_000;

/// A broker, in which a test has a system of its own.
pub(crate) trait Carrier: Sized + Send + Sync + 'static {
    /// Its name in fixtures and deviations.
    const NAME: &'static str;
    /// What PURISTA sends over it.
    const FIXTURES: &'static str;

    /// A system in which nobody is yet.
    async fn start() -> Self;

    /// A bridge into it.
    async fn bridge(&self, instance: &str) -> Bridge;

    /// A bridge that keeps what a durable subscription misses.
    async fn durable_bridge(&self, instance: &str) -> Bridge;

    /// A bridge whose subscriptions share their events with the same ones of PURISTA's services.
    async fn sharing_bridge(&self, instance: &str) -> Bridge {
        self.bridge(instance).await
    }

    /// Hears every message from now on.
    async fn tap(&self) -> Tap;

    /// Sends a message exactly as it stands there, as a peer would; `seed` makes the place of the answer this call's own.
    async fn send(&self, message: &Value, seed: u32);

    /// Where a client of somebody else's connects, and under which names it works.
    fn place(&self) -> Value;

    /// Turns a response into the one to this command, as it passed the tap.
    fn answer(response: &mut Value, command: &Value);
}

/// A bridge that a host can have, and the test still ask what it counted.
#[derive(Clone)]
pub(crate) struct Bridge {
    pub(crate) inner: Arc<dyn EventBridge>,
    /// The messages that it dropped.
    pub(crate) dropped: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// The replies for which nobody waited.
    pub(crate) unclaimed: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl EventBridge for Bridge {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    fn instance(&self) -> Id {
        self.inner.instance()
    }
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), BridgeError>> {
        self.inner.publish(message)
    }
    fn request(&self, command: Box<Message>) -> Asking<'_> {
        self.inner.request(command)
    }
    fn subscribe(
        &self,
        subscription: Subscription,
        consumer: Arc<dyn Consumer>,
    ) -> BoxFuture<'_, Result<Registration, BridgeError>> {
        self.inner.subscribe(subscription, consumer)
    }
    fn state(&self) -> watch::Receiver<BridgeState> {
        self.inner.state()
    }
    fn close(&self) -> BoxFuture<'_, Result<(), BridgeError>> {
        self.inner.close()
    }
}

/// A third party that hears everything.
pub(crate) struct Tap {
    heard: mpsc::Receiver<Value>,
    /// Ends what feeds it.
    _stop: tokio_util::sync::DropGuard,
}

impl Tap {
    /// A tap that is fed by `feeding` until it is dropped.
    pub(crate) fn fed<F: Future<Output = ()> + Send + 'static>(
        feeding: impl FnOnce(mpsc::Sender<Value>) -> F,
    ) -> Self {
        let (heard_from, heard) = mpsc::channel(TAP_CAPACITY);
        let stop = tokio_util::sync::CancellationToken::new();
        let feeding = feeding(heard_from);
        let task = stop.clone().run_until_cancelled_owned(feeding);
        tokio_util::task::TaskTracker::new().spawn(task);
        Self { heard, _stop: stop.drop_guard() }
    }

    /// A tap that hears nothing.
    pub(crate) fn deaf() -> Self {
        Self::fed(async |_| std::future::pending().await)
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Value {
        let hearing = tokio::time::timeout(PATIENCE, self.heard.recv());
        hearing.await.expect("a message is heard").expect("the tap hears as long as it is there")
    }

    /// The next messages, up to the first after which `is_last` says that nothing more belongs to them.
    pub(crate) async fn until(&mut self, mut is_last: impl FnMut(&Value) -> bool) -> Vec<Value> {
        let mut heard = Vec::new();
        loop {
            heard.push(self.next().await);
            if heard.last().is_some_and(&mut is_last) {
                return heard;
            }
        }
    }
}

/// The same tests on each carrier.
macro_rules! everywhere {
    ($($name:ident),* $(,)?) => {
        $crate::carrier::everywhere!(@ nats, $crate::nats::Nats, "needs nats-server and nats-py: cargo xtask test", $($name)*);
        $crate::carrier::everywhere!(@ amqp, $crate::amqp::Amqp, "needs rabbitmq-server and pika: cargo xtask test", $($name)*);
        $crate::carrier::everywhere!(@ mqtt, $crate::mqtt::Mqtt, "needs mosquitto and paho-mqtt: cargo xtask test", $($name)*);
    };
    (@ $carrier:ident, $type:ty, $reason:literal, $($name:ident)*) => {
        mod $carrier {
            $(
                #[tokio::test]
                #[ignore = $reason]
                async fn $name() {
                    super::$name::<$type>().await;
                }
            )*
        }
    };
}
pub(crate) use everywhere;
