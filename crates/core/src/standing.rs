//! How a bridge stands with its broker: connected or not, and whether everybody else has had the time to come back, too.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::bridge::{Answer, BridgeErrorKind, BridgeState};
use crate::broker::RECONNECT_DELAY_MAX;
use crate::message::Message;

/// How long after its own return a bridge does not believe that nobody serves a command: those who serve it come back each
/// by itself, after [`RECONNECT_DELAY_MAX`] at the latest and the time of an attempt.
pub const SETTLING_TIME: Duration = RECONNECT_DELAY_MAX.saturating_add(Duration::from_secs(1));
/// How long the first pause is before a command is asked again meanwhile; each is twice as long as the one before, until the
/// longest.
const ASK_AGAIN_AFTER: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(800));

/// How a bridge stands with its broker; each adapter for one has it once, and tells it what becomes of the connection.
pub struct Standing {
    state: watch::Sender<BridgeState>,
    past: Mutex<Past>,
}

#[derive(Debug, Default)]
struct Past {
    was_connected: bool,
    /// When it was connected once more after a loss, the last time.
    returned: Option<Instant>,
}

impl Default for Standing {
    /// The first connection is not there yet.
    fn default() -> Self {
        Self { state: watch::channel(BridgeState::Reconnecting).0, past: Mutex::default() }
    }
}

impl Standing {
    /// Whether it is connected, for those who show it.
    pub fn state(&self) -> watch::Receiver<BridgeState> {
        self.state.subscribe()
    }

    /// It is connected, and its subscriptions are fed.
    pub fn connected(&self) {
        self.change(BridgeState::Connected);
    }

    /// It is not, and tries to be.
    pub fn lost(&self) {
        self.change(BridgeState::Reconnecting);
    }

    /// It is closed, for good.
    pub fn close(&self) {
        self.change(BridgeState::Closed);
    }

    fn change(&self, to: BridgeState) {
        let mut past = self.past();
        self.state.send_if_modified(|state| {
            let is_change = *state != BridgeState::Closed && *state != to;
            if is_change {
                *state = to;
            }
            if is_change && to == BridgeState::Connected {
                past.returned = past.was_connected.then(Instant::now);
                past.was_connected = true;
            }
            is_change
        });
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        // Every change is whole after each line.
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether those who serve had the time to come back, if they had to.
    fn has_settled(&self) -> bool {
        let is_away = *self.state.borrow() == BridgeState::Reconnecting;
        !is_away && self.past().returned.is_none_or(|returned| returned.elapsed() >= SETTLING_TIME)
    }

    /// Asks, and hands on the answer. A command that nobody serves is said to be so at once, but for a while after a
    /// broker's return: then it is asked again until somebody who serves it is back, too, or [`SETTLING_TIME`] or the deadline
    /// is over. What nobody serves never happened, so nothing is asked twice. Cancel safe as `ask` is.
    pub async fn asked<F>(
        &self,
        command: Box<Message>,
        deadline: Instant,
        ask: impl Fn(Box<Message>) -> F,
    ) -> Answer
    where
        F: Future<Output = Answer>,
    {
        if self.has_settled() {
            return ask(command).await;
        }
        let (mut pause, longest) = ASK_AGAIN_AFTER;
        loop {
            let answer = ask(command.clone()).await;
            let is_unserved = answer.as_ref().is_err_and(|error| error.kind() == BridgeErrorKind::Unroutable);
            if !is_unserved || self.has_settled() || Instant::now() + pause >= deadline {
                return answer;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standing").field("state", &*self.state.borrow()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::address::{Address, ServiceId};
    use crate::bridge::BridgeError;
    use crate::id::Id;
    use crate::message::{MessageType, Party};

    fn command() -> Box<Message> {
        let sender = Party::anywhere(Address::of(ServiceId::new("Test", "1"), "main"));
        Box::new(Message::new(Id::from_random(1), MessageType::Command, 0, sender, Id::from_random(2)))
    }

    /// Asks somebody who is there from a moment on; how often it was asked, how long it took, and the end.
    async fn asked(
        standing: &Standing,
        served_in: Duration,
        given: Duration,
    ) -> (u32, Duration, Option<BridgeErrorKind>) {
        let (count, begun) = (AtomicU32::new(0), Instant::now());
        let answer = standing.asked(command(), begun + given, async |command| {
            count.fetch_add(1, Ordering::Relaxed);
            if begun.elapsed() >= served_in {
                return Ok(command);
            }
            Err(BridgeError::new(BridgeErrorKind::Unroutable, "nobody"))
        });
        let answer = answer.await;
        (count.into_inner(), begun.elapsed(), answer.err().map(|error| error.kind()))
    }

    const LATER: Duration = Duration::from_secs(3);
    const NEVER: Duration = Duration::from_secs(3600);
    const PATIENT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn nobody_is_said_at_once_unless_the_broker_was_away() {
        let standing = Standing::default();
        standing.connected();
        let unserved = (1, Duration::ZERO, Some(BridgeErrorKind::Unroutable));
        assert_eq!(asked(&standing, NEVER, PATIENT).await, unserved, "the first connection is no return");
        standing.lost();
        standing.connected();
        tokio::time::advance(SETTLING_TIME).await;
        assert_eq!(asked(&standing, NEVER, PATIENT).await, unserved, "all had the time to come back");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_return_who_serves_is_waited_for_and_not_for_ever() {
        let standing = Standing::default();
        standing.connected();
        standing.lost();
        standing.connected();
        let (count, took, end) = asked(&standing, LATER, PATIENT).await;
        assert!(end.is_none() && took >= LATER && took < SETTLING_TIME, "{took:?} {end:?}");
        assert!(
            count > 3 && count < 12,
            "asked {count} times: seldom enough for a broker that has just come back"
        );
        standing.lost();
        standing.connected();
        let (_, took, end) = asked(&standing, NEVER, PATIENT).await;
        let late = SETTLING_TIME + ASK_AGAIN_AFTER.1;
        assert!(
            end == Some(BridgeErrorKind::Unroutable) && took >= SETTLING_TIME && took <= late,
            "{took:?}"
        );
        standing.lost();
        standing.connected();
        let (_, took, end) = asked(&standing, NEVER, Duration::from_secs(1)).await;
        assert!(end == Some(BridgeErrorKind::Unroutable) && took < Duration::from_secs(1), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_have_happened_is_not_asked_again() {
        let standing = Standing::default();
        for kind in [BridgeErrorKind::Unknown, BridgeErrorKind::Timeout, BridgeErrorKind::Rejected] {
            let count = AtomicU32::new(0);
            let asking = standing.asked(command(), Instant::now() + PATIENT, async |_| {
                count.fetch_add(1, Ordering::Relaxed);
                Err(BridgeError::new(kind, "lost"))
            });
            assert_eq!(asking.await.unwrap_err().kind(), kind);
            assert_eq!(count.into_inner(), 1, "{kind:?}");
        }
    }

    #[test]
    fn a_bridge_is_closed_for_good() {
        let standing = Standing::default();
        let state = standing.state();
        assert_eq!(*state.borrow(), BridgeState::Reconnecting);
        standing.connected();
        standing.close();
        standing.lost();
        standing.connected();
        assert_eq!(*state.borrow(), BridgeState::Closed);
    }
}
