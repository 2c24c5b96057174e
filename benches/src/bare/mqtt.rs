//! rumqttc alone.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use purista_core::bridge::COMMAND_TIMEOUT;
use purista_core::contract::Command as _;
use purista_core::event::Event as _;
use purista_core::tokens::snake_case;
use rumqttc::{
    AsyncClient, Broker, Event, EventLoop, MqttOptions, NetworkOptions, Packet, PubAckReason, Publish,
    PublishOptions, PublishProperties, PublishResult, QoS, SubscribeFilterInput, SubscribeProperties,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use super::waiting::Waiting;
use super::wire::{self, CALLER, Process, TRACEPARENT, Written};
use super::{IN_FLIGHT_MAX, PREFIX};
use crate::between::Caller;
use crate::registered::{Heard, LISTENERS, LISTENS, UserRegistered};
use crate::sign_up::{Accounts, SignUp, SignedUp, USER};

/// As a bridge has them.
const REQUESTS_MAX: usize = 1024;
const BATCH_MAX: usize = 64;
const UNCONFIRMED_MAX: u16 = 1024;
const AHEAD_MAX: u16 = 1024;
const KEEP_ALIVE_S: u16 = 10;
const EVENT_EXPIRY_S: u32 = 2_592_000;
const PACKET_BYTES_MAX: u32 = (1 << 20) + (64 << 10);
const WAITING_MAX: usize = purista_mqtt::connect::SUBSCRIPTION_CAPACITY_DEFAULT;

/// Who asks and tells.
#[derive(Debug, Clone)]
pub struct Bare {
    client: AsyncClient,
    process: Arc<Process>,
    replies: Waiting,
    command: String,
    event: String,
}

fn client(url: &str, name: &str) -> Result<(AsyncClient, EventLoop)> {
    let place = url.strip_prefix("mqtt://").and_then(|place| place.rsplit_once(':'));
    let (host, port) = place.with_context(|| format!("{url} has no host and port"))?;
    let mut options = MqttOptions::new(name.to_owned(), Broker::tcp(host.to_owned(), port.parse()?));
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options
        .set_network_options(network)
        .set_keep_alive(KEEP_ALIVE_S)
        .set_max_request_batch(BATCH_MAX)
        .set_outgoing_inflight_upper_limit(UNCONFIRMED_MAX)
        .set_max_packet_size(Some(PACKET_BYTES_MAX))
        .set_receive_maximum(Some(AHEAD_MAX));
    Ok(AsyncClient::builder(options).capacity(REQUESTS_MAX).try_build()?)
}

/// Takes what comes, on and on; an error is the connection's end.
async fn taken(mut events: EventLoop, mut take: impl FnMut(Publish) -> Result<()>) -> Result<()> {
    loop {
        if let Event::Incoming(Packet::Publish(raw)) = events.poll().await? {
            take(raw)?;
        }
    }
}

async fn subscribed(client: &AsyncClient, filter: String, id: usize) -> Result<()> {
    let properties = SubscribeProperties { id: Some(id), user_properties: Vec::new() };
    let input = SubscribeFilterInput::new(filter, QoS::AtLeastOnce);
    let granted =
        client.subscribe_many_with_properties_tracked([input], properties).await?.wait_async().await?;
    ensure!(granted.return_codes.len() == 1, "the broker granted {granted:?}");
    Ok(())
}

/// Publishes, and waits until the broker has it.
async fn published(client: &AsyncClient, topic: String, written: &Written, expiry_s: u32) -> Result<()> {
    let is_paired = !written.correlation_id.is_empty();
    let user_properties = written.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    let properties = PublishProperties {
        content_type: Some("application/json".to_owned()),
        message_expiry_interval: Some(expiry_s),
        correlation_data: is_paired.then(|| Bytes::copy_from_slice(written.correlation_id.as_bytes())),
        user_properties: user_properties.collect(),
        ..PublishProperties::default()
    };
    let options = PublishOptions::new(QoS::AtLeastOnce).properties(properties);
    let notice = client.publish_tracked(topic, written.body.clone(), options).await?;
    match notice.wait_async().await? {
        PublishResult::Qos1(ack) if ack.reason == PubAckReason::Success => Ok(()),
        other => bail!("the broker said {other:?}"),
    }
}

fn command_expiry_s() -> u32 {
    u32::try_from(COMMAND_TIMEOUT.as_secs()).unwrap_or(u32::MAX)
}

impl Bare {
    /// Connects, and takes replies on a task.
    pub async fn connect(url: &str, tasks: &TaskTracker) -> Result<Self> {
        let (process, replies) = (Arc::<Process>::default(), Waiting::default());
        let (client, events) = client(url, &process.instance)?;
        let waiting = replies.clone();
        tasks.spawn(taken(events, move |raw| {
            let properties = raw.properties.context("a reply without properties")?;
            let id = properties.correlation_data.context("a reply without a call")?;
            waiting.complete(std::str::from_utf8(&id)?, raw.payload);
            Ok(())
        }));
        let instance = snake_case(&process.instance);
        subscribed(&client, format!("{PREFIX}/+/+/+/+/+/+/+/+/{instance}/+/+/+"), 1).await?;
        let caller = format!("{instance}/{}/1/main", snake_case(CALLER));
        let (user, sign_up) = (snake_case(USER.name()), snake_case(SignUp::NAME));
        let command = format!("{PREFIX}/command/none/none/{caller}/none/none/{user}/1/{sign_up}");
        let event = snake_case(UserRegistered::NAME);
        let event = format!("{PREFIX}/custom_message/none/none/{caller}/{event}/none/none/none/none");
        Ok(Self { client, process, replies, command, event })
    }
}

impl Caller for Bare {
    async fn ask(&self, input: SignUp) -> Result<SignedUp> {
        let command = self.process.command(input)?;
        let reply = self.replies.expect(&command.correlation_id);
        published(&self.client, self.command.clone(), &command, command_expiry_s()).await?;
        wire::answer(&reply.await?)
    }

    async fn tell(&self, event: UserRegistered) -> Result<()> {
        let told = self.process.event(event)?;
        published(&self.client, self.event.clone(), &told, EVENT_EXPIRY_S).await
    }
}

/// Answers and hears over one connection, on tasks that end with an error only.
pub async fn serve(url: &str, heard: &Arc<Heard>) -> Result<JoinSet<Result<()>>> {
    let (process, mut tasks) = (Process::default(), JoinSet::new());
    let (client, events) = client(url, &process.instance)?;
    let (commands, asked) = mpsc::channel(WAITING_MAX);
    let heard = Arc::clone(heard);
    tasks.spawn(taken(events, move |raw| {
        let ids = raw.properties.as_ref().map_or(&[][..], |found| &found.subscription_identifiers);
        // Each subscription has an identifier of its own, and with it a copy; the first is that of the commands.
        if ids == [1] {
            return commands.try_send(raw).context("more commands than wait");
        }
        heard.one(&wire::event(&raw.payload)?);
        Ok(())
    }));
    tasks.spawn(answer(asked, client.clone(), process));
    let (user, sign_up) = (snake_case(USER.name()), snake_case(SignUp::NAME));
    let filter = format!("$share/{PREFIX}/{PREFIX}/command/+/+/+/+/+/+/+/+/{user}/1/{sign_up}");
    subscribed(&client, filter, 1).await?;
    let event = snake_case(UserRegistered::NAME);
    for (listener, id) in LISTENERS.iter().zip(2..) {
        let share = format!("{PREFIX}.{}.1.{LISTENS}", listener.name());
        let filter = format!("$share/{share}/{PREFIX}/+/+/+/+/+/+/+/{event}/+/+/+/+");
        subscribed(&client, filter, id).await?;
    }
    Ok(tasks)
}

/// Answers commands; the broker's word is waited for beside.
async fn answer(mut commands: mpsc::Receiver<Publish>, client: AsyncClient, process: Process) -> Result<()> {
    let (accounts, user, sign_up) = (Accounts::default(), snake_case(USER.name()), snake_case(SignUp::NAME));
    let server = format!("{}/{user}/1/{sign_up}", snake_case(&process.instance));
    let mut confirming = FuturesUnordered::new();
    loop {
        let command = tokio::select! {
            Some(confirmed) = confirming.next(), if !confirming.is_empty() => {
                let () = confirmed?;
                continue;
            }
            command = commands.recv(), if confirming.len() < IN_FLIGHT_MAX => command,
        };
        let command = command.context("the commands have ended")?;
        let properties = command.properties.unwrap_or_default();
        let trace = properties.user_properties.iter().find(|(name, _)| name == TRACEPARENT);
        let trace = trace.map(|(_, value)| value.as_str());
        let answered = process.answered(&command.payload, trace, |input| accounts.sign_up(input))?;
        // The sender of the command, as its topic has it.
        let topic = std::str::from_utf8(&command.topic)?;
        let caller: Vec<&str> = topic.split('/').skip(4).take(4).collect();
        let topic = format!("{PREFIX}/command_success_response/none/none/{server}/none/{}", caller.join("/"));
        let client = client.clone();
        confirming.push(async move { published(&client, topic, &answered, command_expiry_s()).await });
    }
}
