//! Whose turn it is to run a projection, where several processes have it: one runs it, the others look on.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;

use purista_core::clock::Clock;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Condition, Control, Projected, STORE_RETRY};
use crate::lease::{self, Lease};

/// How often whoever runs it looks for what other processes ask for, and how often those look how far it is.
const LOOKED_EVERY: Duration = Duration::from_secs(1);
/// The same while somebody waits until readers see what he wrote.
const LOOKED_EVERY_FOR_A_READER: Duration = Duration::from_millis(20);

/// A turn of this process.
pub(super) struct Turn {
    /// Cancelled when it is stopped, and when its lease is lost.
    over: CancellationToken,
    pub(super) clock: Clock,
    /// When to look for what other processes ask for; `None` where there are none.
    looks_at: Option<Instant>,
}

impl Turn {
    fn new(over: CancellationToken, clock: Clock, is_alone: bool) -> Self {
        Self { over, clock, looks_at: (!is_alone).then(Instant::now) }
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Waits until it is over. Cancel safe.
    pub(super) async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Whether it is time to look for what others ask for. It is once a [`LOOKED_EVERY`], and never where one process has the
    /// store to itself.
    pub(super) fn looks(&mut self) -> bool {
        let now = Instant::now();
        let is_due = self.looks_at.is_some_and(|at| at <= now);
        if is_due {
            self.looks_at = Some(now + LOOKED_EVERY);
        }
        is_due
    }

    /// Waits until it is time to look. Cancel safe.
    pub(super) async fn time_to_look(&self) {
        match self.looks_at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

impl Projected {
    /// Follows the log until it is stopped. What is under way then is finished first. Where several processes share the store,
    /// one of them follows it at a time, and the others tell what that one has done.
    pub async fn run(self, stop: CancellationToken, clock: Clock) {
        while let Some(lease) = self.next_turn(&stop, &clock).await {
            while !stop.is_cancelled() && !lease.is_lost() {
                let ended = lease.during(&stop, async |over| {
                    let mut turn = Turn::new(over, clock.clone(), lease.is_alone());
                    self.worker.work(&mut turn).await
                });
                let Err(error) = ended.await else { continue };
                self.control.fails(&error);
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = lease.lost() => {}
                    () = tokio::time::sleep(STORE_RETRY) => {}
                }
            }
        }
    }

    /// Waits for its lease, and looks on meanwhile; `None` when it is stopped.
    async fn next_turn(&self, stop: &CancellationToken, clock: &Clock) -> Option<Lease> {
        let Control { name, version, .. } = &*self.control;
        if !self.worker.is_one_for_all() {
            return (!stop.is_cancelled()).then(Lease::alone);
        }
        let named = lease::of_projection(name, *version);
        loop {
            let taken = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                taken = self.control.store.lease(&named) => taken,
                never = self.look_on(clock) => match never {},
            };
            match taken {
                Ok(lease) => {
                    self.control.change(|state| state.is_elsewhere = false);
                    if !lease.is_alone() {
                        tracing::info!(projection = %name, version, "a projection is run by this process");
                    }
                    return Some(lease);
                }
                Err(error) => self.control.fails(&error),
            }
            stop.run_until_cancelled(tokio::time::sleep(STORE_RETRY)).await?;
        }
    }

    /// Tells what another process has done, and hands on what is asked for here. Nothing that was asked for is lost when it is
    /// dropped: whoever gets the lease then does it.
    async fn look_on(&self, clock: &Clock) -> Infallible {
        self.control.change(|state| state.is_elsewhere = true);
        loop {
            if let Err(error) = self.worker.look_on(clock).await {
                self.control.fails(&error);
            }
            let is_waited_for = self.control.waiting.load(Ordering::Acquire) > 0;
            let pause = if is_waited_for { LOOKED_EVERY_FOR_A_READER } else { LOOKED_EVERY };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.control.wake.notified() => {}
            }
        }
    }
}

impl Control {
    fn fails(&self, error: &crate::store::StoreError) {
        let reason = purista_core::error::chain(error);
        let Self { name, version, .. } = self;
        tracing::error!(projection = %name, version, error = %reason, "a projection waits for its store");
        self.change(|state| state.condition = Condition::Failing(reason));
    }
}
