//! Hashes of the shapes of values, and the set of those that are known.

use rustc_hash::FxHashMap;

/// Shapes that were decoded once; the value says whether such values are written with their `None` members.
pub(crate) type Known = FxHashMap<u64, bool>;

/// One step of FxHash.
#[inline]
pub(super) fn mixed(state: u64, word: u64) -> u64 {
    (state.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95)
}

/// Stands for a literal: where it lies, which in one process is the same each time.
#[inline]
pub(super) fn mark_of(literal: &'static str) -> u64 {
    literal.as_ptr().addr() as u64
}
