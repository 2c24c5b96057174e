//! Which forms of events lie in a log, and how many events lie between two places.

use purista_core::text::Text;

use crate::position::Position;

/// One stored form of events: a type and a version, with the places of two samples. Who can decode both of them can
/// probably decode the rest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Form {
    /// The type.
    pub name: Text,
    /// The version of its form.
    pub version: u32,
    /// How many events have it, where the engine counts them.
    pub count: Option<u64>,
    /// The first event of this form.
    pub oldest: Position,
    /// The last event of this form.
    pub newest: Position,
}

/// How many events there are, counted up to a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// So many, or at least so many.
    pub events: u64,
    /// Whether there may be more: the bound was reached.
    pub is_at_least: bool,
}

impl Counted {
    /// What was found when one more than `at_most` was looked for.
    pub fn up_to(found: u64, at_most: u64) -> Self {
        Self { events: found.min(at_most), is_at_least: found > at_most }
    }
}
