//! When a failed message is tried again.

use std::time::Duration;

use purista_core::clock::Clock;
use purista_core::error::{HandlerError, Settlement};

use crate::verdict::Verdict;

/// The longest delay before another attempt. A [`Retry`] waits no longer; a handler that asks for more with
/// [`HandlerError::retry_after`] makes its message a dead letter, since it would wait unseen.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How often and when a subscription tries again.
///
/// The delay doubles from attempt to attempt, between a smallest and a largest, and each is drawn at random between half of
/// itself and the whole ("equal jitter"), so that what failed together does not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    attempts_max: u32,
    delay_min: Duration,
    delay_max: Duration,
}

impl Retry {
    /// At most this many attempts, 1 s to 60 s apart.
    pub const fn exponential(attempts_max: u32) -> Self {
        Self { attempts_max, delay_min: Duration::from_secs(1), delay_max: Duration::from_secs(60) }
    }

    /// One attempt.
    pub const fn never() -> Self {
        Self { attempts_max: 1, delay_min: Duration::ZERO, delay_max: Duration::ZERO }
    }

    /// Other bounds of the delay.
    #[must_use]
    pub const fn between(mut self, delay_min: Duration, delay_max: Duration) -> Self {
        self.delay_min = delay_min;
        self.delay_max = delay_max;
        self
    }

    /// How many attempts there are.
    pub const fn attempts_max(&self) -> u32 {
        self.attempts_max
    }

    /// How long to wait after this attempt (from 1), before jitter.
    fn delay_after(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        self.delay_min.saturating_mul(1 << doublings).min(self.delay_max).min(RETRY_DELAY_MAX)
    }

    /// What becomes of a message whose handler failed at this attempt.
    pub(crate) fn verdict(&self, error: &HandlerError, attempt: u32, clock: &Clock) -> Verdict {
        let reason = error.report();
        if error.is_handled() && !error.is_transient() {
            return Verdict::Final { reason };
        }
        match error.settlement() {
            Some(Settlement::Drop) => Verdict::Drop { reason },
            Some(Settlement::DeadLetter) => Verdict::DeadLetter { reason },
            Some(Settlement::Pause) => Verdict::Pause { reason },
            _ if attempt >= self.attempts_max => Verdict::DeadLetter { reason },
            Some(Settlement::RetryAfter(after)) if after > RETRY_DELAY_MAX => {
                let (asked, days) = (after.as_secs(), RETRY_DELAY_MAX.as_secs() / 86_400);
                let bound =
                    format!("it asked for another attempt in {asked} s, and {days} days are the most");
                Verdict::DeadLetter { reason: format!("{reason}; {bound}") }
            }
            Some(Settlement::RetryAfter(after)) => Verdict::Retry { after, reason },
            _ => {
                let whole = self.delay_after(attempt);
                Verdict::Retry { after: whole / 2 + (whole / 2).mul_f64(clock.fraction()), reason }
            }
        }
    }
}

impl Default for Retry {
    /// Five attempts, 1 s to 60 s apart.
    fn default() -> Self {
        Self::exponential(5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_between_their_bounds_with_jitter_in_the_upper_half() {
        let (retry, clock) = (Retry::exponential(20), Clock::system());
        for (attempt, seconds) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (19, 60)] {
            let whole = Duration::from_secs(seconds);
            let Verdict::Retry { after, .. } = retry.verdict(&HandlerError::failed("x"), attempt, &clock)
            else {
                panic!("attempt {attempt} is retried")
            };
            assert!(after >= whole / 2 && after <= whole, "{attempt}: {after:?}");
        }
    }

    #[test]
    fn no_delay_is_longer_than_the_longest() {
        let clock = Clock::system();
        let year = Duration::from_secs(365 * 86_400);
        let Verdict::Retry { after, .. } =
            Retry::exponential(9).between(year, year).verdict(&HandlerError::failed("x"), 1, &clock)
        else {
            panic!("it is retried")
        };
        assert!(after <= RETRY_DELAY_MAX, "{after:?}");
        let asked = |delay| Retry::exponential(9).verdict(&HandlerError::retry_after(delay, "no"), 1, &clock);
        assert!(matches!(asked(RETRY_DELAY_MAX), Verdict::Retry { .. }));
        let Verdict::DeadLetter { reason } = asked(300 * year) else { panic!("300 years are refused") };
        assert_eq!(reason, "no; it asked for another attempt in 9460800000 s, and 30 days are the most");
    }

    #[test]
    fn what_a_handler_says_goes_before_the_policy() {
        let (retry, clock) = (Retry::exponential(3), Clock::system());
        let verdict = |error: HandlerError, attempt| retry.verdict(&error, attempt, &clock);
        assert!(matches!(verdict(HandlerError::conflict("no"), 1), Verdict::Final { .. }));
        assert!(matches!(verdict(HandlerError::drop("no"), 1), Verdict::Drop { .. }));
        assert!(matches!(verdict(HandlerError::dead_letter("no"), 1), Verdict::DeadLetter { .. }));
        assert!(matches!(verdict(HandlerError::pause("no"), 3), Verdict::Pause { .. }));
        let ten_minutes = Duration::from_secs(600);
        assert!(
            matches!(verdict(HandlerError::retry_after(ten_minutes, "no"), 2), Verdict::Retry { after, .. } if after == ten_minutes)
        );
        assert!(matches!(
            verdict(HandlerError::retry_after(ten_minutes, "no"), 3),
            Verdict::DeadLetter { .. }
        ));
        assert!(matches!(verdict(HandlerError::failed("no"), 3), Verdict::DeadLetter { .. }));
        assert!(matches!(
            Retry::never().verdict(&HandlerError::failed("no"), 1, &clock),
            Verdict::DeadLetter { .. }
        ));
    }
}
