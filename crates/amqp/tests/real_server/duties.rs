//! The suite of all bridges.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use purista_amqp::address::queue_name;
use purista_amqp::bridge::AmqpBridge;
use purista_amqp::history::{DEAD_ATTEMPT, DEAD_REASON};
use purista_conformance::bridge::{BridgeSystem, DeadLetter, Outages};
use purista_core::bridge::EventBridge;
use purista_core::subscription::Subscription;
use tokio::sync::Mutex;

use crate::durable::{dead_letter, header};
use crate::server::{Server, System};

/// Each bridge is a process of its own, with a connection of its own.
pub(crate) struct Bridges(System);

impl BridgeSystem for Bridges {
    fn bridge(&self) -> BoxFuture<'_, Arc<dyn EventBridge>> {
        Box::pin(async {
            let bridge: Arc<dyn EventBridge> = Arc::new(self.0.builder().connect().await.unwrap());
            bridge
        })
    }

    fn outages(&self) -> BoxFuture<'_, Option<Arc<dyn Outages>>> {
        Box::pin(async {
            let shared = Server::shared().await;
            let outages: Arc<dyn Outages> =
                Arc::new(Behind { port: shared.port(), name: shared.system().name, server: None });
            Some(outages)
        })
    }

    fn outages_alone(&self) -> BoxFuture<'_, Option<Arc<dyn Outages>>> {
        Box::pin(async {
            let server = Server::start().await;
            let (port, name) = (server.port(), server.system().name);
            let outages: Arc<dyn Outages> = Arc::new(Behind { port, name, server: Some(Mutex::new(server)) });
            Some(outages)
        })
    }

    fn replay<'s>(&'s self, subscription: &'s Subscription) -> Option<BoxFuture<'s, DeadLetter>> {
        Some(Box::pin(async move {
            let client = self.0.client().await;
            let dead = dead_letter(&self.0, &client).await;
            let queue = queue_name(&self.0.name, subscription);
            let options = BasicPublishOptions::default();
            let putting_back =
                client.basic_publish("".into(), queue.into(), options, &dead.data, dead.properties.clone());
            putting_back.await.unwrap();
            DeadLetter {
                reason: header(&dead, DEAD_REASON).unwrap(),
                attempts: header(&dead, DEAD_ATTEMPT).unwrap().parse().unwrap(),
                body: dead.delivery.data,
            }
        }))
    }

    fn send_without_id(&self) -> Option<BoxFuture<'_, ()>> {
        let body = r#"{"messageType":"customMessage","eventName":"userRegistered","payload":1}"#;
        Some(Box::pin(self.send(EVENT, [body.to_owned()])))
    }

    fn send_rubbish<'s>(&'s self, subscription: &'s Subscription) -> Option<BoxFuture<'s, ()>> {
        let headers = if subscription.answers { COMMAND } else { EVENT };
        let kind = if subscription.answers { "command" } else { "customMessage" };
        let bodies = [
            String::new(),
            "{".to_owned(),
            "[]".to_owned(),
            "null".to_owned(),
            format!(r#"{{"messageType":"{kind}"}}"#),
            format!(r#"{{"messageType":"{kind}","sender":7,"receiver":"no"}}"#),
            r#"{"messageType":"noSuchType"}"#.to_owned(),
            "[".repeat(100_000),
            "\u{0}\u{1}".to_owned(),
            "x".repeat(2 << 20),
        ];
        Some(Box::pin(self.send(headers, bodies)))
    }
}

/// By which a command, and an event, find their queues.
const COMMAND: &[(&str, &str)] = &[
    ("messageType", "command"),
    ("receiverServiceName", "User"),
    ("receiverServiceVersion", "1"),
    ("receiverServiceTarget", "signUp"),
];
const EVENT: &[(&str, &str)] = &[("messageType", "customMessage"), ("eventName", "userRegistered")];

impl Bridges {
    /// Sends whatever this is, with these headers.
    async fn send(&self, headers: &[(&str, &str)], bodies: impl IntoIterator<Item = String>) {
        let client = self.0.client().await;
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert((*name).into(), AMQPValue::LongString((*value).into()));
        }
        let properties = BasicProperties::default().with_headers(table);
        for body in bodies {
            let (exchange, options) = (self.0.name.as_str().into(), BasicPublishOptions::default());
            let sent =
                client.basic_publish(exchange, "".into(), options, body.as_bytes(), properties.clone());
            sent.await.unwrap();
        }
        // The broker reads a channel in order.
        client.close(200, "OK".into()).await.unwrap();
    }
}

/// A system behind a way that may be disturbed; and its broker, when nobody else uses it.
struct Behind {
    port: u16,
    name: String,
    server: Option<Mutex<Server>>,
}

impl Behind {
    fn server(&self) -> &Mutex<Server> {
        self.server.as_ref().expect("others are on this broker: `outages_alone` has one of its own")
    }
}

impl Outages for Behind {
    fn port(&self) -> u16 {
        self.port
    }

    fn bridge(&self, port: u16, name: &str) -> BoxFuture<'_, Arc<dyn EventBridge>> {
        let builder = AmqpBridge::builder(format!("amqp://127.0.0.1:{port}"));
        let builder = builder.exchange(&self.name).prefix(&self.name).instance(name);
        Box::pin(async {
            let bridge: Arc<dyn EventBridge> = Arc::new(builder.connect().await.unwrap());
            bridge
        })
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.server().lock().await.kill() })
    }

    fn restart(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.server().lock().await.restart().await })
    }

    fn starts_slowly(&self) -> bool {
        true
    }
}

pub(crate) async fn system() -> Bridges {
    Bridges(Server::shared().await.system())
}

purista_conformance::bridge_suite!(ignore = "needs rabbitmq-server: cargo xtask test", system());
