//! A system on MQTT.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use purista_mqtt::address::ShareNames;
use purista_mqtt::bridge::MqttBridge;
use purista_mqtt::connect::Builder;
use purista_servers::mosquitto::Mosquitto;
use rumqttc::{
    AsyncClient, Broker, Event, EventLoop, MqttOptions, Packet, Publish, PublishOptions, PublishProperties,
    QoS,
};
use serde_json::{Map, Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::carrier::{Bridge, Carrier, TAP_CAPACITY, Tap};
use crate::fixtures::filled;

pub(crate) struct Mqtt {
    server: Mosquitto,
    client: AsyncClient,
    /// Ends the client's task.
    _stop: DropGuard,
}

impl Carrier for Mqtt {
    const NAME: &'static str = "mqtt";
    const FIXTURES: &'static str = include_str!("fixtures/mqtt.jsonl");

    async fn start() -> Self {
        let server = Mosquitto::start().await;
        let (client, mut events) = client(server.port());
        let stop = CancellationToken::new();
        let polling = async move { while events.poll().await.is_ok() {} };
        TaskTracker::new().spawn(stop.clone().run_until_cancelled_owned(polling));
        Self { server, client, _stop: stop.drop_guard() }
    }

    async fn bridge(&self, instance: &str) -> Bridge {
        bridge(self.builder(instance)).await
    }

    async fn sharing_bridge(&self, instance: &str) -> Bridge {
        bridge(self.builder(instance).share_names(ShareNames::AsPurista)).await
    }

    async fn durable_bridge(&self, instance: &str) -> Bridge {
        self.bridge(instance).await
    }

    async fn tap(&self) -> Tap {
        let (client, mut events) = client(self.server.port());
        let (is_there, there) = tokio::sync::oneshot::channel();
        let tap = Tap::fed(async move |to_test| {
            let mut is_there = Some(is_there);
            client.subscribe("#", QoS::AtLeastOnce).await.unwrap();
            while let Ok(event) = events.poll().await {
                match event {
                    Event::Incoming(Packet::SubAck(_)) => {
                        let _ = is_there.take().map(|there| there.send(()));
                    }
                    // A bridge that starts asks the broker about a topic of nobody's, with nothing in it.
                    Event::Incoming(Packet::Publish(raw)) if !raw.payload.is_empty() => {
                        let _ = to_test.send(seen(&raw)).await;
                    }
                    _ => {}
                }
            }
        });
        there.await.unwrap();
        tap
    }

    async fn send(&self, message: &Value, seed: u32) {
        let message = filled(message, seed);
        let properties = &message["properties"];
        let headers = message["headers"].as_object().unwrap().iter();
        let expiry = properties["messageExpiryInterval"].as_u64();
        let properties = PublishProperties {
            content_type: properties["contentType"].as_str().map(str::to_owned),
            correlation_data: properties["correlationData"].as_str().map(|id| id.to_owned().into()),
            message_expiry_interval: expiry.map(|expiry| u32::try_from(expiry).unwrap()),
            user_properties: headers
                .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
                .collect(),
            ..PublishProperties::default()
        };
        let topic = message["topic"].as_str().unwrap().to_owned();
        let options = PublishOptions::at_least_once().properties(properties);
        let sent = self.client.publish_tracked(topic, message["body"].to_string(), options).await.unwrap();
        sent.wait_async().await.unwrap();
    }

    fn answer(response: &mut Value, command: &Value) {
        response["body"]["correlationId"] = command["body"]["correlationId"].clone();
        response["properties"]["correlationData"] = command["body"]["correlationId"].clone();
    }

    fn place(&self) -> Value {
        json!({"carrier": "mqtt", "port": self.server.port(), "prefix": "purista"})
    }
}

impl Mqtt {
    fn builder(&self, instance: &str) -> Builder {
        MqttBridge::builder(self.server.url()).instance(instance).client_id(instance)
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

fn client(port: u16) -> (AsyncClient, EventLoop) {
    static NUMBERS: AtomicU32 = AtomicU32::new(0);
    let name = format!("third-party-{}", NUMBERS.fetch_add(1, Ordering::Relaxed));
    let mut options = MqttOptions::new(name, Broker::tcp("127.0.0.1", port));
    options.set_max_packet_size(Some(64 << 20));
    AsyncClient::builder(options).capacity(TAP_CAPACITY).build()
}

/// A message in the form of the fixtures.
fn seen(raw: &Publish) -> Value {
    let mut properties = Map::new();
    let mut headers = Map::new();
    if let Some(given) = &raw.properties {
        let text = |bytes: &bytes::Bytes| String::from_utf8_lossy(bytes).into_owned();
        properties.extend(given.content_type.clone().map(|of| ("contentType".to_owned(), of.into())));
        properties
            .extend(given.message_expiry_interval.map(|s| ("messageExpiryInterval".to_owned(), s.into())));
        properties.extend(
            given.correlation_data.as_ref().map(|data| ("correlationData".to_owned(), text(data).into())),
        );
        properties.extend(given.response_topic.clone().map(|of| ("responseTopic".to_owned(), of.into())));
        headers
            .extend(given.user_properties.iter().map(|(name, value)| (name.clone(), value.clone().into())));
    }
    let body = serde_json::from_slice(&raw.payload)
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&raw.payload).into_owned()));
    json!({
        "topic": String::from_utf8_lossy(&raw.topic), "qos": raw.qos as u8, "retain": raw.retain,
        "properties": properties, "headers": headers, "body": body
    })
}
