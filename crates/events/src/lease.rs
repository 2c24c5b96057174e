//! The right to do one piece of work, which one process has at a time.

use std::any::Any;
use std::fmt;
use std::future::pending;
use std::pin::pin;

use tokio_util::sync::CancellationToken;

use crate::subscriptions::SubscriptionId;

/// The name of the relay's lease.
pub const RELAY: &str = "relay";

/// The name of a durable subscription's lease.
pub fn of_subscription(id: &SubscriptionId) -> String {
    format!("subscription/{id}")
}

/// The name of the lease of one version of a projection.
pub fn of_projection(name: &str, version: u32) -> String {
    format!("projection/{name}/{version}")
}

/// The right to do the work of a name: whoever has it is the only one among all processes that share a store, until he drops it,
/// or until it is lost. Whoever has lost it stops, since another may have begun.
///
/// It spares work and keeps order; it is no lock. Between the loss and the stop two may work at once for a moment, as with every
/// lease: what must not happen twice is refused by the commit (progress that is done, a step from elsewhere).
#[must_use = "the work is somebody else's as soon as it is dropped"]
pub struct Lease {
    lost: CancellationToken,
    /// Gives it back when it is dropped.
    kept: Option<Box<dyn Any + Send + Sync>>,
}

impl Lease {
    /// The lease of an engine that one process has to itself: it is never lost.
    pub fn alone() -> Self {
        Self { lost: CancellationToken::new(), kept: None }
    }

    /// A lease that is lost when this says so, and given back when `kept` is dropped.
    pub fn kept(lost: CancellationToken, kept: impl Any + Send + Sync) -> Self {
        Self { lost, kept: Some(Box::new(kept)) }
    }

    /// Whether there is nobody else who could have it, nor ask for anything to be done under it.
    pub fn is_alone(&self) -> bool {
        self.kept.is_none()
    }

    /// Waits until it is lost. Cancel safe.
    pub async fn lost(&self) {
        if self.is_alone() {
            pending::<()>().await;
        }
        self.lost.cancelled().await;
    }

    /// Whether it is lost.
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Works with a token that is cancelled when whoever works should `stop`, and when this is lost. As cancel safe as the work.
    pub async fn during<F: Future>(
        &self,
        stop: &CancellationToken,
        work: impl FnOnce(CancellationToken) -> F,
    ) -> F::Output {
        if self.is_alone() {
            return work(stop.clone()).await;
        }
        let over = stop.child_token();
        let mut working = pin!(work(over.clone()));
        tokio::select! {
            // First of all: whoever works and has lost it begins nothing more.
            biased;
            () = self.lost() => over.cancel(),
            ended = &mut working => return ended,
        }
        working.await
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("is_alone", &self.is_alone())
            .field("is_lost", &self.is_lost())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_meet() {
        let subscription = of_subscription(&SubscriptionId::new("projection/names/1"));
        let projections =
            [of_projection("names", 1), of_projection("names/1", 1), of_projection("names", 11)];
        let names = [&[RELAY.to_owned(), subscription], &projections[..]].concat();
        let apart: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(apart.len(), names.len());
    }
}
