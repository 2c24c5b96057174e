//! Carries recorded events from the log to the bridge, in order: message id = event id.
//!
//! Of the processes that share a store one relays at a time. Into a bridge of its own, within the process, each of them relays, so
//! that listeners on every instance hear in each; those that share their messages hear where the lease is.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join;
use purista_core::bridge::BridgeErrorKind;
use purista_core::span;
use purista_events::batch::Batch;
use purista_events::lease::{self, Lease};
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::store::{EventStore, StoreError};
use purista_events::subscriptions::{ProgressChange, RELAY, SubscriptionId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::commit::settled;
use crate::runtime::Runtime;

/// How many events are read at a time.
const PAGE: usize = 256;

/// The longest pause between two tries to reach the bridge.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How often it is looked how far another process has carried.
const LOOKED_EVERY: Duration = Duration::from_secs(1);

/// Carries the log of one store to one bridge.
pub(crate) struct Relay {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) stop: CancellationToken,
    /// Up to where everything was carried.
    pub(crate) relayed: watch::Sender<Position>,
    /// Whether the place is kept: what is outside of the process missed nothing when this process restarts. Listeners
    /// inside it were not there either, so they begin at the head.
    pub(crate) keeps_place: bool,
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
        self.relayed.send_replace(start);
        Ok(())
    }

    /// Carries until it is stopped.
    pub(crate) async fn run(self) {
        if self.keeps_place {
            while let Some(lease) = self.next_turn().await {
                lease.during(&self.stop, |over| self.carry_all(over)).await;
            }
        } else {
            // In this order: nothing is carried before it is known whether the lease is here.
            join(self.share(), self.carry_all(self.stop.clone())).await;
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
                Err(error) => tracing::error!(%error, "the relay waits for its store"),
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
                Err(error) => tracing::error!(%error, "the relay waits for its store"),
            }
            self.stop.run_until_cancelled(tokio::time::sleep(RETRY_MAX)).await?;
        }
    }

    /// Tells how far another process has carried.
    async fn look_on(&self) -> Infallible {
        loop {
            if let Err(error) = self.look().await {
                tracing::error!(%error, "it cannot be told how far the relay is");
            }
            tokio::time::sleep(LOOKED_EVERY).await;
        }
    }

    async fn look(&self) -> Result<(), StoreError> {
        if let Some(record) = self.store.subscription(&Self::id()).await? {
            self.relayed.send_replace(record.progress.low);
        }
        Ok(())
    }

    async fn carry_all(&self, stop: CancellationToken) {
        let mut head = self.store.head();
        loop {
            let place = *self.relayed.borrow();
            if *head.borrow_and_update() <= place {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    _ = head.changed() => continue,
                }
            }
            let carried = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                carried = self.carry(place) => carried,
            };
            if let Err(error) = carried {
                tracing::error!(%error, "the relay waits for its store");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY_MAX) => {}
                }
            }
        }
    }

    async fn carry(&self, place: Position) -> Result<(), StoreError> {
        let page = self.store.follow(&Query::all(), place, PAGE).await?;
        let origin = self.store.origin();
        for event in &page.events {
            let mut pause = Duration::from_millis(50);
            while let Err(error) = span::publish(&*self.runtime.bridge, event.to_message(&origin)).await {
                if error.kind() == BridgeErrorKind::Rejected && self.stop.is_cancelled() {
                    return Ok(());
                }
                tracing::warn!(%error, position = %event.position, "an event is not relayed yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
        }
        if self.keeps_place {
            self.save(page.looked_up_to).await?;
        }
        self.relayed.send_replace(page.looked_up_to);
        Ok(())
    }

    async fn save(&self, place: Position) -> Result<(), StoreError> {
        let mut batch = Batch::new(self.runtime.clock.id(), None);
        batch.progress.push(ProgressChange { subscription: Self::id(), up_to: Some(place), done: None });
        settled(&self.store, batch).await
    }
}
