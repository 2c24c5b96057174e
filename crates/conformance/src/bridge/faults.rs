//! Duties on a bad network: connections that are cut, fall silent, flap, or are slow.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use purista_core::bridge::{BridgeErrorKind, BridgeState, Delivery, EventBridge, Outcome};
use purista_core::subscription::{Sharing, Subscription};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::consumers::{Recorder, consumer, reply};
use super::network::{Network, until, until_within};
use super::world::{PATIENCE, World, listening, number, publish, request, serve, subscribe, text};
use crate::proxy::Proxy;

/// Within which time a connection is found out on which nothing comes any more: two heartbeats.
const NOTICED_WITHIN: Duration = Duration::from_secs(30);
/// How often a connection flaps, and for how long.
const FLAP: Duration = Duration::from_millis(200);
const FLAPS: usize = 15;
/// For how long nobody lets a bridge in, and how often it may try: 0, 50, 100, 200 … milliseconds apart, of which half is
/// chance, it tries eight times at most.
const REFUSED_FOR: Duration = Duration::from_secs(3);
const TRIES_MAX: usize = 10;

/// Whether a connection is cut, reset or half closed: its bridge notices, comes back by itself, and is fed again.
pub async fn lost_connection_comes_back_by_itself_and_subscriptions_with_it(world: &World) {
    let Some(network) = Network::of(world).await else { return };
    let (user, caller) = (network.bridge(world, "user").await, network.direct(world, "caller").await);
    let (calls, heard, everywhere) = (Recorder::default(), Recorder::default(), Recorder::default());
    serve(&user, "User", "signUp", calls.consumer()).await;
    subscribe(&user, listening("mail", "userRegistered"), heard.consumer()).await;
    let own = Subscription { sharing: Sharing::EveryInstance, ..listening("cache", "userRegistered") };
    subscribe(&user, own, everywhere.consumer()).await;
    request(&caller, world.command("User", "signUp", "1")).await;

    let proxy = network.proxy();
    let losses: [fn(&Proxy); 3] = [Proxy::cut, Proxy::reset, Proxy::half_close];
    for (nth, lose) in losses.into_iter().enumerate() {
        proxy.refuse(true);
        lose(proxy);
        until(&user, BridgeState::Reconnecting).await;
        proxy.refuse(false);
        until(&user, BridgeState::Connected).await;
        let answer = request(&caller, world.command("User", "signUp", &nth.to_string())).await;
        assert_eq!(number(&answer), nth);
        publish(&caller, world.numbered("userRegistered", nth)).await;
        until_heard(&heard, nth).await;
        until_heard(&everywhere, nth).await;
    }
    world.close().await;
    assert_eq!(calls.rest().await.len(), 4, "no call ran twice");
    heard.expect_nothing_more().await;
    everywhere.expect_nothing_more().await;
}

/// Waits for the event with this number. What was acknowledged just before a loss may come again.
pub(super) async fn until_heard(recorder: &Recorder, nth: usize) {
    loop {
        let heard = number(&recorder.message().await);
        if heard == nth {
            return;
        }
        assert!(heard < nth, "{heard} was not published yet");
    }
}

/// Whoever waits for a reply when the connection is lost hears so when it is known, not at the deadline.
pub async fn request_in_flight_at_a_cut_ends_as_unknown(world: &World) {
    let Some(network) = Network::of(world).await else { return };
    let (server, caller) = (network.direct(world, "user").await, network.bridge(world, "caller").await);
    let (began, gate) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let (shows, waits) = (Arc::clone(&began), Arc::clone(&gate));
    let slow = consumer(move |delivery: Delivery| {
        let (shows, waits) = (Arc::clone(&shows), Arc::clone(&waits));
        async move {
            shows.notify_one();
            waits.acquire().await.expect("the gate stays").forget();
            Outcome::Reply(Box::new(reply(&delivery.message, text(&delivery.message))))
        }
    });
    serve(&server, "User", "signUp", slow).await;
    let asked = Instant::now();
    let calling = caller.request(Box::new(world.command("User", "signUp", "1")));
    let cutting = async {
        began.notified().await;
        // Behind its answer the broker's word for the command has come too: nothing but the reply is missing.
        publish(&caller, world.event("marker")).await;
        network.proxy().cut();
    };
    let (ended, ()) = tokio::join!(calling, cutting);
    let error = ended.expect_err("the reply is lost");
    assert_eq!(error.kind(), BridgeErrorKind::Unknown, "{error}");
    assert!(asked.elapsed() < PATIENCE / 2, "it is said when it is known: {:?}", asked.elapsed());
    // The late reply troubles nobody.
    gate.add_permits(2);
    assert_eq!(number(&request(&caller, world.command("User", "signUp", "2")).await), 2);
}

/// What is asked of a bridge that has lost its server waits for it; what cannot wait so long never happened, and says so.
pub async fn what_is_asked_while_the_server_is_away_waits_for_it_or_never_happened(world: &World) {
    let Some(network) = Network::of(world).await else { return };
    let (user, caller) = (network.direct(world, "user").await, network.bridge(world, "caller").await);
    let (calls, heard) = (Recorder::default(), Recorder::default());
    serve(&user, "User", "signUp", calls.consumer()).await;
    subscribe(&user, listening("mail", "userRegistered"), heard.consumer()).await;
    network.proxy().refuse(true);
    network.proxy().cut();
    until(&caller, BridgeState::Reconnecting).await;

    let soon = || Some(Instant::now() + Duration::from_millis(100));
    let mut short = world.command("User", "signUp", "0");
    short.deadline = soon();
    let refused = caller.request(Box::new(short)).await.expect_err("nobody is there");
    assert_eq!(refused.kind(), BridgeErrorKind::Rejected, "it was never sent: {refused}");
    let mut brief = world.numbered("userRegistered", 0);
    brief.deadline = soon();
    let refused = caller.publish(brief).await.expect_err("nobody is there");
    assert_eq!(refused.kind(), BridgeErrorKind::Rejected, "it was never sent: {refused}");

    let calling = request(&caller, world.command("User", "signUp", "1"));
    let publishing = publish(&caller, world.numbered("userRegistered", 1));
    let coming_back = async {
        tokio::task::yield_now().await;
        network.proxy().refuse(false);
    };
    let (answer, (), ()) = tokio::join!(calling, publishing, coming_back);
    assert_eq!(number(&answer), 1);
    assert_eq!(number(&heard.message().await), 1);
    world.close().await;
    assert_eq!(calls.rest().await.len(), 1, "what was rejected never ran");
    heard.expect_nothing_more().await;
}

/// When connections are cut under publications, each that returned `Ok` was delivered, and none that was `Rejected`.
pub async fn publish_tells_the_truth_when_the_connection_is_cut(world: &World) {
    const ROUNDS: usize = 6;
    const TOGETHER: usize = 40;
    let Some(network) = Network::of(world).await else { return };
    let (listener, source) = (network.direct(world, "listener").await, network.bridge(world, "source").await);
    let heard = Recorder::default();
    let mail = Subscription { in_flight: 64, ..listening("mail", "userRegistered") };
    subscribe(&listener, mail, heard.consumer()).await;
    network.proxy().delay(Duration::from_millis(20));
    let (mut kept, mut never) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..ROUNDS {
        until(&source, BridgeState::Connected).await;
        let publishing = (0..TOGETHER).map(|nth| {
            let nth = round * TOGETHER + nth;
            let published = source.publish(world.numbered("userRegistered", nth));
            async move { (nth, published.await) }
        });
        let cutting = async {
            // Before the server has read them, while it answers, and behind that.
            let on_the_way = Duration::from_millis(10 + 10 * round as u64);
            tokio::time::sleep(on_the_way).await; // real time: that of the network
            network.proxy().cut();
        };
        let (published, ()) = tokio::join!(join_all(publishing), cutting);
        for (nth, published) in published {
            match published {
                Ok(()) => drop(kept.insert(nth)),
                Err(error) if !error.may_have_happened() => drop(never.insert(nth)),
                Err(_) => {}
            }
        }
    }
    network.proxy().delay(Duration::ZERO);
    publish(&listener, world.numbered("userRegistered", usize::MAX)).await;
    let mut found = BTreeSet::new();
    while !(found.is_superset(&kept) && found.contains(&usize::MAX)) {
        found.insert(number(&heard.message().await));
    }
    assert!(kept.len() < ROUNDS * TOGETHER || never.is_empty(), "{} were confirmed", kept.len());
    assert_eq!(found.intersection(&never).count(), 0, "something was delivered that never happened");
}

/// A connection on which nothing comes any more, while nobody says that it has ended, is found out; what was asked over it ends
/// at its deadline; and when the network is back, so is the bridge.
pub async fn silent_connection_is_noticed_and_healed(world: &World) {
    let Some(network) = Network::of(world).await else { return };
    let (user, caller) = (network.bridge(world, "user").await, network.direct(world, "caller").await);
    let heard = Recorder::default();
    serve(&user, "User", "signUp", Recorder::default().consumer()).await;
    subscribe(&user, listening("mail", "userRegistered"), heard.consumer()).await;
    request(&user, world.command("User", "signUp", "0")).await;
    network.proxy().silence(true);
    let fell_silent = Instant::now();
    let soon = || Some(Instant::now() + Duration::from_secs(1));
    let (mut brief, mut short) = (world.event("marker"), world.command("User", "signUp", "0"));
    (brief.deadline, short.deadline) = (soon(), soon());
    let (published, asked) = tokio::join!(user.publish(brief), user.request(Box::new(short)));
    for error in [published.expect_err("nobody answers"), asked.expect_err("nobody answers")] {
        assert!(error.may_have_happened(), "it was written: {error}");
    }
    assert!(fell_silent.elapsed() < PATIENCE / 2, "a deadline is kept: {:?}", fell_silent.elapsed());

    until_within(&user, BridgeState::Reconnecting, NOTICED_WITHIN).await;
    network.proxy().silence(false);
    until(&user, BridgeState::Connected).await;
    // The server has heard of the end of the old one.
    network.until_open(1).await;
    assert_eq!(number(&request(&caller, world.command("User", "signUp", "1")).await), 1);
    publish(&caller, world.numbered("userRegistered", 1)).await;
    assert_eq!(number(&heard.message().await), 1);
}

/// A connection that comes and goes is made again at most once each time; one that is refused, less and less often. Behind it
/// everything works.
pub async fn flapping_connection_makes_no_storm(world: &World) {
    let Some(network) = Network::of(world).await else { return };
    let (user, caller) = (network.bridge(world, "user").await, network.direct(world, "caller").await);
    serve(&user, "User", "signUp", Recorder::default().consumer()).await;
    let proxy = network.proxy();
    let before = proxy.connects();
    for _ in 0..FLAPS {
        tokio::time::sleep(FLAP).await; // real time: that of the network
        proxy.cut();
    }
    let connects = proxy.connects() - before;
    assert!((1..=FLAPS + 1).contains(&connects), "{connects} connections in {FLAPS} flaps");
    proxy.refuse(true);
    let before = proxy.connects();
    proxy.cut();
    tokio::time::sleep(REFUSED_FOR).await; // real time: that of the network
    let connects = proxy.connects() - before;
    assert!(connects <= TRIES_MAX, "{connects} attempts in {REFUSED_FOR:?}");
    proxy.refuse(false);
    works_again(world, &user, &caller).await;
}

/// A connection that is made, and cut before anybody could use it, counts as one more that failed.
pub async fn connection_that_is_cut_as_soon_as_it_is_made_makes_no_storm(world: &World) {
    let Some(network) = Network::of(world).await else { return };
    let (user, caller) = (network.bridge(world, "user").await, network.direct(world, "caller").await);
    serve(&user, "User", "signUp", Recorder::default().consumer()).await;
    let proxy = network.proxy();
    for bytes in [300, 1_000, 4_000, 12_000] {
        until(&user, BridgeState::Connected).await;
        let before = proxy.connects();
        proxy.cut_after(Some(bytes));
        proxy.cut();
        tokio::time::sleep(REFUSED_FOR).await; // real time: that of the network
        let connects = proxy.connects() - before;
        assert!(connects <= TRIES_MAX, "{connects} connections of {bytes} bytes in {REFUSED_FOR:?}");
        proxy.cut_after(None);
    }
    works_again(world, &user, &caller).await;
}

async fn works_again(world: &World, user: &Arc<dyn EventBridge>, caller: &Arc<dyn EventBridge>) {
    until(user, BridgeState::Connected).await;
    assert_eq!(number(&request(caller, world.command("User", "signUp", "1")).await), 1);
}

/// On a slow network everything takes longer, and nothing else happens.
pub async fn delay_only_delays(world: &World) {
    const DELAY: Duration = Duration::from_millis(150);
    const EVENTS: usize = 20;
    let Some(network) = Network::of(world).await else { return };
    let (user, caller) = (network.bridge(world, "user").await, network.direct(world, "caller").await);
    let heard = Recorder::default();
    serve(&user, "User", "signUp", Recorder::default().consumer()).await;
    subscribe(&user, listening("mail", "userRegistered"), heard.consumer()).await;
    let state = user.state();
    let connects = network.proxy().connects();
    network.proxy().delay(DELAY);
    let began = Instant::now();
    assert_eq!(number(&request(&caller, world.command("User", "signUp", "7")).await), 7);
    assert!(began.elapsed() >= 2 * DELAY, "{:?}", began.elapsed());
    network.proxy().throttle(Some(64 << 10));
    for nth in 0..EVENTS {
        publish(&caller, world.numbered("userRegistered", nth)).await;
    }
    for nth in 0..EVENTS {
        assert_eq!(number(&heard.message().await), nth);
    }
    assert_eq!(*state.borrow(), BridgeState::Connected);
    assert_eq!(network.proxy().connects(), connects, "the connection was never lost");
    network.proxy().delay(Duration::ZERO);
    world.close().await;
    heard.expect_nothing_more().await;
}
