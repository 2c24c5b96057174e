//! Keeps the connection, and feeds the subscriptions from it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapin::{Channel, Consumer};
use purista_core::bridge::BridgeError;
use purista_core::broker::Attempts;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::feed::AmqpFeed;
use crate::link::Link;
use crate::replies;
use crate::session::{Peer, Session};

/// After which time a subscription is tried again that the broker did not feed.
const ATTACH_PAUSE: Duration = Duration::from_secs(1);
/// How long the end of the connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

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
        let (mut session, mut attempts) = (first, Attempts::default());
        loop {
            attempts.connected();
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
                session = self.again(&mut attempts) => session,
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

    async fn again(&self, attempts: &mut Attempts) -> Arc<Session> {
        loop {
            tokio::time::sleep(attempts.next_delay(self.link.clock.fraction())).await;
            match Session::open(&self.peer).await {
                Ok(opened) => return self.taken(opened),
                Err(error) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        ?attempts,
                        "the broker is not back yet"
                    );
                }
            }
        }
    }
}
