//! Feeds a subscription from a bridge: whatever no log of ours holds.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use purista_core::bridge::{Carried, Consumer, Delivery, Outcome};
use purista_core::error::HandlerError;
use purista_core::message::{Message, MessageType, Record};
use purista_core::payload::Payload;
use purista_core::subscription::Sharing;
use purista_core::text::Text;
use purista_events::batch::Batch;
use purista_events::subscriptions::{DeadLetter, DeadLetterSource, Failure, SubscriptionId};
use purista_events::upcast::{EventForm, UnreadableEvent};
use tokio::time::Instant;
use tracing::Instrument;

use crate::commit::{Beside, CommitError, commit, settled};
use crate::failure::{panic_text, unreadable};
use crate::hearing::{Heard, Hears};
use crate::observation::Ending;
use crate::runtime::Runtime;
use crate::verdict::Verdict;

/// The consumer of one subscription on a bridge.
pub(crate) struct BridgeFed<L>(Arc<Feed<L>>);

impl<L: Hears> BridgeFed<L> {
    pub(crate) fn new(listener: Arc<L>, runtime: Arc<Runtime>, id: SubscriptionId) -> Self {
        let capabilities = runtime.bridge.capabilities();
        let can_delay = capabilities.delayed_retry;
        let is_one_of_many =
            capabilities.is_local && runtime.store.is_some() && listener.terms().sharing == Sharing::Shared;
        Self(Arc::new(Feed { listener, runtime, id, can_delay, is_one_of_many }))
    }
}

impl<L: Hears> Consumer for BridgeFed<L> {
    fn consume(&self, delivery: Delivery) -> BoxFuture<'static, Outcome> {
        Box::pin(Arc::clone(&self.0).deliver(delivery))
    }
}

struct Feed<L> {
    listener: Arc<L>,
    runtime: Arc<Runtime>,
    id: SubscriptionId,
    /// Whether the bridge brings a message back later.
    can_delay: bool,
    /// Whether other processes that share the store may hear the same of their relays: one of them is to.
    is_one_of_many: bool,
}

impl<L: Hears> Feed<L> {
    async fn deliver(self: Arc<Self>, delivery: Delivery) -> Outcome {
        let Delivery { mut message, mut attempt } = delivery;
        if self.is_one_of_many && self.hears_elsewhere(&message) {
            return Outcome::Ack;
        }
        if self.is_durable() && Box::pin(self.was_handled(&message)).await {
            return Outcome::Ack;
        }
        loop {
            let kept = (!self.can_delay).then(|| message.clone());
            let heard = match self.other_form(&message) {
                None => self.listener.hear(message, attempt, None).await,
                Some(form) => Box::pin(self.hear_upcast(message, form, attempt)).await,
            };
            match (self.settle(heard, attempt).await, kept) {
                (Outcome::Retry { after }, Some(again)) => {
                    // The bridge cannot bring it back later, so it waits here, in its place among those in flight.
                    tokio::time::sleep(after).await;
                    message = again;
                    attempt = attempt.saturating_add(1);
                }
                (outcome, _) => return outcome,
            }
        }
    }

    /// Whether it came from the log, and is heard in the process that has the relay's lease.
    fn hears_elsewhere(&self, message: &Message) -> bool {
        message.kind == MessageType::CustomMessage
            && message.record.is_some()
            && !self.runtime.relays_to_shared.load(Ordering::Acquire)
    }

    /// The form of an event that is not the one that the handler reads. A message without a version has the first.
    fn other_form(&self, message: &Message) -> Option<EventForm> {
        let terms = self.listener.terms();
        let (wanted, name) = (terms.version?, message.event_name.as_ref()?);
        let version = message.record.as_ref().map_or(1, |record| record.event_version);
        let is_wanted = version == wanted && terms.filter.event_names.contains(name);
        (!is_wanted).then(|| EventForm { name: name.clone(), version })
    }

    /// Handles what the event becomes by the host's upcasters: all of it in one unit of work, as for an event of the log. What
    /// comes back, or becomes a dead letter, is the message as it was delivered.
    async fn hear_upcast(&self, message: Carried, form: EventForm, attempt: u32) -> Heard {
        let messages = match self.upcast(&message, &form) {
            Ok(messages) => messages,
            Err(error) => return Heard::of(message, Err(error)),
        };
        let (mut begun, mut last) = (None, None);
        for next in messages {
            let mut heard = self.listener.hear(next.into(), attempt, begun.take()).await;
            heard.message = message.clone();
            match std::mem::replace(&mut heard.result, Ok(None)) {
                Ok(changes) => begun = changes,
                Err(error) => {
                    heard.result = Err(error);
                    return heard;
                }
            }
            last = Some(heard);
        }
        // What has become nothing that is listened to is done.
        let mut heard = last.unwrap_or_else(|| Heard::unreadable(message));
        heard.result = Ok(begun);
        heard
    }

    fn upcast(&self, message: &Message, form: &EventForm) -> Result<Vec<Message>, HandlerError> {
        let terms = self.listener.terms();
        let body = message.payload.bytes()?.unwrap_or_else(|| Bytes::from_static(b"null"));
        let wanted = |name: &str| {
            terms.version.filter(|_| terms.filter.event_names.iter().any(|known| &**known == name))
        };
        let mut messages = Vec::with_capacity(1);
        let admit = |name: &Text, version: u32, body: &Bytes| {
            let mut record = message.record.as_deref().cloned().unwrap_or(Record {
                origin: None,
                causation_id: None,
                event_version: version,
            });
            record.event_version = version;
            let message = Message {
                event_name: Some(name.clone()),
                payload: Payload::encoded(body.clone()),
                record: Some(Box::new(record)),
                ..message.clone()
            };
            if terms.filter.matches(&message) {
                messages.push(message);
            }
            Ok::<_, UnreadableEvent>(())
        };
        // An upcaster is the user's code.
        let reading = AssertUnwindSafe(|| self.runtime.upcasters.read_delivered(form, body, wanted, admit));
        match std::panic::catch_unwind(reading) {
            Ok(Ok(())) => Ok(messages),
            Ok(Err(error)) => Err(unreadable(&error)),
            Err(panic) => Err(HandlerError::failed(panic_text(&*panic))),
        }
    }

    fn is_durable(&self) -> bool {
        self.listener.terms().is_durable
    }

    /// Whether the log brings it anyway, or an earlier delivery did its work.
    async fn was_handled(&self, message: &Message) -> bool {
        let Some(store) = &self.runtime.store else { return false };
        let origin = message.record.as_ref().and_then(|record| record.origin.as_deref());
        if origin.is_some_and(|origin| *origin == *store.origin()) {
            return true;
        }
        store.is_consumed(&self.id, &message.id).await.unwrap_or(false)
    }

    async fn settle(&self, mut heard: Heard, attempt: u32) -> Outcome {
        let result = std::mem::replace(&mut heard.result, Ok(None));
        let error = match result {
            Ok(changes) => {
                let changes = changes.filter(|changes| changes.commits());
                if changes.is_none() && !self.is_durable() {
                    heard.settled(Ending::Done);
                    return Outcome::Ack;
                }
                let consumed = self.is_durable().then(|| (self.id.clone(), heard.message.id.clone()));
                let consumed = consumed.filter(|_| self.runtime.store.is_some());
                let beside = Beside { consumed, ..Beside::default() };
                let committing = commit(&self.runtime, &heard.message, changes, beside);
                match Box::pin(committing.instrument(heard.span.clone())).await {
                    Ok(()) | Err(CommitError::AlreadyDone) => {
                        heard.settled(Ending::Done);
                        return Outcome::Ack;
                    }
                    Err(error) => HandlerError::from(error),
                }
            }
            Err(error) => error,
        };
        let verdict = self.listener.terms().retry.verdict(&error, attempt, &self.runtime.clock);
        verdict.log(self.id.as_str(), &heard.message, attempt);
        heard.settled(verdict.ending(&error));
        match verdict {
            Verdict::Final { .. } | Verdict::Drop { .. } => Outcome::Ack,
            Verdict::Retry { after, .. } => Outcome::Retry { after },
            Verdict::Pause { reason } => Outcome::Pause { reason },
            Verdict::DeadLetter { reason } => Box::pin(self.give_up(heard, attempt, reason)).await,
        }
    }

    /// A store keeps it; without one, the bridge does what it can.
    async fn give_up(&self, heard: Heard, attempt: u32, reason: String) -> Outcome {
        let Some(store) = &self.runtime.store else { return Outcome::DeadLetter { reason } };
        let message = heard.message;
        let Ok(bytes) = message.encode(Instant::now()) else { return Outcome::DeadLetter { reason } };
        let now = self.runtime.clock.now();
        let mut batch = Batch::new(self.runtime.clock.id(), message.tenant_id.clone());
        batch.dead_letters.push(DeadLetter {
            id: self.runtime.clock.id(),
            subscription: self.id.clone(),
            source: DeadLetterSource::Message(bytes),
            at: now,
            reason: reason.clone(),
            attempts: attempt,
            trace_id: message.trace_id.clone(),
            history: vec![Failure { at: now, attempt, reason: reason.clone() }],
        });
        match settled(store, batch).await {
            Ok(()) => Outcome::Ack,
            Err(error) => {
                tracing::error!(subscription = %self.id, %error, "a dead letter cannot be kept by the store");
                Outcome::DeadLetter { reason }
            }
        }
    }
}
