//! How a bridge finds its server, and what it does when it loses it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr};
use purista_core::bridge::BridgeError;
use purista_core::broker::{is_this_machine, unescaped};
use purista_core::clock::Clock;
use purista_core::id::Id;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::address::{PREFIX_DEFAULT, prefix_is_valid};
use crate::bridge::NatsBridge;
use crate::jetstream::{JetStream, Streams};
use crate::link::{CONNECT_TIMEOUT, Link, Watch, rejected};

/// How many messages of one subscription wait in this process, unless the builder says otherwise. More are lost, since
/// core NATS knows no back pressure; each loss is logged as an error and counted.
pub const SUBSCRIPTION_CAPACITY_DEFAULT: usize = 8192;
/// How many messages wait to be written; more wait for a place.
const WRITES_MAX: usize = 2048;
/// How often the server is asked whether it lives; the third question behind two without an answer is a lost connection.
const PING_INTERVAL: Duration = Duration::from_secs(8);

impl NatsBridge {
    /// Connects with the defaults. Several servers of one cluster are divided by commas.
    pub async fn connect(url: impl Into<String>) -> Result<Self, BridgeError> {
        Self::builder(url).connect().await
    }

    /// Prepares a connection with a prefix, an instance, credentials or bounds of its own.
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder::new(url.into())
    }
}

/// Prepares a [`NatsBridge`]; made by [`NatsBridge::builder`].
#[must_use = "a builder does nothing until it connects"]
pub struct Builder {
    url: String,
    prefix: String,
    instance: Option<String>,
    clock: Clock,
    subscription_capacity: usize,
    jetstream: Option<JetStream>,
    requires_tls: bool,
    may_be_overheard: bool,
    options: ConnectOptions,
}

impl Builder {
    pub(crate) fn new(url: String) -> Self {
        Self {
            url,
            prefix: PREFIX_DEFAULT.to_owned(),
            instance: None,
            clock: Clock::system(),
            subscription_capacity: SUBSCRIPTION_CAPACITY_DEFAULT,
            jetstream: None,
            requires_tls: false,
            may_be_overheard: false,
            options: ConnectOptions::new(),
        }
    }

    /// The first part of every subject, [`PREFIX_DEFAULT`] otherwise. Systems with different prefixes do not hear one
    /// another.
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

    /// How many messages of one subscription wait in this process, at least 1.
    pub fn subscription_capacity(mut self, capacity: usize) -> Self {
        self.subscription_capacity = capacity.max(1);
        self
    }

    /// Keeps events on the server's JetStream: durable subscriptions get what they missed, and a publish returns when the
    /// event is stored. All processes of a system say so, or none: an event that one publishes without it is kept too, but
    /// nobody tells its publisher when it was not.
    pub fn jetstream(mut self, options: JetStream) -> Self {
        self.jetstream = Some(options);
        self
    }

    /// Names itself to the server by a user and a password.
    pub fn user_and_password(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.options = self.options.user_and_password(user.into(), password.into());
        self
    }

    /// Names itself to the server by a token.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.options = self.options.token(token.into());
        self
    }

    /// Names itself to the server by the seed of an nkey.
    pub fn nkey(mut self, seed: impl Into<String>) -> Self {
        self.options = self.options.nkey(seed.into());
        self
    }

    /// Speaks to the server over TLS only.
    pub fn require_tls(mut self) -> Self {
        self.requires_tls = true;
        self.options = self.options.require_tls(true);
        self
    }

    /// Trusts the certificates in this PEM file, not those of the system.
    pub fn root_certificates(mut self, path: impl Into<PathBuf>) -> Self {
        self.options = self.options.add_root_certificates(path.into());
        self
    }

    /// Allows a server on another machine whose address says no `tls://`: whoever is between reads everything, and the
    /// credentials too.
    pub fn unencrypted_to_other_machines(mut self) -> Self {
        self.may_be_overheard = true;
        self
    }

    /// Connects. A server that cannot be reached now is an error; one that goes away later is waited for.
    pub async fn connect(self) -> Result<NatsBridge, BridgeError> {
        if !prefix_is_valid(&self.prefix) {
            return Err(rejected("the prefix of subjects is not made of letters, digits, `-`, `_` and dots"));
        }
        let (servers, options) = servers(&self.url, self.options)?;
        let may_be_overheard = self.requires_tls || self.may_be_overheard;
        let mut exposed =
            servers.iter().filter(|server| !(server.tls_required() || is_this_machine(server.host())));
        if let Some(server) = exposed.next().filter(|_| !may_be_overheard) {
            return Err(rejected(format!(
                "the NATS server at {} would be spoken to without TLS: use tls://, or say `unencrypted_to_other_machines`",
                server.host()
            )));
        }
        let instance = match &self.instance {
            Some(name) => Id::parse(name)
                .map_err(|error| rejected("the name of the instance is none").with_source(error))?,
            None => self.clock.id(),
        };
        let watch = Arc::new(Watch::default());
        let ended = CancellationToken::new();
        let options = options
            .name(instance.text())
            .connection_timeout(CONNECT_TIMEOUT)
            .ping_interval(PING_INTERVAL)
            .client_capacity(WRITES_MAX)
            .subscription_capacity(self.subscription_capacity)
            .max_reconnects(None);
        let options = following(options, &watch, &self.clock, &ended);
        // The client's future is large.
        let connecting = Box::pin(async_nats::connect_with_options(servers, options));
        let client =
            connecting.await.map_err(|error| rejected("connect to NATS failed").with_source(error))?;
        // The news of the first connection is on its way.
        watch.up_until(Instant::now() + CONNECT_TIMEOUT).await?;
        let link = Link { client, watch, clock: self.clock, prefix: self.prefix.into(), instance };
        let streams = match &self.jetstream {
            Some(options) => Some(Box::pin(Streams::open(&link, options)).await?),
            None => None,
        };
        NatsBridge::start(link, streams, ended).await
    }
}

/// Shows neither the address nor what the bridge names itself by: both may hold secrets.
impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("prefix", &self.prefix)
            .field("instance", &self.instance)
            .field("subscription_capacity", &self.subscription_capacity)
            .finish_non_exhaustive()
    }
}

/// The servers of a list divided by commas. What names us to them is taken out of the addresses: the client ignores it
/// there, and shows addresses in its logs.
fn servers(
    urls: &str,
    mut options: ConnectOptions,
) -> Result<(Vec<ServerAddr>, ConnectOptions), BridgeError> {
    let text = |escaped: &str| String::from_utf8_lossy(&unescaped(escaped)).into_owned();
    let mut servers = Vec::new();
    for url in urls.split(',') {
        // The source says what is wrong with it, and does not repeat it.
        let unreadable = |error| rejected("the address of the NATS server cannot be read").with_source(error);
        let server: ServerAddr = url.trim().parse().map_err(unreadable)?;
        if let (Some(user), true) = (server.username(), servers.is_empty()) {
            options = match server.password() {
                Some(password) => options.user_and_password(text(user), text(password)),
                None => options.token(text(user)),
            };
        }
        let mut plain = server.into_inner();
        if plain.set_username("").is_err() || plain.set_password(None).is_err() {
            return Err(rejected("the address of the NATS server has no host"));
        }
        servers.push(ServerAddr::from_url(plain).map_err(unreadable)?);
    }
    Ok((servers, options))
}

/// Follows the connection's events, and tries again for ever. `ended` is cancelled when the client's own tasks are over:
/// they hold the two closures, and with them its guard.
fn following(
    options: ConnectOptions,
    watch: &Arc<Watch>,
    clock: &Clock,
    ended: &CancellationToken,
) -> ConnectOptions {
    let guard = Arc::new(ended.clone().drop_guard());
    let (follows, held) = (Arc::clone(watch), Arc::clone(&guard));
    let options = options.event_callback(move |event| {
        let _held = &held;
        follows.follow(&event);
        std::future::ready(())
    });
    let (watch, clock) = (Arc::clone(watch), clock.clone());
    options.reconnect_delay_callback(move |_| {
        let _held = &guard;
        if watch.closing.is_cancelled() {
            return give_up();
        }
        // The client counts anew after each connection that it made: one that is cut as soon as it is there would be made again
        // at once, without end.
        watch.next_delay(clock.fraction())
    })
}

/// Ends the client's attempts to come back. It looks at nothing else while it tries, so that a bridge that is closed while
/// its server is away would leave a task behind; unwinding ends that task, without a report since no panic was raised.
fn give_up() -> Duration {
    if cfg!(panic = "unwind") {
        std::panic::resume_unwind(Box::new("the bridge is closed"));
    }
    // A program that aborts on panics keeps one sleeping task instead.
    Duration::from_secs(u64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_divided_and_lose_what_names_us() {
        let (servers, options) =
            servers("nats://ada:hunter2@one:1, tls://two", ConnectOptions::new()).unwrap();
        let servers: Vec<_> = servers.iter().map(|server| (server.host(), server.port())).collect();
        assert_eq!(servers, [("one", 1), ("two", 4222)]);
        assert!(!format!("{servers:?} {options:?}").contains("hunter2"));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let builder = NatsBridge::builder("nats://ada:hunter2@127.0.0.1").user_and_password("ada", "hunter2");
        let shown = format!("{:?}", builder.token("hunter2").nkey("hunter2"));
        assert!(!shown.contains("hunter2") && !shown.contains("ada"), "{shown}");
    }

    #[tokio::test]
    async fn a_server_on_another_machine_without_tls_needs_an_explicit_word() {
        // A name that is never resolved: with the word it fails later, and says something else.
        let builder = || NatsBridge::builder("nats://127.0.0.1,nats://ada:hunter2@server.invalid");
        let refused = builder().connect().await.unwrap_err();
        assert!(
            refused.to_string().contains("at server.invalid would be spoken to without TLS"),
            "{refused}"
        );
        assert!(!format!("{refused:?}").contains("hunter2"));
        for allowed in [
            NatsBridge::builder("nats://server.invalid").unencrypted_to_other_machines(),
            NatsBridge::builder("nats://server.invalid").require_tls(),
            NatsBridge::builder("tls://server.invalid"),
        ] {
            let tried = allowed.connect().await.unwrap_err();
            assert!(tried.to_string().contains("connect to NATS failed"), "{tried}");
        }
    }

    #[tokio::test]
    async fn an_address_that_cannot_be_read_is_not_repeated() {
        let error = NatsBridge::connect("nats://ada:hunter2@[::1:bad").await.unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(!format!("{error} {error:?} {source}").contains("hunter2"));
    }
}
