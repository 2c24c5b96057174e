//! Whose turn it is to feed a durable subscription, where several processes share the store: one feeds it, the others look on.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use purista_events::batch::Batch;
use purista_events::lag::LAG_COUNTED_MAX;
use purista_events::lease::{self, Lease};
use purista_events::store::StoreError;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Durable, DurableState, End, PARKED_MAX};
use crate::commit::settled;

/// How long it waits before it asks a store again that refused.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// How often whoever feeds it looks for what other processes ask for, and how often those look how far it is.
const LOOKED_EVERY: Duration = Duration::from_secs(1);

/// With each so many parked events it is one [`LOOKED_EVERY`] longer, since they are all read.
const PARKED_A_LOOK: usize = 500;

/// How long what is under way may take to end when the lease is lost: another process may begin with the same events.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// A turn of this process.
pub(super) struct Turn {
    lease: Lease,
    lost_at: Option<Instant>,
    /// When to look for what other processes ask for; `None` where there are none.
    looks_at: Option<Instant>,
}

/// What whoever feeds a subscription is told beside its events.
pub(super) enum Sign {
    /// There may be something new in the store, or another process asks for something by way of it.
    Look,
    /// The lease is lost: nothing more is begun.
    Lost,
    /// It is lost for so long that what is under way is given up.
    GiveUp,
}

impl Turn {
    fn new(lease: Lease) -> Self {
        let looks_at = (!lease.is_alone()).then(|| Instant::now() + LOOKED_EVERY);
        Self { lease, lost_at: None, looks_at }
    }

    /// Whether the lease is lost, which is asked before anything is begun: after SIGSTOP an attempt may end before a sign comes.
    pub(super) fn is_lost(&mut self) -> bool {
        let is_lost = !self.lease.is_alone() && self.lease.is_lost();
        if is_lost {
            self.lost_at.get_or_insert_with(Instant::now);
        }
        is_lost
    }

    /// It was looked, and so many events are parked.
    pub(super) fn has_looked(&mut self, parked: usize) {
        self.looks_at = self.looks_at.map(|_| Instant::now() + pause_between_looks(parked));
    }

    /// Waits for the next sign; whoever is leaving looks no more. Cancel safe.
    pub(super) async fn sign(&mut self, said: &Notify, is_leaving: bool) -> Sign {
        if self.lease.is_alone() && !is_leaving {
            said.notified().await;
            return Sign::Look;
        }
        if let Some(lost_at) = self.lost_at {
            tokio::time::sleep_until(lost_at + ENDS_WITHIN).await;
            return Sign::GiveUp;
        }
        let looks_at = self.looks_at.filter(|_| !is_leaving);
        let time_to_look = async {
            match looks_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.lease.lost() => {
                self.lost_at = Some(Instant::now());
                return Sign::Lost;
            }
            () = said.notified(), if !is_leaving => {}
            () = time_to_look => {}
        }
        self.has_looked(0);
        Sign::Look
    }
}

fn pause_between_looks(parked: usize) -> Duration {
    LOOKED_EVERY * u32::try_from(1 + parked / PARKED_A_LOOK).unwrap_or(u32::MAX)
}

impl Durable {
    /// Feeds it until it is stopped; what is under way is finished first. Where several processes share the store, one of them
    /// feeds it at a time, from the progress that the store has when it begins.
    pub(crate) async fn run(self) {
        while let Some(lease) = self.next_turn().await {
            let mut turn = Turn::new(lease);
            while !turn.lease.is_lost() {
                let failed = match self.load().await {
                    Ok(record) => match self.serve(record, &mut turn).await {
                        End::Stopped => return,
                        End::Lost => break,
                        End::ReadAnew | End::Overtaken => continue,
                        End::Failed(error) => error,
                    },
                    Err(error) => error,
                };
                self.fails(&failed);
                tokio::select! {
                    () = self.stop.cancelled() => return,
                    () = turn.lease.lost() => {}
                    () = tokio::time::sleep(STORE_RETRY) => {}
                }
            }
        }
    }

    /// Waits for its lease, and looks on meanwhile; `None` when it is stopped.
    async fn next_turn(&self) -> Option<Lease> {
        let name = lease::of_subscription(&self.control.id);
        loop {
            let taken = tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                taken = self.store.lease(&name) => taken,
                never = self.look_on() => match never {},
            };
            match taken {
                Ok(lease) => {
                    if !lease.is_alone() {
                        tracing::info!(subscription = %self.control.id, "a subscription is fed by this process");
                    }
                    return Some(lease);
                }
                Err(error) => self.fails(&error),
            }
            self.stop.run_until_cancelled(tokio::time::sleep(STORE_RETRY)).await?;
        }
    }

    fn fails(&self, error: &StoreError) {
        let reason = purista_core::error::chain(error);
        tracing::error!(subscription = %self.control.id, error = %reason, "a durable subscription waits for its store");
        self.control.set(DurableState::Failing(reason));
    }

    /// Tells what another process has done, and hands on to it that the subscription may go on.
    async fn look_on(&self) -> Infallible {
        loop {
            let parked = self.look().await.unwrap_or_else(|error| {
                self.fails(&error);
                0
            });
            tokio::select! {
                () = tokio::time::sleep(pause_between_looks(parked)) => {}
                // It goes on by itself, so that it is not lost when the lease comes in between.
                () = self.control.resume.notified() => drop(self.runtime.tasks.spawn(self.resumed())),
            }
        }
    }

    /// Returns how many events are parked.
    async fn look(&self) -> Result<usize, StoreError> {
        let (record, head) = (self.load().await?, self.store.last_position().await?);
        let low = record.progress.low;
        let mut left = 0;
        if low < head {
            let done = u64::try_from(record.progress.done.len()).unwrap_or(u64::MAX);
            let counted = self.store.count(&self.control.query, low, head, LAG_COUNTED_MAX).await?;
            left = counted.events.saturating_sub(done);
        }
        // All that is left is counted.
        self.control.held.store(usize::try_from(left).unwrap_or(usize::MAX), Ordering::Relaxed);
        self.control.fetched_up_to.store(u64::MAX, Ordering::Relaxed);
        self.control.under_way.store(0, Ordering::Relaxed);
        self.control.deferred.store(record.parked.len(), Ordering::Relaxed);
        self.control.settled_up_to.send_replace(None);
        self.control.set(match record.pause {
            Some(pause) => DurableState::Paused(pause.reason),
            None if record.parked.len() >= PARKED_MAX => DurableState::Full,
            None => DurableState::Elsewhere,
        });
        Ok(record.parked.len())
    }

    /// Lets it go on, wherever it is fed.
    fn resumed(&self) -> impl Future<Output = ()> + Send + 'static {
        let (store, id) = (Arc::clone(&self.store), self.control.id.clone());
        let mut batch = Batch::new(self.runtime.clock.id(), None);
        batch.pauses.push((id.clone(), None));
        async move {
            match settled(&store, batch).await {
                Ok(()) => tracing::info!(subscription = %id, "a subscription goes on"),
                Err(error) => tracing::error!(subscription = %id, %error, "a subscription stays paused"),
            }
        }
    }

    /// Waits until it is let go on, here or by way of the store.
    pub(super) async fn wait_for_resume(&self, reason: String, turn: &mut Turn) -> Result<End, StoreError> {
        self.control.set(DurableState::Paused(reason));
        self.control.settled_up_to.send_replace(None);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return Ok(End::Stopped),
                () = self.control.resume.notified() => break,
                sign = turn.sign(&self.control.parked_anew, false) => match sign {
                    Sign::Lost | Sign::GiveUp => return Ok(End::Lost),
                    Sign::Look if self.load().await?.pause.is_none() => return Ok(End::ReadAnew),
                    Sign::Look => {}
                }
            }
        }
        let mut batch = Batch::new(self.runtime.clock.id(), None);
        batch.pauses.push((self.control.id.clone(), None));
        settled(&self.store, batch).await?;
        tracing::info!(subscription = %self.control.id, "a subscription goes on");
        Ok(End::ReadAnew)
    }
}
