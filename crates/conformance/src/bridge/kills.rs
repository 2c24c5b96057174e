//! Duties when the server itself is killed: bridges come back, and what was confirmed is there.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use purista_core::bridge::{BridgeState, Consumer, Delivery, EventBridge, Outcome};
use purista_core::subscription::{Sharing, Subscription};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::consumers::{Recorder, consumer};
use super::faults::until_heard;
use super::network::{Network, until};
use super::remains::{busy, tasks, until_tasks};
use super::world::{PATIENCE, World, listening, number, publish, request, serve, subscribe};

/// How long the server is away.
const AWAY: Duration = Duration::from_secs(3);
/// Within which time everything goes on once the server takes connections.
const RESUMED_WITHIN: Duration = Duration::from_secs(10);
/// How long a message may wait for a server that starts again: longer than any takes.
const FOR_A_RESTART: Duration = Duration::from_secs(60);
/// How often the server is lost in a row, and how often it is killed for that where it starts slowly.
const LOSSES: usize = 20;
const SLOW_RESTARTS: usize = 2;

/// The server is killed, and back after three seconds: bridges say so, come back, and are fed again, within ten seconds and
/// without a word from anybody.
pub async fn everything_goes_on_by_itself_after_the_server_was_killed(world: &World) {
    let Some(network) = Network::alone(world).await else { return };
    let (user, caller) = (network.direct(world, "user").await, network.direct(world, "caller").await);
    let (calls, heard, everywhere) = (Recorder::default(), Recorder::default(), Recorder::default());
    serve(&user, "User", "signUp", calls.consumer()).await;
    subscribe(&user, listening("mail", "userRegistered"), heard.consumer()).await;
    let own = Subscription { sharing: Sharing::EveryInstance, ..listening("cache", "userRegistered") };
    subscribe(&user, own, everywhere.consumer()).await;
    request(&caller, world.command("User", "signUp", "0")).await;
    for round in 1..=2 {
        network.server().kill().await;
        for bridge in [&user, &caller] {
            until(bridge, BridgeState::Reconnecting).await;
        }
        tokio::time::sleep(AWAY).await; // real time: attempts to come back are further and further apart
        let waiting = async {
            let mut event = world.event("marker");
            event.deadline = Some(Instant::now() + FOR_A_RESTART);
            caller.publish(event).await.expect("it waits for the server");
        };
        let coming_back = async {
            network.server().restart().await;
            let back = Instant::now();
            for bridge in [&user, &caller] {
                until(bridge, BridgeState::Connected).await;
            }
            assert_eq!(number(&request(&caller, world.command("User", "signUp", "7")).await), 7);
            assert!(back.elapsed() < RESUMED_WITHIN, "it took {:?}", back.elapsed());
        };
        tokio::join!(waiting, coming_back);
        publish(&caller, world.numbered("userRegistered", round)).await;
        until_heard(&heard, round).await;
        until_heard(&everywhere, round).await;
    }
    world.close().await;
    assert_eq!(calls.rest().await.len(), 3, "no call ran twice");
    heard.expect_nothing_more().await;
    everywhere.expect_nothing_more().await;
}

/// Events that a broker has confirmed for a durable subscription are delivered although it is killed; what it has not confirmed
/// may have happened, and is never said to have.
pub async fn no_confirmed_event_is_lost_when_the_server_is_killed(world: &World) {
    const KILLS: usize = 2;
    /// So many are confirmed in each life of the server before it is killed.
    const CONFIRMED_MIN: usize = 100;
    let Some(network) = Network::alone(world).await else { return };
    let listener = network.durable_bridge(world, "listener").await;
    if !listener.capabilities().durable {
        // That it is refused is a duty of its own.
        return;
    }
    let source = network.direct(world, "source").await;
    let heard = Numbers::default();
    let mail = Subscription { durable: true, in_flight: 16, ..listening("mail", "userRegistered") };
    subscribe(&listener, mail, heard.consumer()).await;
    let (stop, life, confirmed) = (AtomicBool::new(false), AtomicUsize::new(0), watch::channel(0).0);
    let publishing = async {
        let mut windows = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            let began_in = life.load(Ordering::SeqCst);
            let events = publish_together(world, &source, windows.len()).await;
            confirmed.send_modify(|count| *count += events.len());
            windows.push(Window { began_in, ended_in: life.load(Ordering::SeqCst), confirmed: events });
        }
        windows
    };
    let killing = async {
        let flows = async || {
            let mut count = confirmed.subscribe();
            let enough = *count.borrow_and_update() + CONFIRMED_MIN;
            let flowing = tokio::time::timeout(FOR_A_RESTART, count.wait_for(|count| *count >= enough));
            flowing.await.expect("events are confirmed").expect("the publisher lives");
        };
        for _ in 0..KILLS {
            flows().await;
            life.fetch_add(1, Ordering::SeqCst);
            network.server().kill().await;
            network.server().restart().await;
            until(&source, BridgeState::Connected).await;
            until(&listener, BridgeState::Connected).await;
        }
        flows().await;
        stop.store(true, Ordering::SeqCst);
    };
    let (windows, ()) = tokio::join!(publishing, killing);
    let kept = kept(&windows, network.server().confirms_before_it_keeps());
    assert!(kept.len() > KILLS * CONFIRMED_MIN, "only {} were confirmed", kept.len());
    heard.until_all(&kept).await;
}

/// How many events are published together, so that the server dies with some of them in hand.
const TOGETHER: usize = 16;

/// Publishes the events of one window; which of them are confirmed.
async fn publish_together(world: &World, source: &Arc<dyn EventBridge>, window: usize) -> Vec<usize> {
    let events = (window * TOGETHER..).take(TOGETHER).map(|nth| {
        let mut event = world.numbered("userRegistered", nth);
        event.deadline = Some(Instant::now() + FOR_A_RESTART);
        async move { (nth, source.publish(event).await) }
    });
    let mut confirmed = Vec::new();
    for (nth, published) in join_all(events).await {
        match published {
            Ok(()) => confirmed.push(nth),
            Err(error) => assert!(error.may_have_happened(), "else it waits for the server: {error}"),
        }
    }
    confirmed
}

/// Events that were published together, and the lives of the server in which that was.
struct Window {
    began_in: usize,
    ended_in: usize,
    confirmed: Vec<usize>,
}

/// What must not be lost. A server that confirms first and keeps then has kept what it confirmed once it has confirmed more, in
/// the same life.
fn kept(windows: &[Window], confirms_first: bool) -> BTreeSet<usize> {
    let is_of_one_life = |window: &Window| window.began_in == window.ended_in;
    let goes_on = |nth: usize, window: &Window| {
        is_of_one_life(window)
            && windows
                .get(nth + 1)
                .is_none_or(|next| is_of_one_life(next) && next.began_in == window.ended_in)
    };
    let kept = windows.iter().enumerate().filter(|(nth, window)| !confirms_first || goes_on(*nth, window));
    kept.flat_map(|(_, window)| window.confirmed.iter().copied()).collect()
}

/// The numbers of all events that were heard, however often.
#[derive(Clone, Default)]
struct Numbers {
    heard: Arc<Mutex<BTreeSet<usize>>>,
    more: Arc<Notify>,
}

impl Numbers {
    fn consumer(&self) -> Arc<dyn Consumer> {
        let numbers = self.clone();
        consumer(move |delivery: Delivery| {
            let mut heard = numbers.heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.insert(number(&delivery.message));
            numbers.more.notify_one();
            async { Outcome::Ack }
        })
    }

    async fn until_all(&self, wanted: &BTreeSet<usize>) {
        let missing = || {
            let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            wanted.difference(&heard).copied().collect::<Vec<_>>()
        };
        let hearing = async {
            while !missing().is_empty() {
                self.more.notified().await;
            }
        };
        let is_complete = tokio::time::timeout(FOR_A_RESTART, hearing).await.is_ok();
        assert!(is_complete, "of {} confirmed events these are lost: {:?}", wanted.len(), missing());
    }
}

/// However often the server goes away and comes back, a bridge has as many tasks and connections as at first.
pub async fn twenty_losses_leave_neither_tasks_nor_connections_behind(world: &World) {
    let Some(network) = Network::alone(world).await else { return };
    let idle = tasks();
    let bridge = network.durable_bridge(world, "user").await;
    busy(&bridge).await;
    request(&bridge, world.command("User", "signUp", "0")).await;
    let (before, open) = (tasks(), network.proxy().open());
    for nth in 1..=LOSSES {
        if network.server().starts_slowly() && nth > SLOW_RESTARTS {
            network.proxy().refuse(true);
            network.proxy().cut();
            until(&bridge, BridgeState::Reconnecting).await;
            network.proxy().refuse(false);
        } else {
            network.server().kill().await;
            until(&bridge, BridgeState::Reconnecting).await;
            network.server().restart().await;
        }
        until(&bridge, BridgeState::Connected).await;
        let answer = request(&bridge, world.command("User", "signUp", &nth.to_string())).await;
        assert_eq!(number(&answer), nth);
    }
    network.until_open(open).await;
    until_tasks(before).await;
    tokio::time::timeout(2 * PATIENCE, bridge.close()).await.expect("close ends").expect("close succeeds");
    until_tasks(idle).await;
}
