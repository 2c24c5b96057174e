//! A system on NATS.

use std::sync::Arc;

use async_nats::{Client, HeaderMap, HeaderValue};
use futures_util::StreamExt;
use purista_nats::bridge::NatsBridge;
use purista_nats::connect::Builder;
use purista_nats::jetstream::JetStream;
use purista_servers::nats::NatsServer;
use serde_json::{Map, Value, json};

use crate::carrier::{Bridge, Carrier, Tap};
use crate::fixtures::filled;

pub(crate) struct Nats {
    server: NatsServer,
    client: Client,
}

impl Carrier for Nats {
    const NAME: &'static str = "nats";
    const FIXTURES: &'static str = include_str!("fixtures/nats.jsonl");

    async fn start() -> Self {
        let server = NatsServer::start_with(&["--jetstream"]).await;
        let client = async_nats::connect(server.url()).await.unwrap();
        Self { server, client }
    }

    async fn bridge(&self, instance: &str) -> Bridge {
        bridge(NatsBridge::builder(self.server.url()).instance(instance)).await
    }

    async fn durable_bridge(&self, instance: &str) -> Bridge {
        let builder = NatsBridge::builder(self.server.url()).instance(instance);
        bridge(builder.jetstream(JetStream::default())).await
    }

    async fn tap(&self) -> Tap {
        let client = async_nats::connect(self.server.url()).await.unwrap();
        let mut heard = client.subscribe(">").await.unwrap();
        // The server reads a connection in order: when the echo is back, it has read the subscription.
        client.publish("echo", "x".into()).await.unwrap();
        heard.next().await.unwrap();
        Tap::fed(async move |to_test| {
            // The tap lives as long as its client.
            let _client = client;
            while let Some(raw) = heard.next().await {
                // The echoes by which a bridge knows what the server has read carry nothing.
                if !raw.payload.is_empty() {
                    let _ = to_test.send(seen(&raw)).await;
                }
            }
        })
    }

    async fn send(&self, message: &Value, seed: u32) {
        let message = filled(message, seed);
        let mut headers = HeaderMap::new();
        for (name, value) in message["headers"].as_object().unwrap() {
            headers.insert(name.as_str(), value.as_str().unwrap());
        }
        let subject = message["subject"].as_str().unwrap().to_owned();
        let body = message["body"].to_string().into();
        let inbox = format!("_INBOX.peer.{seed}");
        match (message.get("reply").is_some(), headers.is_empty()) {
            (true, true) => self.client.publish_with_reply(subject, inbox, body).await.unwrap(),
            (true, false) => {
                self.client.publish_with_reply_and_headers(subject, inbox, headers, body).await.unwrap();
            }
            (false, true) => self.client.publish(subject, body).await.unwrap(),
            (false, false) => self.client.publish_with_headers(subject, headers, body).await.unwrap(),
        }
        self.client.flush().await.unwrap();
    }

    fn answer(response: &mut Value, command: &Value) {
        response["body"]["correlationId"] = command["body"]["correlationId"].clone();
        response["subject"] = command["reply"].clone();
    }

    fn place(&self) -> Value {
        json!({"carrier": "nats", "port": self.server.port(), "prefix": "purista"})
    }
}

async fn bridge(builder: Builder) -> Bridge {
    let bridge = Arc::new(builder.connect().await.unwrap());
    let (dropped, unclaimed) = (Arc::clone(&bridge), Arc::clone(&bridge));
    Bridge {
        inner: bridge,
        dropped: Arc::new(move || dropped.messages_dropped()),
        unclaimed: Arc::new(move || unclaimed.replies_unclaimed()),
    }
}

/// A message in the form of the fixtures.
fn seen(raw: &async_nats::Message) -> Value {
    let mut headers = Map::new();
    for (name, values) in raw.headers.iter().flat_map(HeaderMap::iter) {
        let values: Vec<_> = values.iter().map(HeaderValue::as_str).collect();
        headers.insert(name.to_string(), values.join(", ").into());
    }
    let body = serde_json::from_slice(&raw.payload)
        .unwrap_or_else(|_| String::from_utf8_lossy(&raw.payload).into_owned().into());
    let mut seen = json!({"subject": raw.subject.as_str(), "headers": headers, "body": Value::clone(&body)});
    if let Some(reply) = &raw.reply {
        seen["reply"] = reply.as_str().into();
    }
    seen
}
