//! The connection as the rest of the bridge sees it: whether it is up, and how to send something over it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use purista_core::address::Address;
use purista_core::bridge::{BridgeError, BridgeErrorKind, BridgeState};
use purista_core::clock::Clock;
use purista_core::detaching::Detaching;
use purista_core::id::Id;
use purista_core::message::{Message, Party};
use purista_core::replies::Replies;
use purista_core::standing::Standing;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::{closed, rejected, unknown};
use crate::session::Session;

/// How many messages may wait for their confirmation at a time; more wait for a place.
const UNCONFIRMED_MAX: usize = 4096;

/// Whether there is a connection, and what follows from it.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) standing: Standing,
    session: watch::Sender<Option<Arc<Session>>>,
    /// The calls that wait for a reply; they end with the connection.
    pub(crate) replies: Replies,
    dropped: AtomicU64,
    /// Told when a subscription is to be fed again.
    pub(crate) detached: Notify,
    /// Cancelled when the bridge begins to close.
    pub(crate) closing: CancellationToken,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            standing: Standing::default(),
            session: watch::channel(None).0,
            replies: Replies::default(),
            dropped: AtomicU64::new(0),
            detached: Notify::new(),
            closing: CancellationToken::new(),
        }
    }
}

impl Watch {
    /// There is a connection; subscriptions may not be fed yet.
    pub(crate) fn up(&self, session: Arc<Session>) {
        self.session.send_replace(Some(session));
    }

    /// There is none any more: calls that wait end as `Unknown`.
    pub(crate) fn down(&self) {
        self.session.send_replace(None);
        self.replies.abandon();
        self.standing.lost();
    }

    /// Says that the bridge is connected, and all its subscriptions are fed.
    pub(crate) fn welcome(&self) {
        self.standing.connected();
    }

    /// Says that the bridge is closed, for good.
    pub(crate) fn close(&self) {
        self.standing.close();
        self.closing.cancel();
    }

    pub(crate) fn state(&self) -> watch::Receiver<BridgeState> {
        self.standing.state()
    }

    /// Waits until there is a connection, for a caller. What waits here never happened, whether its deadline passes or the
    /// bridge closes.
    pub(crate) async fn up_until(&self, deadline: Instant) -> Result<Arc<Session>, BridgeError> {
        tokio::select! {
            biased;
            () = self.closing.cancelled() => Err(closed()),
            session = self.session_until(deadline) => session,
        }
    }

    /// Waits until there is a connection, for what is in flight: also while the bridge closes.
    pub(crate) async fn session_until(&self, deadline: Instant) -> Result<Arc<Session>, BridgeError> {
        let mut sessions = self.session.subscribe();
        let is_up =
            |session: &Option<Arc<Session>>| session.as_ref().is_some_and(|session| session.is_usable());
        let up = match tokio::time::timeout_at(deadline, sessions.wait_for(is_up)).await {
            Ok(Ok(session)) => session.clone(),
            _ => None,
        };
        up.ok_or_else(|| rejected("no connection to the broker before the deadline"))
    }

    /// Whether there is a connection from which the broker takes nothing now.
    pub(crate) fn is_blocked(&self) -> bool {
        self.session.borrow().as_ref().is_some_and(|session| session.is_blocked())
    }

    /// Counts a message that is lost.
    pub(crate) fn count_dropped(&self) -> u64 {
        self.dropped.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// How many messages were lost so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The connection, and who speaks over it.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) watch: Arc<Watch>,
    pub(crate) clock: Clock,
    pub(crate) instance: Id,
    pub(crate) exchange: ShortString,
    pub(crate) prefix: Arc<str>,
    pub(crate) message_bytes_max: usize,
    unconfirmed: Arc<Semaphore>,
    /// Where a confirmation is waited for that nobody else waits for.
    tasks: TaskTracker,
}

/// Where a message goes.
#[derive(Debug, Clone)]
pub(crate) struct Destination {
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    /// Whether it comes back when there is no queue for it.
    pub(crate) mandatory: bool,
}

impl Destination {
    /// One queue, by its name.
    pub(crate) fn queue(name: ShortString) -> Self {
        Self { exchange: "".into(), routing_key: name, mandatory: false }
    }
}

impl Link {
    pub(crate) fn new(
        clock: Clock,
        instance: Id,
        exchange: ShortString,
        prefix: Arc<str>,
        message_bytes_max: usize,
        tasks: TaskTracker,
    ) -> Self {
        let unconfirmed = Arc::new(Semaphore::new(UNCONFIRMED_MAX));
        Self {
            watch: Arc::default(),
            clock,
            instance,
            exchange,
            prefix,
            message_bytes_max,
            unconfirmed,
            tasks,
        }
    }

    /// Where what nobody waits for goes on; the bridge ends behind it.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// This process, as the party behind an address.
    pub(crate) fn party(&self, address: &Address) -> Party {
        Party { address: address.clone(), instance: Some(self.instance.clone()) }
    }

    /// Where everybody finds a message.
    pub(crate) fn everybody(&self, mandatory: bool) -> Destination {
        Destination { exchange: self.exchange.clone(), routing_key: "".into(), mandatory }
    }

    /// The body of a message, if it is small enough.
    pub(crate) fn encode(&self, message: &Message) -> Result<Bytes, BridgeError> {
        let body = message
            .encode(Instant::now())
            .map_err(|error| rejected("the message cannot be encoded").with_source(error))?;
        if body.len() > self.message_bytes_max {
            return Err(BridgeError::too_large(body.len(), self.message_bytes_max));
        }
        Ok(body)
    }

    /// Waits for a place among what is not confirmed yet, until `deadline`; then writes, and brings the confirmation.
    ///
    /// An error from the waiting says that nothing was written. What the future brings is what is known afterwards; when it
    /// is dropped, its place is still held until the broker has confirmed.
    pub(crate) async fn send(
        &self,
        session: &Session,
        to: Destination,
        body: Bytes,
        properties: BasicProperties,
        deadline: Instant,
    ) -> Result<Sending, BridgeError> {
        let place = Arc::clone(&self.unconfirmed).acquire_owned();
        let Ok(Ok(place)) = tokio::time::timeout_at(deadline, place).await else {
            return Err(rejected("too many messages waited for the broker until the deadline"));
        };
        let channel = if to.mandatory { &session.asking } else { &session.publishing };
        let (channel, watch, lost) = (channel.clone(), Arc::clone(&self.watch), session.lost.clone());
        let bytes = body.len();
        let sending: BoxFuture<'static, Result<(), BridgeError>> = Box::pin(async move {
            let _place = place;
            let publishing = async {
                let options = BasicPublishOptions { mandatory: to.mandatory, immediate: false };
                channel.basic_publish(to.exchange, to.routing_key, options, &body, properties).await?.await
            };
            let lost_meanwhile = || unknown("the connection to the broker was lost meanwhile");
            let confirmed = tokio::select! {
                biased;
                confirmed = publishing => confirmed.map_err(|error| {
                    let known = if says_too_large(&error, bytes) { too_large(bytes) } else { lost_meanwhile() };
                    known.with_source(error)
                })?,
                // The client does not end everything that waits when a connection ends.
                () = lost.cancelled() => return Err(lost_meanwhile()),
            };
            let is_taken = !confirmed.is_nack();
            if let Some(returned) = confirmed.take_message() {
                unroutable(&watch, &returned.delivery.properties);
            }
            if is_taken {
                Ok(())
            } else {
                Err(unknown("the broker could not keep the message in each of its queues"))
            }
        });
        Ok(Detaching::new(sending, self.tasks.clone()))
    }

    /// Sends, and waits until the broker has confirmed or the deadline passes.
    pub(crate) async fn send_confirmed(
        &self,
        session: &Session,
        to: Destination,
        body: Bytes,
        properties: BasicProperties,
        deadline: Instant,
    ) -> Result<(), BridgeError> {
        let sending = self.send(session, to, body, properties, deadline).await?;
        confirmed(sending, deadline).await
    }
}

/// Whether the broker has closed the channel over a message of this size. It does not say its `max_message_size` before, and
/// what else was in flight on the channel ends with the same error.
fn says_too_large(error: &lapin::Error, bytes: usize) -> bool {
    let text = error.to_string();
    text.contains("larger than configured max size") && text.contains(&format!("message size {bytes} "))
}

fn too_large(bytes: usize) -> BridgeError {
    BridgeError::too_large(bytes, bytes.saturating_sub(1))
}

/// A message on its way to the broker.
pub(crate) type Sending = Detaching<Pin<Box<dyn Future<Output = Result<(), BridgeError>> + Send>>>;

/// What is known of a sent message when the broker has confirmed it, or at the deadline.
pub(crate) async fn confirmed(sending: Sending, deadline: Instant) -> Result<(), BridgeError> {
    match tokio::time::timeout_at(deadline, sending).await {
        Ok(known) => known,
        Err(_) => Err(BridgeError::new(
            BridgeErrorKind::Timeout,
            "the broker did not confirm the message before the deadline",
        )),
    }
}

/// Ends the call of a command that came back. It is found by the message itself: where several confirmations come together
/// the client may hand what came back to another of them.
fn unroutable(watch: &Watch, properties: &BasicProperties) {
    let call = properties.correlation_id().as_ref().and_then(|id| Id::parse(id.as_str()).ok());
    let Some(call) = call else { return };
    watch.replies.refuse(&call, BridgeError::new(BridgeErrorKind::Unroutable, "nobody serves the command"));
}
