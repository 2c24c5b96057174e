//! How a bridge finds its broker.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use lapin::uri::AMQPScheme;
use purista_core::bridge::BridgeError;
use purista_core::clock::Clock;
use purista_core::id::Id;
use tokio_util::task::TaskTracker;

use crate::address::{EXCHANGE_DEFAULT, PREFIX_DEFAULT, short};
use crate::bridge::AmqpBridge;
use crate::error::rejected;
use crate::link::Link;
use crate::session::Peer;
use crate::tls::Files;
use crate::url::{addresses, is_exposed};

/// The largest message in bytes, unless the builder says otherwise. RabbitMQ itself would take 128 MiB.
pub const MESSAGE_BYTES_MAX_DEFAULT: usize = 1 << 20;

impl AmqpBridge {
    /// Connects with the defaults. Several brokers of one cluster are divided by commas; the first that answers is taken.
    pub async fn connect(url: impl Into<String>) -> Result<Self, BridgeError> {
        Self::builder(url).connect().await
    }

    /// Prepares a connection with names, an instance, credentials or bounds of its own.
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder::new(url.into())
    }
}

/// Prepares an [`AmqpBridge`]; made by [`AmqpBridge::builder`].
#[must_use = "a builder does nothing until it connects"]
pub struct Builder {
    url: String,
    exchange: String,
    prefix: String,
    instance: Option<String>,
    clock: Clock,
    message_bytes_max: usize,
    user: Option<(String, String)>,
    tls: Files,
    may_be_overheard: bool,
}

impl Builder {
    pub(crate) fn new(url: String) -> Self {
        Self {
            url,
            exchange: EXCHANGE_DEFAULT.to_owned(),
            prefix: PREFIX_DEFAULT.to_owned(),
            instance: None,
            clock: Clock::system(),
            message_bytes_max: MESSAGE_BYTES_MAX_DEFAULT,
            user: None,
            tls: Files::default(),
            may_be_overheard: false,
        }
    }

    /// The exchange over which everything goes, [`EXCHANGE_DEFAULT`] otherwise. Systems with different exchanges do not hear
    /// one another; let their queues differ too, by [`Builder::prefix`].
    pub fn exchange(mut self, exchange: impl Into<String>) -> Self {
        self.exchange = exchange.into();
        self
    }

    /// What the names of queues begin with, [`PREFIX_DEFAULT`] otherwise.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The name of this process among the others; otherwise a new one each time.
    pub fn instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = Some(instance.into());
        self
    }

    /// Where times and ids come from.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The largest message in bytes, both sent and taken. What is larger is refused, and an event kept as a dead letter.
    pub fn message_bytes_max(mut self, bytes: usize) -> Self {
        self.message_bytes_max = bytes.max(1);
        self
    }

    /// Names itself to the broker by a user and a password, whatever the address says.
    pub fn user_and_password(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.user = Some((user.into(), password.into()));
        self
    }

    /// Trusts the certificates in this PEM file, not those of the machine. TLS is spoken where the address begins with
    /// `amqps`.
    pub fn root_certificates(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.roots = Some(path.into());
        self
    }

    /// Names itself to the broker by a certificate and its key, both PEM files. Where the broker is to take the user from the
    /// certificate, the address ends with `?auth_mechanism=external`.
    pub fn client_certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.tls.identity = Some((certificate.into(), key.into()));
        self
    }

    /// Speaks without TLS also to a broker on another machine: whoever is in between reads everything, passwords too.
    pub fn unencrypted_to_other_machines(mut self) -> Self {
        self.may_be_overheard = true;
        self
    }

    /// Connects. A broker that cannot be reached now is an error; one that goes away later is waited for.
    pub async fn connect(self) -> Result<AmqpBridge, BridgeError> {
        let mut uris = addresses(&self.url)?;
        if let Some(exposed) = uris.iter().find(|uri| is_exposed(uri)).filter(|_| !self.may_be_overheard) {
            return Err(rejected(format!(
                "the broker at {} would be spoken to without TLS: use amqps, or say `unencrypted_to_other_machines`",
                exposed.authority.host
            )));
        }
        if let Some((user, password)) = &self.user {
            for uri in &mut uris {
                uri.authority.userinfo.username.clone_from(user);
                uri.authority.userinfo.password.clone_from(password);
            }
        }
        let speaks_tls = uris.iter().any(|uri| uri.scheme == AMQPScheme::AMQPS);
        let tls = if speaks_tls { Some(Arc::new(self.tls.connector()?)) } else { None };
        let instance = match &self.instance {
            Some(name) => Id::parse(name)
                .map_err(|error| rejected("the name of the instance is none").with_source(error))?,
            None => self.clock.id(),
        };
        let (exchange, prefix) = (short(self.exchange)?, Arc::from(short(self.prefix)?.as_str()));
        let peer = Peer { uris, tls, name: instance.to_string(), exchange: exchange.clone() };
        let tasks = TaskTracker::new();
        let link = Link::new(self.clock, instance, exchange, prefix, self.message_bytes_max, tasks.clone());
        AmqpBridge::start(peer, link, tasks).await
    }
}

/// Shows neither the address nor what the bridge names itself by: both may hold secrets.
impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("exchange", &self.exchange)
            .field("prefix", &self.prefix)
            .field("instance", &self.instance)
            .field("message_bytes_max", &self.message_bytes_max)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_shown() {
        let builder = AmqpBridge::builder("amqp://ada:hunter2@127.0.0.1").user_and_password("ada", "hunter2");
        let shown = format!("{builder:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("ada"), "{shown}");
    }

    #[tokio::test]
    async fn another_machine_is_spoken_to_without_tls_only_when_somebody_says_so() {
        let address = "amqp://ada:hunter2@192.0.2.1:1";
        let refused = AmqpBridge::connect(address).await.unwrap_err();
        let shown = format!("{refused} {refused:?}");
        assert!(shown.contains("without TLS") && shown.contains("192.0.2.1"), "{shown}");
        assert!(!shown.contains("hunter2") && !shown.contains("ada"), "{shown}");
    }

    #[tokio::test]
    async fn roots_that_are_not_there_are_an_error() {
        let missing =
            AmqpBridge::builder("amqps://127.0.0.1").root_certificates("/no/such/file").connect().await;
        assert!(missing.unwrap_err().to_string().contains("/no/such/file"));
    }
}
