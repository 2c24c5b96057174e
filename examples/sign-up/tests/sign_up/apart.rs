//! The parts in processes of their own, with a real broker between them.

use purista_servers::mosquitto::Mosquitto;
use purista_servers::nats::NatsServer;
use purista_servers::rabbitmq::RabbitMq;

use crate::server::{Folder, Process, Server};

mod flow;
mod killed;
mod outage;

/// Which broker is between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Nats,
    RabbitMq,
    Mosquitto,
}

/// A broker of the test's own.
pub(crate) enum Broker {
    Nats(NatsServer),
    RabbitMq(RabbitMq),
    Mosquitto(Mosquitto),
}

impl Broker {
    pub(crate) async fn start(kind: Kind) -> Self {
        match kind {
            Kind::Nats => Self::Nats(NatsServer::start_with(&["--jetstream"]).await),
            Kind::RabbitMq => Self::RabbitMq(RabbitMq::start().await),
            Kind::Mosquitto => Self::Mosquitto(Mosquitto::start().await),
        }
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Nats(server) => server.url(),
            Self::RabbitMq(server) => server.url(),
            Self::Mosquitto(server) => server.url(),
        }
    }

    /// As a power cut would, as far as the broker's process is concerned.
    pub(crate) fn kill(&mut self) {
        match self {
            Self::Nats(server) => server.kill(),
            Self::RabbitMq(server) => server.kill(),
            Self::Mosquitto(server) => server.kill(),
        }
    }

    /// From its return on the broker takes connections again.
    pub(crate) async fn restart(&mut self) {
        match self {
            Self::Nats(server) => server.restart().await,
            Self::RabbitMq(server) => server.restart().await,
            Self::Mosquitto(server) => server.restart().await,
        }
    }
}

/// A folder for each part.
pub(crate) struct Folders {
    pub(crate) http: Folder,
    pub(crate) user: Folder,
    pub(crate) email: Folder,
}

impl Folders {
    pub(crate) fn new() -> Self {
        Self { http: Folder::new(), user: Folder::new(), email: Folder::new() }
    }
}

/// Three processes.
pub(crate) struct Apart {
    pub(crate) http: Server,
    pub(crate) user: Process,
    pub(crate) email: Process,
}

impl Apart {
    /// Starts each with these arguments beside its part, and waits until all of them serve.
    pub(crate) async fn start(broker: &Broker, folders: &Folders, arguments: &[&str]) -> Self {
        let url = broker.url();
        Self {
            user: part("user", &url, &folders.user, arguments).await,
            email: part("email", &url, &folders.email, arguments).await,
            http: http(&url, &folders.http).await,
        }
    }

    pub(crate) async fn stop(self) {
        self.http.stop().await;
        self.user.stop().await;
        self.email.stop().await;
    }
}

/// One part of them.
pub(crate) async fn part(part: &str, url: &str, folder: &Folder, arguments: &[&str]) -> Process {
    let arguments = [&["--run", part, "--bridge", url], arguments].concat();
    Process::start(folder, &arguments).await
}

/// The part that serves.
pub(crate) async fn http(url: &str, folder: &Folder) -> Server {
    Server::start_with(folder, &["--run", "http", "--bridge", url]).await
}
