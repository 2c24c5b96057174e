//! The suite of all bridges.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use purista_conformance::bridge::{BridgeSystem, Outages};
use purista_core::bridge::EventBridge;
use purista_core::subscription::Subscription;
use purista_mqtt::bridge::MqttBridge;
use purista_mqtt::connect::Builder;
use tokio::sync::Mutex;

use crate::server::Server;

/// Each bridge is a process of its own, with a connection of its own.
pub(crate) struct System(pub(crate) Server);

impl BridgeSystem for System {
    fn bridge(&self) -> BoxFuture<'_, Arc<dyn EventBridge>> {
        Box::pin(async {
            let bridge: Arc<dyn EventBridge> = Arc::new(MqttBridge::connect(self.0.url()).await.unwrap());
            bridge
        })
    }

    fn durable_bridge(&self, name: &str) -> BoxFuture<'_, Arc<dyn EventBridge>> {
        let client_id = name.to_owned();
        Box::pin(async move { self.0.durable(&client_id).await })
    }

    fn outages(&self) -> BoxFuture<'_, Option<Arc<dyn Outages>>> {
        Box::pin(async {
            let server = Server::start().await;
            let outages: Arc<dyn Outages> =
                Arc::new(OneServer { port: server.port(), server: Mutex::new(server) });
            Some(outages)
        })
    }

    fn send_without_id(&self) -> Option<BoxFuture<'_, ()>> {
        Some(Box::pin(async {
            let body = r#"{"messageType":"customMessage","eventName":"userRegistered","payload":1}"#;
            self.0.client("nobody").await.publish(EVENT_TOPIC, body.to_owned()).await;
        }))
    }

    fn send_rubbish<'s>(&'s self, subscription: &'s Subscription) -> Option<BoxFuture<'s, ()>> {
        let topic = if subscription.answers {
            "purista/command/none/none/i1/caller/1/main/none/none/user/1/sign_up"
        } else {
            EVENT_TOPIC
        };
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
        ];
        Some(Box::pin(async move {
            let client = self.0.client("nothing").await;
            for body in bodies {
                client.publish(topic, body).await;
            }
        }))
    }
}

/// Where the event `userRegistered` of `Caller` goes.
const EVENT_TOPIC: &str =
    "purista/custom_message/none/none/i1/caller/1/main/user_registered/none/none/none/none";

/// A broker that nobody else uses.
struct OneServer {
    server: Mutex<Server>,
    port: u16,
}

fn at(port: u16) -> Builder {
    MqttBridge::builder(format!("mqtt://127.0.0.1:{port}"))
}

fn connecting(builder: Builder) -> BoxFuture<'static, Arc<dyn EventBridge>> {
    Box::pin(async {
        let bridge: Arc<dyn EventBridge> = Arc::new(builder.connect().await.unwrap());
        bridge
    })
}

impl Outages for OneServer {
    fn port(&self) -> u16 {
        self.port
    }

    fn bridge(&self, port: u16, name: &str) -> BoxFuture<'_, Arc<dyn EventBridge>> {
        connecting(at(port).instance(name))
    }

    /// mosquitto forgets shared subscriptions when it ends.
    fn durable_bridge(&self, port: u16, name: &str) -> BoxFuture<'_, Arc<dyn EventBridge>> {
        connecting(at(port).client_id(name).durable_in_one_process())
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.server.lock().await.kill() })
    }

    fn restart(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.server.lock().await.restart().await })
    }

    fn confirms_before_it_keeps(&self) -> bool {
        true
    }
}

async fn system() -> System {
    System(Server::start().await)
}

purista_conformance::bridge_suite!(ignore = "needs mosquitto: cargo xtask test", system());
