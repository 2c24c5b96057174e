//! What the writer does at this moment, and since when.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use purista_events::store::WriterState;

/// From when on the writer counts as held, and not as busy.
const HELD_AFTER: Duration = Duration::from_millis(500);

/// What the writer does at this moment.
#[derive(Debug, Default)]
pub(crate) struct Busy(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    since: Option<Instant>,
    with: Option<String>,
    oldest: Option<Instant>,
}

impl Busy {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer begins to work.
    pub(crate) fn begin(&self) {
        *self.lock() = State { since: Some(Instant::now()), ..State::default() };
    }

    /// What it works on is known by this name.
    pub(crate) fn name(&self, with: String) {
        self.lock().with = Some(with);
    }

    /// The writer waits for work.
    pub(crate) fn end(&self) {
        *self.lock() = State::default();
    }

    /// What holds the writer, and for how long, once that is long.
    pub(crate) fn held(&self) -> Option<(String, Duration)> {
        let state = self.lock();
        let since = state.since?.elapsed();
        let with = state.with.clone().unwrap_or_else(|| "the disk".to_owned());
        (since >= HELD_AFTER).then_some((with, since))
    }

    pub(crate) fn state(&self) -> WriterState {
        let state = self.lock();
        let mut found = WriterState::default();
        found.busy_with.clone_from(&state.with);
        found.busy_for = state.since.map(|since| since.elapsed());
        found.oldest_waits_for = state.oldest.map(|oldest| oldest.elapsed());
        found
    }

    /// Since when the commit that has waited longest waits.
    pub(crate) fn set_oldest(&self, oldest: Option<Instant>) {
        self.lock().oldest = oldest;
    }
}
