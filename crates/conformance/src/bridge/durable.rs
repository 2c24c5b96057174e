//! Duties of durable subscriptions, for bridges that keep messages; where nothing is kept, the duty is to say so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use purista_core::bridge::{BridgeErrorKind, Delivery, EventBridge, Outcome};
use purista_core::subscription::{Sharing, Subscription};
use tokio::sync::Semaphore;

use super::consumers::{Recorder, consumer};
use super::world::{PATIENCE, World, listening, number, publish, subscribe};

/// How long a broker may take to hand what a lost process had to another.
const HANDED_OVER: Duration = Duration::from_secs(30);

fn kept(name: &str, event: &str) -> Subscription {
    Subscription { durable: true, ..listening(name, event) }
}

/// A process that may have durable subscriptions. `None` where nothing is kept: then it must be refused, and is.
async fn keeper(world: &World, name: &str) -> Option<Arc<dyn EventBridge>> {
    let bridge = world.durable_bridge(name).await;
    if bridge.capabilities().durable {
        return Some(bridge);
    }
    let refused = bridge.subscribe(kept("mail", "userRegistered"), Recorder::default().consumer()).await;
    let error = refused.expect_err("what cannot be kept is refused");
    assert_eq!(error.kind(), BridgeErrorKind::Rejected);
    assert!(error.to_string().contains("durable"), "{error}");
    None
}

/// What is published while nobody runs the subscription comes when somebody does, once and in order.
pub async fn durable_subscription_gets_what_it_missed_in_order(world: &World) {
    let Some(first) = keeper(world, "first").await else { return };
    let (before, after) = (Recorder::default(), Recorder::default());
    subscribe(&first, kept("mail", "userRegistered"), before.consumer()).await;
    let source = world.bridge().await;
    publish(&source, world.numbered("userRegistered", 0)).await;
    assert_eq!(number(&before.next().await.message), 0);
    first.close().await.expect("close succeeds");
    for nth in 1..=20 {
        publish(&source, world.numbered("userRegistered", nth)).await;
    }
    let second = world.durable_bridge("first").await;
    subscribe(&second, kept("mail", "userRegistered"), after.consumer()).await;
    for nth in 1..=20 {
        assert_eq!(number(&after.next().await.message), nth);
    }
    world.close().await;
    before.expect_nothing_more().await;
    after.expect_nothing_more().await;
}

/// Two durable subscriptions of different names on one event each get it, and each has a place of its own.
pub async fn durable_subscriptions_have_places_of_their_own(world: &World) {
    let Some(first) = keeper(world, "first").await else { return };
    let (mail, audit) = (Recorder::default(), Recorder::default());
    subscribe(&first, kept("mail", "userRegistered"), mail.consumer()).await;
    let registration = subscribe(&first, kept("audit", "userRegistered"), audit.consumer()).await;
    registration.stop().await;
    let source = world.bridge().await;
    publish(&source, world.numbered("userRegistered", 1)).await;
    assert_eq!(number(&mail.next().await.message), 1);
    audit.expect_nothing_more().await;
    subscribe(&first, kept("audit", "userRegistered"), audit.consumer()).await;
    assert_eq!(number(&audit.next().await.message), 1);
    world.close().await;
    mail.expect_nothing_more().await;
}

/// A message that fails comes back with the next attempt, and after the last as a dead letter does not come any more; the
/// one behind it is delivered.
pub async fn durable_message_that_fails_comes_back_until_it_is_given_up(world: &World) {
    let Some(bridge) = keeper(world, "first").await else { return };
    if !bridge.capabilities().dead_letters {
        return;
    }
    let recorder = Recorder::default();
    let keeps = recorder.clone();
    let failing = consumer(move |delivery: Delivery| {
        let (attempt, is_bad) = (delivery.attempt, number(&delivery.message) == 0);
        keeps.keep(delivery);
        async move {
            match attempt {
                _ if !is_bad => Outcome::Ack,
                1 | 2 => Outcome::Retry { after: Duration::from_millis(30) },
                _ => Outcome::DeadLetter { reason: "it never works".to_owned() },
            }
        }
    });
    subscribe(&bridge, kept("mail", "userRegistered"), failing).await;
    let source = world.bridge().await;
    publish(&source, world.numbered("userRegistered", 0)).await;
    let mut attempts = Vec::new();
    for _ in 0..3 {
        attempts.push(recorder.next().await.attempt);
    }
    assert_eq!(attempts, [1, 2, 3]);
    publish(&source, world.numbered("userRegistered", 1)).await;
    assert_eq!(number(&recorder.next().await.message), 1);
    world.close().await;
    recorder.expect_nothing_more().await;
}

/// What a process had in hand when it went away without a word comes again, to another or to it when it is back.
pub async fn durable_message_in_hand_of_a_lost_process_comes_again(world: &World) {
    let Some(lost) = keeper(world, "first").await else { return };
    let (began, gate, tries) =
        (Recorder::default(), Arc::new(Semaphore::new(0)), Arc::new(AtomicU32::new(0)));
    let (shows, waits, counts) = (began.clone(), Arc::clone(&gate), Arc::clone(&tries));
    let held = consumer(move |delivery: Delivery| {
        counts.fetch_add(1, Ordering::Relaxed);
        shows.keep(delivery);
        let waits = Arc::clone(&waits);
        async move {
            // It never comes to an end by itself.
            drop(waits.acquire().await);
            Outcome::Ack
        }
    });
    subscribe(&lost, kept("mail", "userRegistered"), held).await;
    let source = world.bridge().await;
    let event = world.numbered("userRegistered", 7);
    publish(&source, event.clone()).await;
    assert_eq!(began.message().await.id, event.id);
    if !world.lose(lost).await {
        gate.close();
        return;
    }
    let next = world.durable_bridge("first").await;
    let recorder = Recorder::default();
    subscribe(&next, kept("mail", "userRegistered"), recorder.consumer()).await;
    let until = tokio::time::Instant::now() + HANDED_OVER;
    let again = loop {
        if let Some(delivery) = recorder.rest().await.pop() {
            break delivery;
        }
        assert!(tokio::time::Instant::now() < until, "what was in hand of a lost process is lost");
        tokio::time::sleep(Duration::from_millis(50)).await; // real time: a broker waits for its word
    };
    assert_eq!(again.message.id, event.id);
    assert_eq!(tries.load(Ordering::Relaxed), 1);
    gate.close();
    world.close().await;
}

/// What asks for more than a durable subscription can be is refused with the reason.
pub async fn durable_subscription_on_every_instance_is_refused(world: &World) {
    let bridge = world.durable_bridge("first").await;
    let everywhere = Subscription { sharing: Sharing::EveryInstance, ..kept("mail", "userRegistered") };
    let refused =
        tokio::time::timeout(PATIENCE, bridge.subscribe(everywhere, Recorder::default().consumer()));
    let error = refused.await.expect("it is said at once").expect_err("one progress, many instances");
    assert_eq!(error.kind(), BridgeErrorKind::Rejected);
    world.close().await;
}
