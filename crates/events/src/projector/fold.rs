//! Follows the log into a value in memory, and keeps it as a snapshot: for read models that fit there.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, join};
use purista_core::error::HandlerError;
use purista_core::text::Text;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use self::input::{ContentFold, Taken};
use super::lane::Rate;
use super::{BuildProgress, Condition, Control, Projected, Turn, Worker};
use crate::occurrence::{OccurrencePage, Occurrences};
use crate::position::Position;
use crate::projection::{Projection, projection};
use crate::query::Query;
use crate::read_models::{Build, BuildPause, caught};
use crate::recorded::Recorded;
use crate::snapshot::{Snapshot, SnapshotKey};
use crate::store::{EventStore, FollowPage, PAGE_MAX, StoreError};
use crate::upcast::Upcasters;

pub mod input;

/// How often the value is kept while it changes. What came after is folded again after a crash.
const KEPT_EVERY: Duration = Duration::from_secs(5);

/// A value in memory that follows the log. Clones are the same value.
pub struct Folded<S>(Arc<Mutex<RefCell<S>>>);

impl<S> Folded<S> {
    /// Reads it. Events wait meanwhile, so it is short.
    pub fn read<T>(&self, read: impl FnOnce(&S) -> T) -> T {
        read(&self.0.lock().unwrap_or_else(PoisonError::into_inner).borrow())
    }

    fn set(&self, value: S) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(value);
    }
}

impl<S> Clone for Folded<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> fmt::Debug for Folded<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Folded").finish_non_exhaustive()
    }
}

/// A value and how it follows from events; made by [`folding`].
#[must_use = "it does nothing before it is bound to a store"]
pub struct Folding<S> {
    start: S,
    projection: Projection<RefCell<S>>,
    /// The same folds by content; `None` as soon as one of them takes more.
    by_content: Option<Vec<ContentFold<S>>>,
}

/// A value in memory that begins as `start` and follows the log. Raise the version when its form or its fold changes: it is
/// folded from the first event again then.
pub fn folding<S: 'static>(name: &'static str, version: u32, start: S) -> Folding<S> {
    Folding { start, projection: projection(name, version), by_content: Some(Vec::new()) }
}

impl<S: Clone + Serialize + DeserializeOwned + Send + Sync + 'static> Folding<S> {
    /// What one type of event does: a closure that takes its content `E`, or the whole [`Recorded<E>`]. Take the content where
    /// it is enough, see [`Taken`].
    pub fn on<T: Taken>(mut self, fold: impl Fn(&mut S, T) + Send + Sync + 'static) -> Self {
        let fold = Arc::new(fold);
        let by_content = Arc::clone(&fold);
        let by_content = T::by_content(move |value: &mut S, event| by_content(value, event));
        self.by_content = self.by_content.zip(by_content).map(|(mut folds, fold)| {
            folds.retain(|known| known.form.name != fold.form.name);
            folds.push(fold);
            folds
        });
        self.projection = self.projection.on(move |value: &RefCell<S>, event: Recorded<T::Event>| {
            fold(&mut value.borrow_mut(), T::of(event));
            Ok(())
        });
        self
    }

    /// Binds it to a store, for a host to run; and gives the value.
    pub fn of<T: EventStore + Clone>(self, store: &T) -> (Projected, Folded<S>) {
        let folded = Folded(Arc::new(Mutex::new(RefCell::new(self.start.clone()))));
        let store: Arc<dyn EventStore> = Arc::new(store.clone());
        let (name, version) = (self.projection.name().clone(), self.projection.version());
        let (query, key) = (self.projection.query(), key(&self.projection));
        let control = Arc::new(Control::new(name, version, query, Arc::clone(&store)));
        let Self { start, projection, by_content } = self;
        let (folded_too, control_too) = (folded.clone(), Arc::clone(&control));
        let folds =
            Folds { store, key, start, projection, by_content, folded: folded_too, control: control_too };
        (Projected::with(control, folds), folded)
    }
}

impl<S> fmt::Debug for Folding<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Folding").field(&self.projection).finish()
    }
}

/// Under which the value is kept.
fn key<S: 'static>(projection: &Projection<RefCell<S>>) -> SnapshotKey {
    let name = Text::from(format!("projection.{}", projection.name()));
    SnapshotKey::of(None, name, projection.version(), &projection.query())
}

/// Where taking in a page ended.
enum End {
    /// With all of its events.
    All,
    /// Before one that cannot be decoded.
    Before(Position, String),
    /// In the middle of one.
    Broken(Position, String),
}

/// The next events: whole, or their content.
enum Page {
    Whole(FollowPage),
    Contents(OccurrencePage),
}

impl Page {
    fn looked_up_to(&self) -> Position {
        match self {
            Self::Whole(page) => page.looked_up_to,
            Self::Contents(page) => page.looked_up_to,
        }
    }

    fn len(&self) -> u64 {
        let events = match self {
            Self::Whole(page) => page.events.len(),
            Self::Contents(page) => page.events.len(),
        };
        u64::try_from(events).unwrap_or(u64::MAX)
    }
}

struct Folds<S> {
    store: Arc<dyn EventStore>,
    key: SnapshotKey,
    start: S,
    projection: Projection<RefCell<S>>,
    by_content: Option<Vec<ContentFold<S>>>,
    folded: Folded<S>,
    control: Arc<Control>,
}

impl<S: Clone + Serialize + DeserializeOwned + Send + Sync + 'static> Worker for Folds<S> {
    fn take_upcasters(&mut self, upcasters: &Upcasters) -> Option<Query> {
        self.projection.take_upcasters(upcasters);
        self.key = key(&self.projection);
        Some(self.projection.query())
    }

    fn begin(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// The value is in this process's memory.
    fn is_one_for_all(&self) -> bool {
        false
    }

    fn work<'a>(&'a self, turn: &'a mut Turn) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.follow(turn))
    }
}

impl<S: Clone + Serialize + DeserializeOwned + Send + Sync + 'static> Folds<S> {
    /// Where it goes on: at its snapshot, or at the start. A snapshot that is not of this form counts as none.
    async fn load(&self) -> Result<Position, StoreError> {
        let found = self.store.snapshot(&self.key).await?;
        let found = found.and_then(|kept| Some((kept.position, serde_json::from_slice(&kept.body).ok()?)));
        let (position, value) = found.unwrap_or_else(|| (Position::START, self.start.clone()));
        self.folded.set(value);
        Ok(position)
    }

    async fn save(&self, position: Position, turn: &Turn) {
        let body = self.folded.read(serde_json::to_vec);
        let Ok(body) = body else { return };
        let snapshot =
            Snapshot { key: self.key.clone(), position, taken_at: turn.clock.now(), body: body.into() };
        if let Err(error) = self.store.save_snapshot(snapshot).await {
            tracing::warn!(projection = %self.control.name, %error, "a value is not kept; it is folded again after a restart");
        }
    }

    async fn follow(&self, turn: &Turn) -> Result<(), StoreError> {
        while !turn.is_over() {
            let mut position = self.load().await?;
            if let Some(pause) = self.fold(&mut position, turn).await? {
                tracing::error!(projection = %self.control.name, position = %pause.at, reason = pause.reason, "a projection is paused");
                self.control.change(|state| state.condition = Condition::Paused(pause));
                tokio::select! {
                    () = turn.over() => {}
                    () = self.control.wake.notified() => {}
                }
            }
        }
        Ok(())
    }

    /// Folds until it is stopped, or meets an event that it cannot take in.
    async fn fold(&self, position: &mut Position, turn: &Turn) -> Result<Option<BuildPause>, StoreError> {
        let (mut head, mut rate, query) = (self.store.head(), Rate::new(), self.projection.query());
        let (mut kept, mut kept_at) = (*position, Instant::now());
        let (mut next, mut spare): (Option<Page>, _) = (None, Occurrences::default());
        self.publish(*position, &rate);
        loop {
            let seen = *head.borrow_and_update();
            if turn.is_over() || kept_at.elapsed() >= KEPT_EVERY {
                if kept < *position {
                    self.save(*position, turn).await;
                }
                (kept, kept_at) = (*position, Instant::now());
            }
            if turn.is_over() {
                return Ok(None);
            }
            if self.control.takes_rebuild() {
                self.store.forget_snapshots(Some(self.key.name.as_str())).await?;
                self.folded.set(self.start.clone());
                (*position, kept, next) = (Position::START, Position::START, None);
            }
            if next.is_none() && *position >= seen {
                tokio::select! {
                    () = turn.over() => {}
                    _ = head.changed() => {}
                    () = self.control.wake.notified() => {}
                    () = tokio::time::sleep_until(kept_at + KEPT_EVERY), if kept < *position => {}
                }
                continue;
            }
            let page = match next.take() {
                Some(page) => page,
                None => self.read(&query, *position, std::mem::take(&mut spare)).await?,
            };
            let up_to = page.looked_up_to();
            // The engine reads the next page while this one is decoded and folded.
            let following = async {
                if up_to >= seen {
                    return Ok(None);
                }
                self.read(&query, up_to, std::mem::take(&mut spare)).await.map(Some)
            };
            let count = page.len();
            let (following, (end, used)) = join(following, async { self.take_in(page) }).await;
            spare = used;
            let (up_to, poison) = match end {
                End::All => (up_to, None),
                End::Before(at, reason) => (at.previous().max(*position), Some((at, reason))),
                End::Broken(at, reason) => {
                    return Ok(Some(BuildPause { at, since: turn.clock.now(), reason }));
                }
            };
            *position = up_to;
            rate.count(count);
            self.publish(*position, &rate);
            if let Some((at, reason)) = poison {
                self.save(*position, turn).await;
                return Ok(Some(BuildPause { at, since: turn.clock.now(), reason }));
            }
            next = following?;
        }
    }

    async fn read(&self, query: &Query, from: Position, into: Occurrences) -> Result<Page, StoreError> {
        if self.by_content.is_some() {
            self.store.follow_occurrences(query, from, into).await.map(Page::Contents)
        } else {
            self.store.follow(query, from, PAGE_MAX).await.map(Page::Whole)
        }
    }

    /// Readers see everything up to the end, or nothing of it. It gives back the memory of a page.
    fn take_in(&self, page: Page) -> (End, Occurrences) {
        match (page, &self.by_content) {
            (Page::Contents(page), Some(folds)) => (self.take_in_contents(folds, &page.events), page.events),
            (Page::Whole(page), _) => (self.take_in_whole(page.events), Occurrences::default()),
            // Contents are read where there are folds of them.
            (Page::Contents(page), None) => (End::All, page.events),
        }
    }

    fn take_in_contents(&self, folds: &[ContentFold<S>], events: &Occurrences) -> End {
        let value = self.folded.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = Cell::new(Position::START);
        let taken = caught(|| {
            let mut value = value.borrow_mut();
            Ok(events.iter().try_for_each(|event| {
                at.set(event.position);
                input::take_in(folds, &mut value, &event, self.projection.steps())
            }))
        });
        match taken {
            Ok(Ok(())) => End::All,
            Ok(Err(unreadable)) => End::Before(at.get(), HandlerError::from(unreadable).report()),
            Err(panicked) => End::Broken(at.get(), panicked.report()),
        }
    }

    fn take_in_whole(&self, events: Vec<Recorded>) -> End {
        let value = self.folded.0.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            let position = event.position;
            match caught(|| Ok(self.projection.take_in(&value, event))) {
                Ok(Ok(Ok(()))) => {}
                Ok(Err(undecoded)) => return End::Before(position, undecoded.report()),
                // What a failure left is not to be trusted: it begins again at the snapshot.
                Ok(Ok(Err(error))) | Err(error) => return End::Broken(position, error.report()),
            }
        }
        End::All
    }

    fn publish(&self, position: Position, rate: &Rate) {
        let build = Build { name: self.control.name.clone(), version: self.control.version, generation: 1 };
        let progress = BuildProgress { build, position, is_current: true, per_second: rate.per_second() };
        // First, so that who sees the state finds the position with it.
        self.control.reached.send_replace(position);
        self.control.change(|state| {
            state.condition = Condition::Running;
            state.builds = vec![progress];
        });
    }
}

#[cfg(test)]
mod tests;
