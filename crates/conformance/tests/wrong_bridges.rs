//! Bridges that break a duty on purpose: each is found out by the test of that duty.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use purista_conformance::bridge::{BridgeSystem, content, run};
use purista_core::bridge::{
    Asking, BridgeError, BridgeErrorKind, BridgeState, Capabilities, Consumer, EventBridge, Registration,
};
use purista_core::id::Id;
use purista_core::in_process::InProcessBridge;
use purista_core::message::Message;
use purista_core::subscription::Subscription;
use tokio::sync::watch;

/// What a bridge does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// It says of an event that is too large what it says of one that it could not send now: so it is tried for ever.
    LargeIsRejected,
    /// It says that it has lost its connection over it.
    LargeIsUnknown,
    /// It says that it carries more than it does.
    LimitIsAGuess,
}

#[derive(Clone)]
struct WrongBridge(InProcessBridge, Wrong);

impl WrongBridge {
    fn instead(&self, error: BridgeError) -> BridgeError {
        match (self.1, error.kind()) {
            (Wrong::LargeIsRejected, BridgeErrorKind::TooLarge) => {
                BridgeError::new(BridgeErrorKind::Rejected, error.to_string())
            }
            (Wrong::LargeIsUnknown, BridgeErrorKind::TooLarge) => {
                BridgeError::new(BridgeErrorKind::Unknown, error.to_string())
            }
            _ => error,
        }
    }
}

impl EventBridge for WrongBridge {
    fn capabilities(&self) -> Capabilities {
        let right = self.0.capabilities();
        let guess = if self.1 == Wrong::LimitIsAGuess { 1024 } else { right.message_bytes_max };
        Capabilities { message_bytes_max: guess, ..right }
    }

    fn instance(&self) -> Id {
        self.0.instance()
    }

    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), BridgeError>> {
        Box::pin(async move { self.0.publish(message).await.map_err(|error| self.instead(error)) })
    }

    fn request(&self, command: Box<Message>) -> Asking<'_> {
        self.0.request(command)
    }

    fn subscribe(
        &self,
        subscription: Subscription,
        consumer: Arc<dyn Consumer>,
    ) -> BoxFuture<'_, Result<Registration, BridgeError>> {
        self.0.subscribe(subscription, consumer)
    }

    fn state(&self) -> watch::Receiver<BridgeState> {
        self.0.state()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), BridgeError>> {
        self.0.close()
    }
}

struct System(WrongBridge);

impl BridgeSystem for System {
    fn bridge(&self) -> BoxFuture<'_, Arc<dyn EventBridge>> {
        let bridge: Arc<dyn EventBridge> = Arc::new(self.0.clone());
        Box::pin(std::future::ready(bridge))
    }
}

#[tokio::test]
async fn a_bridge_that_does_not_say_that_a_message_is_too_large_is_found_out() {
    for wrong in [Wrong::LargeIsRejected, Wrong::LargeIsUnknown, Wrong::LimitIsAGuess] {
        let duty = run(std::future::ready(System(WrongBridge(InProcessBridge::new(), wrong))), |world| {
            Box::pin(content::message_above_the_limit_is_too_large_and_the_bridge_works_on(world))
        });
        assert!(AssertUnwindSafe(duty).catch_unwind().await.is_err(), "{wrong:?} passes");
    }
}
