//! How a bridge is set up and finds its broker.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use purista_core::bridge::BridgeError;
use purista_core::broker::is_this_machine;
use purista_core::clock::Clock;
use purista_core::id::Id;

use crate::address::{PREFIX_DEFAULT, ShareNames, prefix_is_valid};
use crate::bridge::{MqttBridge, Sessions};
use crate::dial::Place;
use crate::link::{Link, rejected};
use crate::tls;
use crate::url::BrokerUrl;
use crate::wire::EVENT_EXPIRY_S;

/// How many messages of one subscription wait in this process, unless the builder says otherwise. More are lost, and each loss
/// is logged as an error and counted; of a durable subscription at most 2,048 wait, and more come again when these are done.
pub const SUBSCRIPTION_CAPACITY_DEFAULT: usize = 8192;
/// The largest message in bytes, unless the builder says otherwise; the broker may take less.
pub const MESSAGE_BYTES_MAX_DEFAULT: usize = 1 << 20;

impl MqttBridge {
    /// Connects with the defaults, to `mqtt://[user[:password]@]host[:port]`, or over TLS to `mqtts://…`.
    pub async fn connect(url: impl Into<String>) -> Result<Self, BridgeError> {
        Self::builder(url).connect().await
    }

    /// Prepares a connection with a prefix, a client id, credentials or bounds of its own.
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder::new(url.into())
    }
}

/// Prepares a [`MqttBridge`]; made by [`MqttBridge::builder`].
#[must_use = "a builder does nothing until it connects"]
pub struct Builder {
    url: String,
    prefix: String,
    instance: Option<String>,
    client_id: Option<String>,
    clock: Clock,
    share_names: ShareNames,
    subscription_capacity: usize,
    message_bytes_max: usize,
    session_expiry: Duration,
    is_durable_alone: bool,
    credentials: Option<(String, Bytes)>,
    roots: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    is_plain_allowed: bool,
}

impl Builder {
    fn new(url: String) -> Self {
        Self {
            url,
            prefix: PREFIX_DEFAULT.to_owned(),
            instance: None,
            client_id: None,
            clock: Clock::system(),
            share_names: ShareNames::default(),
            subscription_capacity: SUBSCRIPTION_CAPACITY_DEFAULT,
            message_bytes_max: MESSAGE_BYTES_MAX_DEFAULT,
            session_expiry: Duration::from_secs(EVENT_EXPIRY_S.into()),
            is_durable_alone: false,
            credentials: None,
            roots: None,
            identity: None,
            is_plain_allowed: false,
        }
    }

    /// The first part of every topic, [`PREFIX_DEFAULT`] otherwise. Systems with different prefixes do not hear one another.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The name of this process among the others; otherwise its client id, or a new one each time. No two processes may
    /// have the same: the broker ends the connection of the one that came first.
    pub fn instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = Some(instance.into());
        self
    }

    /// The name under which the broker keeps what waits for the durable subscriptions of this process, over restarts: the
    /// same each time, and another one for each process. Without it durable subscriptions are refused.
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = Some(client_id.into());
        self
    }

    /// How long the broker keeps what waits for a durable subscription that is away; 30 days otherwise, as long as events
    /// are kept. In whole seconds.
    pub fn session_expiry(mut self, expiry: Duration) -> Self {
        self.session_expiry = expiry;
        self
    }

    /// Promises that this process alone runs its durable subscriptions, so that they need no share name. Otherwise several
    /// processes share them, and a broker has to keep shared subscriptions over its own restart: mosquitto 2.0 does not,
    /// and loses what is published between its return and the subscriber's.
    pub fn durable_in_one_process(mut self) -> Self {
        self.is_durable_alone = true;
        self
    }

    /// Where times and ids come from.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Which share names subscriptions have.
    pub fn share_names(mut self, share_names: ShareNames) -> Self {
        self.share_names = share_names;
        self
    }

    /// How many messages of one subscription wait in this process, at least 1; see [`SUBSCRIPTION_CAPACITY_DEFAULT`].
    pub fn subscription_capacity(mut self, capacity: usize) -> Self {
        self.subscription_capacity = capacity.max(1);
        self
    }

    /// The largest message in bytes that is sent or accepted; defaults to [`MESSAGE_BYTES_MAX_DEFAULT`]. A command that is
    /// larger gets a reply of 413, another message is dropped, logged and counted. From 16 MiB on the broker discards the
    /// message: it is told that limit when the bridge connects, and reports nothing to the sender.
    pub fn message_bytes_max(mut self, bytes: usize) -> Self {
        self.message_bytes_max = bytes.max(1);
        self
    }

    /// Names itself to the broker by a user and a password.
    pub fn user_and_password(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some((user.into(), Bytes::from(password.into())));
        self
    }

    /// Trusts the certificates in this PEM file, not those of the system.
    pub fn root_certificates(mut self, path: impl Into<PathBuf>) -> Self {
        self.roots = Some(path.into());
        self
    }

    /// Names itself to the broker by the certificate in one PEM file and its key in another: mutual TLS.
    pub fn client_certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    /// Takes a broker on another machine without TLS: everything, passwords among it, can be read and changed on the way.
    pub fn unencrypted_to_other_machines(mut self) -> Self {
        self.is_plain_allowed = true;
        self
    }

    /// Connects. A broker that cannot be reached now is an error; one that goes away later is waited for.
    pub async fn connect(self) -> Result<MqttBridge, BridgeError> {
        if !prefix_is_valid(&self.prefix) {
            return Err(rejected("the prefix of topics is not made of letters, digits, `-`, `_` and `/`"));
        }
        let url = BrokerUrl::parse(&self.url)?;
        if !url.is_tls && (self.roots.is_some() || self.identity.is_some()) {
            return Err(rejected("certificates are for an address that begins with mqtts://"));
        }
        if !(url.is_tls || is_this_machine(&url.host) || self.is_plain_allowed) {
            return Err(rejected(
                "the MQTT broker is on another machine and the address says no mqtts://; `unencrypted_to_other_machines` allows it",
            ));
        }
        let tls = if url.is_tls {
            let identity = self.identity.as_ref();
            let identity = identity.map(|(certificate, key)| (certificate.as_path(), key.as_path()));
            Some(tls::config(self.roots.as_deref(), identity)?)
        } else {
            None
        };
        let named = |name: &String| {
            Id::parse(name).map_err(|error| rejected("the name of the instance is none").with_source(error))
        };
        let instance = match self.instance.as_ref().or(self.client_id.as_ref()) {
            Some(name) => named(name)?,
            None => self.clock.id(),
        };
        let place = Place {
            host: url.host,
            port: url.port,
            credentials: self.credentials.or(url.credentials),
            tls,
            message_bytes_max: self.message_bytes_max,
        };
        let sessions = Sessions {
            client_id: self.client_id,
            expiry_s: u32::try_from(self.session_expiry.as_secs().max(1)).unwrap_or(u32::MAX),
            are_alone: self.is_durable_alone,
        };
        let link = Link::new(self.prefix, instance, self.clock, self.share_names, self.message_bytes_max);
        MqttBridge::start(link, place, sessions, self.subscription_capacity).await
    }
}

/// Shows neither the address nor what the bridge names itself by: both may hold secrets.
impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("prefix", &self.prefix)
            .field("instance", &self.instance)
            .field("client_id", &self.client_id)
            .field("subscription_capacity", &self.subscription_capacity)
            .field("message_bytes_max", &self.message_bytes_max)
            .field("session_expiry", &self.session_expiry)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_shown() {
        let builder = MqttBridge::builder("mqtt://ada:hunter2@127.0.0.1").user_and_password("ada", "hunter2");
        let shown = format!("{builder:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("ada"), "{shown}");
    }

    #[tokio::test]
    async fn a_broker_on_another_machine_without_tls_needs_an_explicit_word() {
        // A name that is never resolved: with the word it fails later, and says something else.
        let builder = || MqttBridge::builder("mqtt://ada:hunter2@broker.invalid");
        let refused = builder().connect().await.unwrap_err();
        assert!(refused.to_string().contains("on another machine"), "{refused}");
        let tried = builder().unencrypted_to_other_machines().connect().await.unwrap_err();
        assert!(tried.to_string().contains("connect to the MQTT broker failed"), "{tried}");
        for error in [refused, tried] {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            assert!(!format!("{error} {error:?} {source:?}").contains("hunter2"));
        }
    }

    #[tokio::test]
    async fn certificates_without_tls_are_an_error_and_so_are_files_that_are_not_there() {
        let plain = MqttBridge::builder("mqtt://127.0.0.1").root_certificates("/no/such/file");
        assert!(plain.connect().await.unwrap_err().to_string().contains("mqtts://"));
        let absent = MqttBridge::builder("mqtts://127.0.0.1").root_certificates("/no/such/file");
        assert!(absent.connect().await.unwrap_err().to_string().contains("/no/such/file"));
    }
}
