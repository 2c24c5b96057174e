//! What is left of a bridge after its end, beside what the suite of all bridges asks: nothing.

use std::time::Duration;

use purista_amqp::bridge::AmqpBridge;
use purista_core::bridge::BridgeErrorKind;

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

#[tokio::test]
async fn a_broker_that_is_not_there_is_an_error_and_leaves_no_task_behind() {
    let before = tasks();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = AmqpBridge::connect(format!("amqp://127.0.0.1:{port}")).await.unwrap_err();
    assert_eq!(error.kind(), BridgeErrorKind::Rejected);
    assert!(std::error::Error::source(&error).is_some());
    until_tasks(before).await;
}
