//! When an event is tried again: a store keeps a time of day, a process waits on monotonic time.
//!
//! A clock that is corrected must neither stop retries nor make them all due. So a wait is never longer than the delay that the
//! failed attempt was given, whatever the clock says since.

use std::time::Duration;

use purista_core::clock::Clock;
use purista_events::subscriptions::Parked;
use tokio::time::Instant;

use crate::retry::RETRY_DELAY_MAX;

/// The same moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) time_of_day: jiff::Timestamp,
    pub(crate) instant: Instant,
}

impl Moment {
    pub(crate) fn now(clock: &Clock) -> Self {
        Self { time_of_day: clock.now(), instant: Instant::now() }
    }

    /// When this event is tried again; `None`: at once.
    pub(crate) fn of_next_attempt(&self, parked: &Parked) -> Option<Instant> {
        let due = parked.due?;
        // By the clock of the time of the failure, right or wrong: the difference is the delay.
        let delay = parked.history.last().map(|failure| due.duration_since(failure.at));
        let left = due.duration_since(self.time_of_day);
        let wait = Duration::try_from(delay.map_or(left, |delay| left.min(delay))).unwrap_or_default();
        self.instant.checked_add(wait.min(RETRY_DELAY_MAX))
    }
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, ToSpan};
    use purista_events::position::Position;
    use purista_events::subscriptions::{Failure, SubscriptionId};

    use super::*;

    const FAILED: Timestamp = Timestamp::constant(1_767_225_600, 0);
    const DELAY: Duration = Duration::from_secs(60);

    fn waiting(due: Timestamp) -> Parked {
        let history = vec![Failure { at: FAILED, attempt: 1, reason: "no".into() }];
        let (subscription, position) = (SubscriptionId::new("s"), Position::new(1));
        Parked { subscription, position, attempts: 1, key: None, due: Some(due), history }
    }

    /// How long an event waits by a clock that shows this.
    fn wait(time_of_day: Timestamp, parked: &Parked) -> Duration {
        let now = Moment { time_of_day, instant: Instant::now() };
        now.of_next_attempt(parked).unwrap() - now.instant
    }

    #[test]
    fn no_clock_makes_a_wait_longer_than_the_delay_of_the_attempt() {
        let parked = waiting(FAILED + DELAY);
        assert_eq!(wait(FAILED, &parked), DELAY);
        assert_eq!(wait(FAILED + Duration::from_secs(45), &parked), Duration::from_secs(15));
        assert_eq!(wait(FAILED - 1.hour(), &parked), DELAY, "an hour back");
        assert_eq!(wait(Timestamp::MIN, &parked), DELAY);
        assert_eq!(wait(FAILED + 1.hour(), &parked), Duration::ZERO, "an hour ahead");
        assert_eq!(wait(Timestamp::MAX, &parked), Duration::ZERO);
    }

    #[test]
    fn no_due_time_is_further_away_than_the_longest_delay() {
        let far = FAILED + Duration::from_secs(300 * 365 * 86_400);
        assert_eq!(wait(FAILED, &waiting(far)), RETRY_DELAY_MAX);
        assert_eq!(wait(FAILED, &Parked { history: Vec::new(), ..waiting(far) }), RETRY_DELAY_MAX);
        assert_eq!(
            wait(Timestamp::MIN, &Parked { history: Vec::new(), ..waiting(Timestamp::MAX) }),
            RETRY_DELAY_MAX
        );
    }
}
