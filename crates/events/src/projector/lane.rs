//! One build on its way through the log: what is decoded and not taken in yet, and how fast it goes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use purista_core::error::HandlerError;
use tokio::time::Instant;

use crate::position::Position;
use crate::projection::{Projection, Ready};
use crate::read_models::{BuildRecord, Step, caught};
use crate::store::{EventStore, PAGE_MAX, StoreError};

/// How long one step holds the writer at most, so that commands need not wait for a projection.
pub(super) const STEP_MAX: Duration = Duration::from_millis(5);

/// How long one call of a handler may take. The writer of the engine waits for it, so a handler that takes longer pauses its
/// projection before that event.
pub(super) const HANDLER_TIME_MAX: Duration = Duration::from_secs(5);

/// Over how long a rate is taken.
const RATE_OVER: Duration = Duration::from_secs(1);

/// An event that could not be taken in, and why.
pub(super) type Poison = (Position, String);

/// Where a step says what it left.
pub(super) type Remains<Tx> = Arc<Mutex<Left<Tx>>>;

/// Decoded events, in order.
pub(super) struct Page<Tx> {
    pub(super) ready: VecDeque<(Position, Ready<Tx>)>,
    /// Everything up to here is in it.
    pub(super) up_to: Position,
    /// The event behind it cannot be taken in.
    pub(super) poison: Option<Poison>,
}

/// One build.
pub(super) struct Lane<Tx> {
    pub(super) record: BuildRecord,
    pub(super) page: Option<Page<Tx>>,
    /// Decoded while the page before it is taken in.
    pub(super) next: Option<Page<Tx>>,
    /// It failed when it was taken in: the next page ends before it.
    pub(super) suspect: Option<Poison>,
    pub(super) rate: Rate,
}

/// What a step left behind in the engine's thread.
pub(super) struct Left<Tx> {
    ready: VecDeque<(Position, Ready<Tx>)>,
    taken: u64,
    failed_at: Option<Position>,
}

impl<Tx: 'static> Lane<Tx> {
    pub(super) fn new(record: BuildRecord) -> Self {
        Self { record, page: None, next: None, suspect: None, rate: Rate::new() }
    }

    /// Whether there is anything to take in, up to this head.
    pub(super) fn has_work(&self, head: Position) -> bool {
        self.record.pause.is_none() && (self.page.is_some() || self.record.position < head)
    }

    /// Takes the page, as a step that ends when its time is over, and the place where it says what is left.
    pub(super) fn take_step(&mut self) -> Option<(Step<Tx>, Remains<Tx>)> {
        let page = self.page.as_mut()?;
        let ready = std::mem::take(&mut page.ready);
        let left = Arc::new(Mutex::new(Left { ready, taken: 0, failed_at: None }));
        let (place, up_to) = (Arc::clone(&left), page.up_to);
        let step = move |tx: &Tx| place.lock().unwrap_or_else(PoisonError::into_inner).take_in(tx, up_to);
        Some((Box::new(step), left))
    }

    /// A step was committed.
    pub(super) fn stepped(&mut self, position: Position, left: &Mutex<Left<Tx>>) {
        let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
        self.record.position = position;
        self.rate.count(left.taken);
        if let Some(page) = &mut self.page {
            page.ready = std::mem::take(&mut left.ready);
            if page.ready.is_empty() && page.poison.is_none() {
                self.page = self.next.take();
            }
        }
    }

    /// A step was taken back: everything before the event that failed is taken in anew, and then it stands.
    pub(super) fn failed(&mut self, error: &HandlerError, left: &Mutex<Left<Tx>>) {
        let failed_at = left.lock().unwrap_or_else(PoisonError::into_inner).failed_at;
        (self.page, self.next) = (None, None);
        self.suspect = Some((failed_at.unwrap_or(self.record.position.next()), error.report()));
    }

    /// The event before which it stands, when all before it is taken in.
    pub(super) fn stands_before(&self) -> Option<&Poison> {
        self.page
            .as_ref()
            .filter(|page| page.ready.is_empty() && self.record.position >= page.up_to)?
            .poison
            .as_ref()
    }
}

impl<Tx> Left<Tx> {
    fn take_in(&mut self, tx: &Tx, up_to: Position) -> Result<Position, HandlerError> {
        let began = std::time::Instant::now();
        let mut at = None;
        while let Some((position, ready)) = self.ready.pop_front() {
            let called = std::time::Instant::now();
            let taken = caught(|| ready(tx)).and_then(|()| in_time(called.elapsed()));
            if let Err(error) = taken {
                self.failed_at = Some(position);
                return Err(error);
            }
            self.taken += 1;
            at = Some(position);
            if began.elapsed() >= STEP_MAX {
                break;
            }
        }
        Ok(at.filter(|_| !self.ready.is_empty()).unwrap_or(up_to))
    }
}

/// Fails a call of a handler that took too long.
fn in_time(taken: Duration) -> Result<(), HandlerError> {
    if taken <= HANDLER_TIME_MAX {
        return Ok(());
    }
    Err(HandlerError::failed(format!(
        "the handler took {:.1} s, at most {} s are allowed: commits wait for it",
        taken.as_secs_f64(),
        HANDLER_TIME_MAX.as_secs()
    )))
}

/// Reads and decodes the next page after a position; it ends before an event that cannot be taken in.
pub(super) async fn fetch<Tx: 'static>(
    store: &dyn EventStore,
    projection: &Projection<Tx>,
    from: Position,
    suspect: Option<&Poison>,
) -> Result<Page<Tx>, StoreError> {
    let found = store.follow(&projection.query(), from, PAGE_MAX).await?;
    let (mut ready, mut poison) = (VecDeque::with_capacity(found.events.len()), None);
    for event in found.events {
        let position = event.position;
        if let Some(suspect) = suspect.filter(|(suspect, _)| position >= *suspect) {
            poison = Some(suspect.clone());
            break;
        }
        // Decoding and upcasting are the user's code, too.
        match caught(|| projection.prepare(event)) {
            Ok(event) => ready.push_back((position, event)),
            Err(error) => {
                poison = Some((position, error.report()));
                break;
            }
        }
    }
    let up_to = poison.as_ref().map_or(found.looked_up_to, |(position, _)| position.previous().max(from));
    Ok(Page { ready, up_to, poison })
}

/// How many events a second.
pub(super) struct Rate {
    since: Instant,
    counted: u64,
    latest: f64,
}

impl Rate {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), counted: 0, latest: 0.0 }
    }

    pub(super) fn count(&mut self, events: u64) {
        self.counted += events;
        let elapsed = self.since.elapsed();
        if elapsed >= RATE_OVER {
            self.latest = self.of(elapsed);
            (self.since, self.counted) = (Instant::now(), 0);
        }
    }

    fn of(&self, elapsed: Duration) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let counted = self.counted as f64;
        counted / elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Of the last whole second that it worked; before there was one, since it began.
    pub(super) fn per_second(&self) -> f64 {
        if self.latest > 0.0 { self.latest } else { self.of(self.since.elapsed()) }
    }
}
