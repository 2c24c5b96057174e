//! The contract between the house and what carries messages: an adapter moves bytes, the house decides.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::id::Id;
use crate::message::Message;
use crate::subscription::Subscription;

mod asking;
mod carried;
pub use asking::{Answer, Asking};
pub(crate) use asking::{Calling, Concludes, InHand};
pub use carried::Carried;

/// Carries messages between services, in the process or over a broker.
///
/// Duties, each tested by name in `purista-conformance`:
///
/// * `request` ends with the reply, or with an error at the message's deadline at the latest; nobody to serve the command
///   is `Unroutable`, at once where the capabilities say so; for [`SETTLING_TIME`](crate::standing::SETTLING_TIME) after a
///   broker's return who serves is waited for.
/// * Consumers of one command share its calls. Consumers of one shared subscription share its messages; every instance of
///   an every-instance subscription gets each.
/// * A filter is asked again on the decoded message.
/// * `publish` returns `Ok` only when the carrier has taken the message, as far as [`Capabilities`] promise.
/// * A `request` whose caller goes away changes nothing that the handler does.
/// * A lost connection is reported through `state`, retried for ever with backoff, and subscriptions come back; what was in
///   flight ends as `Unknown` or at its deadline.
/// * A message that is larger than [`Capabilities::message_bytes_max`] is [`BridgeErrorKind::TooLarge`], before anything of it
///   is sent; the bridge works on.
/// * `close` stops the intake, waits until what is in flight is settled, and leaves no task behind.
///
/// Every method is cancel safe in this sense: a dropped future may have sent its message or not, and nothing else is torn.
pub trait EventBridge: Send + Sync + 'static {
    /// What it promises. The host refuses at start-up a service that asks for more.
    fn capabilities(&self) -> Capabilities;

    /// The name of this process among the others, as messages bear it (`instanceId`).
    fn instance(&self) -> Id;

    /// Hands a message to whoever listens.
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), BridgeError>>;

    /// Sends a command and waits for its reply, until its deadline ([`COMMAND_TIMEOUT`] when it has none). Both are boxed,
    /// since a message is large: where the way is short, moving it would be most of the work.
    fn request(&self, command: Box<Message>) -> Asking<'_>;

    /// Feeds `consumer` from now on, until the registration is stopped or the bridge closed.
    fn subscribe(
        &self,
        subscription: Subscription,
        consumer: Arc<dyn Consumer>,
    ) -> BoxFuture<'_, Result<Registration, BridgeError>>;

    /// Whether it is connected; health reads it.
    fn state(&self) -> watch::Receiver<BridgeState>;

    /// What keeps a connected server from taking messages now, as an alarm that blocks its publishers; health shows it.
    /// `None` when nothing does, or the server would not say.
    fn alarm(&self) -> Option<String> {
        None
    }

    /// Stops and waits until nothing is in flight. A second call does nothing.
    fn close(&self) -> BoxFuture<'_, Result<(), BridgeError>>;
}

/// How long a command may take when nobody says otherwise.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// Takes what a subscription is fed.
pub trait Consumer: Send + Sync + 'static {
    /// Handles one message and says what became of it. A bridge that drops the future has lost the message's outcome and
    /// treats it as a retry.
    fn consume(&self, delivery: Delivery) -> BoxFuture<'static, Outcome>;
}

/// One message on its way to a consumer.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The message.
    pub message: Carried,
    /// Which attempt this is, from 1.
    pub attempt: u32,
}

/// What became of a delivery.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// Done: it is not delivered again.
    Ack,
    /// Done, and this is the answer to the command.
    Reply(Box<Message>),
    /// Not done: deliver it again after this time, with the next attempt's number.
    Retry {
        /// How long to wait.
        after: Duration,
    },
    /// Never to be done: put it where the carrier keeps such messages.
    DeadLetter {
        /// Why.
        reason: String,
    },
    /// Given up on purpose; counted by who decided so.
    Drop,
    /// Put it back, and feed nothing until the registration is resumed.
    Pause {
        /// Why.
        reason: String,
    },
}

/// What a bridge promises.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a promise of its own, kept or not")]
pub struct Capabilities {
    /// How it calls itself in errors and logs.
    pub name: &'static str,
    /// Whether all its peers are in this process: an event that is recorded here needs no relay to come back.
    pub is_local: bool,
    /// Whether messages wait for a durable subscription that is not running.
    pub durable: bool,
    /// Whether a new durable subscription may begin with what was published before it was first run.
    pub from_start: bool,
    /// Whether a message can come back after a time.
    pub delayed_retry: bool,
    /// Whether it keeps messages that cannot be handled.
    pub dead_letters: bool,
    /// Whether a subscription can be paused and resumed.
    pub pause: bool,
    /// Whether a subscription with one message in flight gets them in the order of their publishing.
    pub ordered: bool,
    /// Whether "nobody serves this command" is said at once, not at the deadline.
    pub unroutable_at_once: bool,
    /// The largest message in bytes, headers and body together, as far as the server says it. It can change with each
    /// connection: ask again where it matters. A larger message ends as [`BridgeErrorKind::TooLarge`].
    pub message_bytes_max: usize,
}

/// Whether a bridge can carry anything now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BridgeState {
    /// It can.
    Connected,
    /// It lost its peer and tries to come back.
    Reconnecting,
    /// It was closed.
    Closed,
}

/// What feeds one subscription; implemented by bridges.
pub trait Feed: Send + Sync {
    /// Feeds again after [`Outcome::Pause`].
    fn resume(&self);
    /// Why it is paused, when it is.
    fn paused(&self) -> Option<String>;
    /// Takes no more, and waits until what was taken is settled.
    fn stop(&self) -> BoxFuture<'static, ()>;
}

/// A subscription that is being fed. Dropping it changes nothing: it is stopped by name, or with its bridge.
pub struct Registration(Arc<dyn Feed>);

impl Registration {
    /// The handle of a bridge's feed.
    pub fn new(feed: Arc<dyn Feed>) -> Self {
        Self(feed)
    }

    /// Feeds again after a pause.
    pub fn resume(&self) {
        self.0.resume();
    }

    /// Why it is paused, when it is.
    pub fn paused(&self) -> Option<String> {
        self.0.paused()
    }

    /// Takes no more, and waits until what was taken is settled.
    pub async fn stop(&self) {
        self.0.stop().await;
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").field("paused", &self.paused()).finish()
    }
}

/// What is known about a message that was not carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BridgeErrorKind {
    /// It never happened, and never will.
    Rejected,
    /// It may have happened.
    Unknown,
    /// The deadline passed; it may have happened.
    Timeout,
    /// Nobody serves the command; it never happened.
    Unroutable,
    /// It is larger than the transport carries: it never happened, and never will as it is. Trying again does not help.
    TooLarge,
}

/// A message was not carried, or nobody knows.
#[derive(Debug)]
pub struct BridgeError {
    kind: BridgeErrorKind,
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl BridgeError {
    /// An error of this kind; `what` says what was tried, as in "publish to `user.1.sign_up` failed".
    pub fn new(kind: BridgeErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), source: None }
    }

    /// The same, with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// An error of a message that is larger than `most` bytes, which is all that is carried.
    pub fn too_large(bytes: usize, most: usize) -> Self {
        Self::new(
            BridgeErrorKind::TooLarge,
            format!("a message of {bytes} bytes is larger than the {most} bytes that can be carried"),
        )
    }

    /// What is known.
    pub fn kind(&self) -> BridgeErrorKind {
        self.kind
    }

    /// Whether it may have happened all the same.
    pub fn may_have_happened(&self) -> bool {
        matches!(self.kind, BridgeErrorKind::Unknown | BridgeErrorKind::Timeout)
    }
}

impl fmt::Display for BridgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = if self.may_have_happened() { "may have happened" } else { "did not happen" };
        write!(f, "{} ({known})", self.what)
    }
}

impl Error for BridgeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
