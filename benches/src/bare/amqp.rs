//! lapin alone.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ExchangeKind,
};
use purista_core::clock::Clock;
use purista_core::contract::Command as _;
use purista_core::event::Event as _;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use super::waiting::Waiting;
use super::wire::{
    self, COMMAND, EVENT, EVENT_NAME, Process, RECEIVER_INSTANCE, RESPONSE, TRACEPARENT, Written,
};
use super::{IN_FLIGHT_MAX, PREFIX};
use crate::between::Caller;
use crate::registered::{Heard, LISTENERS, LISTENS, UserRegistered};
use crate::sign_up::{Accounts, SignUp, SignedUp, USER};

/// As a bridge has it.
const REPLIES_PREFETCH: u16 = 1024;
const TOGETHER_MAX: usize = 64;
const PERSISTENT: u8 = 2;

const REPLY_TO: &str = "replyTo";

/// Who asks and tells. As a bridge it publishes commands on one channel and everything else on another.
#[derive(Debug, Clone)]
pub struct Bare {
    asking: Channel,
    publishing: Channel,
    process: Arc<Process>,
    replies: Waiting,
    reply_queue: ShortString,
    /// The connection ends with its last handle.
    _connection: Arc<Connection>,
}

async fn connect(url: &str) -> Result<Connection> {
    let connecting = Box::pin(Connection::connect(url, ConnectionProperties::default()));
    connecting.await.context("connect to RabbitMQ")
}

/// A channel whose publications are confirmed, and the exchange of all.
async fn publishing(connection: &Connection) -> Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(PREFIX.into(), ExchangeKind::Headers, durable, FieldTable::default()).await?;
    Ok(channel)
}

/// Declares a queue, binds it to headers with these values, and consumes it, on a channel of its own.
async fn consume(
    connection: &Connection,
    queue: &str,
    options: QueueDeclareOptions,
    prefetch: u16,
    bound: impl Fn(&ShortString) -> Vec<(&'static str, String)>,
) -> Result<(ShortString, Consumer)> {
    let (channel, nothing) = (connection.create_channel().await?, FieldTable::default());
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let queue = channel.queue_declare(queue.into(), options, nothing.clone()).await?.name().clone();
    let mut binding = table(bound(&queue));
    binding.insert("x-match".into(), text("all"));
    channel.queue_bind(queue.clone(), PREFIX.into(), "".into(), QueueBindOptions::default(), binding).await?;
    let consuming = channel.basic_consume(queue.clone(), "".into(), BasicConsumeOptions::default(), nothing);
    let consumer = consuming.await?;
    Ok((queue, consumer))
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

fn table(values: Vec<(&'static str, String)>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in values {
        table.insert(name.into(), text(&value));
    }
    table
}

fn properties(written: &Written, kind: &'static str, now_ms: u64) -> Result<BasicProperties> {
    let mut headers = FieldTable::default();
    for (name, value) in &written.headers {
        // PURISTA's answers call it otherwise on AMQP.
        let is_theirs = kind == RESPONSE && *name == RECEIVER_INSTANCE;
        let name = if is_theirs { "receiverServiceInstanceId" } else { name };
        headers.insert(name.into(), text(value));
    }
    let properties = BasicProperties::default()
        .with_message_id(short(&written.id)?)
        .with_timestamp(now_ms)
        .with_type(kind.into())
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_delivery_mode(PERSISTENT)
        .with_headers(headers);
    Ok(if kind == EVENT {
        properties
    } else {
        properties.with_correlation_id(short(&written.correlation_id)?)
    })
}

fn short(text: &str) -> Result<ShortString> {
    ShortString::try_new(text).with_context(|| format!("`{text}` is too long"))
}

/// Publishes, and waits until the broker has confirmed.
async fn published(
    channel: &Channel,
    is_mandatory: bool,
    body: &Bytes,
    properties: BasicProperties,
) -> Result<()> {
    let options = BasicPublishOptions { mandatory: is_mandatory, immediate: false };
    let publishing = channel.basic_publish(PREFIX.into(), "".into(), options, body, properties);
    let confirmed = publishing.await?.await?;
    ensure!(matches!(confirmed, Confirmation::Ack(None)), "the broker said {confirmed:?}");
    Ok(())
}

impl Bare {
    /// Connects, and takes replies on a task.
    pub async fn connect(url: &str, tasks: &TaskTracker) -> Result<Self> {
        let connection = connect(url).await?;
        let (asking, publishing) = (publishing(&connection).await?, publishing(&connection).await?);
        let own =
            QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        let bound = |queue: &ShortString| vec![(REPLY_TO, queue.to_string())];
        let (reply_queue, consumer) = consume(&connection, "", own, REPLIES_PREFETCH, bound).await?;
        let (process, replies) = (Arc::default(), Waiting::default());
        tasks.spawn(take(consumer, replies.clone()));
        Ok(Self { asking, publishing, process, replies, reply_queue, _connection: Arc::new(connection) })
    }
}

/// Hands replies to their calls; those that came together are acknowledged together.
async fn take(mut consumer: Consumer, replies: Waiting) {
    let hand_over = |reply: &mut Delivery| {
        let id = reply.properties.correlation_id().as_ref().map(ShortString::as_str).unwrap_or_default();
        replies.complete(id, std::mem::take(&mut reply.data).into());
    };
    while let Some(Ok(mut last)) = consumer.next().await {
        hand_over(&mut last);
        for _ in 1..TOGETHER_MAX {
            let Some(Some(Ok(next))) = consumer.next().now_or_never() else { break };
            last = next;
            hand_over(&mut last);
        }
        if last.acker.ack(BasicAckOptions { multiple: true }).await.is_err() {
            break;
        }
    }
}

impl Caller for Bare {
    async fn ask(&self, input: SignUp) -> Result<SignedUp> {
        let command = self.process.command(input)?;
        let reply = self.replies.expect(&command.correlation_id);
        let properties = properties(&command, COMMAND, Clock::system().now_ms())?;
        let properties = properties.with_reply_to(self.reply_queue.clone());
        published(&self.asking, true, &command.body, properties).await?;
        wire::answer(&reply.await?)
    }

    async fn tell(&self, event: UserRegistered) -> Result<()> {
        let told = self.process.event(event)?;
        let properties = properties(&told, EVENT, Clock::system().now_ms())?;
        published(&self.publishing, false, &told.body, properties).await
    }
}

/// Answers and hears, on tasks that end with an error only.
pub async fn serve(url: &str, heard: &Arc<Heard>) -> Result<JoinSet<Result<()>>> {
    let (connection, mut tasks) = (Arc::new(connect(url).await?), JoinSet::new());
    let publishing = publishing(&connection).await?;
    let own = QueueDeclareOptions { auto_delete: true, ..QueueDeclareOptions::default() };
    let prefetch = u16::try_from(IN_FLIGHT_MAX)?;
    let bound = |_: &ShortString| {
        let values = [COMMAND, USER.name(), USER.version(), SignUp::NAME].map(str::to_owned);
        ["messageType", "receiverServiceName", "receiverServiceVersion", "receiverServiceTarget"]
            .into_iter()
            .zip(values)
            .collect()
    };
    let queue = format!("{PREFIX}.cmd.{}.{}.{}", USER.name(), USER.version(), SignUp::NAME);
    let (_, commands) = consume(&connection, &queue, own, prefetch, bound).await?;
    tasks.spawn(answer(commands, publishing));
    for listener in LISTENERS {
        let queue = format!("{PREFIX}.sub.{}.{}.{LISTENS}", listener.name(), listener.version());
        let bound = |_: &ShortString| vec![(EVENT_NAME, UserRegistered::NAME.to_owned())];
        let shared = QueueDeclareOptions::default();
        let (_, mut events) = consume(&connection, &queue, shared, prefetch, bound).await?;
        let (heard, connection) = (Arc::clone(heard), Arc::clone(&connection));
        tasks.spawn(async move {
            while let Some(event) = events.next().await {
                let event = event?;
                heard.one(&wire::event(&event.data)?);
                event.acker.ack(BasicAckOptions::default()).await?;
            }
            bail!("the events have ended, {:?}", connection.status())
        });
    }
    Ok(tasks)
}

/// Acknowledges each command before it is done, and waits for the confirmations of the answers beside.
async fn answer(mut commands: Consumer, publishing: Channel) -> Result<()> {
    let (process, accounts) = (Process::default(), Accounts::default());
    let mut confirming = FuturesUnordered::new();
    loop {
        let command = tokio::select! {
            Some(confirmed) = confirming.next(), if !confirming.is_empty() => {
                let () = confirmed?;
                continue;
            }
            command = commands.next(), if confirming.len() < IN_FLIGHT_MAX => command,
        };
        let command = command.context("the commands have ended")??;
        command.acker.ack(BasicAckOptions::default()).await?;
        let trace =
            command.properties.headers().as_ref().and_then(|headers| headers.inner().get(TRACEPARENT));
        let trace = trace.and_then(|trace| match trace {
            AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
            _ => None,
        });
        let answered = process.answered(&command.data, trace, |input| accounts.sign_up(input))?;
        let mut properties = properties(&answered, RESPONSE, Clock::system().now_ms())?;
        let reply_to = command.properties.reply_to().as_ref().context("a command without a reply queue")?;
        let mut headers = properties.headers().clone().unwrap_or_default();
        headers.insert(REPLY_TO.into(), text(reply_to.as_str()));
        properties = properties.with_headers(headers);
        let publishing = publishing.clone();
        confirming.push(async move { published(&publishing, false, &answered.body, properties).await });
    }
}
