//! How one connection is made, and what a broker must be able to do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use purista_core::bridge::{BridgeError, BridgeErrorKind};
use rumqttc::tokio_rustls::rustls::ClientConfig;
use rumqttc::{
    AckMode, AsyncClient, Broker, ConnAck, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions,
    Packet, PersistedAckMode, PersistedSession, SessionStore, SessionStoreError, SessionStoreKey,
    TlsConfiguration, Transport,
};
use tokio::time::Instant;

use crate::link::rejected;

/// How long the first connection, and each later attempt, may take.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After how many seconds of silence each side asks whether the other lives; as captured.
const KEEP_ALIVE_S: u16 = 10;
/// How many requests wait to be written; more wait for a place.
const REQUESTS_MAX: usize = 1024;
/// How many requests are written together.
const BATCH_MAX: usize = 64;
/// How many of our publications wait for the broker's word at a time; the broker may allow fewer.
const UNCONFIRMED_MAX: u16 = 1024;
/// How much of a packet may be topic and properties, beside the message.
pub(crate) const PACKET_HEAD_MAX: usize = 64 << 10;
/// How much of it there usually is, at most. A broker's limit is one of the packet; a message whose head is larger than this
/// may be refused though its body is within [`purista_core::bridge::Capabilities::message_bytes_max`].
pub(crate) const PACKET_HEAD_USUAL: usize = 4 << 10;
/// The largest message that is received although it is too large, so that a command gets a reply of 413 and an event is logged.
/// The broker is told this limit, and discards larger ones without a word to anyone.
pub(crate) const OVERSIZE_BYTES_MAX: usize = 16 << 20;
/// How many messages of subscriptions that are not durable the broker may send ahead.
const AHEAD_MAX: u16 = 1024;

/// Where the broker is, and what names us to it. It has no `Debug`: it holds the password.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) credentials: Option<(String, Bytes)>,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) message_bytes_max: usize,
}

/// How the broker is to treat a session.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keeping {
    /// It ends with its connection, and what arrives is acknowledged at once.
    Nothing,
    /// It takes the place of a session that was stored, and ends with its connection.
    Retired,
    /// It is kept for this many seconds, and what arrives is acknowledged when it is done; so many at a time.
    Durable { expiry_s: u32, in_flight: u16 },
}

/// How the connections of one session are made.
#[derive(Clone)]
pub(crate) struct Dial {
    place: Place,
    client_id: String,
    keeping: Keeping,
}

/// A connection that the broker has accepted.
pub(crate) struct Dialled {
    pub(crate) client: AsyncClient,
    pub(crate) events: EventLoop,
    pub(crate) greeting: ConnAck,
}

impl Dialled {
    /// Ends the connection on purpose, and waits until it has ended.
    pub(crate) async fn disconnect(mut self) {
        let ended = async {
            // A connection that is lost meanwhile has ended as well.
            let _ = self.client.disconnect().await;
            while self.events.poll().await.is_ok() {}
        };
        let _ = tokio::time::timeout(CONNECT_TIMEOUT, ended).await;
    }
}

impl Dial {
    pub(crate) fn new(place: Place, client_id: String, keeping: Keeping) -> Self {
        Self { place, client_id, keeping }
    }

    /// The name of the session at the broker.
    pub(crate) fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The largest packet that is sent.
    pub(crate) fn packet_bytes_max(&self) -> usize {
        self.place.message_bytes_max.saturating_add(PACKET_HEAD_MAX)
    }

    /// The largest packet that is received.
    fn received_bytes_max(&self) -> usize {
        self.place.message_bytes_max.max(OVERSIZE_BYTES_MAX).saturating_add(PACKET_HEAD_MAX)
    }

    /// Makes one connection. Cancel safe.
    pub(crate) async fn dial(&self) -> Result<Dialled, BridgeError> {
        let built = AsyncClient::builder(self.options()).capacity(REQUESTS_MAX).try_build();
        let (client, mut events) =
            built.map_err(|error| rejected("the connection to MQTT cannot be set up").with_source(error))?;
        let until = Instant::now() + CONNECT_TIMEOUT;
        loop {
            let event = tokio::time::timeout_at(until, events.poll()).await;
            match event.map_err(|_| rejected("the MQTT broker did not answer in time"))? {
                Ok(Event::Incoming(Packet::ConnAck(greeting))) => {
                    self.check(&greeting)?;
                    return Ok(Dialled { client, events, greeting });
                }
                Ok(_) => {}
                Err(error) => return Err(not_connected(error)),
            }
        }
    }

    fn options(&self) -> MqttOptions {
        let Place { host, port, credentials, tls, .. } = &self.place;
        let mut options = MqttOptions::new(self.client_id.clone(), Broker::tcp(host.clone(), *port));
        if let Some(config) = tls {
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::clone(config))));
        }
        if let Some((user, password)) = credentials {
            options.set_credentials(user.clone(), password.clone());
        }
        let mut network = NetworkOptions::new();
        // A call and its acknowledgements are small packets, which must not wait for one another.
        network.set_tcp_nodelay(true);
        options
            .set_network_options(network)
            .set_keep_alive(KEEP_ALIVE_S)
            .set_connect_timeout(CONNECT_TIMEOUT)
            .set_max_request_batch(BATCH_MAX)
            .set_outgoing_inflight_upper_limit(UNCONFIRMED_MAX)
            .set_max_packet_size(Some(u32::try_from(self.received_bytes_max()).unwrap_or(u32::MAX)));
        match self.keeping {
            Keeping::Nothing => {
                options.set_receive_maximum(Some(AHEAD_MAX));
            }
            Keeping::Retired => {
                options
                    .set_clean_start(true)
                    .set_session_expiry_interval(Some(0))
                    .set_receive_maximum(Some(1));
            }
            Keeping::Durable { expiry_s, in_flight } => {
                options
                    .set_clean_start(false)
                    .set_receive_maximum(Some(in_flight.max(1)))
                    .set_session_expiry_interval(Some(expiry_s))
                    .set_ack_mode(AckMode::Manual)
                    .set_session_store(NothingOfOurs);
            }
        }
        options
    }

    /// Refuses a broker that cannot do what every subscription needs, or keeps no session where one was asked for.
    fn check(&self, greeting: &ConnAck) -> Result<(), BridgeError> {
        let Some(properties) = &greeting.properties else { return Ok(()) };
        let cannot = |what: &str| Err(rejected(format!("the MQTT broker offers no {what}")));
        if properties.max_qos == Some(0) {
            return cannot("QoS 1");
        }
        for (offered, what) in [
            (properties.wildcard_subscription_available, "wildcards in subscriptions"),
            (properties.shared_subscription_available, "shared subscriptions"),
            (properties.subscription_identifiers_available, "subscription identifiers"),
        ] {
            if offered == Some(0) {
                return cannot(what);
            }
        }
        match (self.keeping, properties.session_expiry_interval) {
            (Keeping::Durable { .. }, Some(0)) => cannot("sessions that outlive their connection"),
            (Keeping::Durable { expiry_s, .. }, Some(theirs)) if theirs < expiry_s => {
                tracing::warn!(
                    session = self.client_id,
                    seconds = theirs,
                    "the MQTT broker keeps the session shorter than asked"
                );
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn not_connected(error: ConnectionError) -> BridgeError {
    BridgeError::new(BridgeErrorKind::Rejected, "connect to the MQTT broker failed").with_source(error)
}

/// What we kept of a durable session: nothing. Over its connections the broker publishes and we acknowledge; what we did
/// not acknowledge comes again, so that nothing has to be restored here. Without this the client would refuse a session that
/// it does not know, or refuse to subscribe in it.
#[derive(Debug)]
struct NothingOfOurs;

/// The form of what is restored, as the client numbers it.
const SESSION_FORMAT: u16 = 1;

impl SessionStore for NothingOfOurs {
    fn load<'a>(&'a self, key: &'a SessionStoreKey) -> Stored<'a, Option<PersistedSession>> {
        let session = PersistedSession {
            format_version: SESSION_FORMAT,
            client_id: key.client_id().to_owned(),
            clean_start: false,
            session_expiry_interval: None,
            outgoing_inflight_upper_limit: Some(UNCONFIRMED_MAX),
            ack_mode: PersistedAckMode::Manual,
            last_pkid: 0,
            last_puback: 0,
            replay: Vec::new(),
            incoming_qos2: Vec::new(),
        };
        Box::pin(std::future::ready(Ok(Some(session))))
    }

    fn save<'a>(&'a self, _: &'a SessionStoreKey, _: &'a PersistedSession) -> Stored<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn clear<'a>(&'a self, _: &'a SessionStoreKey) -> Stored<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

type Stored<'a, T> = futures_util::future::BoxFuture<'a, Result<T, SessionStoreError>>;
