//! Keeps the connection, and feeds the subscriptions from it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapin::{Channel, Consumer};
use purista_core::bridge::BridgeError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::feed::AmqpFeed;
use crate::link::Link;
use crate::replies;
use crate::session::{Peer, Session};

const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(50);
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(4);
/// After which time a subscription is tried again that the broker did not feed.
const ATTACH_PAUSE: Duration = Duration::from_secs(1);
/// How long the end of the connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The subscriptions of a bridge, in the order in which they came.
pub(crate) type Feeds = Arc<Mutex<Vec<Arc<AmqpFeed>>>>;

/// Keeps one connection alive until it is stopped.
pub(crate) struct Keeper {
    pub(crate) peer: Peer,
    pub(crate) link: Link,
    pub(crate) feeds: Feeds,
    pub(crate) tasks: TaskTracker,
    /// Cancelled when everything that was in flight is settled.
    pub(crate) stop: CancellationToken,
}

impl Keeper {
    /// Makes the first connection. Unlike later ones it is tried once.
    pub(crate) async fn begin(&self) -> Result<Arc<Session>, BridgeError> {
        let opened = Session::open(&self.peer).await?;
        let session = self.taken(opened);
        self.link.watch.welcome();
        Ok(session)
    }

    fn taken(&self, (session, channel, consumer): (Session, Channel, Consumer)) -> Arc<Session> {
        let session = Arc::new(session);
        let reading = replies::read(consumer, self.link.clone(), Arc::clone(&session));
        self.tasks.spawn(async move {
            let _open = channel;
            reading.await;
        });
        self.link.watch.up(Arc::clone(&session));
        session
    }

    /// Feeds from the connection as long as it is there, then makes the next one, for ever.
    pub(crate) async fn run(self, first: Arc<Session>) {
        let mut session = first;
        loop {
            let was_stopped = tokio::select! {
                () = self.stop.cancelled() => true,
                () = session.lost() => false,
                () = self.feed(&session) => false,
            };
            self.link.watch.down();
            session.close(Instant::now() + CLOSE_TIMEOUT).await;
            if was_stopped {
                return;
            }
            if !self.link.watch.closing.is_cancelled() {
                tracing::warn!(
                    "the connection to the AMQP broker is lost; it is tried again until it is back"
                );
            }
            session = tokio::select! {
                () = self.stop.cancelled() => return,
                session = self.again() => session,
            };
            tracing::info!("connected to the AMQP broker again");
        }
    }

    /// Asks the broker to feed every subscription that it does not feed, whenever there is one.
    async fn feed(&self, session: &Session) {
        loop {
            let hungry: Vec<_> = {
                let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
                feeds.retain(|feed| !feed.is_over());
                feeds.iter().filter(|feed| feed.wants_feeding()).cloned().collect()
            };
            let mut is_complete = true;
            for feed in hungry {
                is_complete &= feed.attach(session).await;
            }
            if is_complete {
                self.link.watch.welcome();
                self.link.watch.detached.notified().await;
            } else {
                let _ = tokio::time::timeout(ATTACH_PAUSE, self.link.watch.detached.notified()).await;
            }
        }
    }

    async fn again(&self) -> Arc<Session> {
        let mut attempt = 0_u32;
        loop {
            tokio::time::sleep(delay(attempt, self.link.clock.fraction())).await;
            match Session::open(&self.peer).await {
                Ok(opened) => return self.taken(opened),
                Err(error) => {
                    attempt = attempt.saturating_add(1);
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        attempt,
                        "the broker is not back yet"
                    );
                }
            }
        }
    }
}

/// The first attempt is made at once, later ones after a doubling time, of which half is left to chance so that a broker
/// that comes back is not met by all its clients together.
fn delay(attempt: u32, fraction: f64) -> Duration {
    let Some(doublings) = attempt.checked_sub(1) else { return Duration::ZERO };
    let delay = RECONNECT_DELAY_MIN.saturating_mul(2_u32.saturating_pow(doublings)).min(RECONNECT_DELAY_MAX);
    delay.div_f64(2.0) + delay.div_f64(2.0).mul_f64(fraction.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_doubles_up_to_its_bound_and_half_of_it_is_chance() {
        assert_eq!(delay(0, 0.5), Duration::ZERO);
        assert_eq!(delay(1, 0.0), Duration::from_millis(25));
        assert_eq!(delay(1, 1.0), Duration::from_millis(50));
        assert_eq!(delay(3, 1.0), Duration::from_millis(200));
        for attempt in [20, 40, u32::MAX] {
            assert_eq!(delay(attempt, 1.0), RECONNECT_DELAY_MAX);
        }
    }
}
