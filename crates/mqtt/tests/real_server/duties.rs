//! The suite of all bridges.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use purista_conformance::bridge::BridgeSystem;
use purista_core::bridge::EventBridge;
use purista_core::subscription::Subscription;
use purista_mqtt::bridge::MqttBridge;

use crate::server::Server;

/// Each bridge is a process of its own, with a connection of its own.
struct System(Server);

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

    fn send_rubbish<'s>(&'s self, subscription: &'s Subscription) -> Option<BoxFuture<'s, ()>> {
        let topic = if subscription.answers {
            "purista/command/none/none/i1/caller/1/main/none/none/user/1/sign_up"
        } else {
            "purista/custom_message/none/none/i1/caller/1/main/user_registered/none/none/none/none"
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

async fn system() -> System {
    System(Server::start().await)
}

purista_conformance::bridge_suite!(ignore = "needs mosquitto: cargo xtask test", system());
