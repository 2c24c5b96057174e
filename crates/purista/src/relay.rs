//! Carries recorded events from the log to the bridge, in order: message id = event id.

use std::sync::Arc;
use std::time::Duration;

use purista_core::bridge::BridgeErrorKind;
use purista_events::batch::Batch;
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
        let mut head = self.store.head();
        loop {
            let place = *self.relayed.borrow();
            if *head.borrow_and_update() <= place {
                tokio::select! {
                    () = self.stop.cancelled() => return,
                    _ = head.changed() => continue,
                }
            }
            let carried = tokio::select! {
                () = self.stop.cancelled() => return,
                carried = self.carry(place) => carried,
            };
            if let Err(error) = carried {
                tracing::error!(%error, "the relay waits for its store");
                tokio::select! {
                    () = self.stop.cancelled() => return,
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
            while let Err(error) = self.runtime.bridge.publish(event.to_message(&origin)).await {
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
