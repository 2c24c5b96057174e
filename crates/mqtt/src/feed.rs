//! One subscription: what MQTT hands over, on its way to a consumer and back.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{Stream, unfold};
use purista_core::address::{Address, AddressParts};
use purista_core::bridge::{BridgeError, BridgeErrorKind, Consumer, Delivery, Feed, Outcome, Registration};
use purista_core::message::{AsRead, DecodeError, Message, Party};
use purista_core::pump::{Pulled, Settle, pump};
use purista_core::refusal;
use purista_core::status::Status;
use purista_core::subscription::Subscription;
use rumqttc::Publish;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::address::sender_instance_of;
use crate::hub::{Hub, Inlet};
use crate::in_hand::{InHand, Key, Known};
use crate::link::Link;
use crate::queue::{Arrival, Queue};
use crate::session::Session;
use crate::wire;

/// How long a reply is tried for: as long as a lost connection takes to come back, and no longer, since who closes a bridge waits
/// for the replies under way.
const REPLY_TIMEOUT: Duration = Duration::from_secs(7);

/// Where the messages of a subscription come from.
pub(crate) enum Origin {
    /// From the connection of all, through this place in its table; acknowledged when they arrived.
    Hub(Arc<Hub>, Inlet),
    /// From a session of its own; acknowledged when they are done.
    Own(Arc<Session>, InHand),
}

/// A subscription that is fed.
pub(crate) struct MqttFeed {
    shared: Arc<Shared>,
    pump: Registration,
}

struct Shared {
    link: Arc<Link>,
    subscription: Subscription,
    origin: Origin,
    /// Where replies are published.
    replying: Arc<Session>,
    queue: Arc<Queue>,
    /// Cancelled when the feed is stopped: what was handed over is still consumed.
    draining: CancellationToken,
    /// Cancelled when there is nothing more to pull.
    drained: CancellationToken,
    /// Cancelled when all is over.
    ended: CancellationToken,
    /// Told when a message was to come back while the feed drains: that may have been a pause.
    given_up: Notify,
    returned: mpsc::Sender<Arrived>,
}

/// What is to be consumed, as it came: it is read once more only if it comes back, or if somebody must be told what became
/// of it. That is rare, and a copy of what was read would be made for every message.
struct Arrived {
    arrival: Arrival,
    /// What is the same at each attempt.
    as_read: AsRead,
    /// What the broker is told of in the end, of a durable subscription.
    key: Option<Key>,
    attempt: u32,
}

impl MqttFeed {
    pub(crate) fn start(
        link: Arc<Link>,
        subscription: Subscription,
        origin: Origin,
        replying: Arc<Session>,
        queue: Arc<Queue>,
        consumer: Arc<dyn Consumer>,
        tasks: &TaskTracker,
    ) -> Arc<Self> {
        let in_flight = subscription.in_flight.max(1);
        // What comes back is at most what is in flight: of a durable subscription the broker sends no more, of others it is
        // pulled before anything new.
        let (returned, returning) = mpsc::channel(in_flight);
        let shared = Arc::new(Shared {
            link,
            subscription,
            origin,
            replying,
            queue,
            draining: CancellationToken::new(),
            drained: CancellationToken::new(),
            ended: CancellationToken::new(),
            given_up: Notify::new(),
            returned,
        });
        let source = Source { shared: Arc::clone(&shared), returning };
        let pump = pump(source.into_stream(), consumer, in_flight, tasks);
        let feed = Arc::new(Self { shared, pump });
        tasks.spawn(Arc::clone(&feed).end());
        feed
    }

    /// Whether it was stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        self.shared.draining.is_cancelled()
    }

    /// Ends the intake without waiting.
    pub(crate) fn drain(&self) {
        self.shared.draining.cancel();
    }

    /// Waits until the feed is stopped, and sees it to its end.
    async fn end(self: Arc<Self>) {
        let shared = &self.shared;
        let _ended = shared.ended.clone().drop_guard();
        shared.draining.cancelled().await;
        match &shared.origin {
            Origin::Hub(hub, inlet) => hub.remove(&shared.replying, inlet).await,
            // The broker keeps them, and brings them again.
            Origin::Own(..) => shared.queue.forget(),
        }
        shared.queue.close();
        // What the broker handed over for good no other gets: it is consumed, unless the feed is paused.
        while self.pump.paused().is_none() {
            tokio::select! {
                () = shared.drained.cancelled() => break,
                () = shared.given_up.notified() => {}
            }
        }
        self.pump.stop().await;
        if let Origin::Own(session, _) = &shared.origin {
            session.stop().await;
        }
    }
}

/// The handle that a bridge gives away.
pub(crate) struct Handle(pub(crate) Arc<MqttFeed>);

impl Feed for Handle {
    fn resume(&self) {
        self.0.pump.resume();
    }

    fn paused(&self) -> Option<String> {
        self.0.pump.paused()
    }

    fn stop(&self) -> BoxFuture<'static, ()> {
        self.0.drain();
        let ended = self.0.shared.ended.clone();
        Box::pin(async move { ended.cancelled().await })
    }
}

/// What MQTT hands over, and what comes back.
struct Source {
    shared: Arc<Shared>,
    returning: mpsc::Receiver<Arrived>,
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
            let arrival = tokio::select! {
                biased;
                Some(again) = self.returning.recv() => {
                    // It was read before.
                    let Some(message) = self.shared.message(&again) else { continue };
                    return Some(self.pulled(again, message));
                }
                arrival = self.shared.queue.next() => arrival?,
            };
            if let Some((message, key)) = self.shared.read(&arrival).await {
                let as_read = AsRead::of(&message);
                return Some(self.pulled(Arrived { arrival, as_read, key, attempt: 1 }, message));
            }
        }
    }

    fn pulled(&self, arrived: Arrived, message: Message) -> Pulled<Settlement> {
        let delivery = Delivery { message: message.into(), attempt: arrived.attempt };
        Pulled { delivery, settle: Settlement { shared: Arc::clone(&self.shared), arrived } }
    }
}

impl Shared {
    /// Reads what arrived; `None` when it is not for this subscription, or no message at all.
    async fn read(&self, arrival: &Arrival) -> Option<(Message, Option<Key>)> {
        if let Some(bytes) = arrival.oversize {
            self.reject_oversize(arrival, bytes).await;
            return None;
        }
        match self.decode(&arrival.raw) {
            Ok(message) if self.is_wanted(&message) => self.taken(message, arrival).await,
            Ok(message) => {
                tracing::debug!(subscription = %self.subscription, message_id = %message.id, "only its topic matched");
                self.acknowledge(arrival).await;
                None
            }
            Err(error) => {
                let dropped = self.link.count_dropped();
                tracing::warn!(
                    subscription = %self.subscription, topic = %String::from_utf8_lossy(&arrival.raw.topic),
                    bytes = arrival.raw.payload.len(), dropped, error = &error as &dyn std::error::Error,
                    "what came is no message"
                );
                if self.subscription.answers {
                    let server = self.link.party(&self.subscription.address);
                    let refused =
                        refusal::unreadable(&arrival.raw.payload, &server, &error, &self.link.clock);
                    self.reply_to_sender(refused, &arrival.raw).await;
                }
                self.acknowledge(arrival).await;
                None
            }
        }
    }

    /// Reads a message. The sender of a command is where its reply goes; what the body leaves out of it is in the topic.
    fn decode(&self, raw: &Publish) -> Result<Message, DecodeError> {
        let mut message = wire::decode(raw, &self.link.clock)?;
        if self.subscription.answers {
            if message.sender.instance.is_none() {
                message.sender.instance = sender_instance_of(&self.link.prefix, &raw.topic);
            }
            if message.correlation_id.is_none() {
                message.correlation_id = wire::correlation_id(raw);
            }
        }
        Ok(message)
    }

    /// Drops a message that is larger than the bridge accepts: a command gets a reply of 413.
    async fn reject_oversize(&self, arrival: &Arrival, bytes: usize) {
        let (most, dropped) = (self.link.message_bytes_max, self.link.count_dropped());
        tracing::error!(
            subscription = %self.subscription, topic = %String::from_utf8_lossy(&arrival.raw.topic), bytes, most, dropped,
            "a message from MQTT is lost: it is larger than the bridge accepts"
        );
        if self.subscription.answers {
            let server = self.link.party(&self.subscription.address);
            let told = format!("the command has {bytes} bytes, more than the {most} that are accepted");
            let refused = refusal::refused(&[], &server, Status::PAYLOAD_TOO_LARGE, &told, &self.link.clock);
            self.reply_to_sender(refused, &arrival.raw).await;
        }
        self.acknowledge(arrival).await;
    }

    /// Sends an error reply for a command that was not decoded. Its topic names the sender where its body does not.
    async fn reply_to_sender(&self, mut reply: Message, raw: &Publish) {
        let unnamed = || AddressParts { service: "".into(), version: "".into(), target: "".into() };
        let caller = reply.receiver.get_or_insert_with(|| Party::anywhere(Address::from(unnamed())));
        if caller.instance.is_none() {
            caller.instance = sender_instance_of(&self.link.prefix, &raw.topic);
        }
        // Without a sender there is no caller to reply to.
        if caller.instance.is_none() {
            return;
        }
        if let Some(call) = wire::correlation_id(raw).filter(|_| reply.correlation_id.is_none()) {
            reply.correlation_id = Some(call);
        }
        self.answer_logged(&reply, reply_until()).await;
    }

    /// The filter is asked again: a topic is lossy. An event's name is one only where the message is routed by it.
    fn is_wanted(&self, message: &Message) -> bool {
        let filter = &self.subscription.filter;
        filter.matches(message) && (filter.event_names.is_empty() || message.routed_event().is_some())
    }

    async fn taken(&self, message: Message, arrival: &Arrival) -> Option<(Message, Option<Key>)> {
        let Origin::Own(_, in_hand) = &self.origin else { return Some((message, None)) };
        let key = Key::of(arrival, &message.id);
        match in_hand.take(&key, arrival) {
            Known::New => Some((message, Some(key))),
            Known::InHand => None,
            Known::Done => {
                self.acknowledge(arrival).await;
                None
            }
        }
    }

    /// What arrived, once more.
    fn message(&self, arrived: &Arrived) -> Option<Message> {
        let message = self.decode(&arrived.arrival.raw).ok()?;
        Some(arrived.as_read.once_more(message))
    }

    /// Tells the broker of a durable subscription's message; of others it has been told.
    async fn acknowledge(&self, arrival: &Arrival) {
        if matches!(self.origin, Origin::Own(..)) {
            arrival.line.acknowledge(&arrival.raw).await;
        }
    }

    /// Publishes a reply until the broker has it.
    async fn answer(&self, reply: &Message, until: Instant) -> Result<(), BridgeError> {
        let mut after = 0;
        loop {
            let line = self.replying.line_after(after, until).await?;
            let raw = wire::publication(&self.link.prefix, reply, Instant::now())?;
            match line.publish(raw, until).await {
                Ok(_) => return Ok(()),
                // A second one finds nobody who waits.
                Err(error) if error.kind() == BridgeErrorKind::Unknown => after = line.number,
                Err(error) => return Err(error),
            }
        }
    }

    async fn answer_logged(&self, reply: &Message, until: Instant) {
        if let Err(error) = self.answer(reply, until).await {
            tracing::error!(
                subscription = %self.subscription, trace_id = %reply.trace_id,
                error = &error as &dyn std::error::Error, "a reply is lost"
            );
        }
    }
}

/// Until when what begins now is answered, in one way or another.
fn reply_until() -> Instant {
    Instant::now() + REPLY_TIMEOUT
}

/// Tells the caller and the broker, or brings the message back.
struct Settlement {
    shared: Arc<Shared>,
    arrived: Arrived,
}

impl Settle for Settlement {
    fn nothing_to_tell(&self, outcome: &Outcome) -> bool {
        let is_told = !self.shared.subscription.answers && self.arrived.key.is_none();
        is_told && matches!(outcome, Outcome::Ack | Outcome::Drop)
    }

    async fn settle(self, outcome: Outcome) {
        match outcome {
            Outcome::Retry { after } => return self.come_back(after).await,
            // The pump has said so already; here it only goes back.
            Outcome::Pause { .. } => return self.come_back(Duration::ZERO).await,
            Outcome::Reply(reply) => self.reply(&reply).await,
            Outcome::DeadLetter { reason } => {
                self.lost(&reason);
                self.fail(reply_until()).await;
            }
            // A command that ended without an answer.
            _ => self.fail(reply_until()).await,
        }
        self.done().await;
    }
}

impl Settlement {
    /// One message is both the reply and, when it is marked with one, the event.
    async fn reply(&self, reply: &Message) {
        let until = reply_until();
        if let Err(error) = self.shared.answer(reply, until).await {
            tracing::error!(
                subscription = %self.shared.subscription, trace_id = %reply.trace_id,
                error = &error as &dyn std::error::Error, "a reply cannot be sent; its caller is told of a failure"
            );
            self.fail(until).await;
        }
    }

    /// Tells the caller of a command that there is no answer.
    async fn fail(&self, until: Instant) {
        let shared = &self.shared;
        if let (true, Some(message)) = (shared.subscription.answers, shared.message(&self.arrived)) {
            let server = shared.link.party(&shared.subscription.address);
            let failure = refusal::unanswered(&message, &server, &shared.link.clock);
            shared.answer_logged(&failure, until).await;
        }
    }

    /// Tells the broker that the message need not come again.
    async fn done(&self) {
        if let (Origin::Own(_, in_hand), Some(key)) = (&self.shared.origin, &self.arrived.key)
            && let Some(arrival) = in_hand.done(key)
        {
            arrival.line.acknowledge(&arrival.raw).await;
        }
    }

    /// Comes back after a time, in this process: MQTT knows no way to give a message back. The broker keeps one of a durable
    /// subscription meanwhile, and for the next process when this one ends.
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
        if given_up.arrived.key.is_none() {
            given_up.lost("it was to be tried again, and its subscription ends");
            given_up.fail(reply_until()).await;
        }
        given_up.shared.given_up.notify_one();
    }

    fn lost(&self, reason: &str) {
        let as_read = &self.arrived.as_read;
        let dropped = self.shared.link.count_dropped();
        tracing::error!(
            subscription = %self.shared.subscription, reason, message_id = %as_read.id(), trace_id = %as_read.trace_id(),
            attempt = self.arrived.attempt, dropped,
            "a message is lost: MQTT keeps no dead letters, a store does"
        );
    }
}
