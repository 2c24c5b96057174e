//! Places in the log.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The place of an event in the whole log: ordered, printable, storable. The first event has 1; 0 is before all.
///
/// Positions grow in the order of commits and may have gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(u64);

impl Position {
    /// Before the first event.
    pub const START: Self = Self(0);

    /// A position by its number, as an engine stores it.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The next one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The one before; before the start is the start.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Position {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// What a decision has seen: handed out by [`crate::store::EventStore::read_view`], handed back in a
/// [`crate::batch::Condition`]. Opaque, and never stored: what it means ends with the store's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadToken(Position);

impl ReadToken {
    /// The token of an engine whose readers see everything up to a position.
    pub const fn seen_up_to(position: Position) -> Self {
        Self(position)
    }

    /// The position, for an engine that made the token of one.
    pub const fn position(&self) -> Position {
        self.0
    }
}
