//! kill -9 of a process that handles what comes over a broker: nothing is lost, and what it does in its own store happens once.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends where something is not as it should be"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use purista_amqp::bridge::AmqpBridge;
use purista_core::address::{Address, ServiceId};
use purista_core::bridge::EventBridge;
use purista_core::clock::Clock;
use purista_core::message::{Message, MessageType, Party};
use purista_core::payload::Payload;
use purista_core::text::Text;
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::store::{Direction, EventStore as _, PAGE_MAX};
use purista_mqtt::bridge::MqttBridge;
use purista_nats::bridge::NatsBridge;
use purista_nats::jetstream::JetStream;
use purista_servers::folder::Folder;
use purista_servers::mosquitto::Mosquitto;
use purista_servers::nats::NatsServer;
use purista_servers::rabbitmq::RabbitMq;
use purista_sqlite::store::SqliteStore;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

const SOURCE: ServiceId = ServiceId::new("Source", "1");
const EVENTS: u32 = 400;
/// Behind how many events the process is killed: in the middle of its work each time, since they come faster than it handles.
const KILLED_BEHIND: [u32; 3] = [60, 170, 290];
/// How long anything may take: a server hands over again what a dead process had after 9 s, and that three times.
const PATIENCE: Duration = Duration::from_secs(120);

/// Starts the process that counts, and waits until it listens.
async fn tally(bridge: &str, file: &Path) -> Child {
    let program = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples/tally");
    assert!(program.exists(), "run `cargo build -p purista-wire --example tally` first");
    let mut command = Command::new(program);
    command.arg(bridge).arg(file).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
    assert_eq!(said.as_deref(), Some("listening"));
    child
}

fn counted(clock: &Clock, number: u32) -> Message {
    let sender = Party::anywhere(Address::of(SOURCE, "main"));
    let mut event = Message::new(clock.id(), MessageType::CustomMessage, clock.now_ms(), sender, clock.id());
    event.event_name = Some(Text::known("counted"));
    event.payload = Payload::encoded(format!(r#"{{"number":{number}}}"#).into());
    event
}

/// How often each was tallied, as far as it is in the store.
async fn tallied(file: &Path) -> BTreeMap<u64, usize> {
    let store = SqliteStore::open_read_only(file).unwrap();
    let (mut times, mut from) = (BTreeMap::new(), Position::START);
    loop {
        let page = store.read(&Query::all(), from, Direction::Forwards, PAGE_MAX).await.unwrap();
        let Some(last) = page.last() else { break };
        from = last.position;
        for event in page {
            assert_eq!(&*event.name, "tallied");
            let body: Value = serde_json::from_slice(&event.body).unwrap();
            *times.entry(body["number"].as_u64().unwrap()).or_default() += 1;
        }
    }
    store.close().await.unwrap();
    times
}

async fn each_is_tallied_once(url: &str, source: Arc<dyn EventBridge>) {
    let (folder, clock) = (Folder::fresh("once"), Clock::system());
    let file = folder.join("tally.db");
    let mut child = tally(url, &file).await;
    for number in 0..EVENTS {
        source.publish(counted(&clock, number)).await.unwrap();
        if KILLED_BEHIND.contains(&number) {
            child.kill().await.unwrap();
            child = tally(url, &file).await;
        }
    }
    let all = async {
        while tallied(&file).await.len() < EVENTS as usize {
            tokio::time::sleep(Duration::from_millis(50)).await; // real time: another process works
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("every event is handled");
    drop(child.stdin.take());
    assert!(tokio::time::timeout(PATIENCE, child.wait()).await.unwrap().unwrap().success());
    let more: Vec<_> = tallied(&file).await.into_iter().filter(|(_, times)| *times != 1).collect();
    assert!(more.is_empty(), "more than once: {more:?}");
    let store = SqliteStore::open_read_only(&file).unwrap();
    let keys: Vec<String> = (0..EVENTS).map(|number| format!("@Tally/{number}")).collect();
    let state = store.state(None, &keys).await.unwrap();
    assert_eq!(state.len(), keys.len());
    assert!(state.values().all(|times| times.value == 1), "{state:?}");
    source.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: cargo xtask test"]
async fn killed_in_its_handlers_a_process_does_everything_once_in_its_store_over_jetstream() {
    let server = NatsServer::start_with(&["--jetstream"]).await;
    let source = NatsBridge::builder(server.url()).jetstream(JetStream::default()).connect().await.unwrap();
    each_is_tallied_once(&server.url(), Arc::new(source)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn killed_in_its_handlers_a_process_does_everything_once_in_its_store_over_rabbitmq() {
    let server = RabbitMq::start().await;
    let source = AmqpBridge::connect(server.url()).await.unwrap();
    each_is_tallied_once(&server.url(), Arc::new(source)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn killed_in_its_handlers_a_process_does_everything_once_in_its_store_over_mqtt() {
    let server = Mosquitto::start().await;
    let source = MqttBridge::connect(server.url()).await.unwrap();
    each_is_tallied_once(&server.url(), Arc::new(source)).await;
}
