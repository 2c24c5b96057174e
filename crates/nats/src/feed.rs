//! One subscription: what NATS hands over, on its way to a consumer and back.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::{Subject, Subscriber};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{Stream, StreamExt, unfold};
use purista_core::bridge::{BridgeError, Consumer, Delivery, Feed, Outcome, Registration};
use purista_core::message::{AsRead, Message};
use purista_core::pump::{Pulled, Settle, pump};
use purista_core::refusal;
use purista_core::subscription::Subscription;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;

use crate::jetstream::Streams;
use crate::link::{Link, encode};
use crate::wire;

/// How long a reply waits for a place in the queue to the server: its caller waits no longer for much.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// What a bridge knows of a subscription that it feeds.
pub(crate) trait Intake: Send + Sync {
    /// Whether it was stopped.
    fn is_stopped(&self) -> bool;
    /// Ends the intake without waiting.
    fn drain(&self);
    /// The handle that the bridge gives away.
    fn feed(self: Arc<Self>) -> Arc<dyn Feed>;
}

/// A subscription that is fed.
pub(crate) struct NatsFeed {
    shared: Arc<Shared>,
    pump: Registration,
}

struct Shared {
    link: Link,
    /// Where there are any, they keep the events of replies.
    streams: Option<Streams>,
    subscription: Subscription,
    /// Cancelled when the feed is stopped: what was handed over is still consumed.
    draining: CancellationToken,
    /// Cancelled when there is nothing more to pull.
    drained: CancellationToken,
    /// Told when a message was to come back while the feed drains: that may have been a pause.
    given_up: Notify,
    returned: mpsc::Sender<Arrived>,
}

/// What arrived, as it came: it is read once more only if it comes back, or if somebody must be told what became of it. That
/// is rare, and a copy of what was read would be made for every message.
struct Arrived {
    raw: async_nats::Message,
    /// What is the same at each attempt.
    as_read: AsRead,
    attempt: u32,
}

impl NatsFeed {
    pub(crate) fn start(
        link: Link,
        streams: Option<Streams>,
        subscription: Subscription,
        subscribers: Vec<Subscriber>,
        consumer: Arc<dyn Consumer>,
        tasks: &TaskTracker,
    ) -> Arc<Self> {
        let in_flight = subscription.in_flight.max(1);
        // What comes back is at most what is in flight, since it is pulled before anything new.
        let (returned, returning) = mpsc::channel(in_flight);
        let shared = Arc::new(Shared {
            link,
            streams,
            subscription,
            draining: CancellationToken::new(),
            drained: CancellationToken::new(),
            given_up: Notify::new(),
            returned,
        });
        let source = Source {
            shared: Arc::clone(&shared),
            subscribers: Subscribers { all: subscribers, next: 0 },
            returning,
            draining: Box::pin(shared.draining.clone().cancelled_owned()),
            is_draining: false,
        };
        let pump = pump(source.into_stream(), consumer, in_flight, tasks);
        Arc::new(Self { shared, pump })
    }
}

impl Intake for NatsFeed {
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
struct Handle(Arc<NatsFeed>);

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
        Box::pin(async move {
            // What the server handed to this process no other gets: it is consumed, unless the feed is paused.
            while feed.pump.paused().is_none() {
                tokio::select! {
                    () = feed.shared.drained.cancelled() => break,
                    () = feed.shared.given_up.notified() => {}
                }
            }
            feed.pump.stop().await;
        })
    }
}

/// What NATS hands over, and what comes back.
struct Source {
    shared: Arc<Shared>,
    subscribers: Subscribers,
    returning: mpsc::Receiver<Arrived>,
    /// One for all looks: to begin waiting takes a lock each time.
    draining: Pin<Box<WaitForCancellationFutureOwned>>,
    is_draining: bool,
}

/// One for each subject of a subscription. They are few, so they are asked one after the other, beginning behind the one
/// that had something last; a set that knows which of them were woken polls its task twice a message.
struct Subscribers {
    all: Vec<Subscriber>,
    next: usize,
}

impl Stream for Subscribers {
    type Item = async_nats::Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<async_nats::Message>> {
        let Self { all, next } = &mut *self;
        let (count, mut all_ended) = (all.len(), true);
        for step in 0..count {
            let at = next.wrapping_add(step).checked_rem(count).unwrap_or_default();
            match all.get_mut(at).map(|subscriber| subscriber.poll_next_unpin(cx)) {
                Some(Poll::Ready(Some(raw))) => {
                    *next = at.wrapping_add(1);
                    return Poll::Ready(Some(raw));
                }
                Some(Poll::Pending) => all_ended = false,
                Some(Poll::Ready(None)) | None => {}
            }
        }
        if all_ended { Poll::Ready(None) } else { Poll::Pending }
    }
}

impl Source {
    fn into_stream(self) -> Pin<Box<dyn Stream<Item = Pulled<Settlement>> + Send>> {
        // The guard speaks also when the pump lets go of the stream before its end.
        let ended = self.shared.drained.clone().drop_guard();
        Box::pin(unfold((self, ended), |(mut source, ended)| async move {
            let pulled = source.next().await?;
            Some((pulled, (source, ended)))
        }))
    }

    async fn next(&mut self) -> Option<Pulled<Settlement>> {
        loop {
            let raw = tokio::select! {
                biased;
                Some(again) = self.returning.recv() => {
                    // It was read before.
                    let Some(message) = self.shared.message(&again) else { continue };
                    return Some(self.pulled(again, message));
                }
                () = &mut self.draining, if !self.is_draining => {
                    self.is_draining = true;
                    self.unsubscribe().await;
                    continue;
                }
                raw = self.subscribers.next() => raw,
                // Without a connection the client does not see the end of a subscription.
                () = self.shared.link.watch.lost(), if self.is_draining => {
                    self.subscribers.next().now_or_never().flatten()
                }
            };
            let raw = raw?;
            if let Some(message) = self.shared.read(&raw).await {
                let as_read = AsRead::of(&message);
                return Some(self.pulled(Arrived { raw, as_read, attempt: 1 }, message));
            }
        }
    }

    /// Asks the server for no more; the streams end behind what it had sent.
    async fn unsubscribe(&mut self) {
        for subscriber in &mut self.subscribers.all {
            let until = Instant::now() + REPLY_TIMEOUT;
            let draining = async {
                tokio::select! {
                    asked = subscriber.drain() => asked.is_ok(),
                    () = self.shared.link.watch.lost() => false,
                }
            };
            // When it cannot be asked, the end of the connection tells it.
            let _ = tokio::time::timeout_at(until, draining).await;
        }
    }

    fn pulled(&self, arrived: Arrived, message: Message) -> Pulled<Settlement> {
        let delivery = Delivery { message: message.into(), attempt: arrived.attempt };
        Pulled { delivery, settle: Settlement { shared: Arc::clone(&self.shared), arrived } }
    }
}

impl Shared {
    /// Reads what arrived; `None` when it is not for this subscription, or no message at all.
    async fn read(&self, raw: &async_nats::Message) -> Option<Message> {
        match wire::decode_asked(raw, &self.link.clock) {
            Ok(message) if self.subscription.filter.matches(&message) => Some(message),
            Ok(message) => {
                tracing::debug!(subscription = %self.subscription, message_id = %message.id, "only its subject matched");
                None
            }
            Err(error) => {
                let dropped = self.link.watch.count_dropped();
                tracing::warn!(
                    subscription = %self.subscription, subject = %raw.subject, bytes = raw.payload.len(), dropped,
                    error = &error as &dyn std::error::Error, "what came is no message"
                );
                if let (true, Some(inbox)) = (self.subscription.answers, &raw.reply) {
                    let server = self.link.party(&self.subscription.address);
                    let refused = refusal::unreadable(&raw.payload, &server, &error, &self.link.clock);
                    self.answer_logged(inbox, &refused).await;
                }
                None
            }
        }
    }

    /// What arrived, once more.
    fn message(&self, arrived: &Arrived) -> Option<Message> {
        let message = wire::decode_asked(&arrived.raw, &self.link.clock).ok()?;
        Some(arrived.as_read.once_more(message))
    }

    async fn answer(&self, inbox: &Subject, reply: &Message) -> Result<(), BridgeError> {
        let (body, until) = (encode(reply)?, Instant::now() + REPLY_TIMEOUT);
        self.link.write(inbox.clone(), None, wire::headers(reply), body, until).await
    }

    async fn answer_logged(&self, inbox: &Subject, reply: &Message) {
        if let Err(error) = self.answer(inbox, reply).await {
            tracing::error!(
                subscription = %self.subscription, trace_id = %reply.trace_id,
                error = &error as &dyn std::error::Error, "a reply is lost"
            );
        }
    }
}

/// Tells the caller, or brings the message back.
struct Settlement {
    shared: Arc<Shared>,
    arrived: Arrived,
}

impl Settle for Settlement {
    fn nothing_to_tell(&self, outcome: &Outcome) -> bool {
        !self.shared.subscription.answers && matches!(outcome, Outcome::Ack | Outcome::Drop)
    }

    async fn settle(self, outcome: Outcome) {
        match outcome {
            Outcome::Reply(reply) => self.reply(&reply).await,
            Outcome::Retry { after } => self.come_back(after).await,
            Outcome::DeadLetter { reason } => {
                self.lost(&reason);
                self.fail().await;
            }
            // The pump has said so already; here it only goes back.
            Outcome::Pause { .. } => self.come_back(Duration::ZERO).await,
            // A command that ended without an answer.
            _ => self.fail().await,
        }
    }
}

impl Settlement {
    /// The reply goes to the inbox; one that is marked with an event goes a second time, on its own subject. Where a stream
    /// keeps events it has this one first: a caller who was answered can count on it.
    async fn reply(&self, reply: &Message) {
        let shared = &self.shared;
        let until = Instant::now() + REPLY_TIMEOUT;
        let is_event = reply.routed_event().is_some();
        if let (Some(streams), true) = (&shared.streams, is_event)
            && let Err(error) = streams.publish(&shared.link, reply, until).await
        {
            self.log(reply, &error, "the event of a reply is not kept; the caller is told of a failure");
            return self.fail().await;
        }
        if let Some(inbox) = &self.arrived.raw.reply
            && let Err(error) = shared.answer(inbox, reply).await
        {
            self.log(reply, &error, "a reply cannot be sent; its caller is told of a failure");
            self.fail().await;
        }
        if shared.streams.is_none()
            && is_event
            && let Err(error) = shared.link.write_routed(reply, until).await
        {
            self.log(reply, &error, "the event of a reply is lost");
        }
    }

    fn log(&self, reply: &Message, error: &BridgeError, what: &str) {
        tracing::error!(
            subscription = %self.shared.subscription, trace_id = %reply.trace_id,
            error = error as &dyn std::error::Error, "{what}"
        );
    }

    /// Tells the caller of a command that there is no answer.
    async fn fail(&self) {
        let shared = &self.shared;
        if let (true, Some(inbox)) = (shared.subscription.answers, &self.arrived.raw.reply)
            && let Some(message) = shared.message(&self.arrived)
        {
            let server = shared.link.party(&shared.subscription.address);
            let failure = refusal::unanswered(&message, &server, &shared.link.clock);
            shared.answer_logged(inbox, &failure).await;
        }
    }

    /// Comes back after a time, in this process: core NATS keeps nothing for later.
    async fn come_back(self, after: Duration) {
        let Self { shared, mut arrived } = self;
        let is_back = tokio::select! {
            biased;
            () = shared.draining.cancelled() => false,
            () = tokio::time::sleep(after) => true,
        };
        arrived.attempt = arrived.attempt.saturating_add(1);
        let arrived = if is_back {
            match shared.returned.try_send(arrived) {
                Ok(()) => return,
                Err(
                    mpsc::error::TrySendError::Full(arrived) | mpsc::error::TrySendError::Closed(arrived),
                ) => arrived,
            }
        } else {
            arrived
        };
        let given_up = Self { shared, arrived };
        given_up.lost("it was to be tried again, and its subscription ends");
        given_up.fail().await;
        given_up.shared.given_up.notify_one();
    }

    fn lost(&self, reason: &str) {
        let as_read = &self.arrived.as_read;
        tracing::error!(
            subscription = %self.shared.subscription, reason, message_id = %as_read.id(), trace_id = %as_read.trace_id(),
            attempt = self.arrived.attempt, "a message is lost: NATS without a stream keeps no dead letters, a store does"
        );
    }
}
