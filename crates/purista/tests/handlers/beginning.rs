//! Where a durable subscription begins that a bridge feeds.

use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use purista::{Context, HandlerError, Host, Service, subscription};
use purista_core::bridge::{
    Asking, BridgeError, BridgeState, Capabilities, Consumer, EventBridge, Registration,
};
use purista_core::id::Id;
use purista_core::in_process::InProcessBridge;
use purista_core::message::Message;
use purista_core::subscription::Subscription;
use purista_events::memory::MemoryStore;
use tokio::sync::watch;

use crate::contracts::{Happened, Passed, TRY};

/// A bridge that says that it keeps messages, and notes what it is asked to feed.
struct Keeping {
    bridge: InProcessBridge,
    from_start: bool,
    asked: Arc<Mutex<Vec<Subscription>>>,
}

impl EventBridge for Keeping {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "keeping",
            is_local: false,
            durable: true,
            from_start: self.from_start,
            ..self.bridge.capabilities()
        }
    }

    fn instance(&self) -> Id {
        self.bridge.instance()
    }

    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), BridgeError>> {
        self.bridge.publish(message)
    }

    fn request(&self, command: Box<Message>) -> Asking<'_> {
        self.bridge.request(command)
    }

    fn subscribe(
        &self,
        subscription: Subscription,
        consumer: Arc<dyn Consumer>,
    ) -> BoxFuture<'_, Result<Registration, BridgeError>> {
        self.asked.lock().unwrap().push(subscription.clone());
        self.bridge.subscribe(Subscription { durable: false, ..subscription }, consumer)
    }

    fn state(&self) -> watch::Receiver<BridgeState> {
        self.bridge.state()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), BridgeError>> {
        self.bridge.close()
    }
}

async fn heard(_ctx: Context<()>, _event: Happened) -> Result<(), HandlerError> {
    Ok(())
}

async fn passed(_ctx: Context<()>, _event: Passed) -> Result<(), HandlerError> {
    Ok(())
}

fn from_start() -> Service {
    Service::builder(TRY, "Tries", ())
        .subscription(subscription("mail", heard).durable().from_start())
        .build()
}

/// Whether the bridge is asked to begin at the start; or why the host does not start.
async fn asked(bridge_can: bool, store: Option<MemoryStore>, service: Service) -> Result<bool, String> {
    let asked = Arc::default();
    let bridge =
        Keeping { bridge: InProcessBridge::new(), from_start: bridge_can, asked: Arc::clone(&asked) };
    let mut builder = Host::builder().bridge(bridge).service(service);
    if let Some(store) = store {
        builder = builder.store(store);
    }
    let host = builder.start().await.map_err(|refused| refused.to_string())?;
    host.stop().await;
    let asked = asked.lock().unwrap();
    let mail: Vec<_> = asked.iter().filter(|asked| asked.durable).collect();
    assert_eq!(mail.len(), 1);
    Ok(mail.iter().any(|asked| asked.from_start))
}

#[tokio::test]
async fn from_start_is_asked_of_a_bridge_that_can_and_refused_where_nobody_can() {
    assert_eq!(asked(true, None, from_start()).await, Ok(true));
    assert_eq!(asked(true, Some(MemoryStore::default()), from_start()).await, Ok(true));
    // The log begins at its start; what others send, with what comes.
    assert_eq!(asked(false, Some(MemoryStore::default()), from_start()).await, Ok(false));
    let refused = asked(false, None, from_start()).await.unwrap_err();
    for part in ["Try.1.mail says `.from_start()`", "the keeping bridge keeps nothing", "`.store(..)`"] {
        assert!(refused.contains(part), "{part} is not in: {refused}");
    }
}

#[tokio::test]
async fn from_start_of_what_no_log_holds_is_refused_with_a_store_too() {
    let passing = || subscription("passing", passed).durable();
    let service = |passing| Service::builder(TRY, "Tries", ()).subscription(passing).build();
    let store = || Some(MemoryStore::default());
    assert_eq!(asked(false, store(), service(passing())).await, Ok(false));
    assert_eq!(asked(true, store(), service(passing().from_start())).await, Ok(true));
    let refused = asked(false, store(), service(passing().from_start())).await.unwrap_err();
    assert!(refused.contains("Try.1.passing says `.from_start()`"), "{refused}");
}
