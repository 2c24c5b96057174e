//! What waits for another attempt: it stops nothing else, and no clock stops it.

use std::time::Duration;

use purista::observation::Ending;
use purista::testing::TestHost;
use purista::{Context, HandlerError, Retry, Service, command, subscription};
use purista_core::health::Condition;
use purista_events::memory::clock::TestClock;
use purista_events::store::EventStore;
use purista_events::subscriptions::SubscriptionId;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::contracts::{Emit, Happened, TRY};

const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3_600);

/// No test has as many events that are heard.
const TOLD_MAX: usize = 9;

/// More than the 10,000 that may wait.
const FAILING: usize = 10_100;

/// Emits as many events as `how` says: all of one key that ends with `!`, else each of a key of its own. It tells of each event that
/// it hears; an event of a key that begins with `bad` fails.
fn service(heard: mpsc::Sender<String>) -> Service {
    let emit = command(async |ctx: Context<()>, input: Emit| {
        for number in 0..input.how.parse::<usize>()? {
            let key =
                if input.key.ends_with('!') { input.key.clone() } else { format!("{}{number}", input.key) };
            ctx.emit(Happened { key, how: String::new() })?;
        }
        Ok(())
    });
    let hear = subscription("hear", move |_ctx: Context<()>, event: Happened| {
        let heard = heard.clone();
        async move {
            if event.key.starts_with("bad") {
                return Err(HandlerError::failed("not today"));
            }
            heard.try_send(event.key)?;
            Ok(())
        }
    });
    let hear = hear.durable().retry(Retry::exponential(3).between(DAY, DAY));
    Service::builder(TRY, "Fails", ()).command(emit.emits::<Happened>()).subscription(hear).build()
}

async fn emit(host: &TestHost, key: &str, events: usize) {
    let emit = Emit { key: key.to_owned(), how: events.to_string() };
    host.host().client().invoke(emit).await.unwrap();
}

#[tokio::test]
async fn events_that_fail_stop_no_others_however_many_they_are() {
    let (heard, mut good) = mpsc::channel(TOLD_MAX);
    let host = TestHost::start([service(heard)]).await;
    for round in 0..FAILING / 100 {
        emit(&host, &format!("bad {round} "), 100).await;
    }
    emit(&host, "good", 1).await;
    let began = host.now();
    assert_eq!(good.recv().await.unwrap(), "good0");
    assert!(host.now().duration_since(began).as_secs() < 3_600, "it did not wait for those that fail");
    let letters = host.store().dead_letters(None, 1_000).await.unwrap();
    let reason = "not today; 10000 events of the subscription wait for another attempt already";
    assert!(!letters.is_empty() && letters.len() <= FAILING - 10_000, "{}", letters.len());
    assert!(letters.iter().all(|letter| letter.reason == reason && letter.attempts == 1));
    let report = host.host().health().report();
    assert_eq!(report.condition(), Condition::Degraded);
    let detail = report.parts.iter().find_map(|part| part.detail.as_deref()).unwrap();
    let full = "10000 events of the subscription Try.1.hear wait for another attempt: the next that fails becomes a dead letter";
    assert!(detail.starts_with(full), "{detail}");
}

#[tokio::test]
async fn one_key_that_fails_takes_a_tenth_of_what_may_wait() {
    let (heard, mut good) = mpsc::channel(TOLD_MAX);
    let host = TestHost::start([service(heard)]).await;
    for _ in 0..15 {
        emit(&host, "bad!", 100).await;
    }
    emit(&host, "good", 1).await;
    assert_eq!(good.recv().await.unwrap(), "good0");
    let record = host.store().subscription(&SubscriptionId::new("Try.1.hear")).await.unwrap().unwrap();
    assert_eq!(record.parked.len(), 1_000);
    let letters = host.store().dead_letters(None, 1_000).await.unwrap();
    let reason = "1000 events of its key wait for another attempt already";
    assert_eq!(letters.len(), 500);
    assert!(letters.iter().all(|letter| letter.reason == reason && letter.attempts == 0));
}

/// Waits until the first attempt has failed.
async fn failed(host: &TestHost) {
    while !host.endings("hear").iter().any(|ending| matches!(ending, Ending::Retried(_))) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn retries_go_on_while_the_clock_is_set_back() {
    let (heard, _good) = mpsc::channel(TOLD_MAX);
    let time = TestClock::new();
    let clock = time.clock();
    let host =
        TestHost::builder().services([service(heard)]).configure(move |host| host.clock(clock)).start().await;
    let began = Instant::now();
    emit(&host, "bad", 1).await;
    failed(&host).await;
    time.turn_back(HOUR);
    let settled = tokio::time::timeout(DAY * 3, host.settled()).await;
    assert!(settled.is_ok(), "the retries took place: {:?}", host.endings("hear"));
    assert_eq!(host.endings("hear").len(), 3);
    assert!(began.elapsed() <= DAY * 2 + HOUR, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_due_time_in_the_store_survives_a_clock_that_starts_further_back() {
    let (heard, _good) = mpsc::channel(TOLD_MAX);
    let host = TestHost::start([service(heard.clone())]).await;
    host.pass(DAY * 100).await;
    emit(&host, "bad", 1).await;
    failed(&host).await;
    let (_, store) = host.stop().await;
    // The clock of a test host begins where that of the first one began.
    let began = Instant::now();
    let host = TestHost::builder().services([service(heard)]).store(store).start().await;
    host.settled().await;
    assert_eq!(host.endings("hear").len(), 2);
    assert!(began.elapsed() <= DAY * 2 + HOUR, "{:?}", began.elapsed());
}
