//! How far everybody is behind: it grows while a handler is slow, is said in health and in the metrics, and falls to nothing
//! after.

use std::sync::Arc;
use std::time::Duration;

use purista::testing::TestHost;
use purista::{Context, HandlerError, Host, Service, command, subscription};
use purista_core::health::{Condition, PartHealth};
use purista_events::memory::MemoryStore;
use purista_events::memory::clock::TestClock;
use purista_events::memory::tables::Tables;
use purista_events::projection::projection;
use purista_events::projector::Projected;
use purista_events::query::Query;
use purista_events::recorded::Recorded;
use purista_http::gateway::Gateway;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::contracts::{Emit, Happened, TRY};

const PATIENCE: Duration = Duration::from_secs(30);

/// Hears one event at a time, and each only when it is let.
fn slow(lets: &Arc<Semaphore>) -> Service {
    let emit = command(async |ctx: Context<()>, input: Emit| {
        ctx.emit(Happened { key: input.key, how: input.how })?;
        Ok(())
    });
    let lets = Arc::clone(lets);
    let hear = subscription("slow", move |_ctx: Context<()>, _event: Happened| {
        let lets = Arc::clone(&lets);
        async move {
            lets.acquire().await?.forget();
            Ok(())
        }
    });
    let hear = hear.durable().in_flight(1).timeout(Duration::from_secs(3600));
    Service::builder(TRY, "Is slow", ()).command(emit.emits::<Happened>()).subscription(hear).build()
}

/// A projection to a place that takes a page only when it is let.
fn slow_place(store: &MemoryStore, lets: &Arc<Semaphore>) -> Projected {
    let lets = Arc::clone(lets);
    let place =
        move |_: Arc<[Recorded]>| -> futures_util::future::BoxFuture<'static, Result<(), HandlerError>> {
            let lets = Arc::clone(&lets);
            Box::pin(async move {
                lets.acquire().await?.forget();
                Ok(())
            })
        };
    Projected::to_sink(store, "place", 1, Query::all(), place)
}

fn happens(key: &str, how: &str) -> Emit {
    Emit { key: key.to_owned(), how: how.to_owned() }
}

fn part(host: &TestHost, name: &str) -> PartHealth {
    let parts = host.host().health().report().parts;
    parts.into_iter().find(|part| part.name == name).unwrap()
}

/// A store in the test's time, for projections, which are bound before the host is there.
async fn store() -> MemoryStore {
    TestHost::start([]).await.stop().await.1.reopen()
}

async fn host(store: &MemoryStore, lets: &Arc<Semaphore>, projected: Projected) -> TestHost {
    let builder = TestHost::builder().services([slow(lets)]).store(store.clone());
    builder.configure(|host| host.projection(projected)).start().await
}

#[tokio::test]
async fn a_slow_handler_is_behind_by_events_and_seconds_and_by_nothing_after() {
    let lets = Arc::new(Semaphore::new(0));
    let host = TestHost::start([slow(&lets)]).await;
    let client = host.host().client();
    for key in ["a", "b", "c"] {
        client.invoke(happens(key, "well")).await.unwrap();
    }
    host.pass(Duration::from_secs(20)).await;
    let lag = async || {
        let lags = host.host().lags().await.unwrap();
        lags.into_iter().find(|(name, _)| name == "Try.1.slow").unwrap().1
    };
    let behind = lag().await;
    assert_eq!((behind.events.events, behind.caught_up_in), (3, None), "{behind:?}");
    assert!(behind.behind >= Duration::from_secs(20), "{behind:?}");
    let of_service = || part(&host, "service Try.1");
    let ill = of_service();
    assert_eq!((ill.condition, ill.events_behind), (Condition::Up, Some(3)), "it may be slow for a while");
    host.pass(Duration::from_secs(61)).await;
    let ill = of_service();
    assert_eq!(ill.condition, Condition::Degraded);
    let detail = ill.detail.unwrap();
    assert!(detail.contains("no attempt of the subscription Try.1.slow has ended for 61 s"), "{detail}");

    lets.add_permits(1);
    host.pass(Duration::from_secs(1)).await;
    assert_eq!((lag().await.events.events, of_service().condition), (2, Condition::Up), "one was done");
    lets.add_permits(2);
    host.settled().await;
    let behind = lag().await;
    assert!(behind.is_caught_up() && behind.behind.is_zero(), "{behind:?}");
    assert_eq!((of_service().condition, of_service().events_behind), (Condition::Up, Some(0)));
}

/// What the metrics say of one follower: how many events, and how many seconds.
async fn told(place: &str, kind: &str, name: &str) -> (f64, f64) {
    let mut stream = TcpStream::connect(place).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let figure = |metric: &str| {
        let line = format!("{metric}{{kind=\"{kind}\",name=\"{name}\"}} ");
        let found = text.lines().find_map(|shown| shown.strip_prefix(&line));
        found.unwrap_or_else(|| panic!("no {line} in {text}")).parse().unwrap()
    };
    (figure("purista_lag_events"), figure("purista_lag_seconds"))
}

#[tokio::test]
async fn the_metrics_of_a_slow_handler_grow_in_events_and_seconds_and_fall_to_nothing() {
    let (clock, lets) = (TestClock::new(), Arc::new(Semaphore::new(0)));
    let store = MemoryStore::new(clock.clock());
    let projected = slow_place(&store, &lets);
    let gateway = Gateway::listen("127.0.0.1:0").metrics();
    let builder = Host::builder().clock(clock.clock()).store(store.clone()).projection(projected);
    let host = builder.service(slow(&lets)).door(gateway).start().await.unwrap();
    let place = host.places()[0].strip_prefix("http://").unwrap().to_owned();
    let followers = [("subscription", "Try.1.slow"), ("projection", "place 1")];
    let becomes = async |events: f64, seconds: f64| {
        for (kind, name) in followers {
            let waits = async {
                while told(&place, kind, name).await != (events, seconds) {
                    tokio::time::sleep(Duration::from_millis(50)).await; // real time: the store counts once a second
                }
            };
            let waited = tokio::time::timeout(PATIENCE, waits).await;
            assert!(waited.is_ok(), "{kind} {name}: {:?}", told(&place, kind, name).await);
        }
    };
    becomes(0.0, 0.0).await;
    for key in ["a", "b", "c"] {
        host.client().invoke(happens(key, "well")).await.unwrap();
        clock.advance(Duration::from_secs(10));
    }
    becomes(3.0, 30.0).await;
    clock.advance(Duration::from_secs(3600));
    becomes(3.0, 3630.0).await;
    lets.add_permits(100);
    becomes(0.0, 0.0).await;
    host.stop().await;
}

#[tokio::test]
async fn a_store_that_needs_attention_is_degraded_and_says_why() {
    let clock = TestClock::new();
    let store = MemoryStore::new(clock.clock());
    let host = Host::builder().clock(clock.clock()).store(store.clone()).start().await.unwrap();
    let of_store = || host.health().report().parts.into_iter().find(|part| part.name == "store").unwrap();
    assert_eq!((of_store().condition, of_store().detail), (Condition::Up, None));
    clock.jump_ahead(Duration::from_secs(24 * 60 * 60));
    assert_eq!(of_store().condition, Condition::Degraded);
    assert!(of_store().detail.unwrap().contains("clock has jumped 86400 s ahead"), "{:?}", of_store());
    clock.turn_back(Duration::from_secs(24 * 60 * 60));
    assert_eq!((of_store().condition, of_store().detail), (Condition::Up, None));
    host.stop().await;
}

#[tokio::test]
async fn a_projection_that_is_stuck_is_down_after_a_minute_and_up_again_when_it_goes_on() {
    let lets = Arc::new(Semaphore::new(0));
    let store = store().await;
    let host = host(&store, &Arc::new(Semaphore::new(100)), slow_place(&store, &lets)).await;
    let of_projection = || part(&host, "projection place 1");
    assert_eq!((of_projection().condition, of_projection().events_behind), (Condition::Up, Some(0)));
    host.pass(Duration::from_secs(3600)).await;
    assert_eq!(of_projection().condition, Condition::Up, "who has nothing to do may stand");

    host.host().client().invoke(happens("a", "well")).await.unwrap();
    assert_eq!((of_projection().condition, of_projection().events_behind), (Condition::Up, Some(1)));
    host.pass(Duration::from_secs(59)).await;
    assert_eq!(of_projection().condition, Condition::Up, "it may be slow for a while");
    host.pass(Duration::from_secs(2)).await;
    let stuck = of_projection();
    assert_eq!((stuck.condition, stuck.events_behind), (Condition::Down, Some(1)));
    assert_eq!(stuck.detail.as_deref(), Some("it has taken nothing in for 61 s"));
    assert_eq!(host.host().health().report().condition(), Condition::Down, "and so is the whole");

    lets.add_permits(100);
    host.pass(Duration::from_secs(1)).await;
    assert_eq!((of_projection().condition, of_projection().events_behind), (Condition::Up, Some(0)));
    assert_eq!(host.host().health().report().condition(), Condition::Up);
}

#[tokio::test]
async fn a_projection_that_is_paused_is_degraded_for_as_long_as_it_is_and_says_how_far_behind() {
    let store = store().await;
    let names = projection("names", 1).on(|_: &Tables, event: Recorded<Happened>| {
        if event.body.how == "badly" { Err(HandlerError::failed("no")) } else { Ok(()) }
    });
    let host = host(&store, &Arc::new(Semaphore::new(100)), store.projected(names)).await;
    for how in ["well", "badly", "well"] {
        host.host().client().invoke(happens("a", how)).await.unwrap();
    }
    for passed in [1, 61, 3600] {
        host.pass(Duration::from_secs(passed)).await;
        let paused = part(&host, "projection names 1");
        assert_eq!(
            (paused.condition, paused.events_behind),
            (Condition::Degraded, Some(2)),
            "after {passed} s"
        );
        assert_eq!(paused.detail.as_deref(), Some("it is paused at 2: see the log"));
        assert_eq!(host.host().health().report().condition(), Condition::Degraded);
    }
    let lags = host.host().lags().await.unwrap();
    let (_, lag) = lags.into_iter().find(|(name, _)| name == "names 1").unwrap();
    assert_eq!(lag.events.events, 2);
    assert!(lag.behind >= Duration::from_secs(3600), "{lag:?}");
}
