//! Duties of the end: of a registration, and of a bridge.

use std::sync::Arc;

use futures_util::FutureExt;
use purista_core::bridge::{BridgeErrorKind, BridgeState, Consumer, Delivery, Outcome};
use tokio::sync::Semaphore;

use super::consumers::{Recorder, consumer, reply};
use super::flow::until_paused;
use super::world::{PATIENCE, World, listening, number, publish, request, serve, subscribe, text};

/// A consumer that shows when it began and when it ended, and waits in between for a place in `gate`.
struct Held {
    began: Recorder,
    ended: Recorder,
    gate: Arc<Semaphore>,
}

impl Held {
    fn new() -> Self {
        Self { began: Recorder::default(), ended: Recorder::default(), gate: Arc::new(Semaphore::new(0)) }
    }

    /// Answers what asks for an answer.
    fn consumer(&self, answers: bool) -> Arc<dyn Consumer> {
        let handles = (self.began.clone(), self.ended.clone(), Arc::clone(&self.gate));
        consumer(move |delivery: Delivery| {
            let (began, ended, gate) = handles.clone();
            async move {
                began.keep(delivery.clone());
                gate.acquire().await.expect("the gate stays").forget();
                let outcome = if answers {
                    Outcome::Reply(Box::new(reply(&delivery.message, text(&delivery.message))))
                } else {
                    Outcome::Ack
                };
                ended.keep(delivery);
                outcome
            }
        })
    }
}

/// A fresh bridge is connected, and says so until it is closed.
pub async fn state_is_connected(world: &World) {
    let bridge = world.bridge().await;
    let state = bridge.state();
    assert_eq!(*state.borrow(), BridgeState::Connected);
    assert!(!bridge.instance().text().is_empty());
    world.close().await;
    assert_eq!(*state.borrow(), BridgeState::Closed);
}

/// Stopping waits for what the consumer has in hand; what is published later does not come.
pub async fn stopped_registration_gets_nothing_more_and_waits_for_what_is_in_flight(world: &World) {
    let (bridge, source) = (world.bridge().await, world.bridge().await);
    let (held, marker) = (Held::new(), Recorder::default());
    let registration = subscribe(&bridge, listening("mail", "userRegistered"), held.consumer(false)).await;
    subscribe(&bridge, listening("audit", "userRegistered"), marker.consumer()).await;
    publish(&source, world.numbered("userRegistered", 0)).await;
    held.began.next().await;
    let mut stopping = Box::pin(registration.stop());
    assert!(stopping.as_mut().now_or_never().is_none(), "a message is in flight");
    held.gate.add_permits(10);
    tokio::time::timeout(PATIENCE, stopping).await.expect("stop ends when the message is settled");
    assert_eq!(held.ended.rest().await.len(), 1, "it was settled before stop ended");

    publish(&source, world.numbered("userRegistered", 1)).await;
    for n in 0..2 {
        assert_eq!(number(&marker.message().await), n, "others are still fed");
    }
    registration.stop().await;
    world.close().await;
    held.began.expect_nothing_more().await;
}

/// A stopped server answers what it had taken; then nobody serves the command.
pub async fn stopped_server_gets_nothing_more_and_answers_what_is_in_flight(world: &World) {
    let (server, caller) = (world.bridge().await, world.bridge().await);
    let held = Held::new();
    let registration = serve(&server, "User", "signUp", held.consumer(true)).await;
    let asking = request(&caller, world.command("User", "signUp", "7"));
    let stopping = async {
        held.began.next().await;
        let mut stopping = Box::pin(registration.stop());
        assert!(stopping.as_mut().now_or_never().is_none(), "a command is in flight");
        held.gate.add_permits(10);
        stopping.await;
        assert_eq!(held.ended.rest().await.len(), 1, "it was answered before stop ended");
    };
    let both = async { tokio::join!(asking, stopping) };
    let (answer, ()) = tokio::time::timeout(PATIENCE, both).await.expect("stop ends with the command");
    assert_eq!(number(&answer), 7);

    if caller.capabilities().unroutable_at_once {
        let error = caller
            .request(Box::new(world.command("User", "signUp", "8")))
            .await
            .expect_err("nobody serves it");
        assert_eq!(error.kind(), BridgeErrorKind::Unroutable);
    }
    world.close().await;
    held.began.expect_nothing_more().await;
}

/// Closing waits for what consumers have in hand.
pub async fn close_waits_for_what_is_in_flight(world: &World) {
    let (bridge, source) = (world.bridge().await, world.bridge().await);
    let held = Held::new();
    subscribe(&bridge, listening("mail", "userRegistered"), held.consumer(false)).await;
    publish(&source, world.numbered("userRegistered", 0)).await;
    held.began.next().await;
    let mut closing = bridge.close();
    assert!(closing.as_mut().now_or_never().is_none(), "a message is in flight");
    assert!(held.ended.rest().await.is_empty());
    held.gate.add_permits(10);
    tokio::time::timeout(PATIENCE, closing).await.expect("close ends").expect("close succeeds");
    assert_eq!(held.ended.rest().await.len(), 1);
}

/// Closing waits for the commands that are being handled, and their callers get the answers.
pub async fn close_waits_for_commands_in_flight(world: &World) {
    let (server, caller) = (world.bridge().await, world.bridge().await);
    let held = Held::new();
    serve(&server, "User", "signUp", held.consumer(true)).await;
    let asking = request(&caller, world.command("User", "signUp", "7"));
    let closing = async {
        held.began.next().await;
        let mut closing = server.close();
        assert!(closing.as_mut().now_or_never().is_none(), "a command is in flight");
        held.gate.add_permits(10);
        closing.await.expect("close succeeds");
        assert_eq!(held.ended.rest().await.len(), 1);
    };
    let both = async { tokio::join!(asking, closing) };
    let (answer, ()) = tokio::time::timeout(PATIENCE, both).await.expect("close ends with the command");
    assert_eq!(number(&answer), 7);
}

/// A paused subscription does not keep its bridge from closing.
pub async fn close_ends_a_paused_subscription(world: &World) {
    let bridge = world.bridge().await;
    if !bridge.capabilities().pause {
        return;
    }
    let recorder = Recorder::default();
    let keeps = recorder.clone();
    let pausing = consumer(move |delivery: Delivery| {
        keeps.keep(delivery);
        async { Outcome::Pause { reason: "for ever".to_owned() } }
    });
    let registration = subscribe(&bridge, listening("mail", "userRegistered"), pausing).await;
    publish(&bridge, world.numbered("userRegistered", 0)).await;
    publish(&bridge, world.numbered("userRegistered", 1)).await;
    recorder.next().await;
    until_paused(&registration).await;
    world.close().await;
    recorder.expect_nothing_more().await;
}

/// A closed bridge takes nothing: what it is given never happened. Closing it again changes nothing.
pub async fn closed_bridge_rejects(world: &World) {
    let (bridge, other) = (world.bridge().await, world.bridge().await);
    let recorder = Recorder::default();
    let is_one_process = bridge.instance() == other.instance();
    if !is_one_process {
        serve(&other, "User", "signUp", recorder.consumer()).await;
    }
    bridge.close().await.expect("close succeeds");
    bridge.close().await.expect("a second close does nothing");
    assert_eq!(*bridge.state().borrow(), BridgeState::Closed);
    let published = bridge.publish(world.event("userRegistered")).await.expect_err("it is closed");
    assert_eq!(published.kind(), BridgeErrorKind::Rejected);
    let requested =
        bridge.request(Box::new(world.command("User", "signUp", "1"))).await.expect_err("it is closed");
    assert_eq!(requested.kind(), BridgeErrorKind::Rejected);
    let subscribed = bridge.subscribe(listening("mail", "userRegistered"), recorder.consumer()).await;
    assert_eq!(subscribed.expect_err("it is closed").kind(), BridgeErrorKind::Rejected);
    world.close().await;
    recorder.expect_nothing_more().await;
}
