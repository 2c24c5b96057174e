//! What runs services: it binds them to a bridge and a store, opens the doors, and drains everything in order.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use purista_core::address::{Address, AddressParts, ServiceId};
use purista_core::bridge::EventBridge;
use purista_core::catalogue::EventEntry;
use purista_core::client::{CALLS_IN_FLIGHT_DEFAULT, Client};
use purista_core::clock::Clock;
use purista_core::door::Door;
use purista_core::event::Event;
use purista_core::in_process::InProcessBridge;
use purista_core::store::{ConfigStore, Gate, SecretStore, StateStore};
use purista_events::projector::Projected;
use purista_events::store::EventStore;
use purista_events::upcast::Upcasters;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::gated::{GatedConfig, GatedSecrets};
use crate::idempotency::Running;
use crate::memory::{MemoryConfigStore, MemorySecretStore, MemoryStateStore};
use crate::observation::Observer;
use crate::recorder::Recorder;
use crate::runtime::Runtime;
use crate::service::Service;
use crate::settings::Settings;
use crate::state::StateBackend;

pub(crate) mod announcing;
mod byte_rules;
mod checks;
mod drain;
mod event_types;
mod health;
mod lagging;
mod running;
mod signals;
mod start;
mod store_peers;
pub(crate) mod supervisor;
mod trying_again;

pub use drain::{DrainReport, RunError};
pub use running::RunningHost;
pub use start::StartError;

/// How long a host takes to drain, unless it says otherwise.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);

const HOST: ServiceId = ServiceId::new("PuristaHost", "1");

/// How the host calls itself in the messages of its client.
static CLIENT: AddressParts = AddressParts::known(HOST, "client");

/// Runs services. It owns everything that it runs: two hosts fit in one process.
///
/// ```no_run
/// # async fn example(users: purista::service::Service) -> Result<(), Box<dyn std::error::Error>> {
/// use purista::host::Host;
///
/// Host::builder().service(users).start().await?.run().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Host;

impl Host {
    /// Begins a host: in-process bridge, no store, no service.
    pub fn builder() -> HostBuilder {
        HostBuilder {
            bridge: Arc::new(InProcessBridge::new()),
            store: None,
            upcasters: Upcasters::new(),
            state: None,
            config: (Arc::new(MemoryConfigStore::default()), Gate::READ_ONLY),
            secrets: (Arc::new(MemorySecretStore::default()), Gate::READ_ONLY),
            services: Vec::new(),
            projections: Vec::new(),
            doors: Vec::new(),
            clock: Clock::system(),
            observer: None,
            require_durable: false,
            read_by_views: Vec::new(),
            checks_event_types: true,
            allows_separate_stores: false,
            calls_in_flight: CALLS_IN_FLIGHT_DEFAULT,
            commands_in_flight: purista_core::subscription::IN_FLIGHT_DEFAULT,
            drain_timeout: DRAIN_TIMEOUT,
        }
    }
}

/// Builds a host; see [`Host::builder`].
#[must_use = "a host does nothing until it is started"]
pub struct HostBuilder {
    bridge: Arc<dyn EventBridge>,
    store: Option<Arc<dyn EventStore>>,
    upcasters: Upcasters,
    state: Option<Arc<dyn StateStore>>,
    config: (Arc<dyn ConfigStore>, Gate),
    secrets: (Arc<dyn SecretStore>, Gate),
    services: Vec<Service>,
    projections: Vec<Projected>,
    doors: Vec<Box<dyn Door>>,
    clock: Clock,
    observer: Option<Arc<dyn Observer>>,
    require_durable: bool,
    read_by_views: Vec<EventEntry>,
    checks_event_types: bool,
    allows_separate_stores: bool,
    calls_in_flight: usize,
    commands_in_flight: usize,
    drain_timeout: Duration,
}

impl HostBuilder {
    /// Carries messages over this bridge instead of the in-process one.
    pub fn bridge(mut self, bridge: impl EventBridge) -> Self {
        self.bridge = Arc::new(bridge);
        self
    }

    /// Keeps events, state, replies, progress and dead letters here. Without a store nothing is recorded.
    pub fn store(mut self, store: impl EventStore) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Reads events of older forms through these: in views, decisions and durable subscriptions, and in projections that were
    /// not given their own.
    pub fn upcasters(mut self, upcasters: Upcasters) -> Self {
        self.upcasters = upcasters;
        self
    }

    /// Declares an event type that only views read, so that the start does not warn of it.
    ///
    /// When a host with a store starts, it logs a warning for each stored event type that nothing registered reads or emits,
    /// and for each that its registered type cannot decode. Subscriptions, projections, decisions and declared emits are
    /// registered by themselves; views of `ctx.read` are not known before they run.
    pub fn reads<E: Event>(mut self) -> Self {
        self.read_by_views.push(EventEntry::of::<E>());
        self
    }

    /// Turns the warnings for stored event types off, as for a process that runs some of the services of a shared store; see
    /// [`HostBuilder::reads`].
    pub fn skip_event_type_check(mut self) -> Self {
        self.checks_event_types = false;
        self
    }

    /// Allows other processes to run the same services with stores of their own.
    ///
    /// By default processes that share a broker compare their stores. If two of them run a service with commands and their stores
    /// differ, both log a warning and are degraded, because each decides on a log of its own. Call this on all of them where
    /// that is intended, as for services whose commands decide nothing.
    pub fn allow_separate_stores(mut self) -> Self {
        self.allows_separate_stores = true;
        self
    }

    /// Keeps state here. Only for a host without a store, whose own table commits with the events.
    pub fn state_store(mut self, store: impl StateStore) -> Self {
        self.state = Some(Arc::new(store));
        self
    }

    /// Where handlers find configuration, and what they may do with it.
    pub fn config_store(mut self, store: impl ConfigStore, gate: Gate) -> Self {
        self.config = (Arc::new(store), gate);
        self
    }

    /// Where handlers find secrets, and what they may do with them.
    pub fn secret_store(mut self, store: impl SecretStore, gate: Gate) -> Self {
        self.secrets = (Arc::new(store), gate);
        self
    }

    /// Runs a service.
    pub fn service(mut self, service: Service) -> Self {
        self.services.push(service);
        self
    }

    /// Follows the log into a read model: `store.projected(..)` of the store that the host is given.
    pub fn projection(mut self, projected: Projected) -> Self {
        self.projections.push(projected);
        self
    }

    /// Opens a door to the outside when the services are ready.
    pub fn door(mut self, door: impl Door) -> Self {
        self.doors.push(Box::new(door));
        self
    }

    /// Takes what a file and the environment say; handlers read its values as configuration, and may not change them.
    pub fn settings(mut self, settings: &Settings) -> Self {
        let host = &settings.host;
        self.drain_timeout = settings.drain_timeout().unwrap_or(self.drain_timeout);
        self.calls_in_flight = host.calls_in_flight.unwrap_or(self.calls_in_flight);
        self.commands_in_flight = host.commands_in_flight.unwrap_or(self.commands_in_flight);
        self.require_durable |= host.require_durable;
        self.config_store(settings.config_store(), Gate::READ_ONLY)
    }

    /// Takes time of day and randomness from here.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Refuses to start where a durable subscription would miss what other processes emit.
    pub fn require_durable(mut self) -> Self {
        self.require_durable = true;
        self
    }

    /// How many calls that enter through the host's client are under way at a time.
    pub fn calls_in_flight(mut self, calls: usize) -> Self {
        self.calls_in_flight = calls;
        self
    }

    /// How many calls of one command a broker may hand over at a time.
    pub fn commands_in_flight(mut self, calls: usize) -> Self {
        self.commands_in_flight = calls;
        self
    }

    /// How long [`RunningHost::stop`] waits for what is under way.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    #[cfg(feature = "testing")]
    pub(crate) fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    #[cfg(feature = "testing")]
    pub(crate) fn shared_bridge(mut self, bridge: Arc<dyn EventBridge>) -> Self {
        self.bridge = bridge;
        self
    }

    /// Checks everything, then starts it. From its return on commands are answered, subscriptions are fed, doors are open.
    ///
    /// It refuses, naming each place and its remedy, what bridge or store cannot do, names that are used twice, and routes
    /// that are equal. After a refusal nothing runs.
    #[expect(
        clippy::manual_async_fn,
        reason = "the future is named `Send` here, so that the error is shown here"
    )]
    pub fn start(self) -> impl Future<Output = Result<RunningHost, StartError>> + Send {
        async move { start::start(self).instrument(tracing::debug_span!("purista.start")).await }
    }

    fn runtime(&self, stop: &CancellationToken) -> Arc<Runtime> {
        let (clock, bridge) = (self.clock.clone(), Arc::clone(&self.bridge));
        let sender = Address::known(&CLIENT);
        let state = match &self.store {
            Some(store) => StateBackend::Events(Arc::clone(store)),
            None => StateBackend::Apart(
                self.state.clone().unwrap_or_else(|| Arc::new(MemoryStateStore::default())),
            ),
        };
        let mut client = Client::new(Arc::clone(&bridge), sender, clock.clone(), self.calls_in_flight);
        if let Some(store) = &self.store {
            let (store, bridge, clock) = (Arc::clone(store), Arc::clone(&bridge), clock.clone());
            client = client.recording(Arc::new(Recorder { store, bridge, clock }));
        }
        Arc::new(Runtime {
            client,
            instance: bridge.instance(),
            derives_keys: self.store.is_some() || !bridge.capabilities().is_local,
            bridge,
            clock,
            store: self.store.clone(),
            upcasters: self.upcasters.clone(),
            state,
            config: GatedConfig::new(Arc::clone(&self.config.0), self.config.1),
            secrets: GatedSecrets::new(Arc::clone(&self.secrets.0), self.secrets.1),
            stop: stop.clone(),
            tasks: TaskTracker::new(),
            running: Running::default(),
            relays_to_shared: true.into(),
            observer: self.observer.clone(),
        })
    }
}

impl fmt::Debug for HostBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostBuilder").field("services", &self.services).finish_non_exhaustive()
    }
}
