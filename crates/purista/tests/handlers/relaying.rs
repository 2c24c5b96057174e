//! The relay of several hosts on one store and one broker: one carries at a time, and another goes on at the place that is kept.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use purista::testing::{TEST_BEGINS, TestHost};
use purista::{Context, Host, RunningHost, Service, command};
use purista_core::bridge::{
    Asking, BridgeError, BridgeErrorKind, BridgeState, Capabilities, Consumer, EventBridge, Registration,
};
use purista_core::clock::Clock;
use purista_core::health::{Condition, PartHealth};
use purista_core::id::Id;
use purista_core::in_process::InProcessBridge;
use purista_core::message::{Message, MessageType};
use purista_core::subscription::Subscription;
use purista_events::batch::Batch;
use purista_events::memory::MemoryStore;
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::resend;
use purista_events::store::{Direction, EventStore, StoreErrorKind};
use purista_events::subscriptions::DeadLetter;
use tokio::sync::watch;

use crate::contracts::{Emit, Happened, TRY};

const SOON: Duration = Duration::from_secs(4);

/// A broker as one process reaches it: whatever is carried to it is noted, with the process.
struct Broker {
    bridge: InProcessBridge,
    number: u64,
    carried: Arc<Mutex<Vec<(u64, Id)>>>,
    is_reached: Arc<watch::Sender<bool>>,
    limit: Limit,
}

/// What a broker does with large messages.
#[derive(Debug, Clone)]
struct Limit {
    /// What it says.
    said: Arc<AtomicUsize>,
    /// What it keeps to.
    kept: Arc<AtomicUsize>,
    /// How it refuses a larger one.
    how: BridgeErrorKind,
}

impl Limit {
    fn of(said: usize, kept: usize, how: BridgeErrorKind) -> Self {
        Self { said: Arc::new(said.into()), kept: Arc::new(kept.into()), how }
    }

    fn raise(&self) {
        self.said.store(1 << 20, Ordering::Relaxed);
        self.kept.store(1 << 20, Ordering::Relaxed);
    }
}

impl EventBridge for Broker {
    fn capabilities(&self) -> Capabilities {
        let message_bytes_max = self.limit.said.load(Ordering::Relaxed);
        Capabilities { is_local: false, name: "broker", message_bytes_max, ..self.bridge.capabilities() }
    }

    fn instance(&self) -> Id {
        self.bridge.instance()
    }

    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), BridgeError>> {
        if message.kind != MessageType::CustomMessage {
            return self.bridge.publish(message);
        }
        let bytes = message.payload.bytes().unwrap().map_or(0, |json| json.len());
        if bytes > self.limit.kept.load(Ordering::Relaxed) {
            assert!(self.limit.how != BridgeErrorKind::Timeout, "a fault in the bridge");
            let error = BridgeError::new(self.limit.how, "it is too much");
            return Box::pin(std::future::ready(Err(error)));
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
    limit: Limit,
    carried: Arc<Mutex<Vec<(u64, Id)>>>,
    is_reached: Arc<watch::Sender<bool>>,
}

impl World {
    fn new() -> Self {
        Self::limited(Limit::of(1 << 20, 1 << 20, BridgeErrorKind::TooLarge))
    }

    fn limited(limit: Limit) -> Self {
        let memory = MemoryStore::new(Clock::follows_tokio(TEST_BEGINS, 0));
        Self { memory, limit, carried: Arc::default(), is_reached: Arc::new(watch::Sender::new(true)) }
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
        let host = host
            .bridge(Broker { bridge, number, carried, is_reached, limit: self.limit.clone() })
            .service(service);
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

async fn happens_large(host: &RunningHost) -> Result<(), purista_core::invoke_error::InvokeError> {
    host.client().invoke(Emit { key: "k".into(), how: "x".repeat(100_000) }).await
}

/// The one dead letter of the relay.
async fn set_aside(store: &MemoryStore) -> DeadLetter {
    let wait = async {
        loop {
            if let Some(letter) = store.dead_letters(None, 9).await.unwrap().pop() {
                return letter;
            }
            tokio::time::sleep(Duration::from_millis(5)).await; // real time: paused, it passes at once
        }
    };
    let letter = tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
    assert_eq!(letter.subscription.as_str(), "purista.relay");
    letter
}

fn relay(host: &RunningHost) -> PartHealth {
    host.health().report().parts.into_iter().find(|part| part.name == "relay").unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_event_that_can_never_be_carried_is_set_aside_and_the_rest_moves_on() {
    let kept = 64 << 10;
    for (how, reason) in [
        (BridgeErrorKind::TooLarge, "it is too much (did not happen)"),
        (BridgeErrorKind::Unknown, "the connection was lost 8 times in a row over this event"),
    ] {
        let world = World::limited(Limit::of(1 << 20, kept, how));
        let (one, store) = world.process(1).await;
        happens(&one).await;
        happens_large(&one).await.unwrap();
        happens(&one).await;
        let letter = set_aside(&store).await;
        assert!(letter.reason.contains(reason), "{}", letter.reason);
        world.carries(&[1, 1]).await;
        assert_eq!(relay(&one).condition, Condition::Up, "it moves on");

        // Replayed too early it is a dead letter again, with what was tried before.
        one.try_again(&letter).await.unwrap();
        let again = set_aside(&store).await;
        assert!(again.id != letter.id && again.history.len() == 2, "{again:?}");
        world.limit.raise();
        one.try_again(&again).await.unwrap();
        world.carries(&[1, 1, 1]).await;
        assert_eq!(store.dead_letters(None, 9).await.unwrap(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_replayed_while_no_program_ran_is_carried_when_one_starts() {
    let world = World::limited(Limit::of(1 << 20, 64 << 10, BridgeErrorKind::TooLarge));
    let (one, store) = world.process(1).await;
    happens_large(&one).await.unwrap();
    let letter = set_aside(&store).await;
    let replay = Batch::trying_again(letter.trace_id.clone(), &letter, None);
    world.limit.raise();
    world.memory.commit(replay).await.unwrap();
    one.stop().await;
    let (_two, _) = world.process(2).await;
    let wait = async {
        while world.carriers().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await; // real time: paused, it passes at once
        }
    };
    tokio::time::timeout(SOON, wait).await.unwrap();
    let record = world.memory.subscription(&letter.subscription).await.unwrap().unwrap();
    assert_eq!(record.parked, []);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_the_broker_would_not_take_is_refused_when_it_is_emitted() {
    let world = World::limited(Limit::of(64 << 10, 64 << 10, BridgeErrorKind::TooLarge));
    let (one, store) = world.process(1).await;
    let head = *store.head().borrow();
    let error = happens_large(&one).await.unwrap_err();
    assert_eq!(error.status().code(), 500);
    assert_eq!(*store.head().borrow(), head, "nothing was recorded");
    world.limit.raise();
    happens_large(&one).await.unwrap();
    world.carries(&[1]).await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_moves_nothing_for_a_minute_says_so_and_why() {
    let world = World::new();
    let (one, _) = world.process(1).await;
    world.is_reached.send_replace(false);
    happens(&one).await;
    tokio::time::sleep(Duration::from_secs(50)).await; // real time: paused, it passes at once
    assert_eq!(relay(&one).condition, Condition::Up);
    tokio::time::sleep(Duration::from_secs(20)).await; // real time: paused, it passes at once
    let part = relay(&one);
    assert_eq!(part.condition, Condition::Degraded);
    let detail = part.detail.unwrap();
    assert!(detail.contains("published nothing for") && detail.contains("it is away"), "{detail}");
    world.is_reached.send_replace(true);
    world.carries(&[1]).await;
    assert_eq!(relay(&one).condition, Condition::Up);
}

#[tokio::test(start_paused = true)]
async fn a_relay_whose_task_has_ended_is_down() {
    // Its bridge panics over a large event.
    let world = World::limited(Limit::of(1 << 20, 64 << 10, BridgeErrorKind::Timeout));
    let (one, _) = world.process(1).await;
    assert_eq!(relay(&one).condition, Condition::Up);
    happens_large(&one).await.unwrap();
    tokio::time::sleep(SOON).await; // real time: paused, it passes at once
    let part = relay(&one);
    assert_eq!(part.condition, Condition::Down);
    assert!(part.detail.unwrap().contains("its task has ended"));
}

#[tokio::test(start_paused = true)]
async fn events_are_sent_again_under_their_ids_when_it_is_requested() {
    let world = World::new();
    let (one, _) = world.process(1).await;
    for _ in 0..3 {
        happens(&one).await;
    }
    world.carries(&[1; 3]).await;
    let first = world.memory.read(&Query::all(), Position::START, Direction::Forwards, 1).await.unwrap();
    let pending = one.resend(first[0].position).await.unwrap();
    assert_eq!(pending.up_to(), *world.memory.head().borrow());
    world.carries(&[1; 5]).await;
    let ids: Vec<_> = world.carried.lock().unwrap().iter().map(|(_, id)| id.clone()).collect();
    assert_eq!(ids[3..], ids[1..3], "what follows the position, in order");
    assert_eq!(resend::requested(&world.memory).await.unwrap(), None);
    happens(&one).await;
    world.carries(&[1; 6]).await;

    // A request outlives the process: the next one goes on with it.
    world.is_reached.send_replace(false);
    one.resend(Position::START).await.unwrap();
    one.stop().await;
    world.is_reached.send_replace(true);
    let (_two, _) = world.process(2).await;
    world.carries(&[1, 1, 1, 1, 1, 1, 2, 2, 2, 2]).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_again_within_a_process_and_nothing_that_was_never_relayed() {
    let host = TestHost::start([]).await;
    let refused = host.host().resend(Position::START).await.unwrap_err();
    assert!(refused.to_string().contains("within the process"), "{refused}");
    let world = World::new();
    let (one, _) = world.process(1).await;
    let refused = one.resend(Position::START).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Invalid, "{refused}");
}
