//! What is left of a bridge after its end: nothing.

use std::sync::Arc;
use std::time::Duration;

use purista_conformance::bridge::consumers::Recorder;
use purista_conformance::bridge::world::address;
use purista_core::bridge::{BridgeErrorKind, BridgeState, EventBridge};
use purista_core::subscription::Subscription;
use purista_nats::bridge::NatsBridge;

use crate::server::Server;

const PATIENCE: Duration = Duration::from_secs(20);

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

async fn serving(server: &Server) -> Arc<dyn EventBridge> {
    let bridge = server.bridge("user").await;
    let recorder = Recorder::default();
    bridge
        .subscribe(Subscription::command(address("User", "signUp"), 64), recorder.consumer())
        .await
        .unwrap();
    bridge
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: cargo xtask test"]
async fn close_leaves_no_task_behind() {
    let before = tasks();
    let server = Server::start().await;
    let bridge = serving(&server).await;
    assert!(tasks() > before);
    bridge.close().await.unwrap();
    until_tasks(before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: cargo xtask test"]
async fn close_while_the_server_is_away_leaves_no_task_behind() {
    let before = tasks();
    let mut server = Server::start().await;
    let bridge = serving(&server).await;
    server.kill();
    let mut state = bridge.state();
    state.wait_for(|state| *state == BridgeState::Reconnecting).await.unwrap();
    tokio::time::timeout(PATIENCE, bridge.close()).await.expect("close ends").unwrap();
    until_tasks(before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: cargo xtask test"]
async fn a_dropped_bridge_leaves_no_task_behind() {
    let before = tasks();
    let server = Server::start().await;
    drop(serving(&server).await);
    until_tasks(before).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_and_leaves_no_task_behind() {
    let before = tasks();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = NatsBridge::connect(format!("nats://127.0.0.1:{port}")).await.unwrap_err();
    assert_eq!(error.kind(), BridgeErrorKind::Rejected);
    assert!(std::error::Error::source(&error).is_some());
    let bad = NatsBridge::builder("nats://127.0.0.1").prefix("a.*").connect().await.unwrap_err();
    assert_eq!(bad.kind(), BridgeErrorKind::Rejected);
    until_tasks(before).await;
}
