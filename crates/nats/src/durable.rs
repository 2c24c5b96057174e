//! One durable subscription: what a stream keeps for it, on its way to a consumer and back.
//!
//! No more is asked of the server than this process can handle at once, so that nothing waits here for its turn while another
//! process is idle. What is in hand is spoken for again and again: when a process ends without a word, the server hands its
//! messages to another after [`ACK_WAIT`].

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::jetstream::consumer::Consumer as Place;
use async_nats::jetstream::consumer::pull::{Batch, Config as PlaceConfig};
use async_nats::jetstream::{AckKind, Message as Raw};
use async_nats::{HeaderMap, Subject};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{Stream, StreamExt as _, unfold};
use purista_core::bridge::{BridgeError, Consumer, Delivery, Feed, Outcome, Registration};
use purista_core::message::Message;
use purista_core::pump::{Pulled, Settle, pump};
use purista_core::subscription::Subscription;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::feed::Intake;
use crate::jetstream::{ACK_WAIT, Streams};
use crate::link::Link;
use crate::wire;

/// How long the server holds a question for messages when there are none.
const ASK_FOR: Duration = Duration::from_secs(5);
/// How long is waited before the server is asked again that refused to answer.
const ASK_PAUSE: Duration = Duration::from_millis(500);
/// How often the server hears of what is in hand.
const BEAT: Duration = Duration::from_secs(3);
/// How long the server may take to take a dead letter, or an end.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest reason that a dead letter bears, in bytes.
const REASON_BYTES_MAX: usize = 4096;

/// A durable subscription that is fed.
pub(crate) struct DurableFeed {
    shared: Arc<Shared>,
    pump: Registration,
}

struct Shared {
    link: Link,
    streams: Streams,
    subscription: Subscription,
    /// Cancelled when the feed is stopped.
    draining: CancellationToken,
    /// Places for messages in hand.
    places: Arc<Semaphore>,
    in_hand: Mutex<BTreeMap<u64, Subject>>,
}

impl DurableFeed {
    pub(crate) async fn start(
        link: Link,
        streams: Streams,
        subscription: Subscription,
        consumer: Arc<dyn Consumer>,
        tasks: &TaskTracker,
    ) -> Result<Arc<Self>, BridgeError> {
        let place = streams.consumer(&link, &subscription).await?;
        let in_flight = subscription.in_flight.max(1);
        let shared = Arc::new(Shared {
            link,
            streams,
            subscription,
            draining: CancellationToken::new(),
            places: Arc::new(Semaphore::new(in_flight)),
            in_hand: Mutex::default(),
        });
        let source = Source { shared: Arc::clone(&shared), place, batch: None, free: Vec::new() };
        let ended = CancellationToken::new();
        tasks.spawn(beat(Arc::clone(&shared), ended.clone()));
        let pump = pump(source.into_stream(ended), consumer, in_flight, tasks);
        Ok(Arc::new(Self { shared, pump }))
    }
}

impl Intake for DurableFeed {
    fn is_stopped(&self) -> bool {
        self.shared.draining.is_cancelled()
    }

    fn drain(&self) {
        self.shared.draining.cancel();
    }

    fn feed(self: Arc<Self>) -> Arc<dyn Feed> {
        Arc::new(Handle(self))
    }
}

/// The handle that a bridge gives away.
struct Handle(Arc<DurableFeed>);

impl Feed for Handle {
    fn resume(&self) {
        self.0.pump.resume();
    }

    fn paused(&self) -> Option<String> {
        self.0.pump.paused()
    }

    fn stop(&self) -> BoxFuture<'static, ()> {
        self.0.drain();
        let feed = Arc::clone(&self.0);
        // What is in hand is settled; what is not, the server keeps.
        Box::pin(async move { feed.pump.stop().await })
    }
}

/// Asks the server for messages, as many as there are places.
struct Source {
    shared: Arc<Shared>,
    place: Place<PlaceConfig>,
    batch: Option<Batch>,
    /// The places of the batch that are not taken yet.
    free: Vec<OwnedSemaphorePermit>,
}

impl Source {
    fn into_stream(self, ended: CancellationToken) -> Pin<Box<dyn Stream<Item = Pulled<Settlement>> + Send>> {
        Box::pin(unfold((self, ended.drop_guard()), |(mut source, ended)| async move {
            let pulled = source.next().await?;
            Some((pulled, (source, ended)))
        }))
    }

    async fn next(&mut self) -> Option<Pulled<Settlement>> {
        let shared = Arc::clone(&self.shared);
        loop {
            let Some(batch) = &mut self.batch else {
                tokio::select! {
                    () = shared.draining.cancelled() => return None,
                    () = self.ask() => continue,
                }
            };
            let raw = tokio::select! {
                biased;
                raw = batch.next() => raw,
                () = shared.draining.cancelled() => {
                    self.give_back().await;
                    return None;
                }
                // The question is lost with its connection.
                () = shared.link.watch.lost() => None,
            };
            match raw {
                Some(Ok(raw)) => {
                    let place = self.free.pop();
                    if let Some(pulled) = shared.take(raw, place).await {
                        return Some(pulled);
                    }
                }
                Some(Err(error)) => {
                    tracing::warn!(subscription = %shared.subscription, error, "the stream is asked again");
                    self.batch = None;
                    tokio::select! {
                        () = shared.draining.cancelled() => return None,
                        () = tokio::time::sleep(ASK_PAUSE) => {}
                    }
                }
                None => self.batch = None,
            }
            if self.batch.is_none() {
                self.free.clear();
            }
        }
    }

    /// Waits for places, and asks for as many messages.
    async fn ask(&mut self) {
        let shared = &self.shared;
        let deadline = Instant::now() + ASK_FOR;
        if shared.link.watch.up_until(deadline).await.is_err() {
            // A closed bridge says so at once.
            tokio::time::sleep(ASK_PAUSE).await;
            return;
        }
        let Ok(first) = Arc::clone(&shared.places).acquire_owned().await else { return };
        // Places that become free at the same time are asked for together.
        tokio::task::yield_now().await;
        self.free = std::iter::once(first)
            .chain(std::iter::from_fn(|| Arc::clone(&shared.places).try_acquire_owned().ok()))
            .collect();
        let asking = self.place.batch().max_messages(self.free.len()).expires(ASK_FOR).messages();
        match tokio::time::timeout(ASK_FOR, asking).await {
            Ok(Ok(batch)) => self.batch = Some(batch),
            Ok(Err(error)) => {
                tracing::warn!(subscription = %shared.subscription, %error, "the stream cannot be asked for messages");
                self.free.clear();
                tokio::time::sleep(ASK_PAUSE).await;
            }
            Err(_) => self.free.clear(),
        }
    }

    /// What has arrived and is not taken goes back at once.
    async fn give_back(&mut self) {
        let Some(mut batch) = self.batch.take() else { return };
        while let Some(Some(Ok(raw))) = batch.next().now_or_never() {
            // When it is not heard, the server hands it over again after its time.
            let _ = raw.ack_with(AckKind::Nak(None)).await;
        }
        self.free.clear();
    }
}

impl Shared {
    fn in_hand(&self) -> MutexGuard<'_, BTreeMap<u64, Subject>> {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what arrived; what is not for this subscription is done with, and what is no message becomes a dead letter.
    async fn take(
        self: &Arc<Self>,
        raw: Raw,
        place: Option<OwnedSemaphorePermit>,
    ) -> Option<Pulled<Settlement>> {
        let info = match raw.info() {
            Ok(info) => info,
            Err(error) => {
                tracing::warn!(subscription = %self.subscription, error, "what came is not from a stream");
                return None;
            }
        };
        let sequence = info.stream_sequence;
        let attempt = u32::try_from(info.delivered).unwrap_or(u32::MAX).max(1);
        let name = || format!("{}-{sequence}", info.stream);
        let message = match wire::decode_kept(&raw.message, &self.link.clock, name) {
            Ok(message) if self.subscription.filter.matches(&message) => message,
            Ok(_) => {
                self.tell(&raw, AckKind::Ack).await;
                return None;
            }
            Err(error) => {
                let reason = format!("it is no message: {}", purista_core::error::chain(&error));
                self.keep(&raw, attempt, &reason).await;
                return None;
            }
        };
        if let Some(reply) = &raw.reply {
            self.in_hand().insert(sequence, reply.clone());
        }
        let delivery = Delivery { message: message.clone().into(), attempt };
        let settle = Settlement { shared: Arc::clone(self), raw, message, sequence, attempt, _place: place };
        Some(Pulled { delivery, settle })
    }

    /// Tells the server. When it is not heard, the message comes again.
    async fn tell(&self, raw: &Raw, kind: AckKind) {
        if let Err(error) = raw.ack_with(kind).await {
            tracing::warn!(subscription = %self.subscription, error, "the stream is not told; the message will come again");
        }
    }

    /// Puts it among the dead letters, and only then is it done with.
    async fn keep(&self, raw: &Raw, attempts: u32, reason: &str) {
        let mut headers = HeaderMap::new();
        let mut put = |name: &str, value: &str| {
            let line: String = value.chars().map(|each| if each.is_control() { ' ' } else { each }).collect();
            headers.insert(name, line.as_str());
        };
        let reason = reason.get(..reason.floor_char_boundary(REASON_BYTES_MAX)).unwrap_or_default();
        put("reason", reason);
        put("attempts", &attempts.to_string());
        put("subscription", &self.subscription.address.to_string());
        put("subject", &raw.subject);
        put("at", &self.link.clock.now().to_string());
        if let Ok(info) = raw.info() {
            put("stream", info.stream);
            put("sequence", &info.stream_sequence.to_string());
            // Once, however often it is put there.
            put("Nats-Msg-Id", &format!("{}-{}", info.consumer, info.stream_sequence));
        }
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        let kept =
            self.streams.dead_letter(&self.link, &self.subscription, headers, raw.payload.clone(), deadline);
        match kept.await {
            Ok(()) => {
                tracing::error!(subscription = %self.subscription, reason, attempts, "a message is given up and kept");
                self.tell(raw, AckKind::Ack).await;
            }
            Err(error) => {
                tracing::error!(
                    subscription = %self.subscription, error = &error as &dyn std::error::Error,
                    "a dead letter cannot be kept; its message will come again"
                );
                self.tell(raw, AckKind::Nak(Some(ACK_WAIT))).await;
            }
        }
    }
}

/// Tells the server of what is in hand, until the feed has ended and nothing is.
async fn beat(shared: Arc<Shared>, ended: CancellationToken) {
    let mut is_over = false;
    loop {
        tokio::select! {
            () = ended.cancelled(), if !is_over => is_over = true,
            () = tokio::time::sleep(BEAT) => {}
        }
        let replies: Vec<_> = shared.in_hand().values().cloned().collect();
        if is_over && replies.is_empty() {
            return;
        }
        for reply in replies {
            let told = shared.link.client.publish(reply, AckKind::Progress.into()).await;
            if let Err(error) = told {
                tracing::debug!(subscription = %shared.subscription, %error, "the stream does not hear of a message in hand");
            }
        }
    }
}

/// Tells the stream what became of a message.
struct Settlement {
    shared: Arc<Shared>,
    raw: Raw,
    message: Message,
    sequence: u64,
    attempt: u32,
    /// Free again when it is told.
    _place: Option<OwnedSemaphorePermit>,
}

impl Settle for Settlement {
    async fn settle(self, outcome: Outcome) {
        match outcome {
            Outcome::Retry { after } => {
                let after = Some(after).filter(|after| !after.is_zero());
                self.shared.tell(&self.raw, AckKind::Nak(after)).await;
            }
            Outcome::Pause { .. } => self.shared.tell(&self.raw, AckKind::Nak(None)).await,
            Outcome::DeadLetter { reason } => {
                tracing::debug!(trace_id = %self.message.trace_id, "a dead letter is on its way");
                self.shared.keep(&self.raw, self.attempt, &reason).await;
            }
            _ => self.shared.tell(&self.raw, AckKind::Ack).await,
        }
    }
}

impl Drop for Settlement {
    fn drop(&mut self) {
        self.shared.in_hand().remove(&self.sequence);
    }
}
