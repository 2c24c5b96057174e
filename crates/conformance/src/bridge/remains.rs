//! What is left of a bridge after its end: nothing.

use std::sync::Arc;

use purista_core::bridge::{BridgeState, Delivery, EventBridge, Outcome};
use purista_core::subscription::Subscription;
use tokio::sync::Notify;

use super::consumers::{Recorder, consumer, reply};
use super::network::{Network, until};
use super::world::{PATIENCE, World, listening, request, serve, subscribe};

/// How many tasks live in this runtime.
pub(super) fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// Waits until no more tasks live than before.
pub(super) async fn until_tasks(before: usize) {
    let gone = async {
        while tasks() > before {
            tokio::task::yield_now().await;
        }
    };
    let ended = tokio::time::timeout(PATIENCE, gone).await;
    ended.unwrap_or_else(|_| panic!("{} tasks are left", tasks() - before));
}

/// Gives a bridge everything that a bridge can have: a command, a subscription, and a durable one where there are some.
pub(super) async fn busy(bridge: &Arc<dyn EventBridge>) {
    let recorder = Recorder::default();
    serve(bridge, "User", "signUp", recorder.consumer()).await;
    subscribe(bridge, listening("mail", "userRegistered"), recorder.consumer()).await;
    if bridge.capabilities().durable {
        let kept = Subscription { durable: true, ..listening("audit", "userRegistered") };
        subscribe(bridge, kept, recorder.consumer()).await;
    }
}

async fn closes(bridge: Arc<dyn EventBridge>) {
    let closing = tokio::time::timeout(2 * PATIENCE, bridge.close());
    closing.await.expect("close ends").expect("close succeeds");
    assert_eq!(*bridge.state().borrow(), BridgeState::Closed);
}

/// When close returns, or soon after, no task of the bridge is left.
pub async fn close_leaves_no_task_behind(world: &World) {
    let network = Network::of(world).await;
    let before = tasks();
    let bridge = match &network {
        Some(network) => network.durable_bridge(world, "user").await,
        None => world.bridge().await,
    };
    busy(&bridge).await;
    request(&bridge, world.command("User", "signUp", "1")).await;
    assert!(tasks() > before);
    closes(bridge).await;
    until_tasks(before).await;
}

/// A bridge that has lost its server closes, in bounded time, and leaves nothing behind.
pub async fn close_while_the_server_is_away_leaves_no_task_behind(world: &World) {
    let Some(network) = Network::of(world).await else { return };
    let before = tasks();
    let bridge = network.durable_bridge(world, "user").await;
    busy(&bridge).await;
    network.proxy().refuse(true);
    network.proxy().cut();
    until(&bridge, BridgeState::Reconnecting).await;
    closes(bridge).await;
    until_tasks(before).await;
}

/// A bridge that has a reply to give, and nobody to give it to, closes in bounded time.
pub async fn close_with_a_reply_under_way_while_the_server_is_away_ends_in_time(world: &World) {
    let Some(network) = Network::of(world).await else { return };
    let (user, caller) = (network.bridge(world, "user").await, network.direct(world, "caller").await);
    let (handed, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (hand, go_on) = (Arc::clone(&handed), Arc::clone(&goes_on));
    let holding = consumer(move |delivery: Delivery| {
        hand.notify_one();
        let go_on = Arc::clone(&go_on);
        async move {
            go_on.notified().await;
            Outcome::Reply(Box::new(reply(&delivery.message, "1")))
        }
    });
    serve(&user, "User", "signUp", holding).await;
    let asked = world.tasks().spawn({
        let command = world.command("User", "signUp", "1");
        async move { caller.request(command.into()).await }
    });
    handed.notified().await;
    network.proxy().refuse(true);
    network.proxy().cut();
    until(&user, BridgeState::Reconnecting).await;
    goes_on.notify_one();
    let closing = tokio::time::timeout(PATIENCE, user.close());
    closing.await.expect("close ends in time").expect("close succeeds");
    let ended = asked.await.expect("the caller does not panic");
    assert!(ended.is_err(), "nobody could answer: {ended:?}");
}

/// A bridge whose server says nothing any more, and which does not know it yet, closes in bounded time.
pub async fn close_on_a_silent_connection_leaves_no_task_behind(world: &World) {
    let Some(network) = Network::of(world).await else { return };
    let before = tasks();
    let bridge = network.durable_bridge(world, "user").await;
    busy(&bridge).await;
    network.proxy().silence(true);
    closes(bridge).await;
    // What the proxy still holds back of the connection.
    network.proxy().silence(false);
    until_tasks(before).await;
}

/// A bridge that is dropped without a word ends by itself.
pub async fn dropped_bridge_leaves_no_task_behind(world: &World) {
    let Some(network) = Network::of(world).await else { return };
    let before = tasks();
    // The world would keep it.
    let bridge = network.server().durable_bridge(network.proxy().port(), "user").await;
    busy(&bridge).await;
    assert!(tasks() > before);
    drop(bridge);
    until_tasks(before).await;
}
