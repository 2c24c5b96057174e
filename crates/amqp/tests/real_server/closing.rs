//! What is left of a bridge after its end: nothing.

use std::sync::Arc;
use std::time::Duration;

use purista_amqp::bridge::AmqpBridge;
use purista_conformance::bridge::consumers::Recorder;
use purista_conformance::bridge::world::{address, listening};
use purista_core::bridge::{BridgeErrorKind, BridgeState, EventBridge};
use purista_core::subscription::Subscription;

use crate::server::{Server, System};

const PATIENCE: Duration = Duration::from_secs(30);

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

async fn serving(system: &System) -> Arc<dyn EventBridge> {
    let bridge = system.bridge("user").await;
    let recorder = Recorder::default();
    bridge
        .subscribe(Subscription::command(address("User", "signUp"), 64), recorder.consumer())
        .await
        .unwrap();
    bridge.subscribe(listening("mail", "userRegistered"), recorder.consumer()).await.unwrap();
    bridge
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn close_leaves_no_task_behind() {
    let system = Server::shared().await.system();
    let before = tasks();
    let bridge = serving(&system).await;
    assert!(tasks() > before);
    tokio::time::timeout(PATIENCE, bridge.close()).await.expect("close ends").unwrap();
    until_tasks(before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn close_while_the_broker_is_away_leaves_no_task_behind() {
    let mut server = Server::start().await;
    let before = tasks();
    let bridge = serving(&server.system()).await;
    server.kill();
    let mut state = bridge.state();
    state.wait_for(|state| *state == BridgeState::Reconnecting).await.unwrap();
    tokio::time::timeout(PATIENCE, bridge.close()).await.expect("close ends").unwrap();
    until_tasks(before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn a_dropped_bridge_leaves_no_task_behind() {
    let system = Server::shared().await.system();
    let before = tasks();
    drop(serving(&system).await);
    until_tasks(before).await;
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_an_error_and_leaves_no_task_behind() {
    let before = tasks();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = AmqpBridge::connect(format!("amqp://127.0.0.1:{port}")).await.unwrap_err();
    assert_eq!(error.kind(), BridgeErrorKind::Rejected);
    assert!(std::error::Error::source(&error).is_some());
    until_tasks(before).await;
}
