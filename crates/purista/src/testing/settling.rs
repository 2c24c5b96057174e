//! The in-process bridge with a count of what is under way, so that a test can wait until nothing is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use purista_core::address::Address;
use purista_core::bridge::{
    Asking, BridgeError, BridgeState, Capabilities, Consumer, Delivery, EventBridge, Outcome, Registration,
};
use purista_core::id::Id;
use purista_core::in_process::InProcessBridge;
use purista_core::message::Message;
use purista_core::subscription::{Filter, Sharing, Subscription};
use tokio::sync::watch;

/// Counts a delivery from its publishing to its settlement.
pub(super) struct SettlingBridge {
    bridge: InProcessBridge,
    under_way: watch::Sender<i64>,
    listeners: Mutex<Listeners>,
}

/// The filters of those who listen: one for each that gets a message of its own.
#[derive(Default)]
struct Listeners {
    shared: BTreeMap<Address, Filter>,
    every_instance: Vec<Filter>,
}

impl SettlingBridge {
    pub(super) fn new(bridge: InProcessBridge) -> Self {
        Self { bridge, under_way: watch::channel(0).0, listeners: Mutex::default() }
    }

    pub(super) async fn settled(&self) {
        let _ = self.under_way.subscribe().wait_for(|count| *count == 0).await;
    }

    pub(super) fn is_settled(&self) -> bool {
        *self.under_way.borrow() == 0
    }

    /// How many listeners a message has.
    fn listeners(&self, message: &Message) -> i64 {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = listeners.shared.values().filter(|filter| filter.matches(message)).count();
        let every = listeners.every_instance.iter().filter(|filter| filter.matches(message)).count();
        i64::try_from(shared + every).unwrap_or(i64::MAX)
    }

    fn count(&self, message: &Message) {
        let listeners = self.listeners(message);
        self.under_way.send_modify(|count| *count += listeners);
    }
}

impl EventBridge for SettlingBridge {
    fn capabilities(&self) -> Capabilities {
        self.bridge.capabilities()
    }

    fn instance(&self) -> Id {
        self.bridge.instance()
    }

    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), BridgeError>> {
        self.count(&message);
        self.bridge.publish(message)
    }

    fn request(&self, command: Box<Message>) -> Asking<'_> {
        Asking::new(async move {
            self.count(&command);
            let listeners_of_replies = self.under_way.clone();
            let reply = self.bridge.request(command).await?;
            // The bridge has handed the reply to those who listen before it comes back here.
            let listeners =
                if reply.record.is_none() || reply.event_name.is_none() { self.listeners(&reply) } else { 0 };
            listeners_of_replies.send_modify(|count| *count += listeners);
            Ok(reply)
        })
    }

    fn subscribe(
        &self,
        subscription: Subscription,
        consumer: Arc<dyn Consumer>,
    ) -> BoxFuture<'_, Result<Registration, BridgeError>> {
        if subscription.answers {
            return self.bridge.subscribe(subscription, consumer);
        }
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        match subscription.sharing {
            Sharing::Shared => {
                listeners.shared.insert(subscription.address.clone(), subscription.filter.clone());
            }
            Sharing::EveryInstance => listeners.every_instance.push(subscription.filter.clone()),
        }
        drop(listeners);
        let consumer = Counting { consumer, under_way: self.under_way.clone() };
        self.bridge.subscribe(subscription, Arc::new(consumer))
    }

    fn state(&self) -> watch::Receiver<BridgeState> {
        self.bridge.state()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), BridgeError>> {
        self.bridge.close()
    }
}

/// Counts a delivery down when it is settled; one that comes back is still under way.
struct Counting {
    consumer: Arc<dyn Consumer>,
    under_way: watch::Sender<i64>,
}

impl Consumer for Counting {
    fn consume(&self, delivery: Delivery) -> BoxFuture<'static, Outcome> {
        let consuming = self.consumer.consume(delivery);
        let under_way = self.under_way.clone();
        Box::pin(async move {
            let outcome = consuming.await;
            if !matches!(outcome, Outcome::Retry { .. }) {
                // Below zero for a moment when a reply is handled before it was counted.
                under_way.send_modify(|count| *count -= 1);
            }
            outcome
        })
    }
}
