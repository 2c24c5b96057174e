//! The right to do one piece of work, which one process has at a time.

use std::any::Any;
use std::fmt;
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use tokio::time::Instant;
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
///
/// A process that was stopped for a while, by SIGSTOP or with its machine, finds out before it does anything more: a lease with an
/// [`Expiry`] is looked at each time the work under it continues.
#[must_use = "the work is somebody else's as soon as it is dropped"]
pub struct Lease {
    lost: CancellationToken,
    /// Present when it ends by itself unless it is renewed.
    expiry: Option<Arc<Expiry>>,
    /// Gives it back when it is dropped.
    kept: Option<Box<dyn Any + Send + Sync>>,
}

impl Lease {
    /// The lease of an engine that one process has to itself: it is never lost.
    pub fn alone() -> Self {
        Self { lost: CancellationToken::new(), expiry: None, kept: None }
    }

    /// A lease that is lost when this says so, and given back when `kept` is dropped.
    pub fn kept(lost: CancellationToken, kept: impl Any + Send + Sync) -> Self {
        Self { lost, expiry: None, kept: Some(Box::new(kept)) }
    }

    /// The same, and it is lost as well when it expires. An engine renews it while its server answers, and gives it to no one else
    /// before that time.
    pub fn expiring(lost: CancellationToken, expiry: Arc<Expiry>, kept: impl Any + Send + Sync) -> Self {
        Self { lost, expiry: Some(expiry), kept: Some(Box::new(kept)) }
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
        let mut cancelled = pin!(self.lost.cancelled());
        // Time passes also while nothing runs: the clock is read at each poll, before a timer has been fired.
        poll_fn(|context| {
            if self.is_lost() {
                return Poll::Ready(());
            }
            cancelled.as_mut().poll(context)
        })
        .await;
    }

    /// Whether it is lost.
    pub fn is_lost(&self) -> bool {
        if self.expiry.as_ref().is_some_and(|expiry| expiry.is_over()) {
            self.lost.cancel();
        }
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

/// Until when a lease is valid if nothing more is heard of its server. Clones of one `Arc` are renewed together.
#[derive(Debug)]
pub struct Expiry {
    begins: Instant,
    /// In milliseconds from there.
    until: AtomicU64,
}

impl Expiry {
    /// One that is over at this time.
    pub fn at(until: Instant) -> Self {
        let begins = Instant::now();
        Self { begins, until: AtomicU64::new(milliseconds(begins, until)) }
    }

    /// Moves it to this time; one that is over stays so.
    pub fn renew(&self, until: Instant) {
        if !self.is_over() {
            self.until.store(milliseconds(self.begins, until), Ordering::Release);
        }
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        milliseconds(self.begins, Instant::now()) >= self.until.load(Ordering::Acquire)
    }
}

fn milliseconds(from: Instant, until: Instant) -> u64 {
    u64::try_from(until.saturating_duration_since(from).as_millis()).unwrap_or(u64::MAX)
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
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_under_a_lease_that_expired_meanwhile_does_not_continue() {
        let expiry = Arc::new(Expiry::at(Instant::now() + Duration::from_secs(6)));
        let lease = Lease::expiring(CancellationToken::new(), Arc::clone(&expiry), ());
        let (woken, steps) = (tokio::sync::Notify::new(), AtomicU64::new(0));
        let stop = CancellationToken::new();
        let work = lease.during(&stop, async |over| {
            loop {
                tokio::select! {
                    biased;
                    () = over.cancelled() => return,
                    () = woken.notified() => steps.fetch_add(1, Ordering::Relaxed),
                };
            }
        });
        let mut work = pin!(work);
        woken.notify_one();
        assert!(futures_util::poll!(work.as_mut()).is_pending());
        tokio::time::advance(Duration::from_secs(5)).await;
        expiry.renew(Instant::now() + Duration::from_secs(6));
        woken.notify_one();
        assert!(futures_util::poll!(work.as_mut()).is_pending());
        assert_eq!(steps.load(Ordering::Relaxed), 2, "it was renewed in time");
        // As after SIGSTOP: nothing ran for a while, and what wakes first is the work.
        tokio::time::advance(Duration::from_secs(60)).await;
        woken.notify_one();
        assert!(futures_util::poll!(work.as_mut()).is_ready());
        assert_eq!(steps.load(Ordering::Relaxed), 2, "nothing was done after it had expired");
        expiry.renew(Instant::now() + Duration::from_secs(6));
        assert!(lease.is_lost(), "it does not come back");
    }

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
