//! Processes on one broker that run the same service: with one store, and with stores of their own.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use purista::testing::TEST_BEGINS;
use purista::{Context, Host, HostBuilder, InProcessBridge, RunningHost, Service, command, subscription};
use purista_core::bridge::{
    Asking, BridgeError, BridgeState, Capabilities, Consumer, EventBridge, Registration,
};
use purista_core::clock::Clock;
use purista_core::health::Condition;
use purista_core::id::Id;
use purista_core::message::Message;
use purista_core::subscription::Subscription;
use purista_events::memory::MemoryStore;
use tokio::sync::watch;

use crate::captured::Warnings;
use crate::contracts::{Ask, Happened, TRY, Told, told};

/// The connection of one process to a broker that several share.
struct Connection {
    broker: Arc<InProcessBridge>,
    instance: Id,
}

impl EventBridge for Connection {
    fn capabilities(&self) -> Capabilities {
        Capabilities { is_local: false, ..self.broker.capabilities() }
    }

    fn instance(&self) -> Id {
        self.instance.clone()
    }

    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), BridgeError>> {
        self.broker.publish(message)
    }

    fn request(&self, command: Box<Message>) -> Asking<'_> {
        self.broker.request(command)
    }

    fn subscribe(
        &self,
        subscription: Subscription,
        consumer: Arc<dyn Consumer>,
    ) -> BoxFuture<'_, Result<Registration, BridgeError>> {
        self.broker.subscribe(subscription, consumer)
    }

    fn state(&self) -> watch::Receiver<BridgeState> {
        self.broker.state()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), BridgeError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A store of its own for each number.
fn store(number: u64) -> MemoryStore {
    MemoryStore::new(Clock::follows_tokio(TEST_BEGINS, number))
}

fn with_a_command() -> Service {
    let def = command(async |_: Context<()>, input: Ask| Ok::<Told, _>(told(&input.text)));
    Service::builder(TRY, "Tries", ()).command(def).build()
}

fn with_a_subscription() -> Service {
    let def = subscription("heard", async |_: Context<()>, _: Happened| Ok(()));
    Service::builder(TRY, "Tries", ()).subscription(def).build()
}

/// A process on the broker. The number tells it from others.
fn process(broker: &Arc<InProcessBridge>, number: u64, service: Service) -> HostBuilder {
    let connection = Connection { broker: Arc::clone(broker), instance: Id::from_random(u128::from(number)) };
    Host::builder().clock(Clock::follows_tokio(TEST_BEGINS, number)).bridge(connection).service(service)
}

fn peer_detail(host: &RunningHost) -> Option<String> {
    let report = host.health().report();
    let part = report.parts.into_iter().find(|part| part.name == "store peers")?;
    assert_eq!(part.condition, Condition::Degraded);
    part.detail
}

async fn passes(time: Duration) {
    tokio::time::sleep(time).await; // real time: paused, it passes at once
}

#[tokio::test(start_paused = true)]
async fn processes_with_stores_of_their_own_name_each_other() {
    let warnings = Warnings::default();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let broker = Arc::new(InProcessBridge::new());
    let first = process(&broker, 1, with_a_command()).store(store(10)).start().await.unwrap();
    assert_eq!(peer_detail(&first), None, "it is the only one");
    let second = process(&broker, 2, with_a_command()).store(store(20)).start().await.unwrap();
    passes(Duration::from_secs(1)).await;
    for (host, peer) in [(&first, 2), (&second, 1)] {
        let detail = peer_detail(host).unwrap();
        assert!(detail.contains("Try.1") && detail.contains(&Id::from_random(peer).to_string()), "{detail}");
    }
    passes(Duration::from_secs(10 * 60)).await;
    assert!(peer_detail(&first).is_some() && peer_detail(&second).is_some(), "both are still there");
    assert_eq!(warnings.with("another store").len(), 2, "one warning in each: {:?}", warnings.lines());
    second.stop().await;
    passes(Duration::from_secs(4 * 60)).await;
    assert_eq!(peer_detail(&first), None, "a peer that is gone is forgotten");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_where_no_log_is_split() {
    let warnings = Warnings::default();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let check = async |first: HostBuilder, second: HostBuilder| {
        let (first, second) = (first.start().await.unwrap(), second.start().await.unwrap());
        passes(Duration::from_secs(5 * 60)).await;
        assert_eq!((peer_detail(&first), peer_detail(&second)), (None, None));
        first.stop().await;
        second.stop().await;
    };
    let broker = || Arc::new(InProcessBridge::new());
    let (shared, one) = (store(10), broker());
    let with = |number| process(&one, number, with_a_command()).store(shared.open_beside());
    check(with(1), with(2)).await;
    let one = broker();
    check(process(&one, 1, with_a_command()), process(&one, 2, with_a_command()).store(store(20))).await;
    let one = broker();
    let with = |number| process(&one, number, with_a_subscription()).store(store(number * 10));
    check(with(1), with(2)).await;
    let one = broker();
    let with =
        |number| process(&one, number, with_a_command()).store(store(number * 10)).allow_separate_stores();
    check(with(1), with(2)).await;
    assert_eq!(warnings.with("another store"), Vec::<String>::new());
}
