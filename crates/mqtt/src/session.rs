//! A connection that comes back by itself: dialled, greeted, served until it is lost, and dialled again, for ever.
//!
//! Each connection has a client of its own, which ends with it. So nothing that was asked over a lost one is sent again
//! without its asker knowing, and acknowledgements never go to a connection that did not bring the message.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::unfold;
use purista_core::bridge::BridgeError;
use purista_core::broker::Attempts;
use rumqttc::{AsyncClient, ConnAck, Event, EventLoop, Packet, Publish};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dial::{Dial, Dialled};
use crate::line::Line;
use crate::link::{Link, rejected};

/// How long the farewell may take: the last acknowledgements, and the word that the connection ends on purpose.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection has to live to be a good one. Two processes of one client id take the session from one another; they
/// are to do so ever more seldom.
const GOOD_AFTER: Duration = Duration::from_secs(10);

/// What a session is for.
pub(crate) trait Role: Send + Sync + 'static {
    /// Subscribes over a fresh connection, before anybody else uses it. `is_resumed` says that the broker knew the session.
    fn greet(
        self: Arc<Self>,
        line: Arc<Line>,
        is_resumed: bool,
    ) -> BoxFuture<'static, Result<(), BridgeError>>;

    /// Takes what the broker sent, in its order. It must not wait: everything behind it would wait too.
    fn take(&self, line: &Arc<Line>, raw: Publish);

    /// Waits until the connection has to be made anew. Cancel safe.
    fn interrupted(&self) -> BoxFuture<'_, ()>;

    /// The connection is lost.
    fn lost(&self);
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Before it was there for anybody.
    Before,
    /// It was lost.
    Lost,
    /// It is made anew at once.
    OnPurpose,
}

impl Ended {
    fn of(was_greeted: bool) -> Self {
        if was_greeted { Self::Lost } else { Self::Before }
    }
}

/// One session with the broker.
pub(crate) struct Session {
    link: Arc<Link>,
    dial: Dial,
    up: watch::Sender<Option<Arc<Line>>>,
    stop: CancellationToken,
    ended: CancellationToken,
    /// Whether the bridge's state misses it.
    is_missed: AtomicBool,
    /// Why it was never there: the first greeting has to succeed.
    failure: Mutex<Option<BridgeError>>,
}

impl Session {
    /// Dials, which must succeed, and keeps the connection from then on, on a task of `tasks`. `is_missed` says that the
    /// bridge's state waits for it already.
    pub(crate) async fn start(
        link: Arc<Link>,
        dial: Dial,
        role: Arc<dyn Role>,
        is_missed: bool,
        tasks: &TaskTracker,
    ) -> Result<Arc<Self>, BridgeError> {
        let dialled = dial.dial().await?;
        let session = Arc::new(Self {
            link,
            dial,
            up: watch::channel(None).0,
            stop: CancellationToken::new(),
            ended: CancellationToken::new(),
            is_missed: AtomicBool::new(is_missed),
            failure: Mutex::default(),
        });
        tasks.spawn(Arc::clone(&session).keep(dialled, role));
        Ok(session)
    }

    /// The connection that is there now, if any.
    pub(crate) fn line_now(&self) -> Option<Arc<Line>> {
        self.up.borrow().clone()
    }

    /// The connection, when there is one behind the one with the number `after`. What waits for it until the deadline never
    /// happened.
    pub(crate) async fn line_after(&self, after: u64, deadline: Instant) -> Result<Arc<Line>, BridgeError> {
        if let Some(line) = self.line_now().filter(|line| line.number > after) {
            return Ok(line);
        }
        let is_it = |up: &Option<Arc<Line>>| up.as_ref().is_some_and(|line| line.number > after);
        let mut up = self.up.subscribe();
        let waiting = async { up.wait_for(is_it).await.ok().and_then(|up| up.clone()) };
        tokio::select! {
            line = tokio::time::timeout_at(deadline, waiting) => {
                line.ok().flatten().ok_or_else(|| rejected("no connection to the MQTT broker before the deadline"))
            }
            () = self.ended.cancelled() => {
                let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
                Err(failure.unwrap_or_else(|| rejected("the connection to the MQTT broker has ended")))
            }
        }
    }

    /// The connection, when there is one.
    pub(crate) async fn line(&self, deadline: Instant) -> Result<Arc<Line>, BridgeError> {
        self.line_after(0, deadline).await
    }

    /// Ends the session without waiting.
    pub(crate) fn end(&self) {
        self.stop.cancel();
    }

    /// Says farewell and waits until the connection has ended.
    pub(crate) async fn stop(&self) {
        self.end();
        self.ended.cancelled().await;
    }

    async fn keep(self: Arc<Self>, first: Dialled, role: Arc<dyn Role>) {
        let _ended = self.ended.clone().drop_guard();
        let (mut dialled, mut number, mut attempts) = (Some(first), 0_u64, Attempts::good_after(GOOD_AFTER));
        while !self.stop.is_cancelled() {
            let Some(next) = dialled.take() else {
                dialled = self.again(&mut attempts).await;
                continue;
            };
            attempts.connected();
            number = number.saturating_add(1);
            let ended = self.serve(next, number, &role).await;
            self.up.send_replace(None);
            role.lost();
            if self.stop.is_cancelled() || (number == 1 && ended == Ended::Before) {
                break;
            }
            if !self.is_missed.swap(true, Ordering::Relaxed) {
                self.link.standing.lost();
            }
            if ended == Ended::OnPurpose {
                attempts = Attempts::good_after(GOOD_AFTER);
                continue;
            }
            tracing::warn!(
                session = self.dial.client_id(),
                "the connection to the MQTT broker is lost; it is tried again until it is back"
            );
        }
        if self.is_missed.load(Ordering::Relaxed) {
            self.link.standing.back();
        }
    }

    /// One more attempt, after its delay.
    async fn again(&self, attempts: &mut Attempts) -> Option<Dialled> {
        let delay = attempts.next_delay(self.link.clock.fraction());
        let dialling = async {
            tokio::time::sleep(delay).await;
            self.dial.dial().await
        };
        let dialled = tokio::select! {
            () = self.stop.cancelled() => return None,
            dialled = dialling => dialled,
        };
        let session = self.dial.client_id();
        dialled
            .inspect_err(|error| {
                tracing::debug!(session, ?attempts, error = error as &dyn std::error::Error, "not back yet");
            })
            .ok()
    }

    /// Serves one connection until it is lost or has to be made anew, or until the session is stopped.
    async fn serve(&self, dialled: Dialled, number: u64, role: &Arc<dyn Role>) -> Ended {
        let Dialled { client, events, greeting } = dialled;
        let line = Arc::new(self.line_of(client, number, &greeting));
        let _lost = line.lost.clone().drop_guard();
        // The client's step is kept between two looks at it: a torn one would lose what it had in hand.
        let mut events = Box::pin(unfold(events, |mut events: EventLoop| async move {
            let event = events.poll().await;
            Some((event, events))
        }));
        let mut greeted = pin!(Arc::clone(role).greet(Arc::clone(&line), greeting.session_present));
        let (mut is_greeted, mut is_stopping) = (false, false);
        // One for all events: to begin waiting takes a lock each time.
        let mut stopped = pin!(self.stop.cancelled());
        let mut interrupted = role.interrupted();
        let mut farewell = pin!(async {
            // A connection that is gone already takes none.
            let _ = line.client.disconnect_with_timeout(FAREWELL_TIMEOUT).await;
            tokio::time::sleep(FAREWELL_TIMEOUT).await;
        });
        loop {
            let event = tokio::select! {
                biased;
                () = &mut stopped, if !is_stopping => {
                    is_stopping = true;
                    continue;
                }
                () = &mut farewell, if is_stopping => return Ended::of(is_greeted),
                () = &mut interrupted, if is_greeted && !is_stopping => return Ended::OnPurpose,
                done = &mut greeted, if !is_greeted => {
                    if let Err(error) = done {
                        let session = self.dial.client_id();
                        tracing::error!(session, error = &error as &dyn std::error::Error, "subscribing failed");
                        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                        return Ended::Before;
                    }
                    is_greeted = true;
                    self.welcome(&line);
                    continue;
                }
                event = events.next() => event,
            };
            match event {
                Some(Ok(Event::Incoming(Packet::Publish(raw)))) => role.take(&line, raw),
                Some(Ok(Event::Incoming(Packet::UnsubAck(_)))) => {
                    line.unsubscribed.send_modify(|count| *count = count.saturating_add(1));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    // Before those that wait for their acknowledgement hear of the loss.
                    self.link.refused.learn(&error);
                    if !is_stopping {
                        tracing::info!(session = self.dial.client_id(), %error, "the connection has ended");
                    }
                    return Ended::of(is_greeted);
                }
                None => return Ended::of(is_greeted),
            }
        }
    }

    fn line_of(&self, client: AsyncClient, number: u64, greeting: &ConnAck) -> Line {
        let theirs = greeting.properties.as_ref().and_then(|properties| properties.max_packet_size);
        let packet_bytes_max = theirs.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX);
        Line {
            number,
            client,
            packet_bytes_max: packet_bytes_max.min(self.dial.packet_bytes_max()),
            refused: Arc::clone(&self.link.refused),
            lost: CancellationToken::new(),
            unsubscribed: watch::channel(0).0,
        }
    }

    /// The connection is there for everybody.
    fn welcome(&self, line: &Arc<Line>) {
        self.up.send_replace(Some(Arc::clone(line)));
        if self.is_missed.swap(false, Ordering::Relaxed) {
            self.link.standing.back();
        }
        tracing::info!(session = self.dial.client_id(), "connected to the MQTT broker");
    }
}
