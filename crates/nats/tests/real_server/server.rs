//! A nats-server of the test's own, with bridges and clients of it.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt;
use purista_core::bridge::EventBridge;
use purista_nats::bridge::NatsBridge;
use purista_servers::nats::NatsServer;

pub(crate) struct Server(NatsServer);

impl Server {
    pub(crate) async fn start() -> Self {
        Self(NatsServer::start().await)
    }

    pub(crate) async fn start_with(arguments: &[&str]) -> Self {
        Self(NatsServer::start_with(arguments).await)
    }

    pub(crate) async fn start_program(program: &Path, arguments: &[&str]) -> Self {
        Self(NatsServer::start_program(program, arguments).await)
    }

    pub(crate) async fn bridge(&self, instance: &str) -> Arc<dyn EventBridge> {
        Arc::new(NatsBridge::builder(self.url()).instance(instance).connect().await.unwrap())
    }

    /// A client that knows nothing of bridges.
    pub(crate) async fn client(&self) -> async_nats::Client {
        async_nats::connect(self.url()).await.unwrap()
    }

    /// What a client that knows nothing of bridges sees on a subject, from now on.
    pub(crate) async fn captured(
        &self,
        client: &async_nats::Client,
        subject: &'static str,
    ) -> async_nats::Subscriber {
        let captured = client.subscribe(subject).await.unwrap();
        // The server reads a connection in order: when the echo is back, it has read the subscription.
        let inbox = client.new_inbox();
        let mut echo = client.subscribe(inbox.clone()).await.unwrap();
        client.publish(inbox, Vec::new().into()).await.unwrap();
        echo.next().await.unwrap();
        captured
    }
}

impl Deref for Server {
    type Target = NatsServer;

    fn deref(&self) -> &NatsServer {
        &self.0
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut NatsServer {
        &mut self.0
    }
}
