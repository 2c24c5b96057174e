//! Duties of the feed: attempts, pauses, bounds, order, and what a broken consumer must not do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use purista_core::bridge::{Capabilities, Delivery, EventBridge, Outcome, Registration};
use purista_core::subscription::Subscription;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::consumers::{Recorder, consumer, echo, reply};
use super::world::{PATIENCE, World, listening, number, publish, request, serve, subscribe, text};

/// What is to be retried comes back as the next attempt, after its time, and once; others are not held up for ever.
pub async fn retry_comes_back_with_the_next_attempt(world: &World) {
    let bridge = world.bridge().await;
    if !bridge.capabilities().delayed_retry {
        return;
    }
    let recorder = Recorder::default();
    let (keeps, times) = (recorder.clone(), Arc::new(Mutex::new(Vec::new())));
    let (after, notes) = (Duration::from_millis(30), Arc::clone(&times));
    let failing = consumer(move |delivery: Delivery| {
        if number(&delivery.message) == 0 {
            notes.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        }
        keeps.keep(delivery.clone());
        let is_first = number(&delivery.message) == 0 && delivery.attempt < 3;
        async move { if is_first { Outcome::Retry { after } } else { Outcome::Ack } }
    });
    subscribe(&bridge, listening("mail", "userRegistered"), failing).await;
    publish(&bridge, world.numbered("userRegistered", 0)).await;
    let first = recorder.next().await;
    publish(&bridge, world.numbered("userRegistered", 1)).await;
    let (mut attempts, mut others) = (vec![first.attempt], 0);
    while attempts.len() < 3 || others < 1 {
        let delivery = recorder.next().await;
        if number(&delivery.message) == 0 {
            assert_eq!(delivery.message.id, first.message.id);
            attempts.push(delivery.attempt);
        } else {
            assert_eq!(delivery.attempt, 1);
            others += 1;
        }
    }
    assert_eq!(attempts, [1, 2, 3]);
    for pair in times.lock().unwrap_or_else(PoisonError::into_inner).windows(2) {
        assert!(pair.first().zip(pair.last()).is_some_and(|(one, next)| *next - *one >= after), "{pair:?}");
    }
    world.close().await;
    recorder.expect_nothing_more().await;
}

/// The id that a peer left out of a message is made up once: who knows a message by its id knows it again.
pub async fn message_without_an_id_has_the_same_at_each_attempt(world: &World) {
    let bridge = world.durable_bridge("mail").await;
    let Capabilities { delayed_retry, durable, .. } = bridge.capabilities();
    let Some(sending) = world.system().send_without_id().filter(|_| delayed_retry) else { return };
    let recorder = Recorder::default();
    let keeps = recorder.clone();
    let failing = consumer(move |delivery: Delivery| {
        keeps.keep(delivery.clone());
        let is_last = delivery.attempt >= 3;
        async move { if is_last { Outcome::Ack } else { Outcome::Retry { after: Duration::ZERO } } }
    });
    let subscription = Subscription { durable, ..listening("mail", "userRegistered") };
    subscribe(&bridge, subscription, failing).await;
    sending.await;
    let first = recorder.next().await;
    for attempt in 2..=3 {
        let again = recorder.next().await;
        assert_eq!((again.attempt, &again.message.id), (attempt, &first.message.id));
    }
}

/// A consumer that asks for a pause is fed nothing until it is resumed; then the message comes again, and those behind it.
pub async fn pause_stops_and_resume_goes_on(world: &World) {
    let bridge = world.bridge().await;
    if !bridge.capabilities().pause {
        return;
    }
    let (recorder, marker) = (Recorder::default(), Recorder::default());
    let keeps = recorder.clone();
    let pausing = consumer(move |delivery: Delivery| {
        let is_first = number(&delivery.message) == 0 && delivery.attempt == 1;
        keeps.keep(delivery);
        async move {
            if is_first { Outcome::Pause { reason: "the server is away".to_owned() } } else { Outcome::Ack }
        }
    });
    let registration = subscribe(&bridge, listening("mail", "userRegistered"), pausing).await;
    subscribe(&bridge, listening("marker", "marker"), marker.consumer()).await;
    assert_eq!(registration.paused(), None);
    publish(&bridge, world.numbered("userRegistered", 0)).await;
    assert_eq!(recorder.next().await.attempt, 1);
    until_paused(&registration).await;
    assert_eq!(registration.paused().as_deref(), Some("the server is away"));
    publish(&bridge, world.numbered("userRegistered", 1)).await;
    publish(&bridge, world.event("marker")).await;
    marker.next().await;
    recorder.expect_nothing_more().await;

    registration.resume();
    assert_eq!(registration.paused(), None);
    let mut seen: Vec<_> = Vec::new();
    for _ in 0..2 {
        let delivery = recorder.next().await;
        seen.push((number(&delivery.message), delivery.attempt));
    }
    seen.sort_unstable();
    assert_eq!(seen, [(0, 2), (1, 1)]);
    world.close().await;
    recorder.expect_nothing_more().await;
}

/// Waits until a registration says that it is paused: there is no event for it, and it follows at once.
pub(super) async fn until_paused(registration: &Registration) {
    let paused = async {
        while registration.paused().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, paused).await.expect("the registration is paused");
}

/// A consumer that has as many messages in flight as its subscription allows is fed no more.
pub async fn in_flight_is_bounded(world: &World) {
    const ALLOWED: usize = 3;
    let bridge = world.bridge().await;
    let (gate, marker, began) = (Arc::new(Semaphore::new(0)), Recorder::default(), Recorder::default());
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let handles = (Arc::clone(&gate), began.clone(), Arc::clone(&running), Arc::clone(&most));
    let waiting = consumer(move |delivery: Delivery| {
        let (gate, began, running, most) = handles.clone();
        async move {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            began.keep(delivery);
            gate.acquire().await.expect("the gate stays").forget();
            running.fetch_sub(1, Ordering::SeqCst);
            Outcome::Ack
        }
    });
    let mut bounded = listening("mail", "userRegistered");
    bounded.in_flight = ALLOWED;
    subscribe(&bridge, bounded, waiting).await;
    subscribe(&bridge, listening("marker", "marker"), marker.consumer()).await;
    for n in 0..10 {
        publish(&bridge, world.numbered("userRegistered", n)).await;
    }
    for _ in 0..ALLOWED {
        began.next().await;
    }
    publish(&bridge, world.event("marker")).await;
    marker.next().await;
    began.expect_nothing_more().await;
    gate.add_permits(10);
    for _ in ALLOWED..10 {
        began.next().await;
    }
    world.close().await;
    assert_eq!(most.load(Ordering::SeqCst), ALLOWED);
    assert_eq!(running.load(Ordering::SeqCst), 0);
}

/// With one message in flight, messages of one source come in the order of their publishing, where that is promised.
pub async fn one_in_flight_keeps_the_order(world: &World) {
    let (listener, source) = (world.bridge().await, world.bridge().await);
    if !listener.capabilities().ordered {
        return;
    }
    let recorder = Recorder::default();
    subscribe(&listener, listening("mail", "userRegistered"), recorder.consumer()).await;
    for n in 0..200 {
        publish(&source, world.numbered("userRegistered", n)).await;
    }
    for n in 0..200 {
        assert_eq!(number(&recorder.message().await), n);
    }
}

/// A consumer that panics, before its future or in it, fails one delivery; the next ones come.
pub async fn consumer_panic_does_not_stop_the_feed(world: &World) {
    let bridge = world.bridge().await;
    let recorder = Recorder::default();
    let keeps = recorder.clone();
    let panicking = consumer(move |delivery: Delivery| {
        let n = number(&delivery.message);
        assert!(n != 0, "this panic is part of the test: at the call");
        let keeps = keeps.clone();
        async move {
            assert!(n != 1, "this panic is part of the test: in the future");
            tokio::task::yield_now().await;
            assert!(n != 2, "this panic is part of the test: after waiting");
            keeps.keep(delivery);
            Outcome::Ack
        }
    });
    subscribe(&bridge, listening("mail", "userRegistered"), panicking).await;
    for n in 0..5 {
        publish(&bridge, world.numbered("userRegistered", n)).await;
    }
    assert_eq!(number(&recorder.message().await), 3);
    assert_eq!(number(&recorder.message().await), 4);
}

/// A consumer that panics over one command serves the next, of this command and of others; the caller does not wait long.
pub async fn server_panic_does_not_stop_the_feed(world: &World) {
    let (server, caller) = (world.bridge().await, world.bridge().await);
    let panicking = consumer(move |delivery: Delivery| {
        let n = number(&delivery.message);
        assert!(n != 0, "this panic is part of the test: at the call");
        async move {
            tokio::task::yield_now().await;
            assert!(n != 1, "this panic is part of the test: after waiting");
            Outcome::Reply(Box::new(reply(&delivery.message, text(&delivery.message))))
        }
    });
    serve(&server, "User", "signUp", panicking).await;
    serve(&server, "User", "other", echo()).await;
    for n in 0..2 {
        let command = world.command("User", "signUp", &n.to_string());
        let calling: Arc<dyn EventBridge> = Arc::clone(&caller);
        // In the process a command runs on its caller's task, so this task is the one that may be torn.
        let call = world.tasks().spawn(async move { calling.request(Box::new(command)).await });
        if let Ok(ended) = tokio::time::timeout(PATIENCE / 2, call).await.expect("it ends early") {
            assert!(ended.is_err() || ended.is_ok_and(|answer| answer.kind.is_response()));
        }
    }
    for (target, n) in [("signUp", 2), ("other", 3)] {
        let answer = request(&caller, world.command("User", target, &n.to_string())).await;
        assert_eq!(number(&answer), n);
    }
}
