//! A system on RabbitMQ.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use purista_amqp::bridge::AmqpBridge;
use purista_servers::rabbitmq::RabbitMq;
use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;

use crate::carrier::{Bridge, Carrier, Tap};
use crate::fixtures::filled;

/// The broker that all tests share: it takes seconds to start.
static SERVER: OnceCell<RabbitMq> = OnceCell::const_new();
static SYSTEMS: AtomicU32 = AtomicU32::new(0);

type With = fn(BasicProperties, ShortString) -> BasicProperties;

pub(crate) struct Amqp {
    url: String,
    port: u16,
    /// The name of the exchange, and the beginning of those of its queues.
    name: String,
    client: Channel,
}

impl Carrier for Amqp {
    const NAME: &'static str = "amqp";
    const FIXTURES: &'static str = include_str!("fixtures/amqp.jsonl");

    async fn start() -> Self {
        let server = SERVER.get_or_init(RabbitMq::start).await;
        let name = format!("system-{}", SYSTEMS.fetch_add(1, Ordering::Relaxed));
        let client = channel(&server.url()).await;
        client.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Self { url: server.url(), port: server.port(), name, client }
    }

    async fn bridge(&self, instance: &str) -> Bridge {
        let builder = AmqpBridge::builder(&self.url).exchange(&self.name).prefix(&self.name);
        let bridge = Arc::new(builder.instance(instance).connect().await.unwrap());
        let (dropped, unclaimed) = (Arc::clone(&bridge), Arc::clone(&bridge));
        Bridge {
            inner: bridge,
            dropped: Arc::new(move || dropped.messages_dropped()),
            unclaimed: Arc::new(move || unclaimed.replies_unclaimed()),
        }
    }

    async fn durable_bridge(&self, instance: &str) -> Bridge {
        self.bridge(instance).await
    }

    async fn tap(&self) -> Tap {
        let client = channel(&self.url).await;
        // The exchange comes with the first of the system; it is the same whoever declares it.
        let durable = lapin::options::ExchangeDeclareOptions {
            durable: true,
            ..lapin::options::ExchangeDeclareOptions::default()
        };
        let exchange = ShortString::from(self.name.as_str());
        client
            .exchange_declare(exchange.clone(), lapin::ExchangeKind::Headers, durable, FieldTable::default())
            .await
            .unwrap();
        let own = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        let queue = client.queue_declare("".into(), own, FieldTable::default()).await.unwrap();
        let mut all = FieldTable::default();
        all.insert("x-match".into(), AMQPValue::LongString("all".into()));
        let bind = QueueBindOptions::default();
        client.queue_bind(queue.name().clone(), exchange, "".into(), bind, all).await.unwrap();
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let mut heard = client
            .basic_consume(queue.name().clone(), "".into(), options, FieldTable::default())
            .await
            .unwrap();
        let name = self.name.clone();
        Tap::fed(async move |to_test| {
            // The tap lives as long as its channel.
            let _client = client;
            while let Some(Ok(raw)) = heard.next().await {
                let _ = to_test.send(seen(&raw, &name)).await;
            }
        })
    }

    async fn send(&self, message: &Value, seed: u32) {
        let message = filled(message, seed);
        let mut headers = FieldTable::default();
        for (name, value) in message["headers"].as_object().unwrap() {
            headers.insert(name.as_str().into(), AMQPValue::LongString(value.as_str().unwrap().into()));
        }
        let text = |name: &str| message["properties"][name].as_str().map(ShortString::from);
        let mut properties = BasicProperties::default().with_headers(headers).with_delivery_mode(2);
        if let Some(ms) = message["properties"]["timestamp"].as_u64() {
            properties = properties.with_timestamp(ms);
        }
        let with: [(&str, With); 5] = [
            ("type", BasicProperties::with_type),
            ("message_id", BasicProperties::with_message_id),
            ("correlation_id", BasicProperties::with_correlation_id),
            ("content_type", BasicProperties::with_content_type),
            ("content_encoding", BasicProperties::with_content_encoding),
        ];
        for (name, with) in with {
            if let Some(value) = text(name) {
                properties = with(properties, value);
            }
        }
        if text("reply_to").is_some() {
            properties = properties.with_reply_to(format!("amq.gen-peer-{seed}").into());
        }
        let body = message["body"].to_string();
        let (exchange, options) = (self.name.as_str().into(), BasicPublishOptions::default());
        let sent = self.client.basic_publish(exchange, "".into(), options, body.as_bytes(), properties);
        sent.await.unwrap().await.unwrap();
    }

    fn answer(response: &mut Value, command: &Value) {
        response["body"]["correlationId"] = command["body"]["correlationId"].clone();
        response["properties"]["correlation_id"] = command["body"]["correlationId"].clone();
        response["headers"]["replyTo"] = command["properties"]["reply_to"].clone();
    }

    fn place(&self) -> Value {
        json!({"carrier": "amqp", "port": self.port, "prefix": self.name})
    }
}

impl Amqp {
    /// Declares one of the system's queues otherwise than PURISTA does.
    pub(crate) async fn declare_durable(&self, name: &str) {
        let name = format!("{}.{name}", self.name);
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.client.queue_declare(name.into(), options, FieldTable::default()).await.unwrap();
    }
}

/// A channel of a client that knows nothing of bridges; its connection lives as long as it.
async fn channel(url: &str) -> Channel {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    connection.create_channel().await.unwrap()
}

/// A message in the form of the fixtures; the system's own name is PURISTA's there.
fn seen(raw: &Delivery, system: &str) -> Value {
    let given = &raw.properties;
    let mut properties = Map::new();
    for (name, value) in [
        ("type", given.kind()),
        ("message_id", given.message_id()),
        ("correlation_id", given.correlation_id()),
        ("reply_to", given.reply_to()),
        ("content_type", given.content_type()),
        ("content_encoding", given.content_encoding()),
        ("expiration", given.expiration()),
        ("user_id", given.user_id()),
        ("app_id", given.app_id()),
        ("cluster_id", given.cluster_id()),
    ] {
        properties.extend(value.as_ref().map(|value| (name.to_owned(), value.as_str().into())));
    }
    properties.extend(given.timestamp().map(|ms| ("timestamp".to_owned(), ms.into())));
    properties.extend(given.delivery_mode().map(|mode| ("delivery_mode".to_owned(), mode.into())));
    properties.extend(given.priority().map(|priority| ("priority".to_owned(), priority.into())));
    let headers = given.headers().clone().unwrap_or_default();
    let headers: Map<_, _> =
        headers.inner().iter().map(|(name, value)| (name.to_string(), header(value))).collect();
    let body = serde_json::from_slice(&raw.data)
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&raw.data).into_owned()));
    json!({
        "exchange": raw.exchange.as_str().replace(system, "purista"), "routingKey": raw.routing_key.as_str(),
        "properties": properties, "headers": headers, "body": body
    })
}

fn header(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned().into(),
        other => format!("{other:?}").into(),
    }
}
