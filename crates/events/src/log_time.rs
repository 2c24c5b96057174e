//! The time of a log: that of its clock, which may be set wrong while the log is open, but never running back.
//!
//! The clock is compared with the time that has passed ([`Clock::uptime`]). When it is suddenly far ahead, the log continues with the
//! time that has passed: one wrong moment would otherwise be the time of every later event, hide them from reads of the past, and end
//! what is stored for some days. A clock that is behind the log is waited for. Both are reported.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use purista_core::clock::Clock;

/// How far a clock may move ahead of the time that has passed before it is not believed.
pub const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(60 * 60);

/// How far a clock may be behind the log before it is reported.
pub const CLOCK_BEHIND_MAX: Duration = Duration::from_secs(60);

/// Nanoseconds since 1970 at 2024-01-01: a clock that shows less was never set.
const CLOCK_EARLIEST: i64 = 1_704_067_200_000_000_000;

/// How long the answer of a server may take for its time to be learned: a process that was stopped meanwhile would take it for now.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Stands for a clock that has not been right yet: it may be set to any time.
const UNPROVEN: i64 = i64::MIN;

/// Which clock gives the time.
#[derive(Debug)]
enum Origin {
    /// The one of this process.
    Clock,
    /// That of a server, which is learned from its answers; the process counts on from there.
    Server,
}

/// What an engine takes for now, in nanoseconds since 1970. Engines share it; it takes no lock.
#[derive(Debug)]
pub struct LogTime {
    clock: Clock,
    origin: Origin,
    /// The latest time of the log.
    latest: AtomicI64,
    /// What is added to the time that has passed: the time of day as it was last believed; or [`UNPROVEN`].
    believed: AtomicI64,
    /// How far the clock is off: ahead of the time that has passed, or behind the log (negative); 0 when it is neither.
    off_by: AtomicI64,
}

impl LogTime {
    /// The time of a log whose last event is of `latest`, by a clock of this process.
    pub fn new(clock: Clock, latest: i64) -> Self {
        let (latest, believed, off_by) = (latest.into(), UNPROVEN.into(), 0.into());
        let time = Self { clock, origin: Origin::Clock, latest, believed, off_by };
        time.now();
        time
    }

    /// The time of a log by the clock of a server that shows `now`.
    pub fn of_server(clock: Clock, now: i64) -> Self {
        let believed = now.saturating_sub(passed(&clock));
        let (latest, off_by) = (i64::MIN.into(), 0.into());
        Self { clock, origin: Origin::Server, latest, believed: believed.into(), off_by }
    }

    /// The time now, which is never before one that was seen.
    pub fn now(&self) -> i64 {
        match self.origin {
            Origin::Clock => self.at_least(self.see(nanoseconds(self.clock.now()))),
            Origin::Server => {
                let latest = self.latest.load(Ordering::Acquire);
                // While its clock is behind the log, the server records the latest time again.
                let is_behind = self.off_by.load(Ordering::Acquire) < 0;
                let counted = passed(&self.clock).saturating_add(self.believed.load(Ordering::Acquire));
                if is_behind { latest } else { counted.max(latest) }
            }
        }
    }

    /// Learns that the log is as late as this, and returns how late it is.
    pub fn at_least(&self, time: i64) -> i64 {
        self.latest.fetch_max(time, Ordering::AcqRel).max(time)
    }

    /// Learns what the server's clock shows, where that gives the time. It was asked at this [`Clock::uptime`].
    pub fn learn_from_server(&self, now: i64, asked_at: Duration) {
        let took = self.clock.uptime().saturating_sub(asked_at);
        if matches!(self.origin, Origin::Server) && took <= ANSWER_MAX {
            self.see(now);
        }
    }

    /// How much time has passed, see [`Clock::uptime`].
    pub fn uptime(&self) -> Duration {
        self.clock.uptime()
    }

    /// The time to record instead of that of the server's clock, while that is not believed.
    pub fn instead_of_the_server(&self) -> Option<i64> {
        match self.origin {
            Origin::Clock => Some(self.now()),
            Origin::Server => (self.off_by.load(Ordering::Acquire) > 0).then(|| self.now()),
        }
    }

    /// What is wrong with the clock, if something is.
    pub fn fault(&self) -> Option<String> {
        // Nobody may have asked for the time since it went wrong.
        self.now();
        let (whose, off_by) = (self.whose(), self.off_by.load(Ordering::Acquire));
        let seconds = off_by.unsigned_abs() / 1_000_000_000;
        match off_by {
            0 => None,
            1.. => Some(format!(
                "{whose} clock has jumped {seconds} s ahead: events are recorded with the time that has passed; set the clock, \
                 or restart the process if the clock is right"
            )),
            _ => Some(format!(
                "{whose} clock is {seconds} s behind the log: events are recorded with the time of the last one; set the clock"
            )),
        }
    }

    fn whose(&self) -> &'static str {
        match self.origin {
            Origin::Clock => "this machine's",
            Origin::Server => "the database server's",
        }
    }

    /// Compares what a clock shows with the time that has passed and with the log, and returns what is to be believed.
    fn see(&self, now: i64) -> i64 {
        let passed = passed(&self.clock);
        let (offset, believed) = (now.saturating_sub(passed), self.believed.load(Ordering::Acquire));
        let ahead = if believed == UNPROVEN { 0 } else { offset.saturating_sub(believed) };
        let behind = self.latest.load(Ordering::Acquire).saturating_sub(now);
        if ahead > nanos(CLOCK_AHEAD_MAX) {
            self.note(ahead);
            return passed.saturating_add(believed);
        }
        if behind > nanos(CLOCK_BEHIND_MAX) {
            self.note(-behind);
            return now;
        }
        if now >= CLOCK_EARLIEST {
            self.believed.store(offset, Ordering::Release);
        }
        self.note(0);
        now
    }

    /// Logs when it changes whether the clock is right, and not how far it is off.
    fn note(&self, off_by: i64) {
        if off_by == 0 && self.off_by.load(Ordering::Acquire) == 0 {
            return;
        }
        let before = self.off_by.swap(off_by, Ordering::AcqRel);
        if before.signum() == off_by.signum() {
            return;
        }
        let (whose, seconds) = (self.whose(), off_by.unsigned_abs() / 1_000_000_000);
        match off_by {
            0 => tracing::info!(whose, "the clock is right again"),
            1.. => tracing::warn!(
                whose,
                seconds,
                "the clock has jumped ahead: events are recorded with the time that has passed"
            ),
            _ => tracing::warn!(
                whose,
                seconds,
                "the clock is behind the log: events are recorded with the time of the last one"
            ),
        }
    }
}

fn passed(clock: &Clock) -> i64 {
    nanos(clock.uptime())
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Years beyond 1677 and 2262 are cut to these.
fn nanoseconds(time: Timestamp) -> i64 {
    let number = time.as_nanosecond();
    i64::try_from(number).unwrap_or(if number < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::clock::TestClock;

    const HOUR: Duration = Duration::from_secs(60 * 60);

    #[test]
    fn a_clock_that_is_corrected_is_believed_again() {
        let clock = TestClock::new();
        let time = LogTime::new(clock.clock(), 0);
        let start = time.now();
        clock.jump_ahead(HOUR);
        assert_eq!((time.now(), time.fault()), (start + nanos(HOUR), None), "so far it may move");
        clock.jump_ahead(24 * HOUR);
        clock.advance(HOUR);
        assert_eq!(time.now(), start + nanos(2 * HOUR));
        assert!(time.fault().unwrap().contains("86400 s ahead"), "{:?}", time.fault());
        clock.turn_back(25 * HOUR);
        assert_eq!(time.now(), start + nanos(2 * HOUR), "it never runs back");
        assert!(time.fault().unwrap().contains("3600 s behind"), "{:?}", time.fault());
        clock.advance(HOUR);
        assert_eq!((time.now(), time.fault()), (start + nanos(2 * HOUR), None));
    }

    #[test]
    fn a_clock_that_begins_behind_the_log_may_be_set_right() {
        let clock = TestClock::new();
        let latest = nanoseconds(clock.time()) + nanos(24 * HOUR);
        let time = LogTime::new(clock.clock(), latest);
        assert_eq!(time.now(), latest);
        assert!(time.fault().unwrap().contains("behind"));
        // The log may have been idle for any time.
        clock.jump_ahead(200 * HOUR);
        assert_eq!((time.now(), time.fault()), (latest + nanos(176 * HOUR), None));
        clock.jump_ahead(24 * HOUR);
        assert_eq!(time.now(), latest + nanos(176 * HOUR), "now it has been right");
    }

    #[test]
    fn a_clock_that_was_never_set_may_be_set() {
        let clock = TestClock::new();
        clock.turn_back(40 * 365 * 24 * HOUR);
        let time = LogTime::new(clock.clock(), 0);
        clock.jump_ahead(40 * 365 * 24 * HOUR);
        assert_eq!((time.now(), time.fault()), (nanoseconds(clock.time()), None));
    }

    #[test]
    fn the_time_of_a_server_is_counted_on_between_its_answers() {
        let clock = TestClock::new();
        let began = nanoseconds(clock.time()) + nanos(24 * HOUR);
        let time = LogTime::of_server(clock.clock(), began);
        clock.jump_ahead(1_000 * HOUR);
        clock.advance(HOUR);
        let hours = |hours: u32| began + nanos(hours * HOUR);
        assert_eq!((time.now(), time.instead_of_the_server()), (hours(1), None), "our clock says nothing");
        let asked_at = time.uptime();
        time.learn_from_server(hours(24), asked_at);
        assert_eq!(time.instead_of_the_server(), Some(hours(1)));
        assert!(time.fault().unwrap().contains("the database server's clock has jumped"));
        time.learn_from_server(hours(1), asked_at);
        assert_eq!((time.instead_of_the_server(), time.fault()), (None, None));
        // Something later is recorded, and the server's clock is set back.
        time.at_least(hours(3));
        time.learn_from_server(hours(1), asked_at);
        assert!(time.now() == hours(3) && time.fault().unwrap().contains("behind"), "it is waited for");
        clock.advance(2 * HOUR);
        let asked_at = time.uptime();
        time.learn_from_server(hours(3), asked_at);
        assert_eq!((time.now(), time.fault()), (hours(3), None));
        // The process is stopped after it has asked: the answer is old when it is read.
        clock.advance(2 * HOUR);
        time.learn_from_server(hours(3), asked_at);
        assert_eq!((time.now(), time.fault()), (hours(5), None));
    }
}
