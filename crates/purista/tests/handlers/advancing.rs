//! What a store keeps for a durable subscription whose handler always writes: bounded by what is in flight, not by the log.

use std::time::Duration;

use purista::testing::TestHost;
use purista::{Context, HandlerError, Service, command, subscription};
use purista_events::store::EventStore;
use purista_events::subscriptions::{SubscriptionId, SubscriptionRecord};

use crate::contracts::{Ask, Emit, Happened, TRY, Told, told};

/// The most finished positions that are stored one by one, with those that are in flight meanwhile.
const STORED_MAX: usize = 256 + 64;

async fn writes(ctx: Context<()>, event: Happened) -> Result<(), HandlerError> {
    Ok(ctx.state().set(&event.how, &event.key)?)
}

fn service() -> Service {
    let emit = command(async |ctx: Context<()>, input: Emit| {
        let count: usize = input.how.parse()?;
        for number in 0..count {
            ctx.emit(Happened { key: format!("{}-{number}", input.key), how: format!("s{}", number % 8) })?;
        }
        Ok(())
    });
    // Another type of event, which the subscription does not select.
    let other = command(async |ctx: Context<()>, input: Ask| {
        ctx.emit(told(&input.text))?;
        Ok::<Told, _>(told(&input.text))
    });
    Service::builder(TRY, "Tries", ())
        .command(emit.emits::<Happened>())
        .command(other.emits::<Told>())
        .subscription(subscription("writes", writes).durable())
        .build()
}

async fn record(host: &TestHost) -> SubscriptionRecord {
    host.store().subscription(&SubscriptionId::new("Try.1.writes")).await.unwrap().unwrap()
}

async fn emitted(host: &TestHost, round: usize, count: usize) {
    host.invoke(Emit { key: round.to_string(), how: count.to_string() }).await.unwrap();
}

async fn stays_bounded(rounds: usize, count: usize) {
    let host = TestHost::start([service()]).await;
    for round in 0..rounds {
        emitted(&host, round, count).await;
        let stored = record(&host).await.progress.done.len();
        assert!(stored <= STORED_MAX, "round {round}: {stored} finished positions are stored");
    }
    host.invoke(Ask { text: "the last event is of another type".into() }).await.unwrap();
    host.pass(Duration::from_secs(3)).await;
    let progress = record(&host).await.progress;
    assert_eq!((progress.low, progress.done.len()), (*host.store().head().borrow(), 0), "nothing is behind");
}

#[tokio::test]
async fn finished_positions_are_bounded_and_the_watermark_reaches_the_end_of_the_log() {
    stays_bounded(40, 500).await;
}

#[tokio::test]
#[ignore = "soak: a million events, minutes of work"]
async fn soak_a_million_events_leave_a_bounded_number_of_finished_positions() {
    stays_bounded(2_000, 500).await;
}
