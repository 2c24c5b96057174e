//! One value for every few threads, for what every message counts on: two processors that count in the same place take
//! turns, and a turn costs more than the count.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The most shards, whatever the machine has.
pub const SHARDS_MAX: usize = 64;

/// Shards a thread that runs at the same time: threads are numbered as they come, so with as many shards as processors
/// two busy threads would often meet in one.
const SHARDS_PER_PROCESSOR: usize = 4;

/// Values of one kind, of which each thread uses its own, or one that it shares with few. All of them together are what
/// one value would have been: who bounds or counts asks [`Sharded::all`].
#[derive(Debug)]
pub struct Sharded<T>(Box<[Apart<T>]>);

/// Alone in its cache lines; processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Apart<T>(T);

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static THREAD: Cell<Option<usize>> = const { Cell::new(None) };
}

fn thread() -> usize {
    THREAD.get().unwrap_or_else(|| {
        let number = THREADS.fetch_add(1, Ordering::Relaxed);
        THREAD.set(Some(number));
        number
    })
}

/// How many shards suit this machine: a power of two, 1 to [`SHARDS_MAX`].
pub fn shards() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors * SHARDS_PER_PROCESSOR).next_power_of_two().min(SHARDS_MAX)
}

impl<T> Sharded<T> {
    /// As many shards as suit this machine, each made by `make`.
    pub fn new(mut make: impl FnMut() -> T) -> Self {
        Self::of((0..shards()).map(|_| make()))
    }

    /// These shards, at least one.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn of(shards: impl IntoIterator<Item = T>) -> Self {
        let shards: Box<[_]> = shards.into_iter().map(Apart).collect();
        assert!(!shards.is_empty(), "at least one shard");
        Self(shards)
    }

    /// The shard of this thread. A task that moves to another thread finds another one there.
    #[expect(clippy::indexing_slicing, reason = "a remainder of the length, which is not 0")]
    pub fn mine(&self) -> &T {
        &self.0[thread() % self.0.len()].0
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|shard| &shard.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_its_shard_and_what_all_count_is_all() {
        let shards = Sharded::of((0..4).map(|_| AtomicUsize::new(0)));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    assert!(std::ptr::eq(shards.mine(), shards.mine()));
                    shards.mine().fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        let counted: Vec<_> = shards.all().map(|shard| shard.load(Ordering::Relaxed)).collect();
        assert_eq!(counted.iter().sum::<usize>(), 8);
        assert!(counted.iter().filter(|count| **count > 0).count() > 1, "{counted:?}");
    }

    #[test]
    fn the_number_of_shards_is_a_power_of_two_in_bounds() {
        assert!(shards().is_power_of_two() && shards() <= SHARDS_MAX);
    }
}
