//! The suite of all bridges.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use purista_conformance::bridge::{BridgeSystem, Outages};
use purista_core::bridge::EventBridge;
use purista_core::subscription::Subscription;
use purista_nats::bridge::NatsBridge;
use purista_nats::jetstream::JetStream;
use tokio::sync::Mutex;

use crate::server::Server;

/// Each bridge is a process of its own, with a connection of its own.
struct System(Server);

impl BridgeSystem for System {
    fn bridge(&self) -> BoxFuture<'_, Arc<dyn EventBridge>> {
        Box::pin(async {
            let bridge: Arc<dyn EventBridge> = Arc::new(NatsBridge::connect(self.0.url()).await.unwrap());
            bridge
        })
    }

    fn outages(&self) -> BoxFuture<'_, Option<Arc<dyn Outages>>> {
        Box::pin(async { Some(OneServer::outages(Server::start().await, None)) })
    }

    fn send_without_id(&self) -> Option<BoxFuture<'_, ()>> {
        Some(Box::pin(send_without_id(&self.0)))
    }

    fn send_rubbish<'s>(&'s self, subscription: &'s Subscription) -> Option<BoxFuture<'s, ()>> {
        let subject = if subscription.answers {
            "purista.command.empty.empty.i1.caller.1.main.empty.empty.user.1.sign_up"
        } else {
            EVENT_SUBJECT
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
            let client = self.0.client().await;
            for body in bodies {
                client.publish(subject, body.into()).await.unwrap();
            }
            client.flush().await.unwrap();
        }))
    }
}

/// Where the event `userRegistered` of `Caller` goes.
const EVENT_SUBJECT: &str =
    "purista.custom_message.empty.empty.i1.caller.1.main.user_registered.empty.empty.empty.empty";

/// Sends an event as a peer does that names no id.
pub(crate) async fn send_without_id(server: &Server) {
    let body = r#"{"messageType":"customMessage","eventName":"userRegistered","payload":1}"#;
    let client = server.client().await;
    client.publish(EVENT_SUBJECT, body.into()).await.unwrap();
    client.flush().await.unwrap();
}

/// A server that nobody else uses.
pub(crate) struct OneServer {
    server: Mutex<Server>,
    port: u16,
    keeping: Option<JetStream>,
}

impl OneServer {
    /// On this server; with JetStream, if it is to keep events.
    pub(crate) fn outages(server: Server, keeping: Option<JetStream>) -> Arc<dyn Outages> {
        Arc::new(Self { port: server.port(), server: Mutex::new(server), keeping })
    }
}

impl Outages for OneServer {
    fn port(&self) -> u16 {
        self.port
    }

    fn bridge(&self, port: u16, name: &str) -> BoxFuture<'_, Arc<dyn EventBridge>> {
        let mut builder = NatsBridge::builder(format!("nats://127.0.0.1:{port}")).instance(name);
        if let Some(options) = &self.keeping {
            builder = builder.jetstream(options.clone());
        }
        Box::pin(async {
            let bridge: Arc<dyn EventBridge> = Arc::new(builder.connect().await.unwrap());
            bridge
        })
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.server.lock().await.kill() })
    }

    fn restart(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.server.lock().await.restart().await })
    }
}

async fn system() -> System {
    System(Server::start().await)
}

purista_conformance::bridge_suite!(ignore = "needs nats-server: cargo xtask test", system());
