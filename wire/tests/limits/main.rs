//! Events that a broker does not take for their size: the relay sets them aside and moves on, health says so, and after the
//! limit was raised they are replayed and arrive.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something is not as it should be"
)]

use std::path::Path;
use std::time::Duration;

use garde::Validate;
use purista::{Command, Context, Event, Host, RunningHost, Service, ServiceId, command, subscription};
use purista_core::bridge::EventBridge;
use purista_core::health::{Condition, PartHealth};
use purista_core::id::Id;
use purista_events::batch::Batch;
use purista_events::store::EventStore;
use purista_events::subscriptions::DeadLetter;
use purista_mqtt::bridge::MqttBridge;
use purista_nats::bridge::NatsBridge;
use purista_servers::folder::Folder;
use purista_servers::mosquitto::Mosquitto;
use purista_servers::nats::NatsServer;
use purista_sqlite::store::SqliteStore;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

const GARDEN: ServiceId = ServiceId::new("Garden", "1");
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
const LIMIT: usize = 64 << 10;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
struct Grown {
    name: String,
    leaves: String,
}

impl Event for Grown {
    const NAME: &'static str = "grown";
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
struct Water {
    leaves: String,
}

impl Command for Water {
    const SERVICE: ServiceId = GARDEN;
    const NAME: &'static str = "water";
    type Output = ();
}

fn small(name: &str) -> Grown {
    Grown { name: name.to_owned(), leaves: String::new() }
}

fn large(name: &str) -> Grown {
    Grown { name: name.to_owned(), leaves: "x".repeat(100_000) }
}

/// The process that records events and relays them.
async fn garden(bridge: impl EventBridge, file: &Path) -> RunningHost {
    let water = command(async |_ctx: Context<()>, _: Water| Ok(()));
    let service = Service::builder(GARDEN, "Grows", ()).command(water).build();
    let store = SqliteStore::open(file).unwrap();
    Host::builder().bridge(bridge).store(store).service(service).start().await.unwrap()
}

/// Another process, which receives them. It hears only what is published while it is connected, so it starts first.
async fn visitor(bridge: impl EventBridge) -> (RunningHost, mpsc::Receiver<String>) {
    let (sender, heard) = mpsc::channel(100);
    let look = subscription("look", move |_ctx: Context<()>, event: Grown| {
        let sender = sender.clone();
        async move { Ok(sender.send(event.name).await?) }
    });
    let service = Service::builder(ServiceId::new("Visitor", "1"), "Looks", ()).subscription(look).build();
    (Host::builder().bridge(bridge).service(service).start().await.unwrap(), heard)
}

async fn until_heard(heard: &mut mpsc::Receiver<String>, name: &str) {
    let hearing = async { while heard.recv().await.expect("the visitor stays") != name {} };
    tokio::time::timeout(PATIENCE, hearing).await.unwrap_or_else(|_| panic!("{name} does not arrive"));
}

async fn relay(host: &RunningHost) -> PartHealth {
    let parts = host.health().current().await.parts;
    parts.into_iter().find(|part| part.name == "relay").unwrap()
}

async fn until_set_aside(host: &RunningHost) {
    let waiting = async {
        while relay(host).await.condition != Condition::Degraded {
            tokio::time::sleep(Duration::from_millis(100)).await; // real time: a broker answers
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("health says so");
    let part = relay(host).await;
    let detail = part.detail.unwrap();
    assert!(detail.contains("1 events could not be published and are set aside"), "{detail}");
}

/// The one dead letter, put back as `purista dead-letters replay` does while no program runs.
async fn replay(file: &Path) -> DeadLetter {
    let store = SqliteStore::open(file).unwrap();
    let letters = store.dead_letters(None, 9).await.unwrap();
    assert_eq!(letters.len(), 1);
    let letter = letters.into_iter().next().unwrap();
    assert_eq!(letter.subscription.as_str(), "purista.relay");
    store.commit(Batch::trying_again(Id::from_random(7), &letter, None)).await.unwrap();
    store.close().await.unwrap();
    letter
}

async fn refuses_what_is_too_large(host: &RunningHost) {
    let error = host.client().emit(large("too large")).await.unwrap_err();
    assert_eq!((error.status().code(), error.may_have_happened()), (413, false), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: cargo xtask test"]
async fn an_event_above_max_payload_of_nats_is_set_aside_and_arrives_once_it_is_raised() {
    let folder = Folder::fresh("limits");
    let (file, configuration) = (folder.join("garden.db"), folder.join("nats.conf"));
    let configure = |bytes: usize| std::fs::write(&configuration, format!("max_payload: {bytes}\n")).unwrap();
    configure(1 << 20);
    let mut server = NatsServer::start_with(&["-c", configuration.to_str().unwrap()]).await;
    let host = garden(NatsBridge::connect(server.url()).await.unwrap(), &file).await;

    // What fits when it is recorded fits no more when it is published.
    server.kill();
    host.client().emit(large("oak")).await.unwrap();
    host.client().emit(small("daisy")).await.unwrap();
    host.stop().await;
    configure(LIMIT);
    server.restart().await;
    let (first, mut heard) = visitor(NatsBridge::connect(server.url()).await.unwrap()).await;
    let host = garden(NatsBridge::connect(server.url()).await.unwrap(), &file).await;
    until_heard(&mut heard, "daisy").await;
    until_set_aside(&host).await;
    refuses_what_is_too_large(&host).await;
    let error = host.client().invoke(Water { leaves: "x".repeat(100_000) }).await.unwrap_err();
    assert_eq!(error.status().code(), 413, "{error}");
    host.stop().await;
    first.stop().await;

    let letter = replay(&file).await;
    assert!(letter.reason.contains("max payload"), "{}", letter.reason);
    server.kill();
    configure(1 << 20);
    server.restart().await;
    let (visitor, mut heard) = visitor(NatsBridge::connect(server.url()).await.unwrap()).await;
    let host = garden(NatsBridge::connect(server.url()).await.unwrap(), &file).await;
    until_heard(&mut heard, "oak").await;
    assert_eq!(relay(&host).await.condition, Condition::Up);
    host.client().emit(large("beech")).await.unwrap();
    until_heard(&mut heard, "beech").await;
    host.stop().await;
    visitor.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn an_event_above_message_size_limit_of_mosquitto_is_set_aside_and_arrives_once_it_is_raised() {
    let folder = Folder::fresh("limits");
    let file = folder.join("garden.db");
    let line = format!("message_size_limit {LIMIT}\n");
    let mut server = Mosquitto::start_with(&format!("allow_anonymous true\n{line}"), |_| ()).await;
    let (first, mut heard) = visitor(MqttBridge::connect(server.url()).await.unwrap()).await;
    let host = garden(MqttBridge::connect(server.url()).await.unwrap(), &file).await;

    // The broker does not say its limit, and ends the connection over the message: that is found out by repetition.
    host.client().emit(large("oak")).await.unwrap();
    host.client().emit(small("daisy")).await.unwrap();
    until_heard(&mut heard, "daisy").await;
    until_set_aside(&host).await;
    host.stop().await;
    first.stop().await;

    replay(&file).await;
    server.kill();
    let configuration = server.folder().join("mosquitto.conf");
    let lines = std::fs::read_to_string(&configuration).unwrap();
    std::fs::write(&configuration, lines.replace(&line, "")).unwrap();
    server.restart().await;
    let (visitor, mut heard) = visitor(MqttBridge::connect(server.url()).await.unwrap()).await;
    let host = garden(MqttBridge::connect(server.url()).await.unwrap(), &file).await;
    until_heard(&mut heard, "oak").await;
    assert_eq!(relay(&host).await.condition, Condition::Up);
    host.stop().await;
    visitor.stop().await;
}
