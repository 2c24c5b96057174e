//! Dead letters that are redriven, events that are sent again, and the projections of a host that runs.

use std::sync::Arc;

use purista_core::bridge::{Consumer, Delivery, Outcome};
use purista_core::message::Message;
use purista_events::batch::Batch;
use purista_events::position::Position;
use purista_events::projector::ProjectionHandle;
use purista_events::resend::{self, Resend};
use purista_events::store::{EventStore, StoreError, StoreErrorKind};
use purista_events::subscriptions::{DeadLetter, DeadLetterSource, RELAY};
use tokio::time::Instant;

use super::running::RunningHost;
use crate::commit::settled;
use crate::durable::event_at;
use crate::runtime::Runtime;

impl RunningHost {
    /// Tries a dead letter again, from its first attempt on, with the code of today. An event of the log goes back to its
    /// subscription in the commit that removes the letter; a message of a bridge is delivered under its id, and the letter
    /// goes when that is settled. An event that the relay has set aside is published again. What fails again is a dead letter
    /// again.
    ///
    /// `AlreadyDone` when the letter is not there any more, `Invalid` when its subscription is none of this host's.
    pub async fn try_again(&self, letter: &DeadLetter) -> Result<(), StoreError> {
        let runtime = &self.parts.runtime;
        let Some(store) = &runtime.store else { return Err(unknown(letter)) };
        match &letter.source {
            DeadLetterSource::Event(position) if letter.subscription.as_str() == RELAY => {
                let key = event_at(&**store, *position).await?.and_then(|event| event.order_key());
                settled(store, Batch::trying_again(runtime.clock.id(), letter, key)).await?;
                self.parts.relay.look_again();
                Ok(())
            }
            DeadLetterSource::Event(position) => {
                let durable = self.parts.durables.iter().find(|durable| durable.id == letter.subscription);
                let Some(durable) = durable else { return Err(unknown(letter)) };
                let key = event_at(&**store, *position).await?.and_then(|event| event.order_key());
                settled(store, Batch::trying_again(runtime.clock.id(), letter, key)).await?;
                durable.look_again();
                Ok(())
            }
            DeadLetterSource::Message(bytes) => {
                let fed = self.parts.fed.iter().find(|(id, _)| *id == letter.subscription);
                let Some((_, consumer)) = fed else { return Err(unknown(letter)) };
                let message = Message::decode(bytes, &runtime.clock, Instant::now()).map_err(|error| {
                    let what = format!("the message of the dead letter {} cannot be read", letter.id);
                    StoreError::new(StoreErrorKind::Invalid, what).with_source(error)
                })?;
                let again = Again { runtime: Arc::clone(runtime), consumer: Arc::clone(consumer) };
                let done = self.parts.tasks.spawn(again.deliver(Arc::clone(store), letter.clone(), message));
                done.await.unwrap_or_else(|_| {
                    Err(StoreError::new(StoreErrorKind::Unknown, "the delivery was given up"))
                })
            }
        }
    }

    /// Requests that the relay sends the recorded events after this position to the bridge again, under the ids that they had.
    ///
    /// For what a broker lost although it had confirmed it, as MQTT brokers do beyond their limit for a subscriber that is
    /// away. A subscription with a store handles an event that it knows once; one without handles it again. The request is
    /// stored: the relay begins within a second, continues after a restart, and relays new events meanwhile.
    ///
    /// # Errors
    ///
    /// Returns [`StoreErrorKind::Invalid`] if the host has no store, if nothing was relayed after the position, or if the bridge
    /// is within the process, whose durable subscriptions read the log; and the errors of a commit.
    pub async fn resend(&self, after: Position) -> Result<Resend, StoreError> {
        let runtime = self.runtime();
        let invalid = |what: &str| StoreError::new(StoreErrorKind::Invalid, what);
        let store = runtime.store.as_ref().ok_or_else(|| invalid("the host has no store with events"))?;
        if runtime.bridge.capabilities().is_local {
            return Err(invalid("the bridge is within the process: its durable subscriptions read the log"));
        }
        let pending = resend::request(&**store, &runtime.clock, after).await?;
        self.parts.relay.look_again();
        Ok(pending)
    }

    /// The projection of this name that readers of its newest version here see.
    pub fn projection(&self, name: &str) -> Option<&ProjectionHandle> {
        let of_name = self.parts.projections.iter().filter(|handle| **handle.name() == *name);
        of_name.max_by_key(|handle| handle.version())
    }

    /// All projections.
    pub fn projections(&self) -> &[ProjectionHandle] {
        &self.parts.projections
    }
}

fn unknown(letter: &DeadLetter) -> StoreError {
    let what = format!(
        "the subscription {} of the dead letter {} is none of this host's",
        letter.subscription, letter.id
    );
    StoreError::new(StoreErrorKind::Invalid, what)
}

/// A message of a bridge on its way again. It is finished also when whoever asked for it goes away.
struct Again {
    runtime: Arc<Runtime>,
    consumer: Arc<dyn Consumer>,
}

impl Again {
    async fn deliver(
        self,
        store: Arc<dyn EventStore>,
        letter: DeadLetter,
        message: Message,
    ) -> Result<(), StoreError> {
        let mut attempt = 1;
        loop {
            let delivery = Delivery { message: message.clone().into(), attempt };
            match self.consumer.consume(delivery).await {
                Outcome::Retry { after } => tokio::time::sleep(after).await,
                Outcome::DeadLetter { reason } | Outcome::Pause { reason } => {
                    return Err(StoreError::new(StoreErrorKind::Closed, reason));
                }
                _ => break,
            }
            attempt += 1;
        }
        let mut batch = Batch::new(self.runtime.clock.id(), None);
        batch.forgotten_dead_letters.push(letter.id);
        settled(&store, batch).await
    }
}
