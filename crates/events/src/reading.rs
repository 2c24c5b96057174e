//! Reads what a boundary adds up to: now, to decide on it, or as it was.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use purista_core::clock::Clock;
use purista_core::text::Text;

use crate::batch::Condition;
use crate::occurrence::Occurrences;
use crate::position::Position;
use crate::query::{Query, TenantScope};
use crate::recorded::Recorded;
use crate::snapshot::{Snapshot, SnapshotKey};
use crate::store::{Direction, EventStore, PAGE_MAX, StoreError};
use crate::upcast::{UnreadableEvent, Upcasters};
use crate::view::{AnyView, Boundary};
use crate::view_read::ViewRead;

/// How long a read of the past waits until nothing can be recorded any more where it ends.
pub const HORIZON_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long it waits before it looks again.
const HORIZON_LOOK: Duration = Duration::from_millis(1);

/// Reads boundaries of one tenant from one store: what [handlers](https://docs.rs/purista) do by `ctx.read`, for programs
/// that have a store and no host.
///
/// ```
/// # use garde::Validate; use schemars::JsonSchema; use serde::{Deserialize, Serialize};
/// # use purista_core::event::Event;
/// # use purista_events::{memory::MemoryStore, view::view};
/// # #[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)] #[garde(allow_unvalidated)] struct Joined {}
/// # impl Event for Joined { const NAME: &'static str = "joined"; }
/// use purista_events::reading::{Moment, Reader};
///
/// # async fn example(store: MemoryStore) -> Result<(), purista_events::reading::ReadError> {
/// let members = view(0).on(|count: &mut u32, _: Joined| *count += 1);
/// let seen = Reader::new(&store).of_tenant(Some("acme")).read(members, Moment::Now).await?;
/// println!("{} members at position {}", seen.state, seen.position);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Reader<'r> {
    store: &'r dyn EventStore,
    tenant: Option<Arc<str>>,
    upcasters: Option<&'r Upcasters>,
    clock: Clock,
}

/// As of when a boundary is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Moment {
    /// Everything that is recorded.
    #[default]
    Now,
    /// Everything before the first event that was recorded after this time. The same for ever: it waits until nothing more
    /// can be recorded at that time, and refuses a time that is still to come.
    AsOf(Timestamp),
    /// Everything up to this position, which must have been reached. The same for ever.
    At(Position),
}

/// What was read.
#[derive(Debug)]
#[non_exhaustive]
pub struct Seen<S> {
    /// What the events add up to.
    pub state: S,
    /// Up to where it goes: [`Moment::At`] this position reads the same again.
    pub position: Position,
    /// How many events were read for it; a snapshot makes it fewer.
    pub events_read: u64,
    /// "Nothing of this was added since": for an append that depends on it. Only of [`Moment::Now`].
    pub condition: Option<Condition>,
    /// Snapshots that are due. Nobody needs to wait for them: hand them to [`keep`] when there is time, or drop them.
    pub due_snapshots: Vec<Snapshot>,
}

/// A boundary could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It asked for the state at a time that is still to come.
    #[error("{0} is in the future: the past can be read, and now")]
    Future(Timestamp),
    /// It asked for the state at a position that was not reached.
    #[error("position {asked} was not reached: the log ends at {head}")]
    NotReached {
        /// What was asked for.
        asked: Position,
        /// The last position.
        head: Position,
    },
    /// An event is of a form that nobody can read.
    #[error(transparent)]
    Unreadable(#[from] UnreadableEvent),
    /// The store did not give its events.
    #[error("the events of a view cannot be read")]
    Store(#[from] StoreError),
    /// Somebody still writes where the read ends, and did not end within [`HORIZON_WAIT_MAX`].
    #[error("somebody still writes at or before position {0}: try again")]
    StillWritten(Position),
}

impl<'r> Reader<'r> {
    /// Reads what belongs to no tenant, in the forms in which it is stored.
    pub fn new(store: &'r dyn EventStore) -> Self {
        Self { store, tenant: None, upcasters: None, clock: Clock::system() }
    }

    /// Reads what belongs to this tenant.
    #[must_use]
    pub fn of_tenant(mut self, tenant: Option<&str>) -> Self {
        self.tenant = tenant.map(Arc::from);
        self
    }

    /// Reads older forms through these.
    #[must_use]
    pub fn upcasters(mut self, upcasters: &'r Upcasters) -> Self {
        self.upcasters = Some(upcasters);
        self
    }

    /// Takes the time of day from here.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// What the boundary adds up to at this moment. It holds one page of events at a time. Cancel safe.
    pub async fn read<B: Boundary>(
        &self,
        mut boundary: B,
        moment: Moment,
    ) -> Result<Seen<B::State>, ReadError> {
        const AS_STORED: &Upcasters = &Upcasters::new();
        let upcasters = self.upcasters.unwrap_or(AS_STORED);
        let query = self.query(boundary.views().iter().map(|view| view.item(upcasters)));
        let end = self.end(moment, &query).await?;
        let (events_read, position, is_settled, condition) = match end {
            None => {
                let mut read = self.begin(&mut boundary, upcasters, &query).await?;
                let mut fold = Fold { boundary: &mut boundary, upcasters, events: 0 };
                while let Some(page) = read.next_page().await? {
                    fold.apply(&page)?;
                }
                let (position, is_settled) = (read.token.position(), read.token.is_settled());
                (fold.events, position, is_settled, Some(Condition::Unless(query, read.token)))
            }
            Some(end) => (self.read_past(&mut boundary, upcasters, &query, end).await?, end, true, None),
        };
        // A state that lacks what somebody still writes below its position is no state of that position.
        let due_snapshots =
            if is_settled { self.due_snapshots(&mut boundary, upcasters, position) } else { Vec::new() };
        Ok(Seen { state: boundary.into_state(), position, events_read, condition, due_snapshots })
    }

    fn query(&self, items: impl Iterator<Item = crate::query::QueryItem>) -> Query {
        let tenants = TenantScope::Only(self.tenant.clone().map(Text::from));
        Query { tenants, items: items.collect() }
    }

    /// Where a read of the past ends, once nothing can appear there any more.
    async fn end(&self, moment: Moment, query: &Query) -> Result<Option<Position>, ReadError> {
        let end = match moment {
            Moment::Now => return Ok(None),
            Moment::At(position) => {
                let head = *self.store.head().borrow();
                if position > head {
                    return Err(ReadError::NotReached { asked: position, head });
                }
                position
            }
            Moment::AsOf(time) => {
                if time > self.clock.now() {
                    return Err(ReadError::Future(time));
                }
                // As long as the clock shows that millisecond, more may be recorded at it.
                while self.clock.now().as_millisecond() <= time.as_millisecond() {
                    tokio::time::sleep(HORIZON_LOOK).await;
                }
                self.store.position_at(time).await?
            }
        };
        let waiting = async {
            while !is_below_horizon(self.store, query, end).await? {
                tokio::time::sleep(HORIZON_LOOK).await;
            }
            Ok(Some(end))
        };
        let waited = tokio::time::timeout(HORIZON_WAIT_MAX, waiting).await;
        waited.unwrap_or(Err(ReadError::StillWritten(end)))
    }

    fn key_of(&self, view: &dyn AnyView, upcasters: &Upcasters) -> Option<SnapshotKey> {
        let (name, version) = view.snapshots()?;
        let query = self.query(std::iter::once(view.item(upcasters)));
        Some(SnapshotKey::of(self.tenant.clone(), Text::known(name), version, &query))
    }

    /// Restores each view from its own snapshot and begins to read the events behind it: snapshots and events are of one moment.
    /// A snapshot that cannot be used is left out, and the read begins again: once for each view at most.
    async fn begin<B: Boundary>(
        &self,
        boundary: &mut B,
        upcasters: &Upcasters,
        query: &Query,
    ) -> Result<ViewRead<Occurrences>, ReadError> {
        let mut keys: Vec<Option<SnapshotKey>> =
            boundary.views().into_iter().map(|view| self.key_of(view, upcasters)).collect();
        // One view was asked for what it selects; of several, each looks for its own.
        let with_tags = keys.len() > 1;
        loop {
            if keys.iter().all(Option::is_none) {
                keys.clear();
            }
            let (snapshots, read) =
                self.store.read_occurrences(query, Position::START, &keys, with_tags).await?;
            let mut is_usable = true;
            for ((view, key), snapshot) in boundary.views().into_iter().zip(&mut keys).zip(snapshots) {
                if let Some(snapshot) = snapshot
                    && !restore_from(view, &snapshot, read.token.position())
                {
                    *key = None;
                    is_usable = false;
                }
            }
            if is_usable {
                return Ok(read);
            }
        }
    }

    /// Folds what was recorded up to a position, each view behind its own snapshot. Returns how many events were read.
    async fn read_past<B: Boundary>(
        &self,
        boundary: &mut B,
        upcasters: &Upcasters,
        query: &Query,
        end: Position,
    ) -> Result<u64, ReadError> {
        for view in boundary.views() {
            self.restore(view, upcasters, end).await;
        }
        let begins: Vec<Position> = boundary.views().iter().map(|view| view.restored_up_to()).collect();
        let mut starts = begins.clone();
        starts.sort_unstable();
        starts.dedup();
        let mut fold = Fold { boundary, upcasters, events: 0 };
        // Views that begin at the same position are read together: below the next start, only they have something to read.
        for (index, start) in starts.iter().enumerate() {
            let up_to = starts.get(index + 1).copied().unwrap_or(end).min(end);
            let begun = query.items.iter().zip(&begins).filter(|(_, begin)| *begin <= start);
            let items = begun.map(|(item, _)| item.clone()).collect();
            let query = Query { tenants: query.tenants.clone(), items };
            let mut pager = Pager::new(self.store, query, *start, Direction::Forwards).up_to(up_to);
            while let Some(page) = pager.next().await? {
                fold.apply(&page.into_iter().collect())?;
            }
        }
        Ok(fold.events)
    }

    /// Restores a view from its snapshot, unless that is damaged or later than `end`: the events behind it are there.
    async fn restore(&self, view: &mut dyn AnyView, upcasters: &Upcasters, end: Position) {
        let Some(key) = self.key_of(view, upcasters) else { return };
        match self.store.snapshot(&key).await {
            Ok(None) => {}
            Ok(Some(snapshot)) => drop(restore_from(view, &snapshot, end)),
            Err(error) => tracing::debug!(view = %key.name, %error, "no snapshot can be read"),
        }
    }

    fn due_snapshots<B: Boundary>(
        &self,
        boundary: &mut B,
        upcasters: &Upcasters,
        position: Position,
    ) -> Vec<Snapshot> {
        let views = boundary.views().into_iter();
        let due = views.filter_map(|view| Some((view.capture()?, self.key_of(view, upcasters)?)));
        due.filter_map(|(body, key)| match body {
            Ok(body) => Some(Snapshot { key, position, taken_at: self.clock.now(), body }),
            Err(error) => {
                tracing::debug!(view = %key.name, %error, "the state has no JSON: no snapshot");
                None
            }
        })
        .collect()
    }
}

impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

/// Restores a view from a snapshot. Returns whether the snapshot could be used.
fn restore_from(
    view: &mut dyn AnyView,
    Snapshot { key, position, body, .. }: &Snapshot,
    end: Position,
) -> bool {
    if *position > end {
        tracing::debug!(view = %key.name, %position, %end, "the snapshot is of a later position: not used");
        return false;
    }
    if let Err(error) = view.restore(body, *position) {
        tracing::debug!(view = %key.name, %error, "the snapshot has another schema version: not used");
        return false;
    }
    true
}

struct Fold<'f, B> {
    boundary: &'f mut B,
    upcasters: &'f Upcasters,
    events: u64,
}

impl<B: Boundary> Fold<'_, B> {
    fn apply(&mut self, page: &Occurrences) -> Result<(), UnreadableEvent> {
        let mut views = self.boundary.views();
        self.events += u64::try_from(page.len()).unwrap_or(u64::MAX);
        if let [view] = views.as_mut_slice() {
            // What was read is what it selects.
            return page.iter().try_for_each(|event| view.apply_selected(&event, self.upcasters));
        }
        for event in page.iter() {
            let tags = event.tags();
            views.iter_mut().try_for_each(|view| view.apply(&event, &tags, self.upcasters))?;
        }
        Ok(())
    }
}

/// Keeps snapshots that are due, those below the horizon: above it an event could still appear that they do not hold.
/// What goes wrong is logged, since nothing depends on it. Cancel safe.
pub async fn keep(store: &dyn EventStore, snapshots: Vec<Snapshot>) {
    for snapshot in snapshots {
        let (name, position) = (snapshot.key.name.clone(), snapshot.position);
        let kept = match is_below_horizon(store, &Query::all(), position).await {
            Ok(true) => store.save_snapshot(snapshot).await,
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            tracing::debug!(view = %name, %position, %error, "a snapshot was not kept");
        }
    }
}

/// Whether nothing can be recorded any more at or before this position.
async fn is_below_horizon(
    store: &dyn EventStore,
    query: &Query,
    position: Position,
) -> Result<bool, StoreError> {
    let page = store.follow(query, position.previous(), 1).await?;
    Ok(page.looked_up_to >= position)
}

/// Reads the log page by page, in either direction: a log of any length in the memory of one page.
///
/// ```
/// # use purista_events::{memory::MemoryStore, position::Position, query::Query};
/// # use purista_events::store::{Direction, StoreError};
/// use purista_events::reading::Pager;
///
/// # async fn example(store: MemoryStore) -> Result<(), StoreError> {
/// let newest_first = Position::new(u64::MAX);
/// let mut pager = Pager::new(&store, Query::tag("user", "ada"), newest_first, Direction::Backwards).page(50);
/// while let Some(page) = pager.next().await? {
///     for event in page {
///         println!("{} {} {}", event.position, event.recorded_at, event.name);
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Pager<'p> {
    store: &'p dyn EventStore,
    query: Query,
    from: Position,
    up_to: Option<Position>,
    direction: Direction,
    limit: usize,
    is_at_end: bool,
}

impl<'p> Pager<'p> {
    /// Pages of what the query selects, strictly beyond `from`.
    pub fn new(store: &'p dyn EventStore, query: Query, from: Position, direction: Direction) -> Self {
        Self { store, query, from, up_to: None, direction, limit: PAGE_MAX, is_at_end: false }
    }

    /// How many events a page has at most; never more than [`PAGE_MAX`].
    #[must_use]
    pub fn page(mut self, events: usize) -> Self {
        self.limit = events.clamp(1, PAGE_MAX);
        self
    }

    /// Ends with this position.
    #[must_use]
    pub fn up_to(mut self, position: Position) -> Self {
        self.up_to = Some(position);
        self
    }

    /// The next page; `None` after the last. No page is empty. Asked again after `None`, it looks for what came meanwhile.
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<Option<Vec<Recorded>>, StoreError> {
        if std::mem::take(&mut self.is_at_end) {
            return Ok(None);
        }
        let mut page = self.store.read(&self.query, self.from, self.direction, self.limit).await?;
        let read = page.len();
        if let Some(end) = self.up_to {
            page.retain(|event| match self.direction {
                Direction::Forwards => event.position <= end,
                Direction::Backwards => event.position >= end,
            });
        }
        let Some(last) = page.last() else { return Ok(None) };
        self.from = last.position;
        // A page that is not full was the last one.
        self.is_at_end = page.len() < self.limit || page.len() < read;
        Ok(Some(page))
    }
}

impl fmt::Debug for Pager<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pager")
            .field("from", &self.from)
            .field("direction", &self.direction)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
