//! How far everybody is behind: it grows while a handler is slow, is said in health, and falls to nothing after.

use std::sync::Arc;
use std::time::Duration;

use purista::testing::TestHost;
use purista::{Context, Service, command, subscription};
use purista_core::health::{Condition, PartHealth};
use tokio::sync::Semaphore;

use crate::contracts::{Emit, Happened, TRY};

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

fn part(host: &TestHost) -> PartHealth {
    let parts = host.host().health().report().parts;
    parts.into_iter().find(|part| part.name == "service Try.1").unwrap()
}

#[tokio::test]
async fn a_slow_handler_is_behind_by_events_and_seconds_and_by_nothing_after() {
    let lets = Arc::new(Semaphore::new(0));
    let host = TestHost::start([slow(&lets)]).await;
    let client = host.host().client();
    for key in ["a", "b", "c"] {
        client.invoke(Emit { key: key.into(), how: "well".into() }).await.unwrap();
    }
    host.pass(Duration::from_secs(20)).await;
    let lag = async || {
        let lags = host.host().lags().await.unwrap();
        lags.into_iter().find(|(name, _)| name == "Try.1.slow").unwrap().1
    };
    let behind = lag().await;
    assert_eq!((behind.events.events, behind.caught_up_in), (3, None), "{behind:?}");
    assert!(behind.behind >= Duration::from_secs(20), "{behind:?}");
    let ill = part(&host);
    assert_eq!((ill.condition, ill.events_behind), (Condition::Up, Some(3)), "it may be slow for a while");
    host.pass(Duration::from_secs(61)).await;
    let ill = part(&host);
    assert_eq!(ill.condition, Condition::Degraded);
    let detail = ill.detail.unwrap();
    assert!(detail.contains("no attempt of the subscription Try.1.slow has ended for 61 s"), "{detail}");

    lets.add_permits(1);
    host.pass(Duration::from_secs(1)).await;
    assert_eq!((lag().await.events.events, part(&host).condition), (2, Condition::Up), "one was done");
    lets.add_permits(2);
    host.settled().await;
    let behind = lag().await;
    assert!(behind.is_caught_up() && behind.behind.is_zero(), "{behind:?}");
    assert_eq!((part(&host).condition, part(&host).events_behind), (Condition::Up, Some(0)));
}
