//! Nothing is consumed before every command of the host is registered.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use purista::testing::TEST_BEGINS;
use purista::{
    Context, Host, HostBuilder, InProcessBridge, Retry, Service, ServiceId, command, subscription,
};
use purista_core::bridge::{
    Asking, BridgeError, BridgeState, Capabilities, Consumer, EventBridge, Registration,
};
use purista_core::clock::Clock;
use purista_core::id::Id;
use purista_core::message::Message;
use purista_core::subscription::Subscription;
use purista_events::memory::MemoryStore;
use purista_events::store::EventStore;
use tokio::sync::watch;

use crate::contracts::{Count, Emit, Happened, TRY, told};

/// A bridge that takes its time to register, as one over a broker does.
struct Slow(InProcessBridge);

impl EventBridge for Slow {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn instance(&self) -> Id {
        self.0.instance()
    }

    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), BridgeError>> {
        self.0.publish(message)
    }

    fn request(&self, command: Box<Message>) -> Asking<'_> {
        self.0.request(command)
    }

    fn subscribe(
        &self,
        subscription: Subscription,
        consumer: Arc<dyn Consumer>,
    ) -> BoxFuture<'_, Result<Registration, BridgeError>> {
        Box::pin(async {
            tokio::time::sleep(Duration::from_secs(1)).await; // real time: paused, it passes at once
            self.0.subscribe(subscription, consumer).await
        })
    }

    fn state(&self) -> watch::Receiver<BridgeState> {
        self.0.state()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), BridgeError>> {
        self.0.close()
    }
}

fn calling() -> Service {
    let call = async |ctx: Context<()>, _: Happened| {
        ctx.invoke(Count { key: "all".into() }).await?;
        Ok(())
    };
    let def = subscription("call", call).invokes::<Count>().durable().retry(Retry::never());
    Service::builder(ServiceId::new("Calls", "1"), "Calls", ()).subscription(def).build()
}

fn called() -> Service {
    let count = command(async |ctx: Context<()>, input: Count| {
        let before: u32 = ctx.state().get(&input.key).await?.unwrap_or(0);
        ctx.state().set(&input.key, &(before + 1))?;
        Ok(told(&before.to_string()))
    });
    let emit = command(async |ctx: Context<()>, input: Emit| {
        Ok(ctx.emit(Happened { key: input.key, how: input.how })?)
    });
    Service::builder(TRY, "Tries", ()).command(count).command(emit.emits::<Happened>()).build()
}

#[tokio::test(start_paused = true)]
async fn a_backlog_finds_the_commands_of_services_that_are_added_later() {
    let store = MemoryStore::new(Clock::follows_tokio(TEST_BEGINS, 0));
    let host = |services: Vec<Service>| {
        let clock = Clock::follows_tokio(TEST_BEGINS, 1);
        let host = Host::builder().clock(clock).store(store.open_beside());
        services.into_iter().fold(host.bridge(Slow(InProcessBridge::new())), HostBuilder::service)
    };
    host(vec![calling(), called()]).start().await.unwrap().stop().await;
    let without = host(vec![called()]).start().await.unwrap();
    for key in ["a", "b", "c"] {
        without.client().invoke(Emit { key: key.into(), how: "well".into() }).await.unwrap();
    }
    without.stop().await;

    let restarted = host(vec![calling(), called()]).start().await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await; // real time: paused, it passes at once
    assert!(store.dead_letters(None, 9).await.unwrap().is_empty(), "no event was given up");
    let counted = restarted.client().invoke(Count { key: "all".into() }).await.unwrap();
    assert_eq!(counted, told("3"), "each event of the backlog was handled");
    restarted.stop().await;
}
