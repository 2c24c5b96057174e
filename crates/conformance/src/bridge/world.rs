//! What a duty has in its hands: bridges of one system, and messages to send over them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use purista_core::address::{Address, AddressParts};
use purista_core::bridge::{Capabilities, Consumer, EventBridge, Registration};
use purista_core::clock::Clock;
use purista_core::id::Id;
use purista_core::message::{Message, MessageType, Party};
use purista_core::payload::Payload;
use purista_core::subscription::{Filter, Sharing, Subscription};
use purista_core::text::Text;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::{BridgeSystem, Outages};
use crate::proxy::Proxy;

/// How long a command of a duty may take, and so how long a duty waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A server, and the way to it.
type Way = (Arc<dyn Outages>, Arc<Proxy>);

/// A fresh system, and what a duty opened in it.
pub struct World {
    system: Box<dyn BridgeSystem>,
    bridges: Mutex<Vec<Arc<dyn EventBridge>>>,
    /// Their servers and proxies end after the bridges: what these still have to say they can say.
    networks: Mutex<Vec<Way>>,
    clock: Clock,
    tasks: TaskTracker,
}

impl World {
    pub(super) fn new(system: Box<dyn BridgeSystem>) -> Self {
        Self {
            system,
            bridges: Mutex::default(),
            networks: Mutex::default(),
            clock: Clock::system(),
            tasks: TaskTracker::new(),
        }
    }

    /// One more process of the system; it is closed when the duty ends.
    pub async fn bridge(&self) -> Arc<dyn EventBridge> {
        self.keep(self.system.bridge().await)
    }

    /// One more process that may have durable subscriptions, of this name; it is closed when the duty ends.
    pub async fn durable_bridge(&self, name: &str) -> Arc<dyn EventBridge> {
        self.keep(self.system.durable_bridge(name).await)
    }

    /// Takes a process away without a word. `false` where that cannot be done.
    pub async fn lose(&self, bridge: Arc<dyn EventBridge>) -> bool {
        self.lock().retain(|each| !Arc::ptr_eq(each, &bridge));
        let Some(kept) = self.system.lose(bridge).await else { return true };
        self.lock().push(kept);
        false
    }

    /// Lets a server and the way to it live until the bridges are closed.
    pub(super) fn keep_network(&self, server: Arc<dyn Outages>, proxy: Arc<Proxy>) {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner).push((server, proxy));
    }

    /// Closes this bridge, too, when the duty ends.
    pub fn keep(&self, bridge: Arc<dyn EventBridge>) -> Arc<dyn EventBridge> {
        self.lock().push(Arc::clone(&bridge));
        bridge
    }

    /// What the system's bridges promise.
    pub async fn capabilities(&self) -> Capabilities {
        self.bridge().await.capabilities()
    }

    /// The processes that the duty has opened so far.
    pub fn bridges(&self) -> Vec<Arc<dyn EventBridge>> {
        self.lock().clone()
    }

    /// The system itself.
    pub fn system(&self) -> &dyn BridgeSystem {
        &*self.system
    }

    /// Tasks of the duty; they are awaited before the system ends.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Closes every bridge, each within its time. What was delivered before is settled after.
    pub async fn close(&self) {
        for bridge in self.bridges() {
            let closed = tokio::time::timeout(PATIENCE, bridge.close()).await;
            closed.expect("close ends in time").expect("close succeeds");
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<dyn EventBridge>>> {
        self.bridges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A command to this service and target, from `Caller.1.main`, with [`PATIENCE`] to be answered.
    pub fn command(&self, service: &str, target: &str, payload: &str) -> Message {
        let mut command = self.message(MessageType::Command);
        command.receiver = Some(Party::anywhere(address(service, target)));
        command.correlation_id = Some(self.clock.id());
        command.payload = Payload::encoded(Bytes::from(payload.to_owned()));
        command.deadline = Some(Instant::now() + PATIENCE);
        command
    }

    /// An event of this name, from `Caller.1.main`.
    pub fn event(&self, name: &str) -> Message {
        let mut event = self.message(MessageType::CustomMessage);
        event.event_name = Some(Text::from(name));
        event
    }

    /// An event with a number in it.
    pub fn numbered(&self, name: &str, number: usize) -> Message {
        let mut event = self.event(name);
        event.payload = Payload::encoded(Bytes::from(number.to_string()));
        event
    }

    /// A message with nothing but what each has, from `Caller.1.main`.
    pub fn message(&self, kind: MessageType) -> Message {
        let sender =
            Party { address: address("Caller", "main"), instance: Id::parse("callerInstance1").ok() };
        Message::new(self.clock.id(), kind, self.clock.now_ms(), sender, self.clock.id())
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("bridges", &self.lock().len()).finish_non_exhaustive()
    }
}

/// An address in version 1 of a service.
pub fn address(service: &str, target: &str) -> Address {
    Address::from(AddressParts {
        service: service.to_owned().into(),
        version: "1".into(),
        target: target.to_owned().into(),
    })
}

/// A shared subscription `Listener.1.{name}` with one message in flight.
pub fn subscription(name: &str, filter: Filter) -> Subscription {
    Subscription {
        address: address("Listener", name),
        filter,
        sharing: Sharing::Shared,
        durable: false,
        in_flight: 1,
        from_start: false,
        answers: false,
    }
}

/// Events of one name, for the shared subscription `Listener.1.{name}`.
pub fn listening(name: &str, event: &str) -> Subscription {
    subscription(name, Filter::event(Text::from(event)))
}

/// Subscribes, which must succeed.
pub async fn subscribe(
    bridge: &Arc<dyn EventBridge>,
    subscription: Subscription,
    consumer: Arc<dyn Consumer>,
) -> Registration {
    bridge.subscribe(subscription, consumer).await.expect("a subscription is taken")
}

/// Serves the command `{service}.1.{target}`, which must succeed.
pub async fn serve(
    bridge: &Arc<dyn EventBridge>,
    service: &str,
    target: &str,
    consumer: Arc<dyn Consumer>,
) -> Registration {
    subscribe(bridge, Subscription::command(address(service, target), 64), consumer).await
}

/// Publishes, which must succeed.
pub async fn publish(bridge: &Arc<dyn EventBridge>, message: Message) {
    bridge.publish(message).await.expect("a message is published");
}

/// Asks, which must bring a reply.
pub async fn request(bridge: &Arc<dyn EventBridge>, command: Message) -> Message {
    *bridge.request(Box::new(command)).await.expect("a command is answered")
}

/// The payload of a message as text.
pub fn text(message: &Message) -> String {
    let bytes = message.payload.bytes().expect("the payload is JSON").unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The number in a message's payload.
pub fn number(message: &Message) -> usize {
    text(message).parse().expect("the payload is a number")
}
