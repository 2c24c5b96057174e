//! Several hosts on one store: one at a time relays, projects and feeds durable subscriptions; another goes on when it cannot; and
//! each tells how far everything is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use purista::testing::TEST_BEGINS;
use purista::{Context, Event, HandlerError, Host, Retry, RunningHost, Service, command, subscription};
use purista_core::clock::Clock;
use purista_core::health::Condition;
use purista_core::text::Text;
use purista_events::memory::MemoryStore;
use purista_events::memory::tables::Tables;
use purista_events::position::Position;
use purista_events::projection::projection;
use purista_events::query::Query;
use purista_events::read_models::ReadModels as _;
use purista_events::recorded::Recorded;
use purista_events::store::EventStore;
use tokio::sync::Semaphore;

use crate::contracts::{Emit, Followed, Happened, TRY};

const PATIENCE: Duration = Duration::from_secs(60);
/// How soon another host goes on, and learns of what is asked for elsewhere.
const SOON: Duration = Duration::from_secs(4);
/// For how long whoever has lost a lease gets none.
const A_WHILE: Duration = Duration::from_secs(5);
const HEARD: &str = "Try.1.recorded";

/// Who heard what, in order: the process and the event.
type Notes = Arc<Mutex<Vec<(u64, String)>>>;

/// What all processes of a test share beside the store.
#[derive(Clone)]
struct World {
    recorded: Notes,
    shared: Notes,
    everywhere: Notes,
    /// Handlers of events that are called `slow` wait for it.
    lets: Arc<Semaphore>,
}

impl World {
    fn new() -> Self {
        let [recorded, shared, everywhere] = [Notes::default(), Notes::default(), Notes::default()];
        Self { recorded, shared, everywhere, lets: Arc::new(Semaphore::new(0)) }
    }
}

struct Running {
    host: RunningHost,
    store: MemoryStore,
}

fn noted(notes: &Notes) -> Vec<(u64, String)> {
    notes.lock().unwrap().clone()
}

/// A process among others that have this memory open.
async fn process(number: u64, memory: &MemoryStore, world: &World) -> Running {
    let store = memory.open_beside();
    let clock = Clock::follows_tokio(TEST_BEGINS, number);
    let projected = store.projected(projection("keys", 1).on(|rows: &Tables, event: Recorded<Happened>| {
        if event.body.how == "poison" {
            return Err(HandlerError::failed("what is this"));
        }
        let before = rows.get("keys", &event.body.key).and_then(|count| count.as_u64()).unwrap_or(0);
        rows.put("keys", &event.body.key, (before + 1).into());
        Ok(())
    }));
    let host = Host::builder().clock(clock).store(store.clone()).projection(projected);
    let host = host.service(service(number, world)).start().await.unwrap();
    Running { host, store }
}

fn service(number: u64, world: &World) -> Service {
    let emit = command(async |ctx: Context<()>, input: Emit| {
        ctx.emit(Happened { key: input.key, how: input.how })?;
        Ok(())
    });
    let World { recorded, shared, everywhere, lets } = world.clone();
    let recorded = subscription("recorded", move |ctx: Context<()>, event: Happened| {
        let (recorded, lets) = (Arc::clone(&recorded), Arc::clone(&lets));
        async move {
            recorded.lock().unwrap().push((number, event.how.clone()));
            match event.how.as_str() {
                "slow" => lets.acquire().await?.forget(),
                "paused" if ctx.attempt() == 1 && lets.available_permits() == 0 => {
                    return Err(HandlerError::pause("wait"));
                }
                "bad" if lets.available_permits() == 0 => return Err(HandlerError::dead_letter("no")),
                _ => {}
            }
            ctx.emit(Followed { key: event.key, how: event.how })?;
            Ok(())
        }
    });
    let note = move |notes: Notes| {
        move |_: Context<()>, event: Happened| {
            notes.lock().unwrap().push((number, event.how));
            std::future::ready(Ok(()))
        }
    };
    Service::builder(TRY, "Tries", ())
        .command(emit.emits::<Happened>())
        .subscription(recorded.durable().emits::<Followed>().retry(Retry::exponential(2)))
        .subscription(subscription("shared", note(shared)))
        .subscription(subscription("everywhere", note(everywhere)).on_every_instance())
        .build()
}

impl Running {
    async fn happens(&self, how: &str) {
        self.host.client().invoke(Emit { key: how.to_owned(), how: how.to_owned() }).await.unwrap();
    }

    /// How often something followed from what was heard: the effect in the store.
    async fn followed(&self, how: &str) -> usize {
        let query = Query::types([Text::known(Followed::NAME)]);
        let found = self.store.follow(&query, Position::START, 1_000).await.unwrap().events;
        let found = found.iter().map(|event| serde_json::from_slice::<Followed>(&event.body).unwrap());
        found.filter(|followed| followed.how == how).count()
    }

    fn counted(&self) -> BTreeMap<String, u64> {
        let rows = self.store.rows("keys", "keys").unwrap().unwrap();
        rows.into_iter().map(|(key, count)| (key, count.as_u64().unwrap())).collect()
    }
}

async fn until(what: &str, within: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await; // real time: paused, it passes at once
        }
    };
    assert!(tokio::time::timeout(within, wait).await.is_ok(), "not in time: {what}");
}

/// Two processes of which the first has every lease.
async fn two(world: &World) -> (Running, Running) {
    let memory = MemoryStore::new(Clock::follows_tokio(TEST_BEGINS, 0));
    let one = process(1, &memory, world).await;
    let two = process(2, &memory, world).await;
    // Both have begun, and each has its place.
    tokio::time::sleep(Duration::from_millis(5)).await; // real time: paused, it passes at once
    (one, two)
}

fn of(number: u64, hows: &[&str]) -> Vec<(u64, String)> {
    hows.iter().map(|how| (number, (*how).to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn one_process_feeds_a_subscription_until_it_loses_the_lease_and_then_another_goes_on() {
    let world = World::new();
    let (one, two) = two(&world).await;
    one.happens("a").await;
    two.happens("b").await;
    until("both are heard", SOON, async || noted(&world.recorded).len() == 2).await;
    assert_eq!(
        noted(&world.recorded),
        of(1, &["a", "b"]),
        "the first alone hears them, wherever they happen"
    );

    one.store.lose_leases(A_WHILE);
    two.happens("c").await;
    until("the other goes on", SOON, async || noted(&world.recorded).len() == 3).await;
    assert_eq!(noted(&world.recorded)[2..], of(2, &["c"]));

    // The first waits for its turn, and has it when the second ends.
    two.host.stop().await;
    one.happens("d").await;
    until("the first goes on", A_WHILE + SOON, async || noted(&world.recorded).len() == 4).await;
    assert_eq!(noted(&world.recorded)[3..], of(1, &["d"]));
    for how in ["a", "b", "c", "d"] {
        until("it is finished", SOON, async || one.followed(how).await > 0).await;
        assert_eq!(one.followed(how).await, 1, "{how}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_when_the_lease_is_lost_is_given_up_and_has_its_effect_once() {
    let world = World::new();
    let (one, two) = two(&world).await;
    one.happens("slow").await;
    until("it is under way", SOON, async || noted(&world.recorded) == of(1, &["slow"])).await;
    one.store.lose_leases(A_WHILE);
    until("the other begins with it", SOON, async || noted(&world.recorded).len() == 2).await;
    tokio::time::sleep(Duration::from_secs(3)).await; // real time: paused, it passes at once
    world.lets.add_permits(1);
    until("it is finished", SOON, async || two.followed("slow").await > 0).await;
    tokio::time::sleep(Duration::from_secs(3)).await; // real time: paused, it passes at once
    assert_eq!(one.followed("slow").await, 1);
    assert_eq!(noted(&world.recorded), [of(1, &["slow"]), of(2, &["slow"])].concat());
}

#[tokio::test(start_paused = true)]
async fn a_subscription_is_resumed_and_a_dead_letter_tried_again_in_a_process_that_does_not_feed_it() {
    let world = World::new();
    let (one, two) = two(&world).await;
    one.happens("paused").await;
    let ailing = |running: &Running| {
        let parts = running.host.health().report().parts;
        let part = parts.into_iter().find(|part| part.name == "service Try.1").unwrap();
        (part.condition, part.detail)
    };
    let paused = (Condition::Degraded, Some(format!("the subscription {HEARD} is paused: see the log")));
    until("both say that it is paused", SOON, async || ailing(&one) == paused && ailing(&two) == paused)
        .await;
    world.lets.add_permits(1);
    assert!(two.host.resume(HEARD));
    until("it goes on", SOON, async || one.followed("paused").await == 1).await;
    until("both say so", SOON, async || ailing(&one).0 == Condition::Up && ailing(&two).0 == Condition::Up)
        .await;

    world.lets.forget_permits(1);
    two.happens("bad").await;
    until("it is given up", SOON, async || !one.store.dead_letters(None, 9).await.unwrap().is_empty()).await;
    world.lets.add_permits(1);
    let letters = two.store.dead_letters(None, 9).await.unwrap();
    two.host.try_again(&letters[0]).await.unwrap();
    until("it is tried again", SOON, async || two.followed("bad").await == 1).await;
    assert!(noted(&world.recorded).iter().all(|(number, _)| *number == 1), "{:?}", noted(&world.recorded));
}

#[tokio::test(start_paused = true)]
async fn within_processes_shared_listeners_hear_in_one_and_those_on_every_instance_in_each() {
    let world = World::new();
    let (one, two) = two(&world).await;
    two.happens("a").await;
    until("each hears", SOON, async || noted(&world.everywhere).len() == 2).await;
    until("one of them hears", SOON, async || noted(&world.shared).len() == 1).await;
    one.store.lose_leases(A_WHILE);
    tokio::time::sleep(SOON).await; // real time: paused, it passes at once
    one.happens("b").await;
    until("each hears", SOON, async || noted(&world.everywhere).len() == 4).await;
    until("the other hears", SOON, async || noted(&world.shared).len() == 2).await;
    assert_eq!(noted(&world.shared), [of(1, &["a"]), of(2, &["b"])].concat());
    let mut everywhere = noted(&world.everywhere);
    everywhere.sort();
    assert_eq!(everywhere, [of(1, &["a", "b"]), of(2, &["a", "b"])].concat());
    two.host.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_projection_is_run_by_one_process_and_told_of_by_each() {
    let world = World::new();
    let (one, two) = two(&world).await;
    let handle = two.host.projection("keys").unwrap().clone();
    for _ in 0..3 {
        two.happens("a").await;
        let head = *two.store.head().borrow();
        let since = tokio::time::Instant::now();
        handle.reached(head, PATIENCE).await.unwrap();
        assert!(since.elapsed() <= Duration::from_millis(100), "who waits for it need not wait long");
    }
    assert_eq!(two.counted(), BTreeMap::from([("a".to_owned(), 3)]));
    assert!(handle.state().is_elsewhere && !one.host.projection("keys").unwrap().state().is_elsewhere);
    let lags = two.host.lags().await.unwrap();
    assert!(lags.iter().any(|(name, lag)| name == "keys 1" && lag.is_caught_up()), "{lags:?}");
    assert_eq!(two.host.health().report().condition(), Condition::Up);

    // Made anew by the one that runs it, because the other is asked.
    handle.rebuild();
    let is_second = async || {
        let builds = two.store.builds().await.unwrap();
        builds.iter().map(|record| record.build.generation).collect::<Vec<_>>() == [2]
    };
    until("it is made anew", SOON, is_second).await;
    until("both know", SOON, async || handle.state().builds.iter().all(|build| build.build.generation == 2))
        .await;
    assert_eq!(two.counted(), BTreeMap::from([("a".to_owned(), 3)]));

    two.happens("poison").await;
    let head = *two.store.head().borrow();
    let error = handle.reached(head, SOON).await.unwrap_err();
    assert!(error.reason.unwrap().ends_with("what is this"));
    let paused = || two.store.builds();
    let since = paused().await.unwrap()[0].pause.clone().unwrap().since;
    handle.resume();
    let is_tried =
        async || paused().await.unwrap()[0].pause.as_ref().is_some_and(|pause| pause.since > since);
    until("it is tried again, and fails again", SOON, is_tried).await;

    one.store.lose_leases(A_WHILE);
    until("the other runs it", SOON, async || !handle.state().is_elsewhere).await;
    assert_eq!(one.counted(), BTreeMap::from([("a".to_owned(), 3)]));
}

#[tokio::test(start_paused = true)]
async fn a_process_is_not_down_because_another_one_does_not_move() {
    let world = World::new();
    let (one, two) = two(&world).await;
    // Somebody who has the lease and does nothing with it.
    let stuck = one.store.open_beside();
    one.store.lose_leases(A_WHILE);
    let lease = stuck.lease("projection/keys/1");
    let lease = tokio::time::timeout(PATIENCE, lease).await.unwrap().unwrap();
    two.happens("a").await;
    let part = |running: &Running| {
        let parts = running.host.health().report().parts;
        parts.into_iter().find(|part| part.name == "projection keys 1").unwrap()
    };
    for _ in 0..70 {
        part(&two);
        tokio::time::sleep(Duration::from_secs(1)).await; // real time: paused, it passes at once
    }
    let ill = part(&two);
    assert_eq!(ill.condition, Condition::Degraded, "{ill:?}");
    assert!(ill.detail.unwrap().starts_with("another process has it and has taken nothing in for "));
    drop(lease);
    until("somebody goes on", SOON, async || !two.counted().is_empty()).await;
}
