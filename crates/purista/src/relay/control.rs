//! What others see of the relay: how far it is, whether it moves, and why not.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use purista_events::position::Position;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The handle of the relay of one host.
pub(crate) struct RelayControl {
    /// Up to where every event was published or set aside.
    pub(crate) relayed: watch::Sender<Position>,
    /// Counts what it has finished, so that a step within a page is a step, too.
    finished: AtomicU64,
    /// Why it does not move; `None` while it does.
    trouble: Mutex<Option<(Instant, String)>>,
    /// Whether another process of the store relays.
    is_elsewhere: AtomicBool,
    /// Whether its task ended without having been stopped.
    has_ended: AtomicBool,
    /// A dead letter of the relay is to be published again.
    pub(super) again: Notify,
}

impl Default for RelayControl {
    fn default() -> Self {
        Self {
            relayed: watch::channel(Position::START).0,
            finished: AtomicU64::new(0),
            trouble: Mutex::default(),
            is_elsewhere: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            again: Notify::new(),
        }
    }
}

impl RelayControl {
    /// A number that changes whenever the relay has moved, in this process or in another.
    pub(crate) fn progress(&self) -> u64 {
        self.finished.load(Ordering::Relaxed).wrapping_add(self.relayed.borrow().number())
    }

    /// Since when it does not move, and why, when it is known.
    pub(crate) fn trouble(&self) -> Option<(Instant, String)> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether another process of the store relays.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.is_elsewhere.load(Ordering::Relaxed)
    }

    /// Whether its task ended without having been stopped: nothing is relayed any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    /// Looks for events that are to be published again.
    pub(crate) fn look_again(&self) {
        self.again.notify_one();
    }

    pub(super) fn set_elsewhere(&self, is_elsewhere: bool) {
        self.is_elsewhere.store(is_elsewhere, Ordering::Relaxed);
    }

    pub(super) fn moved(&self) {
        self.finished.fetch_add(1, Ordering::Relaxed);
        self.rests();
    }

    /// Nothing keeps it from moving.
    pub(super) fn rests(&self) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn set_trouble(&self, reason: String) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let since = trouble.as_ref().map_or_else(Instant::now, |(since, _)| *since);
        *trouble = Some((since, reason));
    }

    /// Marks the relay as ended when it is dropped before `stop` is cancelled, as by a panic.
    pub(super) fn watched<'c>(&'c self, stop: &'c CancellationToken) -> Watched<'c> {
        Watched { control: self, stop }
    }
}

impl fmt::Debug for RelayControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayControl").field("relayed", &*self.relayed.borrow()).finish_non_exhaustive()
    }
}

/// Lives as long as the relay's task.
pub(super) struct Watched<'c> {
    control: &'c RelayControl,
    stop: &'c CancellationToken,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if !self.stop.is_cancelled() {
            self.control.has_ended.store(true, Ordering::Relaxed);
        }
    }
}
