//! async-nats alone.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use async_nats::jetstream::{self};
use async_nats::{Client, ConnectOptions, HeaderMap, Request, Subject};
use bytes::Bytes;
use futures_util::StreamExt as _;
use purista_core::contract::Command as _;
use purista_core::event::Event as _;
use purista_core::tokens::snake_case;
use purista_nats::jetstream::{MAX_AGE_DEFAULT, MAX_BYTES_DEFAULT};
use tokio::task::JoinSet;

use super::PREFIX;
use super::wire::{self, CALLER, Process, Written};
use crate::between::Caller;
use crate::registered::{Heard, LISTENERS, LISTENS, UserRegistered};
use crate::sign_up::{Accounts, SignUp, USER};

/// As a bridge has them.
const CAPACITY: usize = purista_nats::connect::SUBSCRIPTION_CAPACITY_DEFAULT;
const PUBLISHES_MAX: usize = 1024;
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

async fn connect(url: &str) -> Result<Client> {
    let options = ConnectOptions::new().subscription_capacity(CAPACITY);
    Box::pin(async_nats::connect_with_options(url, options)).await.context("connect to NATS")
}

/// Who asks and tells.
#[derive(Debug, Clone)]
pub struct Bare {
    client: Client,
    process: Arc<Process>,
    command: Subject,
    event: Subject,
    /// By which it is known how far the server has read.
    echo: Subject,
}

/// The same, where a stream keeps events.
#[derive(Debug, Clone)]
pub struct WithStream {
    bare: Bare,
    context: Arc<jetstream::Context>,
}

impl Bare {
    /// Connects.
    pub async fn connect(url: &str) -> Result<Self> {
        let (client, process) = (connect(url).await?, Process::default());
        let caller = format!("{}.{}.1.main", snake_case(&process.instance), snake_case(CALLER));
        let (user, sign_up) = (snake_case(USER.name()), snake_case(SignUp::NAME));
        let command = format!("{PREFIX}.command.empty.empty.{caller}.empty.empty.{user}.1.{sign_up}");
        let event = snake_case(UserRegistered::NAME);
        let event = format!("{PREFIX}.custom_message.empty.empty.{caller}.{event}.empty.empty.empty.empty");
        let echo = client.new_inbox().into();
        Ok(Self { client, process: Arc::new(process), command: command.into(), event: event.into(), echo })
    }

    /// Publishes without waiting for anything but a place in the client's queue.
    async fn publish(&self, event: UserRegistered) -> Result<()> {
        let told = self.process.event(event)?;
        let (headers, body) = (headers(&told), told.body);
        Ok(self.client.publish_with_headers(self.event.clone(), headers, body).await?)
    }

    /// Publishes `events`, so many at a time, and knows of each that the server has read it: behind every `window` of them
    /// goes a message to itself, and the next ones when that is back.
    pub async fn tell_by_echo(&self, events: u64, window: u64) -> Result<()> {
        let mut echoed = self.client.subscribe(self.echo.clone()).await?;
        let mut left = events;
        while left > 0 {
            let now = left.min(window.max(1));
            for _ in 0..now {
                self.publish(UserRegistered::sample()).await?;
            }
            self.client.publish(self.echo.clone(), Bytes::new()).await?;
            echoed.next().await.context("the connection was lost")?;
            left -= now;
        }
        Ok(echoed.unsubscribe().await?)
    }
}

impl Caller for Bare {
    async fn ask(&self, input: SignUp) -> Result<crate::sign_up::SignedUp> {
        let command = self.process.command(input)?;
        let request = Request::new().headers(headers(&command)).payload(command.body);
        let reply = self.client.send_request(self.command.clone(), request).await?;
        wire::answer(&reply.payload)
    }

    /// Waits only until the socket has it.
    async fn tell(&self, event: UserRegistered) -> Result<()> {
        self.publish(event).await?;
        Ok(self.client.flush().await?)
    }
}

impl WithStream {
    /// Connects, and makes a stream such as a bridge makes.
    pub async fn connect(url: &str) -> Result<Self> {
        let bare = Bare::connect(url).await?;
        let context = ContextBuilder::new()
            .max_ack_inflight(PUBLISHES_MAX)
            .backpressure_on_inflight(true)
            .build(bare.client.clone());
        let stream = Config {
            name: format!("{}_EVENTS", PREFIX.to_uppercase()),
            subjects: ["custom_message", "command_success_response"]
                .map(|kind| format!("{PREFIX}.{kind}.>"))
                .to_vec(),
            storage: StorageType::File,
            max_age: MAX_AGE_DEFAULT,
            max_bytes: i64::try_from(MAX_BYTES_DEFAULT)?,
            discard: DiscardPolicy::New,
            duplicate_window: DUPLICATE_WINDOW,
            ..Config::default()
        };
        context.create_stream(stream).await?;
        Ok(Self { bare, context: Arc::new(context) })
    }
}

impl Caller for WithStream {
    async fn ask(&self, input: SignUp) -> Result<crate::sign_up::SignedUp> {
        self.bare.ask(input).await
    }

    async fn tell(&self, event: UserRegistered) -> Result<()> {
        let told = self.bare.process.event(event)?;
        let mut headers = headers(&told);
        headers.insert(NATS_MESSAGE_ID, told.id);
        let publish = PublishMessage::build().headers(headers).payload(told.body);
        self.context.send_publish(self.bare.event.clone(), publish).await?.await?;
        Ok(())
    }
}

fn headers(written: &Written) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &written.headers {
        headers.insert(*name, value.as_str());
    }
    headers
}

/// Answers and hears, on tasks that end with an error only.
pub async fn serve(url: &str, heard: &Arc<Heard>) -> Result<JoinSet<Result<()>>> {
    let mut tasks = JoinSet::new();
    let client = connect(url).await?;
    let (user, sign_up) = (snake_case(USER.name()), snake_case(SignUp::NAME));
    let commands = format!("{PREFIX}.command.*.*.*.*.*.*.*.*.{user}.1.{sign_up}");
    let mut commands = client.queue_subscribe(commands, format!("{PREFIX}_queue_{user}")).await?;
    let (answering, process, accounts) = (client.clone(), Process::default(), Accounts::default());
    tasks.spawn(async move {
        while let Some(command) = commands.next().await {
            let trace = command.headers.as_ref().and_then(|headers| headers.get(wire::TRACEPARENT));
            let trace = trace.map(async_nats::HeaderValue::as_str);
            let answered = process.answered(&command.payload, trace, |input| accounts.sign_up(input))?;
            let inbox = command.reply.context("a command without an inbox")?;
            answering.publish_with_headers(inbox, headers(&answered), answered.body).await?;
        }
        bail!("the commands have ended")
    });
    let event = snake_case(UserRegistered::NAME);
    for listener in LISTENERS {
        let events = format!("{PREFIX}.*.*.*.*.*.*.*.{event}.*.*.*.*");
        let group = format!("{PREFIX}_queue_{}_{LISTENS}", listener.name());
        let (mut events, heard) = (client.queue_subscribe(events, group).await?, Arc::clone(heard));
        tasks.spawn(async move {
            while let Some(event) = events.next().await {
                heard.one(&wire::event(&event.payload)?);
            }
            bail!("the events have ended")
        });
    }
    // The server reads in order: behind this it knows of them.
    let known = client.new_inbox();
    let mut back = client.subscribe(known.clone()).await?;
    client.publish(known, Bytes::new()).await?;
    back.next().await.context("the connection was lost")?;
    Ok(tasks)
}
