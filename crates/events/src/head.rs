//! The end of the log as it grows.

use std::ops::Deref;

use tokio::sync::watch;
use tokio::sync::watch::error::RecvError;

use crate::position::Position;

/// Follows the position of the last event. What it returns are copies: no caller can hold a lock that the writer of the engine
/// waits for, as a borrow of a [`watch::Receiver`] is one.
#[derive(Debug, Clone)]
pub struct HeadWatch(watch::Receiver<Position>);

/// The position at one moment, by value. It dereferences to [`Position`] and holds no lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadPosition(Position);

impl Deref for HeadPosition {
    type Target = Position;
    fn deref(&self) -> &Position {
        &self.0
    }
}

impl HeadWatch {
    /// Follows what an engine sends.
    pub fn new(receiver: watch::Receiver<Position>) -> Self {
        Self(receiver)
    }

    /// The position now.
    pub fn borrow(&self) -> HeadPosition {
        HeadPosition(*self.0.borrow())
    }

    /// The position now; [`HeadWatch::changed`] waits for a later one.
    pub fn borrow_and_update(&mut self) -> HeadPosition {
        HeadPosition(*self.0.borrow_and_update())
    }

    /// Whether the position has changed since it was last seen.
    ///
    /// # Errors
    ///
    /// The store is gone.
    pub fn has_changed(&self) -> Result<bool, RecvError> {
        self.0.has_changed()
    }

    /// Marks the position as seen.
    pub fn mark_unchanged(&mut self) {
        self.0.mark_unchanged();
    }

    /// Waits until the position changes. Cancel safe.
    ///
    /// # Errors
    ///
    /// The store is gone.
    pub async fn changed(&mut self) -> Result<(), RecvError> {
        self.0.changed().await
    }

    /// Waits until the position is one that the closure accepts, and returns it. Cancel safe.
    ///
    /// # Errors
    ///
    /// The store is gone.
    pub async fn wait_for(
        &mut self,
        mut accepts: impl FnMut(&Position) -> bool,
    ) -> Result<HeadPosition, RecvError> {
        loop {
            // The closure is the caller's: it runs on a copy.
            let position = self.borrow_and_update();
            if accepts(&position) {
                return Ok(position);
            }
            self.0.changed().await?;
        }
    }
}
