//! What is left of a bridge after its end, beside what the suite of all bridges asks: nothing.

use purista_conformance::bridge::consumers::{Recorder, echo};
use purista_core::bridge::{BridgeErrorKind, BridgeState};
use purista_mqtt::bridge::MqttBridge;

use crate::messages::{PATIENCE, durable, event};
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
