//! How much memory a process takes whose consumer is slow while very much waits at the broker: asked in soak tests.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use purista_core::bridge::{Delivery, EventBridge, Outcome};
use purista_core::payload::Payload;
use purista_core::subscription::Subscription;
use tokio::sync::Notify;

use super::consumers::{Recorder, consumer};
use super::world::{World, listening, subscribe};

/// So many messages wait when the consumer begins, of so many bytes each: more than a hundred times what it may take.
const WAITING: usize = 100_000;
const MESSAGE_BYTES: usize = 1024;
const IN_FLIGHT: usize = 64;
/// How long each message is in the consumer's hands.
const SLOWLY: Duration = Duration::from_millis(20);
/// How many publications are on their way at a time.
const PUBLISHES: usize = 256;
/// What the process may grow by: what is in flight in the client, in the pump and in buffers; the waiting ones are 100 MiB.
const GROWTH_MAX: usize = 24 << 20;

/// A durable subscription with 100,000 messages waiting and a slow consumer: each comes, no more than are allowed are in hand,
/// and the memory of the process stays flat. Prints its figures.
pub async fn memory_stays_flat_with_100_000_waiting(world: &World) {
    let mail = Subscription { durable: true, in_flight: IN_FLIGHT, ..listening("mail", "userRegistered") };
    let first = world.durable_bridge("first").await;
    subscribe(&first, mail.clone(), Recorder::default().consumer()).await;
    first.close().await.expect("close succeeds");
    publish_all(world, &world.bridge().await).await;

    let before = resident_bytes();
    let (peak, hands) = (Arc::new(AtomicUsize::new(before)), Arc::new(Hands::new()));
    let (peaks, held) = (Arc::clone(&peak), Arc::clone(&hands));
    let slow = consumer(move |delivery: Delivery| {
        let (peaks, held) = (Arc::clone(&peaks), Arc::clone(&held));
        async move {
            held.most.fetch_max(held.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(SLOWLY).await; // real time: it is slow
            held.now.fetch_sub(1, Ordering::SeqCst);
            if held.done(&delivery).is_multiple_of(1_000) {
                peaks.fetch_max(resident_bytes(), Ordering::SeqCst);
            }
            Outcome::Ack
        }
    });
    let again = world.durable_bridge("first").await;
    subscribe(&again, mail, slow).await;
    hands.until_all().await;
    let (peak, most) = (peak.load(Ordering::SeqCst), hands.most.load(Ordering::SeqCst));
    println!(
        "{}: {WAITING} of {MESSAGE_BYTES} B waiting, {} MiB before, {} MiB at most, {most} in hand",
        again.capabilities().name,
        before >> 20,
        peak >> 20
    );
    assert!(most <= IN_FLIGHT, "{most} were in hand");
    assert!(peak - before < GROWTH_MAX, "it grew by {} MiB", (peak - before) >> 20);
}

async fn publish_all(world: &World, source: &Arc<dyn EventBridge>) {
    let text = "x".repeat(MESSAGE_BYTES);
    stream::iter(0..WAITING)
        .for_each_concurrent(PUBLISHES, |nth| {
            let mut event = world.event("userRegistered");
            event.payload =
                Payload::encoded(format!(r#"{{"nth":{nth},"text":"{text}"}}"#).into_bytes().into());
            async move { source.publish(event).await.expect("it is kept") }
        })
        .await;
}

/// What the consumer has in hand, and what it had.
struct Hands {
    now: AtomicUsize,
    most: AtomicUsize,
    /// Of which messages, and how many of them.
    seen: Mutex<(Vec<bool>, usize)>,
    all: Notify,
}

impl Hands {
    fn new() -> Self {
        let seen = Mutex::new((vec![false; WAITING], 0));
        Self { now: AtomicUsize::new(0), most: AtomicUsize::new(0), seen, all: Notify::new() }
    }

    /// Notes one as done; how many different ones there were.
    fn done(&self, delivery: &Delivery) -> usize {
        let text = super::world::text(&delivery.message);
        let nth = text.strip_prefix(r#"{"nth":"#).and_then(|text| text.split(',').next());
        let nth: usize = nth.and_then(|nth| nth.parse().ok()).expect("it is one of ours");
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (marks, count) = &mut *seen;
        *count += usize::from(!std::mem::replace(marks.get_mut(nth).expect("it is one of ours"), true));
        if *count == WAITING {
            self.all.notify_one();
        }
        *count
    }

    async fn until_all(&self) {
        self.all.notified().await;
    }
}

/// What the kernel says that this process has in memory.
fn resident_bytes() -> usize {
    const PAGE_BYTES: usize = 4096;
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
    let resident = pages.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    resident.expect("the second number is what is resident") * PAGE_BYTES
}
