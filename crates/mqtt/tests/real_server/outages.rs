//! A connection that another process takes, and what comes faster than it is consumed.

use std::sync::Arc;

use purista_conformance::bridge::consumers::Recorder;
use purista_core::bridge::{BridgeState, EventBridge};
use purista_mqtt::bridge::MqttBridge;
use tokio::sync::Notify;

use crate::messages::{event, listening, until};
use crate::server::Server;

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_full_queue_is_counted_and_harms_no_other() {
    let server = Server::start().await;
    let slow = MqttBridge::builder(server.url()).subscription_capacity(4).connect().await.unwrap();
    let (goes_on, recorder, other) = (Arc::new(Notify::new()), Recorder::default(), Recorder::default());
    let mut one = listening("mail");
    one.in_flight = 1;
    slow.subscribe(one, recorder.holding(&goes_on)).await.unwrap();
    slow.subscribe(listening("audit"), other.consumer()).await.unwrap();
    slow.publish(event(0)).await.unwrap();
    recorder.next().await;
    for n in 1..=20 {
        slow.publish(event(n)).await.unwrap();
        other.next().await;
    }
    assert_eq!(slow.messages_dropped(), 16, "of 20 found no place");
    goes_on.notify_one();
    slow.close().await.unwrap();
    assert_eq!(recorder.rest().await.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn who_loses_its_name_to_another_process_comes_back_with_growing_delays() {
    let server = Server::start().await;
    let first = server.bridge("same").await;
    let second = server.bridge("same").await;
    until(&first, BridgeState::Reconnecting).await;
    until(&first, BridgeState::Connected).await;
    second.close().await.unwrap();
    until(&first, BridgeState::Connected).await;
    first.close().await.unwrap();
}
