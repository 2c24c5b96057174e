//! The bridge with JetStream: the suite of all bridges once more, and what is kept when processes and servers go away.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use futures_util::future::BoxFuture;
use purista_conformance::bridge::consumers::{Recorder, consumer};
use purista_conformance::bridge::world::{address, listening};
use purista_conformance::bridge::{BridgeSystem, DeadLetter, Outages};
use purista_core::bridge::{BridgeErrorKind, Delivery, EventBridge, Outcome};
use purista_core::clock::Clock;
use purista_core::message::{Message, MessageType, Party};
use purista_core::payload::Payload;
use purista_core::subscription::{Filter, Subscription};
use purista_core::text::Text;
use purista_nats::bridge::NatsBridge;
use purista_nats::jetstream::JetStream;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::duties::{OneServer, send_without_id};
use crate::server::Server;

const PATIENCE: Duration = Duration::from_secs(20);

fn kept() -> JetStream {
    JetStream::default().max_bytes(512 << 20)
}

/// Which server a test runs on.
#[derive(Clone, Copy)]
pub(crate) enum Version {
    /// The one that Debian brings, which is of 2.9.
    Debian,
    /// The one that `cargo xtask test` installs beside it.
    Newest,
}
use Version::{Debian, Newest};

impl Version {
    async fn start(self) -> Server {
        match self {
            Debian => Server::start_with(&["--jetstream"]).await,
            Newest => {
                let program = std::env::var_os("PURISTA_NATS_SERVER").expect("run `cargo xtask test`");
                Server::start_program(Path::new(&program), &["--config", SYNCHRONOUS]).await
            }
        }
    }
}

/// JetStream that has what it acknowledges on its disk.
const SYNCHRONOUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real_server/synchronous.conf");

async fn server() -> Server {
    Debian.start().await
}

async fn connected(url: String) -> Arc<dyn EventBridge> {
    Arc::new(NatsBridge::builder(url).jetstream(kept()).connect().await.unwrap())
}

/// Each bridge is a process of its own. One that may be lost has a runtime of its own, by which its connection lives.
pub(crate) struct System {
    version: Version,
    server: Server,
    runtimes: Mutex<Vec<(Arc<dyn EventBridge>, Runtime)>>,
    tasks: TaskTracker,
}

impl System {
    pub(crate) async fn on(version: Version) -> Self {
        let (runtimes, tasks) = (Mutex::default(), TaskTracker::new());
        Self { version, server: version.start().await, runtimes, tasks }
    }
}

impl BridgeSystem for System {
    fn bridge(&self) -> BoxFuture<'_, Arc<dyn EventBridge>> {
        Box::pin(connected(self.server.url()))
    }

    fn durable_bridge(&self, _name: &str) -> BoxFuture<'_, Arc<dyn EventBridge>> {
        Box::pin(async {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            let connecting = self.tasks.spawn_on(connected(self.server.url()), runtime.handle());
            let bridge = connecting.await.unwrap();
            self.runtimes.lock().unwrap().push((Arc::clone(&bridge), runtime));
            bridge
        })
    }

    fn outages(&self) -> BoxFuture<'_, Option<Arc<dyn Outages>>> {
        Box::pin(async { Some(OneServer::outages(self.version.start().await, Some(kept()))) })
    }

    fn replay<'s>(&'s self, _subscription: &'s Subscription) -> Option<BoxFuture<'s, DeadLetter>> {
        Some(Box::pin(async {
            let client = self.server.client().await;
            let dead = first_dead_letter(&client).await;
            let header = |name: &str| dead.headers.get(name).unwrap().as_str().to_owned();
            client.publish(header("subject"), dead.payload.clone()).await.unwrap();
            client.flush().await.unwrap();
            let attempts = header("attempts").parse().unwrap();
            DeadLetter { reason: header("reason"), attempts, body: dead.payload.to_vec() }
        }))
    }

    fn send_without_id(&self) -> Option<BoxFuture<'_, ()>> {
        Some(Box::pin(send_without_id(&self.server)))
    }

    fn lose(&self, bridge: Arc<dyn EventBridge>) -> BoxFuture<'_, Option<Arc<dyn EventBridge>>> {
        let mut runtimes = self.runtimes.lock().unwrap();
        let at =
            runtimes.iter().position(|(each, _)| Arc::ptr_eq(each, &bridge)).expect("it was opened here");
        let (_, runtime) = runtimes.remove(at);
        runtime.shutdown_background();
        Box::pin(std::future::ready(None))
    }
}

impl Drop for System {
    fn drop(&mut self) {
        for (_, runtime) in self.runtimes.lock().unwrap().drain(..) {
            runtime.shutdown_background();
        }
    }
}

async fn system() -> System {
    System::on(Debian).await
}

purista_conformance::bridge_suite!(ignore = "needs nats-server: cargo xtask test", system());

/// The newest server: it keeps what it acknowledges on its disk, and a consumer of it knows several subjects.
mod on_the_newest_server {
    use super::{Newest, System};

    purista_conformance::bridge_suite!(ignore = "needs nats-server: cargo xtask test", System::on(Newest));
}

async fn first_dead_letter(client: &async_nats::Client) -> StreamMessage {
    let context = async_nats::jetstream::new(client.clone());
    let stream = context.get_stream("PURISTA_DEAD_LETTERS").await.unwrap();
    let until = Instant::now() + PATIENCE;
    while stream.get_info().await.unwrap().state.messages == 0 {
        assert!(Instant::now() < until, "no dead letter comes");
        tokio::time::sleep(Duration::from_millis(20)).await; // real time: the server keeps it
    }
    stream.get_raw_message(1).await.unwrap()
}

fn event(number: usize) -> Message {
    let clock = Clock::system();
    let sender = Party::anywhere(address("Caller", "main"));
    let mut event = Message::new(clock.id(), MessageType::CustomMessage, clock.now_ms(), sender, clock.id());
    event.event_name = Some(Text::known("userRegistered"));
    event.payload = Payload::encoded(number.to_string().into());
    event.deadline = Some(Instant::now() + PATIENCE);
    event
}

fn durable(name: &str) -> Subscription {
    Subscription { durable: true, ..listening(name, "userRegistered") }
}

async fn refused(bridge: &Arc<dyn EventBridge>, subscription: Subscription) -> String {
    let error =
        bridge.subscribe(subscription, Recorder::default().consumer()).await.expect_err("it is refused");
    assert_eq!(error.kind(), BridgeErrorKind::Rejected);
    error.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: cargo xtask test"]
async fn a_message_in_hand_for_longer_than_the_server_waits_is_handled_once() {
    let server = server().await;
    let bridge = connected(server.url()).await;
    let (began, ended) = (Recorder::default(), Recorder::default());
    let keeps = (began.clone(), ended.clone());
    let slow = consumer(move |delivery: Delivery| {
        let (began, ended) = keeps.clone();
        async move {
            began.keep(delivery.clone());
            tokio::time::sleep(Duration::from_secs(12)).await; // real time: longer than the server waits
            ended.keep(delivery);
            Outcome::Ack
        }
    });
    // There is room for it to be handed over a second time.
    bridge.subscribe(Subscription { in_flight: 4, ..durable("mail") }, slow).await.unwrap();
    bridge.publish(event(1)).await.unwrap();
    began.next().await;
    tokio::time::sleep(Duration::from_secs(11)).await; // real time: as above
    ended.next().await;
    began.expect_nothing_more().await;
    bridge.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: cargo xtask test"]
async fn the_same_message_is_kept_once_however_often_it_is_published() {
    let server = server().await;
    let bridge = connected(server.url()).await;
    let recorder = Recorder::default();
    bridge.subscribe(durable("mail"), recorder.consumer()).await.unwrap();
    let event = event(1);
    for _ in 0..5 {
        bridge.publish(event.clone()).await.unwrap();
    }
    assert_eq!(recorder.message().await.id, event.id);
    bridge.close().await.unwrap();
    recorder.expect_nothing_more().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: cargo xtask test"]
async fn what_is_no_message_and_what_is_given_up_lies_among_the_dead_letters() {
    let server = server().await;
    let bridge = connected(server.url()).await;
    let gives_up = consumer(|_| async { Outcome::DeadLetter { reason: "no such user\nat all".to_owned() } });
    bridge.subscribe(durable("mail"), gives_up).await.unwrap();
    let client = server.client().await;
    let subject =
        "purista.custom_message.empty.empty.i1.caller.1.main.user_registered.empty.empty.empty.empty";
    client.publish(subject, "{".into()).await.unwrap();
    client.flush().await.unwrap();
    let until = Instant::now() + PATIENCE;
    let event = event(7);
    let context = async_nats::jetstream::new(client);
    let stream = context.get_stream("PURISTA_DEAD_LETTERS").await.unwrap();
    for count in 1..=2 {
        while stream.get_info().await.unwrap().state.messages < count {
            assert!(Instant::now() < until, "dead letter {count} is kept");
            tokio::time::sleep(Duration::from_millis(20)).await; // real time: the server keeps it
        }
        bridge.publish(event.clone()).await.unwrap();
    }
    let (first, second) =
        (stream.get_raw_message(1).await.unwrap(), stream.get_raw_message(2).await.unwrap());
    assert_eq!(first.payload, "{");
    let header = |name: &str| second.headers.get(name).map(|value| value.as_str().to_owned());
    assert_eq!(header("reason").as_deref(), Some("no such user at all"));
    assert_eq!(header("attempts").as_deref(), Some("1"));
    assert_eq!(header("subscription").as_deref(), Some("Listener.1.mail"));
    assert!(header("subject").unwrap().contains(".user_registered."));
    assert!(String::from_utf8_lossy(&second.payload).contains(&event.id.to_string()));
    bridge.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: cargo xtask test"]
async fn what_a_stream_cannot_keep_is_refused_with_the_reason() {
    let server = server().await;
    let bridge = connected(server.url()).await;
    let commands = Filter { kind: Some(MessageType::Command), ..Filter::default() };
    let why = refused(&bridge, Subscription { filter: commands, ..durable("mail") }).await;
    assert!(why.contains("only events"), "{why}");
    let own = |name: &'static str| {
        let filter = Filter { kind: Some(MessageType::CustomMessage), ..Filter::event(Text::known(name)) };
        Subscription { filter, ..durable("mail") }
    };
    bridge.subscribe(own("userRegistered"), Recorder::default().consumer()).await.unwrap();
    let why = refused(&bridge, own("userRemoved")).await;
    assert!(why.contains("another name") && why.contains("Listener_1_mail"), "{why}");
    bridge.close().await.unwrap();

    let without = server.bridge("plain").await;
    let why = refused(&without, durable("mail")).await;
    assert!(why.contains(".jetstream("), "{why}");
    without.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn a_server_without_jetstream_and_a_stream_over_commands_are_refused() {
    let plain = Server::start().await;
    let error = NatsBridge::builder(plain.url()).jetstream(kept()).connect().await.unwrap_err();
    assert!(error.to_string().contains("--jetstream"), "{error}");

    let server = server().await;
    let context = async_nats::jetstream::new(server.client().await);
    let all = async_nats::jetstream::stream::Config {
        name: "ALL".to_owned(),
        subjects: vec!["purista.>".to_owned()],
        ..Default::default()
    };
    context.create_stream(all).await.unwrap();
    let error = NatsBridge::builder(server.url()).jetstream(kept()).connect().await.unwrap_err();
    assert!(error.to_string().contains("`ALL`") && error.to_string().contains("commands"), "{error}");
}

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn a_full_stream_refuses_and_loses_nothing() {
    let server = server().await;
    let small = JetStream::default().max_bytes(64 << 10);
    let bridge = NatsBridge::builder(server.url()).jetstream(small).connect().await.unwrap();
    let mut taken = 0;
    let error = loop {
        match bridge.publish(event(taken)).await {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 1_000, "64 KiB are full some time");
    };
    assert_eq!(error.kind(), BridgeErrorKind::Rejected);
    let context = async_nats::jetstream::new(server.client().await);
    let stream = context.get_stream("PURISTA_EVENTS").await.unwrap();
    assert_eq!(stream.get_info().await.unwrap().state.messages, taken as u64);
    bridge.close().await.unwrap();
}
