//! Places in the log.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

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
pub struct ReadToken {
    position: Position,
    unseen: Arc<[Unseen]>,
}

/// Places below the last one that was seen, where somebody still wrote at that moment: after `after`, up to `up_to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unseen {
    /// Behind this place.
    pub after: Position,
    /// Up to this one.
    pub up_to: Position,
}

impl ReadToken {
    /// The token of an engine whose readers see everything up to a position.
    pub fn seen_up_to(position: Position) -> Self {
        Self { position, unseen: Arc::default() }
    }

    /// The token of an engine whose writers overtake one another: everything up to a position was seen, but for what lies in
    /// these places.
    #[must_use]
    pub fn but_for(mut self, unseen: impl IntoIterator<Item = Unseen>) -> Self {
        self.unseen = unseen.into_iter().collect();
        self
    }

    /// Up to where it was seen.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The places below it that were not seen.
    pub fn unseen(&self) -> &[Unseen] {
        &self.unseen
    }

    /// Whether everything up to the position was seen, now and for ever: what is folded so far may be kept.
    pub fn is_settled(&self) -> bool {
        self.unseen.is_empty()
    }

    /// Whether an event at this place is one that was not seen.
    pub fn is_new(&self, position: Position) -> bool {
        let lies_in = |unseen: &Unseen| position > unseen.after && position <= unseen.up_to;
        position > self.position || self.unseen.iter().any(lies_in)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_meanwhile_is_new_also_below_the_last_that_was_seen() {
        let places = |after, up_to| Unseen { after: Position::new(after), up_to: Position::new(up_to) };
        let token = ReadToken::seen_up_to(Position::new(30));
        assert!(token.is_settled());
        let token = token.but_for([places(9, 19), places(24, 25)]);
        assert!(!token.is_settled());
        for (position, is_new) in
            [(1, false), (9, false), (10, true), (19, true), (20, false), (25, true), (30, false), (31, true)]
        {
            assert_eq!(token.is_new(Position::new(position)), is_new, "{position}");
        }
    }
}
