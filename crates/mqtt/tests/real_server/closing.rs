//! What is left of a bridge after its end: nothing.

use std::sync::Arc;

use purista_conformance::bridge::consumers::{Recorder, echo};
use purista_conformance::bridge::world::address;
use purista_core::bridge::{BridgeErrorKind, BridgeState, EventBridge};
use purista_core::subscription::Subscription;
use purista_mqtt::bridge::MqttBridge;

use crate::messages::{PATIENCE, durable, event, listening, until};
use crate::server::Server;

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// Waits until no more tasks live than before.
async fn until_tasks(before: usize) {
    let gone = async {
        while tasks() > before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone)
        .await
        .unwrap_or_else(|_| panic!("{} tasks are left", tasks() - before));
}

/// A bridge with a command, a subscription and a durable one.
async fn serving(server: &Server) -> Arc<dyn EventBridge> {
    let bridge = server.durable("user").await;
    let recorder = Recorder::default();
    let sign_up = Subscription::command(address("User", "signUp"), 64);
    for subscription in [sign_up, listening("mail"), durable("audit")] {
        bridge.subscribe(subscription, recorder.consumer()).await.unwrap();
    }
    bridge
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn close_leaves_no_task_behind() {
    let before = tasks();
    let server = Server::start().await;
    let bridge = serving(&server).await;
    assert!(tasks() > before);
    bridge.close().await.unwrap();
    until_tasks(before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn close_while_the_broker_is_away_leaves_no_task_behind() {
    let before = tasks();
    let mut server = Server::start().await;
    let bridge = serving(&server).await;
    server.kill();
    until(&bridge, BridgeState::Reconnecting).await;
    tokio::time::timeout(PATIENCE, bridge.close()).await.expect("close ends").unwrap();
    until_tasks(before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_dropped_bridge_leaves_no_task_behind() {
    let before = tasks();
    let server = Server::start().await;
    drop(serving(&server).await);
    until_tasks(before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_stopped_durable_subscription_gives_its_session_back_and_the_bridge_stays_connected() {
    let server = Server::start().await;
    let bridge = server.durable("user").await;
    let (before, recorder) = (tasks(), Recorder::default());
    let registration = bridge.subscribe(durable("mail"), recorder.consumer()).await.unwrap();
    registration.stop().await;
    until_tasks(before).await;
    assert_eq!(*bridge.state().borrow(), BridgeState::Connected);
    bridge.publish(event(0)).await.unwrap();
    recorder.expect_nothing_more().await;
    bridge.subscribe(durable("mail"), recorder.consumer()).await.unwrap();
    recorder.next().await;
    bridge.close().await.unwrap();
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_an_error_and_leaves_no_task_behind() {
    let before = tasks();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = MqttBridge::connect(format!("mqtt://127.0.0.1:{port}")).await.unwrap_err();
    assert_eq!(error.kind(), BridgeErrorKind::Rejected);
    assert!(std::error::Error::source(&error).is_some());
    let bad = MqttBridge::builder("mqtt://127.0.0.1").prefix("a/+").connect().await.unwrap_err();
    assert_eq!(bad.kind(), BridgeErrorKind::Rejected);
    until_tasks(before).await;
}

#[tokio::test]
async fn a_peer_that_accepts_and_says_nothing_is_given_up() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("mqtt://{}", silent.local_addr().unwrap());
    let ended = tokio::time::timeout(PATIENCE, MqttBridge::connect(url)).await.expect("it is given up");
    assert_eq!(ended.unwrap_err().kind(), BridgeErrorKind::Rejected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_caller_who_goes_away_while_subscribing_leaves_nothing_behind() {
    let before = tasks();
    let server = Server::start().await;
    let bridge = server.durable("user").await;
    for subscription in [durable("mail"), durable("audit")] {
        let subscribing = bridge.subscribe(subscription, echo());
        // real time: enough to have begun
        let _ = tokio::time::timeout(std::time::Duration::from_millis(2), subscribing).await;
    }
    bridge.close().await.unwrap();
    until_tasks(before).await;
}
