//! The right to do one piece of work, which one process has at a time.

use std::any::Any;
use std::fmt;

use tokio_util::sync::CancellationToken;

/// The right to do the work of a name: whoever has it is the only one among all processes that share a store, until he drops it,
/// or until it is lost. Whoever has lost it stops, since another may have begun.
///
/// It spares work and keeps order; it is no lock. Between the loss and the stop two may work at once for a moment, as with every
/// lease: what must not happen twice is refused by the commit (progress that is done, a step from elsewhere).
#[must_use = "the work is somebody else's as soon as it is dropped"]
pub struct Lease {
    lost: CancellationToken,
    /// Gives it back when it is dropped.
    _kept: Option<Box<dyn Any + Send + Sync>>,
}

impl Lease {
    /// The lease of an engine that one process has to itself: it is never lost.
    pub fn alone() -> Self {
        Self { lost: CancellationToken::new(), _kept: None }
    }

    /// A lease that is lost when this says so, and given back when `kept` is dropped.
    pub fn kept(lost: CancellationToken, kept: impl Any + Send + Sync) -> Self {
        Self { lost, _kept: Some(Box::new(kept)) }
    }

    /// Waits until it is lost. Cancel safe.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Whether it is lost.
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("is_lost", &self.is_lost()).finish_non_exhaustive()
    }
}
