//! Duties of durable subscriptions, for bridges that keep messages; where nothing is kept, the duty is to say so.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use purista_core::bridge::{BridgeErrorKind, Consumer, Delivery, EventBridge, Outcome};
use purista_core::subscription::{Sharing, Subscription};
use tokio::sync::Semaphore;
use tokio::time::Instant;

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

/// A message that always fails is tried as often as it is to be, not one time more, with its pauses in between; meanwhile and
/// behind it others are handled, and it does not come again to who runs the subscription next.
pub async fn durable_message_that_fails_comes_back_until_it_is_given_up(world: &World) {
    let Some(bridge) = keeper(world, "first").await else { return };
    let poisoned = Poisoned::default();
    subscribe(&bridge, Subscription { in_flight: 2, ..kept("mail", "userRegistered") }, poisoned.consumer())
        .await;
    let source = world.bridge().await;
    publish(&source, world.numbered("userRegistered", 0)).await;
    publish(&source, world.numbered("userRegistered", 1)).await;
    assert_eq!(number(&poisoned.good.next().await.message), 1);
    let mut tried_at: Option<Instant> = None;
    for attempt in 1..=ATTEMPTS {
        let (delivery, at) = poisoned.tried.next().await;
        assert_eq!(delivery.attempt, attempt);
        let pause = tried_at.replace(at).map_or(RETRY_AFTER, |before| at - before);
        assert!(pause >= RETRY_AFTER, "the next attempt comes after {pause:?}");
    }
    publish(&source, world.numbered("userRegistered", 2)).await;
    assert_eq!(number(&poisoned.good.next().await.message), 2);
    bridge.close().await.expect("close succeeds");
    let next = world.durable_bridge("first").await;
    subscribe(&next, kept("mail", "userRegistered"), poisoned.consumer()).await;
    publish(&source, world.numbered("userRegistered", 3)).await;
    assert_eq!(number(&poisoned.good.next().await.message), 3);
    world.close().await;
    poisoned.good.expect_nothing_more().await;
    assert!(poisoned.tried.is_empty().await, "it was tried again after it was given up");
}

/// What is given up lies among the dead letters with its reason, its attempts and its bytes; put back, it is handled like any
/// other. A bridge that keeps none says so.
pub async fn durable_message_that_is_given_up_is_kept_with_its_past_and_can_be_replayed(world: &World) {
    let Some(bridge) = keeper(world, "first").await else { return };
    let (poisoned, mail) = (Poisoned::default(), kept("mail", "userRegistered"));
    let keeps = bridge.capabilities().dead_letters;
    let replaying = world.system().replay(&mail);
    assert_eq!(replaying.is_some(), keeps, "who keeps dead letters shows them");
    let Some(replaying) = replaying else { return };
    subscribe(&bridge, mail.clone(), poisoned.consumer()).await;
    let event = world.numbered("userRegistered", 0);
    publish(&world.bridge().await, event.clone()).await;
    for _ in 1..=ATTEMPTS {
        poisoned.tried.next().await;
    }
    poisoned.is_healed.store(true, Ordering::SeqCst);
    let dead = tokio::time::timeout(PATIENCE, replaying).await.expect("it is kept");
    assert_eq!((dead.reason.as_str(), dead.attempts), (REASON, ATTEMPTS));
    assert_eq!(dead.body, event.encode(Instant::now()).expect("it is JSON"), "as it came");
    assert_eq!(poisoned.good.message().await.id, event.id);
    world.close().await;
    poisoned.good.expect_nothing_more().await;
}

const ATTEMPTS: u32 = 3;
const RETRY_AFTER: Duration = Duration::from_millis(100);
const REASON: &str = "it never works";

/// Handles every message but the one with the number 0, of which it gives up at the last attempt.
#[derive(Clone, Default)]
struct Poisoned {
    tried: Tries,
    good: Recorder,
    is_healed: Arc<AtomicBool>,
}

impl Poisoned {
    fn consumer(&self) -> Arc<dyn Consumer> {
        let poisoned = self.clone();
        consumer(move |delivery: Delivery| {
            let is_bad = number(&delivery.message) == 0 && !poisoned.is_healed.load(Ordering::SeqCst);
            let attempt = delivery.attempt;
            if is_bad {
                poisoned.tried.keep(delivery);
            } else {
                poisoned.good.keep(delivery);
            }
            async move {
                match attempt {
                    _ if !is_bad => Outcome::Ack,
                    ATTEMPTS.. => Outcome::DeadLetter { reason: REASON.to_owned() },
                    _ => Outcome::Retry { after: RETRY_AFTER },
                }
            }
        })
    }
}

/// Attempts, and when they were.
#[derive(Clone, Default)]
struct Tries {
    recorder: Recorder,
    times: Arc<Mutex<VecDeque<Instant>>>,
}

impl Tries {
    fn keep(&self, delivery: Delivery) {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).push_back(Instant::now());
        self.recorder.keep(delivery);
    }

    async fn next(&self) -> (Delivery, Instant) {
        let delivery = self.recorder.next().await;
        let at = self.times.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        (delivery, at.expect("it is noted before"))
    }

    async fn is_empty(&self) -> bool {
        self.recorder.rest().await.is_empty()
    }
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

/// A subscription that is new and begins at the start gets what the broker kept from before it; where nothing of that is kept,
/// it is refused with the remedy. It begins once: afterwards it goes on where it was.
pub async fn durable_subscription_from_the_start_gets_what_was_kept_or_is_refused(world: &World) {
    let Some(first) = keeper(world, "first").await else { return };
    let source = world.bridge().await;
    for nth in 0..5 {
        publish(&source, world.numbered("userRegistered", nth)).await;
    }
    let (recorder, from_start) =
        (Recorder::default(), Subscription { from_start: true, ..kept("mail", "userRegistered") });
    if !first.capabilities().from_start {
        let refused = first.subscribe(from_start, recorder.consumer()).await;
        let error = refused.expect_err("what was not kept cannot be had");
        assert_eq!(error.kind(), BridgeErrorKind::Rejected);
        assert!(error.to_string().contains("leave out `from_start`"), "{error}");
        subscribe(&first, kept("mail", "userRegistered"), recorder.consumer()).await;
        publish(&source, world.numbered("userRegistered", 5)).await;
        assert_eq!(number(&recorder.message().await), 5, "without it, it begins with what comes");
        world.close().await;
        return recorder.expect_nothing_more().await;
    }
    subscribe(&first, from_start.clone(), recorder.consumer()).await;
    for nth in 0..5 {
        assert_eq!(number(&recorder.message().await), nth);
    }
    first.close().await.expect("close succeeds");
    publish(&source, world.numbered("userRegistered", 5)).await;
    let second = world.durable_bridge("first").await;
    subscribe(&second, from_start, recorder.consumer()).await;
    assert_eq!(number(&recorder.message().await), 5);
    world.close().await;
    recorder.expect_nothing_more().await;
}
