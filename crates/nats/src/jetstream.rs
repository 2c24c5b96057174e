//! The streams that keep events for subscriptions that are not running.
//!
//! A stream holds events only, never commands: one over the subjects of commands would answer requests itself, before any
//! handler did.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::pull::Config as ConsumerConfig;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, FromConsumer as _};
use async_nats::jetstream::context::{Context, ContextBuilder, PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use purista_core::bridge::{BridgeError, BridgeErrorKind};
use purista_core::message::{Message, MessageType};
use purista_core::subscription::{Filter, Subscription};
use tokio::time::Instant;

use crate::address::{durable_name, event_subjects, subject_of, subjects_of};
use crate::link::{Link, check_subject, closed, encode, rejected, too_large};
use crate::wire;

/// How long events are kept, unless told otherwise.
pub const MAX_AGE_DEFAULT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How many bytes of events are kept, unless told otherwise. The server sets them aside when it makes the stream.
pub const MAX_BYTES_DEFAULT: u64 = 1 << 30;
/// How many publications wait for the server's word at a time; more wait for a place.
const PUBLISHES_MAX: usize = 1024;
/// How long the server may take to answer one question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Within which time the server knows a message that is published once more.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// After which time the server hands a message to somebody else, when it hears nothing of who has it.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(9);
/// How many messages all processes of one subscription may have in hand together, when it asks for no order.
const PENDING_MAX: i64 = 1_000;
/// The first version of the server in which one consumer has several subjects.
const MANY_SUBJECTS: (i64, i64, i64) = (2, 10, 0);

/// How a bridge keeps events on the server's JetStream; given to [`crate::connect::Builder::jetstream`].
///
/// There is one stream for the events of all services with one prefix, and one for dead letters. They are made when they
/// are missing, and never changed: who wants other limits later changes them with the server's own tools.
#[derive(Debug, Clone)]
pub struct JetStream {
    replicas: usize,
    max_age: Duration,
    max_bytes: u64,
}

impl Default for JetStream {
    fn default() -> Self {
        Self { replicas: 1, max_age: MAX_AGE_DEFAULT, max_bytes: MAX_BYTES_DEFAULT }
    }
}

impl JetStream {
    /// On how many servers of a cluster an event lies before it is acknowledged; 1 by default.
    #[must_use]
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas.max(1);
        self
    }

    /// How long events are kept; [`MAX_AGE_DEFAULT`] otherwise. A subscription that was away for longer has lost some.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// How many bytes of events are kept; [`MAX_BYTES_DEFAULT`] otherwise. When they are full, publishing fails and says so:
    /// nothing that was acknowledged makes room before its age.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }
}

/// The streams of a bridge.
#[derive(Clone)]
pub(crate) struct Streams {
    /// The client's own; it has a task, which ends when nobody holds it any more.
    context: Arc<RwLock<Option<Arc<Context>>>>,
    /// The stream of events.
    name: String,
    dead_letters: String,
}

impl Streams {
    /// Finds the streams, or makes them.
    pub(crate) async fn open(link: &Link, options: &JetStream) -> Result<Self, BridgeError> {
        let context = ContextBuilder::new()
            .timeout(ANSWER_TIMEOUT)
            .max_ack_inflight(PUBLISHES_MAX)
            .backpressure_on_inflight(true)
            .build(link.client.clone());
        if !link.client.server_info().jetstream {
            return Err(rejected(
                "the NATS server has no JetStream: start it with `--jetstream`, or leave out `.jetstream(..)`",
            ));
        }
        let stem = link.prefix.replace('.', "_").to_uppercase();
        let (name, dead_letters) = (format!("{stem}_EVENTS"), format!("{stem}_DEAD_LETTERS"));
        refuse_commands(&context, link).await?;
        provide(&context, &name, &event_subjects(&link.prefix), options).await?;
        let subjects = [format!("{}.dead_letter.>", link.prefix)];
        provide(&context, &dead_letters, &subjects, options).await?;
        if !link.client.is_server_compatible(MANY_SUBJECTS.0, MANY_SUBJECTS.1, MANY_SUBJECTS.2) {
            tracing::warn!(
                version = link.client.server_info().version,
                "this NATS server writes events to its disk some time after it has acknowledged them: they survive a crash of \
                 the server, and not one of its machine"
            );
        }
        Ok(Self { context: Arc::new(RwLock::new(Some(Arc::new(context)))), name, dead_letters })
    }

    fn context(&self) -> Result<Arc<Context>, BridgeError> {
        self.context.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(closed)
    }

    /// Lets go of what the client keeps for streams; whoever asks for more hears that the bridge is closed.
    pub(crate) fn end(&self) {
        *self.context.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether a stream keeps this message when it is routed.
    pub(crate) fn keeps(message: &Message) -> bool {
        matches!(message.kind, MessageType::CustomMessage | MessageType::CommandSuccessResponse)
    }

    /// Publishes on the message's own subject, until the server says that it has stored it. A lost connection is waited for:
    /// under the same id the server takes it once.
    pub(crate) async fn publish(
        &self,
        link: &Link,
        message: &Message,
        deadline: Instant,
    ) -> Result<(), BridgeError> {
        let mut headers = wire::headers(message);
        headers.insert(NATS_MESSAGE_ID, message.id.text().as_ref());
        let subject = subject_of(&link.prefix, message);
        self.stored(link, &self.name, subject.into(), headers, encode(message)?, deadline).await
    }

    /// Puts what cannot be handled beside the events.
    pub(crate) async fn dead_letter(
        &self,
        link: &Link,
        subscription: &Subscription,
        headers: HeaderMap,
        body: Bytes,
        deadline: Instant,
    ) -> Result<(), BridgeError> {
        let subject = format!("{}.dead_letter.{}", link.prefix, durable_name(&subscription.address));
        self.stored(link, &self.dead_letters, subject.into(), headers, body, deadline).await
    }

    async fn stored(
        &self,
        link: &Link,
        stream: &str,
        subject: Subject,
        headers: HeaderMap,
        body: Bytes,
        deadline: Instant,
    ) -> Result<(), BridgeError> {
        check_subject(&subject)?;
        let (context, mut was_sent) = (self.context()?, false);
        loop {
            if let Err(error) = link.watch.up_until(deadline).await {
                return Err(if was_sent { unknown() } else { error });
            }
            let publishing = async {
                let publish = PublishMessage::build().headers(headers.clone()).payload(body.clone());
                context.send_publish(subject.clone(), publish).await?.await
            };
            let said = tokio::select! {
                said = tokio::time::timeout_at(deadline, publishing) => said,
                () = link.watch.lost() => {
                    was_sent = true;
                    continue;
                }
            };
            match said {
                Ok(Ok(ack)) if ack.stream == stream => return Ok(()),
                Ok(Ok(ack)) => {
                    return Err(rejected(format!(
                        "another stream, `{}`, took what was meant for `{stream}`",
                        ack.stream
                    )));
                }
                Ok(Err(error)) if may_come_yet(&error) => was_sent = true,
                Ok(Err(error)) => {
                    let what = format!("the stream `{stream}` did not take it");
                    return Err(if is_too_large(&error) {
                        too_large(what).with_source(error)
                    } else {
                        rejected(what).with_source(error)
                    });
                }
                Err(_) => return Err(timed_out()),
            }
        }
    }

    /// The server's record of how far a subscription is. It is made where the subscription begins when it is not there.
    pub(crate) async fn consumer(
        &self,
        link: &Link,
        subscription: &Subscription,
    ) -> Result<Consumer<ConsumerConfig>, BridgeError> {
        let name = durable_name(&subscription.address);
        let failed = |error: async_nats::Error| {
            rejected(format!("the place of {subscription} in the stream cannot be kept")).with_source(error)
        };
        let stream =
            self.context()?.get_stream_no_info(&self.name).await.map_err(|error| failed(error.into()))?;
        let wanted = consumer_config(link, subscription, &name);
        let Ok(found) = stream.consumer_info(&name).await else {
            return stream.create_consumer(wanted).await.map_err(|error| failed(error.into()));
        };
        let there = ConsumerConfig::try_from_consumer_config(found.config).map_err(failed)?;
        if (&there.filter_subject, &there.filter_subjects)
            != (&wanted.filter_subject, &wanted.filter_subjects)
        {
            return Err(rejected(format!(
                "{subscription} listened to something else before, and its place in the stream is kept for that: give the \
                 subscription another name, or remove the consumer `{name}` of the stream `{}`",
                self.name
            )));
        }
        // Where it begins is of the past.
        let wanted = ConsumerConfig { deliver_policy: there.deliver_policy, ..wanted };
        stream.create_consumer(wanted).await.map_err(|error| failed(error.into()))
    }
}

/// A stream over commands answers them before their handlers do.
async fn refuse_commands(context: &Context, link: &Link) -> Result<(), BridgeError> {
    let commands = format!("{}.command.>", link.prefix);
    match context.stream_by_subject(commands.as_str()).await {
        Ok(stream) => Err(rejected(format!(
            "the stream `{stream}` on the NATS server holds `{commands}`: it would answer commands before their handlers \
             do; take these subjects out of it"
        ))),
        Err(_) => Ok(()),
    }
}

async fn provide(
    context: &Context,
    name: &str,
    subjects: &[String],
    options: &JetStream,
) -> Result<(), BridgeError> {
    let wanted = Config {
        name: name.to_owned(),
        subjects: subjects.to_vec(),
        storage: StorageType::File,
        num_replicas: options.replicas,
        max_age: options.max_age,
        max_bytes: i64::try_from(options.max_bytes).unwrap_or(i64::MAX),
        discard: DiscardPolicy::New,
        duplicate_window: DUPLICATE_WINDOW.min(options.max_age),
        ..Config::default()
    };
    let made = context.get_or_create_stream(wanted).await;
    let stream = made.map_err(|error| {
        rejected(format!("the stream `{name}` cannot be made on the NATS server")).with_source(error)
    })?;
    let config = &stream.cached_info().config;
    let missing: Vec<_> = subjects.iter().filter(|subject| !config.subjects.contains(subject)).collect();
    if !missing.is_empty() {
        return Err(rejected(format!(
            "the stream `{name}` on the NATS server does not hold {missing:?}: add them to it, or remove it"
        )));
    }
    if config.storage != StorageType::File || config.num_replicas < options.replicas {
        return Err(rejected(format!(
            "the stream `{name}` on the NATS server keeps less than was asked for: {:?} on {} of its servers; change it there",
            config.storage, config.num_replicas
        )));
    }
    Ok(())
}

/// One consumer a subscription, so that one order and one bound hold for all its events. A server that knows only one subject
/// a consumer hands over all events where several are asked for, and the filter is asked here.
fn consumer_config(link: &Link, subscription: &Subscription, name: &str) -> ConsumerConfig {
    let subjects = kept_subjects(&link.prefix, &subscription.filter);
    let knows_many = link.client.is_server_compatible(MANY_SUBJECTS.0, MANY_SUBJECTS.1, MANY_SUBJECTS.2);
    let (one, many) = match <[String; 1]>::try_from(subjects) {
        Ok([one]) => (one, Vec::new()),
        Err(many) if knows_many => (String::new(), many),
        Err(_) => (String::new(), Vec::new()),
    };
    ConsumerConfig {
        durable_name: Some(name.to_owned()),
        deliver_policy: if subscription.from_start { DeliverPolicy::All } else { DeliverPolicy::New },
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_deliver: -1,
        max_ack_pending: if subscription.in_flight == 1 { 1 } else { PENDING_MAX },
        filter_subject: one,
        filter_subjects: many,
        ..ConsumerConfig::default()
    }
}

/// The subjects of a filter within what a stream keeps.
pub(crate) fn kept_subjects(prefix: &str, filter: &Filter) -> Vec<String> {
    let kinds = [MessageType::CustomMessage, MessageType::CommandSuccessResponse];
    let kinds = kinds.into_iter().filter(|kind| filter.kind.is_none_or(|wanted| wanted == *kind));
    kinds.flat_map(|kind| subjects_of(prefix, &Filter { kind: Some(kind), ..filter.clone() })).collect()
}

/// Whether the same may go well the next time: the answer was lost, or nobody leads the stream for a moment.
fn may_come_yet(error: &PublishError) -> bool {
    matches!(
        error.kind(),
        PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe | PublishErrorKind::StreamNotFound
    )
}

/// Whether the server, or the stream by its own `max_msg_size`, takes no message of this size.
fn is_too_large(error: &PublishError) -> bool {
    let said = || {
        std::error::Error::source(error)?
            .downcast_ref::<async_nats::jetstream::Error>()
            .map(async_nats::jetstream::Error::error_code)
    };
    error.kind() == PublishErrorKind::MaxPayloadExceeded
        || said() == Some(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM)
}

fn unknown() -> BridgeError {
    BridgeError::new(
        BridgeErrorKind::Unknown,
        "the connection to NATS was lost before the stream had said anything",
    )
}

fn timed_out() -> BridgeError {
    BridgeError::new(
        BridgeErrorKind::Timeout,
        "the stream did not say before the deadline that it has stored the message",
    )
}
