//! What becomes of a message: it is acknowledged, answered, comes back later, or is kept as a dead letter.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lapin::message::Delivery as Raw;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::types::ShortString;
use lapin::{Acker, BasicProperties};
use purista_core::bridge::{BridgeError, BridgeErrorKind, Delivery, Outcome};
use purista_core::id::Id;
use purista_core::message::{AsRead, Message};
use purista_core::pump::{Pulled, Settle};
use purista_core::refusal;
use purista_core::status::Status;
use tokio::time::Instant;

use crate::address::{retry_delay, short};
use crate::history;
use crate::link::Destination;
use crate::shared::Shared;
use crate::wire;

/// How long a message that has to be sent may take: its caller waits no longer for much, and what is not acknowledged comes
/// again.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a reply waits for the broker's word: a caller waits no longer for much, and a bridge that closes waits for it.
const REPLY_TIMEOUT: Duration = Duration::from_secs(7);
/// How long the client may take to write what becomes of a message. When a connection ends it does not end everything that waits
/// for it: then the broker hands the message over again. What is queued is written also when nobody waits any more.
const TELL_TIMEOUT: Duration = Duration::from_secs(2);
/// After which time a message is given back that could not be put where it belongs.
const GIVE_BACK_PAUSE: Duration = Duration::from_secs(1);

/// A message as the broker handed it over.
struct Parcel {
    body: Bytes,
    properties: BasicProperties,
    acker: Acker,
    /// Where it came from.
    queue: ShortString,
    attempt: u32,
}

/// Reads what arrived; `None` when it is not for this subscription, or no message at all.
pub(crate) async fn read(
    shared: &Arc<Shared>,
    mut raw: Raw,
    queue: ShortString,
) -> Option<Pulled<Settlement>> {
    let body = Bytes::from(std::mem::take(&mut raw.data));
    let (properties, subscription) = (raw.properties, &shared.subscription);
    let attempt = history::attempt(&properties);
    let mut parcel = Parcel { body, properties, acker: raw.acker, queue, attempt };
    if subscription.answers {
        // Before it runs: a command is done at most once.
        parcel.acknowledge().await;
        if raw.redelivered {
            let told = "whoever served the command went away; it may have been done";
            let server = shared.link.party(&subscription.address);
            let uncertain = refusal::uncertain(&parcel.body, &server, told, &shared.link.clock);
            shared.answer_in_place(&parcel, uncertain).await;
            return None;
        }
    }
    if parcel.body.len() > shared.link.message_bytes_max {
        shared.unreadable(parcel, Status::PAYLOAD_TOO_LARGE, "the message is too large").await;
        return None;
    }
    match wire::decode(&parcel.body, &parcel.properties, &shared.link.clock) {
        Ok(message) if subscription.filter.matches(&message) => {
            parcel.name(&message);
            let as_read = AsRead::of(&message);
            let delivery = Delivery { message: message.into(), attempt };
            let settle = Settlement { shared: Arc::clone(shared), parcel, as_read };
            Some(Pulled { delivery, settle })
        }
        Ok(message) => {
            tracing::debug!(%subscription, message_id = %message.id, "only its headers matched");
            parcel.acknowledge().await;
            None
        }
        Err(error) => {
            shared.unreadable(parcel, Status::BAD_REQUEST, &format!("it cannot be read: {error}")).await;
            None
        }
    }
}

impl Parcel {
    /// Writes the id that was made up for a message without one where the next attempt finds it.
    fn name(&mut self, message: &Message) {
        if self.properties.message_id().is_none()
            && let Ok(id) = short(message.id.text())
        {
            self.properties = std::mem::take(&mut self.properties).with_message_id(id);
        }
    }

    /// Says that it is done, and waits until that is written: who ends the channel before would have it again. When the
    /// channel is gone already, the message comes again.
    async fn acknowledge(&self) {
        let telling = self.acker.ack(BasicAckOptions::default());
        let _ = tokio::time::timeout(TELL_TIMEOUT, telling).await;
    }

    /// Puts it back into its queue, for whoever is fed next.
    async fn give_back(&self) {
        let again = BasicNackOptions { requeue: true, multiple: false };
        let _ = tokio::time::timeout(TELL_TIMEOUT, self.acker.nack(again)).await;
    }
}

impl Shared {
    /// Answers a command that cannot be run; keeps an event that cannot be read as a dead letter.
    async fn unreadable(&self, parcel: Parcel, status: Status, reason: &str) {
        let dropped = self.link.watch.count_dropped();
        tracing::warn!(
            subscription = %self.subscription, bytes = parcel.body.len(), reason, dropped, "what came is no message"
        );
        if self.subscription.answers {
            self.refuse(&parcel, status, reason).await;
        } else {
            self.keep_dead(&parcel, reason).await;
        }
    }

    async fn refuse(&self, parcel: &Parcel, status: Status, told: &str) {
        let server = self.link.party(&self.subscription.address);
        let refused = refusal::refused(&parcel.body, &server, status, told, &self.link.clock);
        self.answer_in_place(parcel, refused).await;
    }

    /// Sends a reply that the bridge gives in the service's place.
    async fn answer_in_place(&self, parcel: &Parcel, mut refused: Message) {
        if refused.correlation_id.is_none() {
            let named = parcel.properties.correlation_id().as_ref();
            refused.correlation_id = named.and_then(|id| Id::parse(id.as_str()).ok());
        }
        self.answer_logged(parcel, &refused, reply_until()).await;
    }

    /// Answers over the exchange: by one and the same publishing the caller gets the answer, and event subscriptions do.
    async fn answer(&self, parcel: &Parcel, reply: &Message, until: Instant) -> Result<(), BridgeError> {
        let reply_to = parcel.properties.reply_to().as_ref().map(ShortString::as_str);
        if reply_to.is_none() && reply.routed_event().is_none() {
            return Ok(());
        }
        let mut properties = wire::properties(reply, reply_to)?;
        if let Some(named) = parcel.properties.correlation_id() {
            properties = properties.with_correlation_id(named.clone());
        }
        let (to, body) = (self.link.everybody(false), self.link.encode(reply)?);
        let session = self.link.watch.session_until(until).await?;
        self.link.send_confirmed(&session, to, body, properties, until).await
    }

    async fn answer_logged(&self, parcel: &Parcel, reply: &Message, until: Instant) {
        if let Err(error) = self.answer(parcel, reply, until).await {
            tracing::error!(
                subscription = %self.subscription, trace_id = %reply.trace_id,
                error = &error as &dyn std::error::Error, "a reply may be lost"
            );
        }
    }

    /// Publishes to the dead letters, waits for the confirmation, then acknowledges.
    async fn keep_dead(&self, parcel: &Parcel, reason: &str) {
        let now_ms = self.link.clock.now_ms();
        let properties = history::of_dead(&parcel.properties, &parcel.queue, parcel.attempt, reason, now_ms);
        let keeping = async {
            let until = Instant::now() + SEND_TIMEOUT;
            let session = self.link.watch.session_until(until).await?;
            let to = Destination::queue(self.topology.dead_letter_queue(&session).await?);
            self.link.send_confirmed(&session, to, parcel.body.clone(), properties, until).await
        };
        let kept = tokio::time::timeout(SEND_TIMEOUT, keeping).await.unwrap_or_else(|_| Err(too_slow()));
        self.put_away(parcel, kept, "a message cannot be kept as a dead letter; it stays where it is").await;
    }

    /// Publishes to where the message waits for its next attempt, waits for the confirmation, then acknowledges; whether
    /// that went well.
    async fn put_back(&self, parcel: &Parcel, after: Duration) -> bool {
        // What is to come back at once goes to the end of its own queue, and so does what waited in this process.
        let delay = (self.subscription.durable && !after.is_zero()).then(|| retry_delay(after));
        let properties =
            history::of_next(&parcel.properties, parcel.attempt, after, self.link.clock.now_ms());
        let putting = async {
            let until = Instant::now() + SEND_TIMEOUT;
            let session = self.link.watch.session_until(until).await?;
            let queue = match delay {
                Some(delay) => self.topology.retry_queue(&session, delay).await?,
                None => parcel.queue.clone(),
            };
            self.link
                .send_confirmed(&session, Destination::queue(queue), parcel.body.clone(), properties, until)
                .await
        };
        let put = tokio::time::timeout(SEND_TIMEOUT, putting).await.unwrap_or_else(|_| Err(too_slow()));
        self.put_away(parcel, put, "a message cannot be put aside for later; it comes again at once").await
    }

    async fn put_away(&self, parcel: &Parcel, put: Result<(), BridgeError>, failed: &str) -> bool {
        let Err(error) = put else {
            parcel.acknowledge().await;
            return true;
        };
        tracing::error!(subscription = %self.subscription, error = &error as &dyn std::error::Error, "{failed}");
        // Not at once, or a broker that takes nothing would be asked without end.
        tokio::select! {
            () = self.draining.cancelled() => {}
            () = tokio::time::sleep(GIVE_BACK_PAUSE) => {}
        }
        parcel.give_back().await;
        false
    }
}

fn too_slow() -> BridgeError {
    BridgeError::new(BridgeErrorKind::Timeout, "the broker did not answer in time")
}

/// Tells the broker, and the caller of a command.
pub(crate) struct Settlement {
    shared: Arc<Shared>,
    /// As it came: a command is read once more only if its caller has to be told that there is no answer.
    parcel: Parcel,
    as_read: AsRead,
}

impl Settle for Settlement {
    async fn settle(self, outcome: Outcome) {
        let (shared, parcel) = (&self.shared, &self.parcel);
        match (shared.subscription.answers, outcome) {
            (true, Outcome::Reply(reply)) => self.reply(&reply).await,
            (_, Outcome::Retry { after }) => self.come_back(after).await,
            (false, Outcome::DeadLetter { reason }) => {
                tracing::error!(
                    subscription = %shared.subscription, reason, attempt = parcel.attempt,
                    queue = %shared.topology.dead_letters, "a message is a dead letter"
                );
                shared.keep_dead(parcel, &reason).await;
            }
            (true, outcome) => {
                if let Outcome::DeadLetter { reason } = outcome {
                    tracing::error!(subscription = %shared.subscription, reason, trace_id = %self.as_read.trace_id(), "a command failed");
                }
                self.fail(reply_until()).await;
            }
            // The pump tells a pause as a retry.
            (false, _) => parcel.acknowledge().await,
        }
        shared.settled().await;
    }
}

/// Until when what begins now is answered, in one way or another.
fn reply_until() -> Instant {
    Instant::now() + REPLY_TIMEOUT
}

impl Settlement {
    async fn reply(&self, reply: &Message) {
        let until = reply_until();
        if let Err(error) = self.shared.answer(&self.parcel, reply, until).await {
            tracing::error!(
                subscription = %self.shared.subscription, trace_id = %reply.trace_id,
                error = &error as &dyn std::error::Error, "a reply may be lost"
            );
            if !error.may_have_happened() {
                self.fail(until).await;
            }
        }
    }

    /// Tells the caller of a command that there is no answer.
    async fn fail(&self, until: Instant) {
        // It was read before.
        let read = wire::decode(&self.parcel.body, &self.parcel.properties, &self.shared.link.clock);
        let Ok(command) = read.map(|message| self.as_read.once_more(message)) else { return };
        let server = self.shared.link.party(&self.shared.subscription.address);
        let failure = refusal::unanswered(&command, &server, &self.shared.link.clock);
        self.shared.answer_logged(&self.parcel, &failure, until).await;
    }

    /// Comes back after a time. Of a durable subscription the broker keeps it until then, of any other this process does.
    async fn come_back(&self, after: Duration) {
        let (shared, parcel, answers) = (&self.shared, &self.parcel, self.shared.subscription.answers);
        if !shared.subscription.durable {
            let is_back = tokio::select! {
                biased;
                () = shared.draining.cancelled() => false,
                () = tokio::time::sleep(after) => true,
            };
            if !is_back {
                if answers {
                    self.fail(reply_until()).await;
                } else {
                    parcel.give_back().await;
                }
                shared.given_up.notify_one();
                return;
            }
        }
        if !parcel.acker.usable() && !answers {
            // Its channel is gone, and with it the message came back to its queue.
            return;
        }
        let is_put_back = shared.put_back(parcel, after).await;
        if answers && !is_put_back {
            self.fail(reply_until()).await;
        }
        if shared.draining.is_cancelled() {
            shared.given_up.notify_one();
        }
    }
}
