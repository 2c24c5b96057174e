//! What the writer did so far, for metrics and tests.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counted since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Statistics {
    /// Batches that were committed.
    pub commits: u64,
    /// Groups that were committed: each took one fsync.
    pub groups: u64,
    /// Times that the write-ahead log was copied into the file: each took two fsyncs.
    pub checkpoints: u64,
    /// Pages of 4 KiB that lie in the write-ahead log now.
    pub wal_pages: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) groups: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) wal_pages: AtomicU64,
}

impl Counters {
    pub(crate) fn snapshot(&self) -> Statistics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Statistics {
            commits: read(&self.commits),
            groups: read(&self.groups),
            checkpoints: read(&self.checkpoints),
            wal_pages: read(&self.wal_pages),
        }
    }
}
