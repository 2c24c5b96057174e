//! The time of the log: the clock's, but never running back.

use tokio_postgres::{Client, Error};

use purista_core::clock::Clock;

use crate::codec;

/// What readers take for now, in nanoseconds since 1970. Whoever writes gets his time from the log, see `write_begins`.
#[derive(Debug)]
pub(crate) struct LogTime {
    clock: Clock,
    latest: AtomicI64,
}

impl LogTime {
    /// A time that begins where the log ended.
    pub(crate) fn new(clock: Clock, latest: i64) -> Self {
        Self { clock, latest: AtomicI64::new(latest) }
    }

    /// The latest of all times that were seen.
    pub(crate) fn now(&self) -> i64 {
        let now = codec::nanoseconds(self.clock.now());
        self.latest.fetch_max(now, Ordering::AcqRel).max(now)
    }

    /// Learns that the log is as late as this.
    pub(crate) fn at_least(&self, time: i64) {
        self.latest.fetch_max(time, Ordering::AcqRel);
    }
}
