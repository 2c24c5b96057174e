//! Carries recorded events from the log to the bridge, in order: message id = event id.
//!
//! Of the processes that share a store one relays at a time. Into a bridge of its own, within the process, each of them relays, so
//! that listeners on every instance hear in each; those that share their messages hear where the lease is.
//!
//! An event that the broker can never take is set aside as a dead letter of the relay, in one commit with the relay's progress,
//! and the events after it go on. Replayed, it is published again, after those that have left meanwhile.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join;
use purista_core::bridge::{BridgeError, BridgeErrorKind};
use purista_core::error::chain;
use purista_core::span;
use purista_events::batch::Batch;
use purista_events::lease::{self, Lease};
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::recorded::Recorded;
use purista_events::resend;
use purista_events::store::{EventStore, StoreError};
use purista_events::subscriptions::{
    DeadLetter, DeadLetterSource, Failure, HISTORY_MAX, Parked, ParkedChange, ProgressChange, RELAY,
    SubscriptionId,
};
use tokio_util::sync::CancellationToken;

use crate::commit::settled;
use crate::durable::event_at;
use crate::host::announcing;
use crate::runtime::Runtime;

mod control;

pub(crate) use control::RelayControl;

/// How many events are read at a time.
const PAGE: usize = 256;

/// The longest pause between two tries to reach the bridge.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How often it is looked how far another process has carried, and whether one asks for a dead letter to be published again.
const LOOKED_EVERY: Duration = Duration::from_secs(1);

/// After how many lost connections in a row an event is set aside, when the connection works for other messages in between:
/// the broker ends it over this one.
const LOSSES_MAX: u32 = 8;

/// Carries the log of one store to one bridge.
pub(crate) struct Relay {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) stop: CancellationToken,
    pub(crate) control: Arc<RelayControl>,
    /// Whether the place is kept: what is outside of the process missed nothing when this process restarts. Listeners
    /// inside it were not there either, so they begin at the head.
    pub(crate) keeps_place: bool,
}

/// What became of the publishing of one event.
enum Published {
    Done,
    /// It can never be published as it is.
    Never {
        reason: String,
        attempts: u32,
    },
}

impl Relay {
    fn id() -> SubscriptionId {
        SubscriptionId::new(RELAY)
    }

    /// Where it begins; the first time at the head.
    pub(crate) async fn begin(&self) -> Result<(), StoreError> {
        let head = *self.store.head().borrow();
        let mut start = head;
        if self.keeps_place {
            match self.store.subscription(&Self::id()).await? {
                Some(record) => start = record.progress.low,
                None => self.save(head).await?,
            }
        }
        self.control.relayed.send_replace(start);
        Ok(())
    }

    /// Carries until it is stopped.
    pub(crate) async fn run(self) {
        let _watched = self.control.watched(&self.stop);
        if self.keeps_place {
            while let Some(lease) = self.next_turn().await {
                self.control.set_elsewhere(false);
                let looks = if lease.is_alone() { Looks::WhenTold } else { Looks::Often };
                lease.during(&self.stop, |over| self.carry_all(over, looks)).await;
            }
        } else {
            // In this order: nothing is carried before it is known whether the lease is here.
            join(self.share(), self.carry_all(self.stop.clone(), Looks::Never)).await;
        }
    }

    /// Into a bridge within the process: says whether this one is it in which shared listeners hear.
    async fn share(&self) {
        let is_here = &self.runtime.relays_to_shared;
        is_here.store(false, Ordering::Release);
        while let Some(lease) = self.lease_or_stop(std::future::pending()).await {
            is_here.store(true, Ordering::Release);
            if lease.is_alone() {
                return;
            }
            self.stop.run_until_cancelled(lease.lost()).await;
            is_here.store(false, Ordering::Release);
        }
    }

    /// Waits for the lease, and takes up the place that the store has then; `None` when it is stopped.
    async fn next_turn(&self) -> Option<Lease> {
        loop {
            let lease = self.lease_or_stop(self.look_on()).await?;
            if lease.is_alone() {
                return Some(lease);
            }
            match self.look().await {
                Ok(()) => {
                    tracing::info!("the relay runs in this process");
                    return Some(lease);
                }
                Err(error) => self.waits_for_store(&error),
            }
            drop(lease);
            self.stop.run_until_cancelled(tokio::time::sleep(RETRY_MAX)).await?;
        }
    }

    async fn lease_or_stop(&self, meanwhile: impl Future<Output = Infallible>) -> Option<Lease> {
        let mut meanwhile = std::pin::pin!(meanwhile);
        loop {
            let taken = tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                taken = self.store.lease(lease::RELAY) => taken,
                never = &mut meanwhile => match never {},
            };
            match taken {
                Ok(lease) => return Some(lease),
                Err(error) => self.waits_for_store(&error),
            }
            self.stop.run_until_cancelled(tokio::time::sleep(RETRY_MAX)).await?;
        }
    }

    /// Tells how far another process has carried.
    async fn look_on(&self) -> Infallible {
        loop {
            self.control.set_elsewhere(true);
            if let Err(error) = self.look().await {
                tracing::error!(%error, "it cannot be told how far the relay is");
            }
            tokio::time::sleep(LOOKED_EVERY).await;
        }
    }

    fn waits_for_store(&self, error: &StoreError) {
        let reason = chain(error);
        tracing::error!(error = %reason, "the relay waits for its store");
        self.control.set_trouble(format!("the store fails: {reason}"));
    }

    async fn look(&self) -> Result<(), StoreError> {
        if let Some(record) = self.store.subscription(&Self::id()).await? {
            self.control.relayed.send_replace(record.progress.low);
        }
        Ok(())
    }

    async fn carry_all(&self, stop: CancellationToken, looks: Looks) {
        let mut head = self.store.head();
        // What was asked for before this process had the lease, or before it was started.
        let mut look = !matches!(looks, Looks::Never);
        loop {
            let place = *self.control.relayed.borrow();
            let has_more = *head.borrow_and_update() > place;
            if !(has_more || look) {
                self.control.rests();
                let time_to_look = async {
                    match looks {
                        Looks::Often => tokio::time::sleep(LOOKED_EVERY).await,
                        Looks::WhenTold | Looks::Never => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = self.control.again.notified() => look = !matches!(looks, Looks::Never),
                    _ = head.changed() => {}
                    () = time_to_look => look = true,
                }
                continue;
            }
            let carrying = async {
                if look {
                    self.carry_again().await?;
                }
                if has_more {
                    self.carry(place).await?;
                }
                if look { self.resend_page().await } else { Ok(false) }
            };
            let carried = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                carried = carrying => carried,
            };
            match carried {
                // A relay that always has something to publish looks between its pages, too.
                Ok(has_more_again) => {
                    look = has_more_again || matches!(looks, Looks::Often) && has_more && !look;
                }
                Err(error) => {
                    self.waits_for_store(&error);
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(RETRY_MAX) => {}
                    }
                }
            }
        }
    }

    async fn carry(&self, place: Position) -> Result<(), StoreError> {
        let page = self.store.follow(&Query::all(), place, PAGE).await?;
        for event in &page.events {
            if let Published::Never { reason, attempts } = self.publish(event).await {
                self.set_aside(event, reason, attempts, None).await?;
            }
            self.control.moved();
        }
        if self.keeps_place {
            self.save(page.looked_up_to).await?;
        }
        self.control.relayed.send_replace(page.looked_up_to);
        Ok(())
    }

    /// Publishes the events whose dead letters were replayed.
    async fn carry_again(&self) -> Result<(), StoreError> {
        let Some(record) = self.store.subscription(&Self::id()).await? else { return Ok(()) };
        for parked in record.parked {
            let Some(event) = event_at(&*self.store, parked.position).await? else {
                let position = parked.position;
                tracing::error!(%position, "an event that was to be published again is not in the log");
                self.forget(&parked).await?;
                continue;
            };
            match self.publish(&event).await {
                Published::Done => self.forget(&parked).await?,
                Published::Never { reason, attempts } => {
                    self.set_aside(&event, reason, attempts, Some(parked)).await?;
                }
            }
            self.control.moved();
        }
        Ok(())
    }

    /// Sends the next events again that a [`resend`] request asks for; whether there are more.
    async fn resend_page(&self) -> Result<bool, StoreError> {
        let Some(request) = resend::requested(&*self.store).await? else { return Ok(false) };
        let (after, up_to) = (request.after(), request.up_to());
        let page = self.store.follow(&Query::all(), after, PAGE).await?;
        for event in page.events.iter().take_while(|event| event.position <= up_to) {
            if let Published::Never { reason, .. } = self.publish(event).await {
                tracing::error!(position = %event.position, reason, "an event cannot be sent again");
            }
            self.control.moved();
        }
        // A page that ends before the last position, and holds nothing more, is the end of the log.
        let to = if page.is_caught_up { up_to } else { page.looked_up_to.min(up_to) };
        resend::advance(&*self.store, &self.runtime.clock, request, to).await?;
        tracing::info!(%after, %to, %up_to, "events were sent again, as it was requested");
        Ok(to < up_to)
    }

    async fn forget(&self, parked: &Parked) -> Result<(), StoreError> {
        let mut batch = Batch::new(self.runtime.clock.id(), None);
        batch.parked.push(ParkedChange::Forget(Self::id(), parked.position));
        settled(&self.store, batch).await
    }

    /// Publishes one event, and tries again until the bridge has taken it or it is known that it never will.
    async fn publish(&self, event: &Recorded) -> Published {
        let (bridge, origin) = (&*self.runtime.bridge, self.store.origin());
        let (mut pause, mut attempts, mut losses) = (Duration::from_millis(50), 0_u32, 0_u32);
        loop {
            let Err(error) = span::publish(bridge, event.to_message(&origin)).await else {
                return Published::Done;
            };
            attempts = attempts.saturating_add(1);
            let reason = chain(&error);
            losses = match error.kind() {
                BridgeErrorKind::TooLarge => return Published::Never { reason, attempts },
                // Anything else may work: then it is this event over which the connection is lost.
                BridgeErrorKind::Unknown if self.works_otherwise().await => losses.saturating_add(1),
                _ => 0,
            };
            if losses >= LOSSES_MAX {
                let reason = format!(
                    "the connection was lost {losses} times in a row over this event, and works for others: {reason}"
                );
                return Published::Never { reason, attempts };
            }
            log_failure(&error, event.position, attempts);
            self.control
                .set_trouble(format!("the event at {} cannot be published: {reason}", event.position));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Whether the bridge carries another message.
    async fn works_otherwise(&self) -> bool {
        announcing::probe(&self.runtime).await.is_ok()
    }

    /// Makes it a dead letter, in one commit with the progress over it; `again` is what was kept when it was to be published
    /// again.
    async fn set_aside(
        &self,
        event: &Recorded,
        reason: String,
        attempts: u32,
        again: Option<Parked>,
    ) -> Result<(), StoreError> {
        let position = event.position;
        tracing::error!(
            %position, event = %event.name, trace_id = %event.cause.trace_id, reason,
            "an event cannot be published and is set aside as a dead letter of the relay"
        );
        if !self.keeps_place {
            return Ok(());
        }
        let now = self.runtime.clock.now();
        let mut batch = Batch::new(self.runtime.clock.id(), None);
        let mut history = Vec::new();
        if let Some(parked) = again {
            history = parked.history;
            batch.parked.push(ParkedChange::Forget(Self::id(), position));
        } else {
            let (subscription, up_to) = (Self::id(), Some(position));
            batch.progress.push(ProgressChange { subscription, up_to, done: None });
        }
        history.push(Failure { at: now, attempt: attempts, reason: reason.clone() });
        history.drain(..history.len().saturating_sub(HISTORY_MAX));
        batch.dead_letters.push(DeadLetter {
            id: self.runtime.clock.id(),
            subscription: Self::id(),
            source: DeadLetterSource::Event(position),
            at: now,
            reason,
            attempts,
            trace_id: event.cause.trace_id.clone(),
            history,
        });
        settled(&self.store, batch).await
    }

    async fn save(&self, place: Position) -> Result<(), StoreError> {
        let mut batch = Batch::new(self.runtime.clock.id(), None);
        batch.progress.push(ProgressChange { subscription: Self::id(), up_to: Some(place), done: None });
        settled(&self.store, batch).await
    }
}

fn log_failure(error: &BridgeError, position: Position, attempts: u32) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(error, %position, attempts, "an event is not relayed yet");
}

/// When the relay looks for events that are to be published again.
#[derive(Debug, Clone, Copy)]
enum Looks {
    /// At its start, and when this process is asked.
    WhenTold,
    /// Also now and then: other processes may have asked, by way of the store.
    Often,
    /// It sets nothing aside.
    Never,
}
