//! Follows the log into a place outside of the store: at least once, with the checkpoint after the effect.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join};
use purista_core::clock::Clock;
use purista_core::error::HandlerError;
use purista_core::text::Text;

use super::lane::Rate;
use super::{BuildProgress, Condition, Control, Projected, Turn, Worker};
use crate::batch::Batch;
use crate::lost_answer::commit_until_known;
use crate::position::Position;
use crate::query::Query;
use crate::read_models::{Build, BuildPause, panicked};
use crate::recorded::Recorded;
use crate::store::{EventStore, FollowPage, PAGE_MAX, StoreError};
use crate::subscriptions::{Pause, ProgressChange, SubscriptionId, SubscriptionRecord};

/// What the names begin with under which checkpoints and pauses of such projections are kept, as
/// `purista.projection.search.1`.
pub const CHECKPOINTS: &str = "purista.projection.";

/// A place outside of the store that takes events: a search server, another database.
pub trait Sink: Send + Sync + 'static {
    /// Takes a page, in order. It comes again, whole, when the process ends before its checkpoint is kept, so the effect is
    /// made to be repeatable: by the position or the id of the event. An error pauses the projection before the page.
    fn take(&self, page: Arc<[Recorded]>) -> BoxFuture<'_, Result<(), HandlerError>>;
}

impl<F> Sink for F
where
    F: Fn(Arc<[Recorded]>) -> BoxFuture<'static, Result<(), HandlerError>> + Send + Sync + 'static,
{
    fn take(&self, page: Arc<[Recorded]>) -> BoxFuture<'_, Result<(), HandlerError>> {
        self(page)
    }
}

impl Projected {
    /// A projection of what a query selects into a place outside of the store, for a host to run: at least once. Another
    /// version begins at the first event.
    pub fn to_sink<S: EventStore + Clone>(
        store: &S,
        name: &'static str,
        version: u32,
        query: Query,
        sink: impl Sink,
    ) -> Self {
        let store: Arc<dyn EventStore> = Arc::new(store.clone());
        let control = Arc::new(Control::new(Text::known(name), version, query, Arc::clone(&store)));
        let id = SubscriptionId::new(format!("{CHECKPOINTS}{name}.{version}"));
        Self::with(Arc::clone(&control), Outside { store, id, sink, control })
    }
}

struct Outside<K> {
    store: Arc<dyn EventStore>,
    /// Under which its checkpoint and its pause are kept.
    id: SubscriptionId,
    sink: K,
    control: Arc<Control>,
}

impl<K: Sink> Worker for Outside<K> {
    fn begin(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn work<'a>(&'a self, turn: &'a mut Turn) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.follow(turn))
    }

    fn look_on<'a>(&'a self, clock: &'a Clock) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            if self.control.wants_resume() {
                self.pause(None, clock).await?;
                self.control.takes_resume();
            }
            self.refuse_rebuild();
            let record = self.record().await?;
            self.publish(record.progress.low, record.pause.as_ref(), 0.0);
            Ok(())
        })
    }
}

impl<K: Sink> Outside<K> {
    async fn record(&self) -> Result<SubscriptionRecord, StoreError> {
        Ok(self.store.subscription(&self.id).await?.unwrap_or_default())
    }

    async fn follow(&self, turn: &mut Turn) -> Result<(), StoreError> {
        let clock = turn.clock.clone();
        let record = self.record().await?;
        let (mut position, mut pause) = (record.progress.low, record.pause);
        let (mut head, mut rate, query) = (self.store.head(), Rate::new(), self.control.query());
        let mut next: Option<FollowPage> = None;
        while !turn.is_over() {
            let seen = *head.borrow_and_update();
            if self.control.takes_resume() && pause.take().is_some() {
                self.pause(None, &clock).await?;
            }
            self.refuse_rebuild();
            if turn.looks() {
                // Somebody else may have stopped it, or let it go on.
                pause = self.record().await?.pause;
            }
            self.publish(position, pause.as_ref(), rate.per_second());
            if pause.is_some() || (next.is_none() && position >= seen) {
                tokio::select! {
                    () = turn.over() => {}
                    _ = head.changed() => {}
                    () = self.control.wake.notified() => {}
                    () = turn.time_to_look() => {}
                }
                continue;
            }
            let page = match next.take() {
                Some(page) => page,
                None => self.store.follow(&query, position, PAGE_MAX).await?,
            };
            let (up_to, count) = (page.looked_up_to, page.events.len());
            let taken = async {
                if page.events.is_empty() {
                    return Ok(());
                }
                let taking = AssertUnwindSafe(async { self.sink.take(page.events.into()).await });
                taking.catch_unwind().await.unwrap_or_else(|panic| Err(panicked(&*panic)))
            };
            let following = async {
                if up_to >= seen {
                    return Ok(None);
                }
                self.store.follow(&query, up_to, PAGE_MAX).await.map(Some)
            };
            let (taken, following) = join(taken, following).await;
            if let Err(error) = taken {
                let reason = error.report();
                tracing::error!(projection = %self.control.name, after = %position, reason, "a projection is paused");
                let paused = Pause { since: clock.now(), reason };
                self.pause(Some(paused.clone()), &clock).await?;
                pause = Some(paused);
                continue;
            }
            let mut batch = Batch::new(clock.id(), None);
            let subscription = self.id.clone();
            batch.progress.push(ProgressChange { subscription, up_to: Some(up_to), done: None });
            self.commit(batch).await?;
            position = up_to;
            rate.count(u64::try_from(count).unwrap_or(0));
            next = following?;
        }
        Ok(())
    }

    /// Only whoever knows the place can empty it.
    fn refuse_rebuild(&self) {
        if self.control.takes_rebuild() {
            tracing::error!(
                projection = %self.control.name,
                "a projection into another place is not made anew: raise its version, and it begins at the first event"
            );
        }
    }

    async fn pause(&self, pause: Option<Pause>, clock: &Clock) -> Result<(), StoreError> {
        let mut batch = Batch::new(clock.id(), None);
        batch.pauses.push((self.id.clone(), pause));
        self.commit(batch).await
    }

    /// A commit whose answer is lost is repeated: the changes commute.
    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        commit_until_known(batch, |batch| self.store.commit(batch)).await.map(drop)
    }

    fn publish(&self, position: Position, pause: Option<&Pause>, per_second: f64) {
        let build = Build { name: self.control.name.clone(), version: self.control.version, generation: 1 };
        let progress = BuildProgress { build, position, is_current: true, per_second };
        // First, so that who sees the state finds the position with it.
        self.control.reached.send_replace(position);
        self.control.change(|state| {
            state.condition = pause.map_or(Condition::Running, |Pause { since, reason }| {
                Condition::Paused(BuildPause { at: position.next(), since: *since, reason: reason.clone() })
            });
            state.builds = vec![progress];
        });
    }
}

#[cfg(test)]
mod tests;
