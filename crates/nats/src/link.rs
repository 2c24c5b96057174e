//! The one connection, as the rest of the bridge sees it: whether it is up, how often it was lost, and how to write to it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::client::PublishErrorKind;
use async_nats::{Client, Event, HeaderMap, PublishError, Subject};
use bytes::Bytes;
use purista_core::bridge::{BridgeError, BridgeErrorKind, BridgeState};
use purista_core::broker::Attempts;
use purista_core::clock::Clock;
use purista_core::id::Id;
use purista_core::message::{Message, Party};
use purista_core::replies::Replies;
use purista_core::standing::Standing;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::address::subject_of;
use crate::wire;

/// How long the first connection, and each later attempt, may take.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What follows the events of the connection; made before it, since the first event comes with it.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) standing: Standing,
    /// The number of the connection that is there.
    up: watch::Sender<Option<u64>>,
    connections: AtomicU64,
    attempts: Mutex<Attempts>,
    /// The calls that wait for a reply; they end with the connection.
    pub(crate) replies: Replies,
    dropped: AtomicU64,
    /// Cancelled when the bridge begins to close.
    pub(crate) closing: CancellationToken,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            standing: Standing::default(),
            up: watch::channel(None).0,
            connections: AtomicU64::new(0),
            attempts: Mutex::default(),
            replies: Replies::default(),
            dropped: AtomicU64::new(0),
            closing: CancellationToken::new(),
        }
    }
}

impl Watch {
    /// Follows one event. It never waits: the client puts further events into a bounded queue meanwhile.
    pub(crate) fn follow(&self, event: &Event) {
        match event {
            Event::Connected => {
                // The client may have dropped the news of the loss: what was asked before is lost in any case.
                self.replies.abandon();
                self.attempts().connected();
                self.up.send_replace(Some(self.connections.fetch_add(1, Ordering::Relaxed)));
                tracing::info!("connected to NATS");
            }
            Event::Disconnected | Event::Closed => {
                self.up.send_replace(None);
                self.replies.abandon();
                self.standing.lost();
                if !self.closing.is_cancelled() {
                    tracing::warn!("the connection to NATS is lost; it is tried again until it is back");
                }
            }
            Event::SlowConsumer(subscription) => {
                let dropped = self.count_dropped();
                tracing::error!(
                    subscription,
                    dropped,
                    "a message from NATS is lost: its subscription's queue is full"
                );
            }
            Event::ServerError(error) => tracing::error!(%error, "NATS reports an error"),
            Event::ClientError(error) => tracing::warn!(%error, "the client of NATS reports an error"),
            Event::LameDuckMode => tracing::warn!("the NATS server is about to go down"),
            Event::Draining => {}
        }
    }

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        // Nothing in here can panic half-way, so what is poisoned is whole.
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the next attempt to connect waits.
    pub(crate) fn next_delay(&self, fraction: f64) -> Duration {
        self.attempts().next_delay(fraction)
    }

    /// Waits for a connection after the `last`.
    pub(crate) async fn next_connection(&self, last: Option<u64>) -> Option<u64> {
        let mut up = self.up.subscribe();
        // The sender lives in here.
        up.wait_for(|up| up.is_some() && *up != last).await.ok().and_then(|up| *up)
    }

    /// Says that the bridge is connected, if this is still the connection.
    pub(crate) fn welcome(&self, connection: u64) {
        self.up.send_if_modified(|up| {
            // Under the lock of the connection's number, so that the news of its loss come after.
            if *up == Some(connection) {
                self.standing.connected();
            }
            false
        });
    }

    /// Says that the bridge is closed, for good.
    pub(crate) fn close(&self) {
        self.standing.close();
        self.closing.cancel();
    }

    pub(crate) fn state(&self) -> watch::Receiver<BridgeState> {
        self.standing.state()
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.borrow().is_some()
    }

    /// Waits until the connection is lost; at once when it is.
    pub(crate) async fn lost(&self) {
        // The sender lives in here.
        let _ = self.up.subscribe().wait_for(Option::is_none).await;
    }

    /// Waits until the connection is there. What waits here never happened, whether its deadline passes or the bridge closes.
    pub(crate) async fn up_until(&self, deadline: Instant) -> Result<(), BridgeError> {
        if self.closing.is_cancelled() {
            return Err(closed());
        }
        if self.is_up() {
            return Ok(());
        }
        let mut up = self.up.subscribe();
        tokio::select! {
            () = self.closing.cancelled() => Err(closed()),
            waited = tokio::time::timeout_at(deadline, up.wait_for(Option::is_some)) => match waited {
                Ok(_) => Ok(()),
                Err(_) => Err(rejected("no connection to NATS before the deadline")),
            },
        }
    }

    /// Counts a message that is lost; how many are so far.
    pub(crate) fn count_dropped(&self) -> u64 {
        self.dropped.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// How many messages were lost because a subscription's queue was full, at least that many under a flood of them, or
    /// because they were no messages.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// An error of something that never happened.
pub(crate) fn rejected(what: impl Into<String>) -> BridgeError {
    BridgeError::new(BridgeErrorKind::Rejected, what)
}

pub(crate) fn closed() -> BridgeError {
    rejected("the NATS bridge is closed")
}

/// The connection, and who speaks over it.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) client: Client,
    pub(crate) watch: Arc<Watch>,
    pub(crate) clock: Clock,
    pub(crate) prefix: Arc<str>,
    pub(crate) instance: Id,
}

impl Link {
    /// How often the client has connected. It is counted before anything goes over the new connection, so an unchanged
    /// number means that everything in between went over one.
    pub(crate) fn connects(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::SeqCst)
    }

    /// This process, as the party behind an address.
    pub(crate) fn party(&self, address: &purista_core::address::Address) -> Party {
        Party { address: address.clone(), instance: Some(self.instance.clone()) }
    }

    /// Hands a message to the client, which writes it; waits while the client's queue is full, until `deadline`. An error
    /// says that it was not handed over.
    pub(crate) async fn write(
        &self,
        subject: Subject,
        reply_to: Option<Subject>,
        headers: HeaderMap,
        body: Bytes,
        deadline: Instant,
    ) -> Result<(), BridgeError> {
        check_subject(&subject)?;
        let writing = async {
            match reply_to {
                Some(inbox) => {
                    self.client.publish_with_reply_and_headers(subject, inbox, headers, body).await
                }
                None => self.client.publish_with_headers(subject, headers, body).await,
            }
        };
        match tokio::time::timeout_at(deadline, writing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(not_written(error)),
            Err(_) => Err(rejected("the queue to NATS was full until the deadline")),
        }
    }

    /// Writes a message on its own subject.
    pub(crate) async fn write_routed(&self, message: &Message, deadline: Instant) -> Result<(), BridgeError> {
        let (subject, body) = (subject_of(&self.prefix, message), encode(message)?);
        self.write(subject.into(), None, wire::headers(message), body, deadline).await
    }
}

fn not_written(error: PublishError) -> BridgeError {
    let what = "publish to NATS failed";
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => too_large(what).with_source(error),
        _ => rejected(what).with_source(error),
    }
}

/// An error of a message that the server does not take in any connection.
pub(crate) fn too_large(what: impl Into<String>) -> BridgeError {
    BridgeError::new(BridgeErrorKind::TooLarge, what)
}

/// Refuses a subject that the server would not read: it ends the connection at a line that is longer than its
/// `max_control_line`, which it does not say; by default it takes 4,096 bytes.
pub(crate) fn check_subject(subject: &str) -> Result<(), BridgeError> {
    let bytes = subject.len();
    if bytes > SUBJECT_BYTES_MAX {
        let what = format!(
            "a subject of {bytes} bytes is longer than {SUBJECT_BYTES_MAX}: tenant or principal are too long"
        );
        return Err(too_large(what));
    }
    Ok(())
}

/// The longest subject, so that it fits the server's line with the inbox and the two lengths behind it.
const SUBJECT_BYTES_MAX: usize = 3_840;

pub(crate) fn encode(message: &Message) -> Result<Bytes, BridgeError> {
    message
        .encode(Instant::now())
        .map_err(|error| rejected("the message cannot be encoded").with_source(error))
}
