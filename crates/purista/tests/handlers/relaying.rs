//! The relay of several hosts on one store and one broker: one carries at a time, and another goes on at the place that is kept.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use purista::testing::TEST_BEGINS;
use purista::{Context, Host, RunningHost, Service, command};
use purista_core::bridge::{
    Asking, BridgeError, BridgeErrorKind, BridgeState, Capabilities, Consumer, EventBridge, Registration,
};
use purista_core::clock::Clock;
use purista_core::id::Id;
use purista_core::in_process::InProcessBridge;
use purista_core::message::Message;
use purista_core::subscription::Subscription;
use purista_events::memory::MemoryStore;
use tokio::sync::watch;

use crate::contracts::{Emit, Happened, TRY};

const SOON: Duration = Duration::from_secs(4);

/// A broker as one process reaches it: whatever is carried to it is noted, with the process.
struct Broker {
    bridge: InProcessBridge,
    number: u64,
    carried: Arc<Mutex<Vec<(u64, Id)>>>,
    is_reached: Arc<watch::Sender<bool>>,
}

impl EventBridge for Broker {
    fn capabilities(&self) -> Capabilities {
        Capabilities { is_local: false, ..self.bridge.capabilities() }
    }

    fn instance(&self) -> Id {
        self.bridge.instance()
    }

    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), BridgeError>> {
        if message.record.is_none() {
            return self.bridge.publish(message);
        }
        let is_reached = *self.is_reached.borrow();
        if is_reached {
            self.carried.lock().unwrap().push((self.number, message.id));
        }
        Box::pin(async move {
            if is_reached { Ok(()) } else { Err(BridgeError::new(BridgeErrorKind::Rejected, "it is away")) }
        })
    }

    fn request(&self, command: Box<Message>) -> Asking<'_> {
        self.bridge.request(command)
    }

    fn subscribe(
        &self,
        subscription: Subscription,
        consumer: Arc<dyn Consumer>,
    ) -> BoxFuture<'_, Result<Registration, BridgeError>> {
        self.bridge.subscribe(subscription, consumer)
    }

    fn state(&self) -> watch::Receiver<BridgeState> {
        self.bridge.state()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), BridgeError>> {
        self.bridge.close()
    }
}

struct World {
    memory: MemoryStore,
    carried: Arc<Mutex<Vec<(u64, Id)>>>,
    is_reached: Arc<watch::Sender<bool>>,
}

impl World {
    fn new() -> Self {
        let memory = MemoryStore::new(Clock::follows_tokio(TEST_BEGINS, 0));
        Self { memory, carried: Arc::default(), is_reached: Arc::new(watch::Sender::new(true)) }
    }

    async fn process(&self, number: u64) -> (RunningHost, MemoryStore) {
        let (carried, is_reached) = (Arc::clone(&self.carried), Arc::clone(&self.is_reached));
        let (bridge, store) = (InProcessBridge::new(), self.memory.open_beside());
        let emit = command(async |ctx: Context<()>, input: Emit| {
            ctx.emit(Happened { key: input.key, how: input.how })?;
            Ok(())
        });
        let service = Service::builder(TRY, "Tries", ()).command(emit.emits::<Happened>()).build();
        let host = Host::builder().clock(Clock::follows_tokio(TEST_BEGINS, number)).store(store.clone());
        let host = host.bridge(Broker { bridge, number, carried, is_reached }).service(service);
        let host = host.start().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await; // real time: paused, it lets it ask for its lease
        (host, store)
    }

    fn carriers(&self) -> Vec<u64> {
        self.carried.lock().unwrap().iter().map(|(number, _)| *number).collect()
    }

    async fn carries(&self, expected: &[u64]) {
        let wait = async {
            while self.carriers().len() < expected.len() {
                tokio::time::sleep(Duration::from_millis(5)).await; // real time: paused, it passes at once
            }
        };
        let in_time = tokio::time::timeout(SOON, wait).await.is_ok();
        tokio::time::sleep(SOON).await; // real time: paused, nothing comes after it
        assert!(in_time && self.carriers() == expected, "{:?} and not {expected:?}", self.carriers());
    }
}

async fn happens(host: &RunningHost) {
    host.client().invoke(Emit { key: "k".into(), how: "well".into() }).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn each_event_is_carried_once_by_whoever_has_the_lease() {
    let world = World::new();
    let (one, store) = world.process(1).await;
    let (two, _) = world.process(2).await;
    happens(&one).await;
    happens(&two).await;
    world.carries(&[1, 1]).await;
    let lags = two.lags().await.unwrap();
    assert!(lags.iter().all(|(_, lag)| lag.is_caught_up()), "the other knows of it: {lags:?}");

    store.lose_leases(SOON * 3);
    happens(&one).await;
    world.carries(&[1, 1, 2]).await;
    two.stop().await;
    tokio::time::sleep(SOON).await; // real time: paused, it passes at once
    happens(&one).await;
    world.carries(&[1, 1, 2, 1]).await;
    let ids: std::collections::BTreeSet<_> =
        world.carried.lock().unwrap().iter().map(|(_, id)| id.clone()).collect();
    assert_eq!(ids.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_carried_is_given_up_with_the_lease_and_carried_by_the_next() {
    let world = World::new();
    let (one, store) = world.process(1).await;
    let (_two, _) = world.process(2).await;
    world.is_reached.send_replace(false);
    happens(&one).await;
    tokio::time::sleep(SOON).await; // real time: paused, it is tried now and then
    store.lose_leases(SOON * 9);
    tokio::time::sleep(SOON).await; // real time: paused, it passes at once
    world.is_reached.send_replace(true);
    world.carries(&[2]).await;
}
