//! One event for 100 subscriptions in the process, beside a queue of bytes for each of 100 receivers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures_util::FutureExt;
use garde::Validate;
use purista::context::Context;
use purista::host::Host;
use purista::service::Service;
use purista::subscription::subscription;
use purista_benches::callers::{WORKERS, runtime};
use purista_benches::harness::{Contestant, compare, rounds_asked, work};
use purista_core::address::ServiceId;
use purista_core::error::HandlerError;
use purista_core::event::Event;
use purista_core::in_process::{InProcessBridge, QUEUE_MAX};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use tokio::sync::{Notify, mpsc};
use tokio_util::task::TaskTracker;

const LISTENERS: u64 = 100;
/// How many events are emitted in one round.
const EVENTS: u64 = 2_000;
const EMAIL: ServiceId = ServiceId::new("Email", "1");

/// How often a name was written as JSON.
static ENCODED: AtomicU64 = AtomicU64::new(0);

/// Writes a text, and counts that it did.
fn counted<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    ENCODED.fetch_add(1, Ordering::Relaxed);
    serializer.serialize_str(text)
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
struct UserRegistered {
    #[garde(length(min = 1, max = 64))]
    user_id: String,
    #[garde(length(min = 3, max = 120))]
    #[serde(serialize_with = "counted")]
    email: String,
}

impl Event for UserRegistered {
    const NAME: &'static str = "userRegistered";
}

impl UserRegistered {
    fn sample() -> Self {
        Self { user_id: "0af7651916cd43dd8448eb211c80319c".to_owned(), email: "ada@example.com".to_owned() }
    }
}

/// Counts what was received, and tells when all of a round was.
#[derive(Debug, Default)]
struct Received {
    events: AtomicU64,
    /// How many events each receiver gets in a round.
    each: u64,
    all: Notify,
}

impl Received {
    fn new() -> Self {
        Self { each: work(EVENTS), ..Self::default() }
    }

    fn one(&self) {
        if self.events.fetch_add(1, Ordering::Relaxed) + 1 == LISTENERS * self.each {
            self.all.notify_one();
        }
    }

    async fn all(&self) {
        self.all.notified().await;
        self.events.store(0, Ordering::Relaxed);
    }
}

async fn hear(ctx: Context<Arc<Received>>, event: UserRegistered) -> Result<(), HandlerError> {
    std::hint::black_box(&event);
    ctx.resources().one();
    Ok(())
}

/// Names live as long as the program: 100 of them are made once a service.
fn listening_service(received: &Arc<Received>) -> Service {
    let builder = Service::builder(EMAIL, "Listens", Arc::clone(received));
    (0..LISTENERS)
        .fold(builder, |builder, nth| {
            let name: &'static str = Box::leak(format!("listener{nth}").into_boxed_str());
            builder.subscription(subscription(name, hear))
        })
        .build()
}

async fn purista(name: &'static str, bridge: InProcessBridge) -> Result<Contestant<'static>> {
    let received = Arc::new(Received::new());
    let host = Host::builder().bridge(bridge).service(listening_service(&received)).start().await?;
    Ok(Contestant::new(name, work(EVENTS), move || {
        // The contestant owns the host.
        let (client, received) = (host.client(), Arc::clone(&received));
        async move {
            for _ in 0..work(EVENTS) {
                client.emit(UserRegistered::sample()).await?;
            }
            received.all().await;
            Ok(())
        }
        .boxed()
    }))
}

/// A bounded queue and a task for each receiver; the event is written once.
fn queues(name: &'static str, tasks: &TaskTracker, reading: fn(&[u8]) -> Result<()>) -> Contestant<'static> {
    let received = Arc::new(Received::new());
    let queues: Vec<_> = (0..LISTENERS)
        .map(|_| {
            let (sender, mut queue) = mpsc::channel::<Bytes>(QUEUE_MAX);
            let received = Arc::clone(&received);
            tasks.spawn(async move {
                while let Some(json) = queue.recv().await {
                    if reading(&json).is_ok() {
                        received.one();
                    }
                }
            });
            sender
        })
        .collect();
    let queues = Arc::new(queues);
    Contestant::new(name, work(EVENTS), move || {
        let (queues, received) = (Arc::clone(&queues), Arc::clone(&received));
        async move {
            for _ in 0..work(EVENTS) {
                let event = UserRegistered::sample();
                event.validate()?;
                let json = Bytes::from(serde_json::to_vec(&event)?);
                for queue in &*queues {
                    queue.send(json.clone()).await.context("a receiver has ended")?;
                }
            }
            received.all().await;
            Ok(())
        }
        .boxed()
    })
}

fn read(json: &[u8]) -> Result<()> {
    let event: UserRegistered = serde_json::from_slice(json)?;
    event.validate()?;
    std::hint::black_box(&event);
    Ok(())
}

/// Each event was written at most once, however many heard it. Where events are written, each thread also checks the first
/// of a shape, which writes it again.
async fn encoded_at_most_once(bridge: InProcessBridge, events_encoded: u64) -> Result<()> {
    let mut alone = purista("counted", bridge).await?;
    ENCODED.store(0, Ordering::Relaxed);
    alone.round().await?;
    let events = work(EVENTS);
    let encoded = ENCODED.load(Ordering::Relaxed);
    let checked = if events_encoded > 0 { WORKERS as u64 } else { 0 };
    ensure!(
        (events_encoded..=events_encoded + checked).contains(&encoded),
        "{events} events were encoded {encoded} times"
    );
    println!("{events} events for {LISTENERS} subscriptions were encoded {encoded} times");
    Ok(())
}

fn main() -> Result<()> {
    let rounds = rounds_asked(11)?;
    runtime()?.block_on(async {
        encoded_at_most_once(InProcessBridge::new(), 0).await?;
        encoded_at_most_once(InProcessBridge::always_encoding(), work(EVENTS)).await?;
        let tasks = TaskTracker::new();
        let contestants = vec![
            purista("purista, typed", InProcessBridge::new()).await?,
            queues("mpsc<Bytes>, decoded and validated", &tasks, read),
            queues("mpsc<Bytes>, bare", &tasks, |_| Ok(())),
            purista("purista, always encoding", InProcessBridge::always_encoding()).await?,
        ];
        let comparison = compare(rounds, contestants).await?;
        println!("{}", comparison.table("An event for 100 subscriptions in the process", 0));
        let encoding = comparison.ratio(3, 1);
        println!(
            "purista, always encoding, beside mpsc<Bytes>, decoded and validated: {:.2} ({:.2} to {:.2})",
            encoding.median, encoding.min, encoding.max
        );
        Ok(())
    })
}
