//! Tests of services on the real dispatch path: the in-process bridge, a store in memory or any other, and time that the test
//! controls or real time.
//!
//! ```
//! # use purista::{command, Command, Context, HandlerError, Service, ServiceId};
//! # use garde::Validate; use schemars::JsonSchema; use serde::{Deserialize, Serialize};
//! # const MATH: ServiceId = ServiceId::new("Math", "1");
//! # #[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)]
//! # #[garde(allow_unvalidated)]
//! # struct Double { n: i64 }
//! # impl Command for Double {
//! #     const SERVICE: ServiceId = MATH; const NAME: &'static str = "double"; type Output = Doubled;
//! # }
//! # #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
//! # #[garde(allow_unvalidated)]
//! # struct Doubled { n: i64 }
//! # async fn double(_: Context<()>, c: Double) -> Result<Doubled, HandlerError> { Ok(Doubled { n: 2 * c.n }) }
//! use purista::testing::TestHost;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let math = Service::builder(MATH, "Arithmetic", ()).command(command(double)).build();
//! let host = TestHost::start([math]).await;
//! assert_eq!(host.invoke(Double { n: 21 }).await.unwrap(), Doubled { n: 42 });
//! # }
//! ```

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use purista_core::clock::Clock;
use purista_core::contract::Command;
use purista_core::event::Event;
use purista_core::in_process::InProcessBridge;
use purista_core::invoke_error::InvokeError;
use purista_events::memory::MemoryStore;
use purista_events::projector::Condition;
use purista_events::store::EventStore;
use serde::de::DeserializeOwned;

use crate::host::{DrainReport, Host, HostBuilder, RunningHost};
use crate::observation::{Ending, Observation, Observer};
use crate::service::Service;

mod call;
mod given;
mod settling;
mod time;

pub use call::{TestCall, TestEmit};
pub use given::{Given, Then, given};
use settling::SettlingBridge;

/// The longest time that [`TestHost::settled`] waits for one projection: a year, which paused time passes at once.
const PROJECTION_TIME_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The time of day at which every test begins, unless it runs in real time.
pub const TEST_BEGINS: Timestamp = Timestamp::constant(1_767_225_600, 0); // 2026-01-01T00:00:00Z

/// A host under test: by default with the memory store, the in-process bridge and paused time.
///
/// `invoke` and `emit` return when everything that they caused has settled: each subscription that handles it, everything that
/// these cause in turn, and each running projection. Time is paused and advances by itself when no task has work, so a retry in
/// ten minutes takes no real time. Paused time needs tokio's current-thread runtime, which `#[tokio::test]` gives.
///
/// Paused time advances past every time limit while a handler waits for something outside of tokio's timers, such as a socket or
/// another thread. A test of such a handler asks for [`TestHostBuilder::real_time`]; a test with another store, as of a
/// projection into SQL tables, gives it to [`TestHostBuilder::on_store`], which implies real time.
pub struct TestHost<S = MemoryStore> {
    host: RunningHost,
    store: S,
    bridge: Arc<SettlingBridge>,
    log: Arc<Log>,
}

impl TestHost {
    /// Starts these services.
    ///
    /// # Panics
    ///
    /// When the host refuses to start, with its reasons; and outside of a current-thread runtime.
    pub async fn start(services: impl IntoIterator<Item = Service>) -> Self {
        Self::builder().services(services).start().await
    }

    /// Begins a host with more than services.
    pub fn builder() -> TestHostBuilder {
        TestHostBuilder {
            services: Vec::new(),
            open: Box::new(|clock| MemoryStore::new(clock.clone())),
            is_real_time: false,
            always_encodes: false,
            configure: Box::new(|host| host),
        }
    }
}

impl<S: EventStore + Clone> TestHost<S> {
    /// Asks, and waits until everything that it caused has settled.
    pub async fn invoke<C: Command>(&self, command: C) -> Result<C::Output, InvokeError> {
        let result = self.host.client().invoke(command).await;
        self.settled().await;
        result
    }

    /// Asks under an idempotency key, and waits until everything that it caused has settled.
    pub async fn invoke_with_key<C: Command>(&self, command: C, key: &str) -> Result<C::Output, InvokeError> {
        self.call(command).idempotency_key(key).send().await
    }

    /// A call with a principal, a tenant, an idempotency key or a timeout.
    pub fn call<C: Command>(&self, command: C) -> TestCall<'_, S, C> {
        TestCall::new(self, command)
    }

    /// Emits from outside like [`purista_core::client::Client::emit`], and waits until everything that it caused has settled.
    /// A tenant and a principal can be given before it is awaited.
    pub fn emit<E: Event>(&self, event: E) -> TestEmit<'_, S, E> {
        TestEmit::new(self, event)
    }

    /// Lets this much of the test's time pass, and runs what becomes due in it. Takes no real time, unless the host runs in
    /// real time.
    pub async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Waits until no message is in flight or deferred, retries in the future included, and until each running projection
    /// includes the last event. A paused subscription or projection counts as settled.
    pub async fn settled(&self) {
        loop {
            let head = *self.store.head().borrow();
            let mut relayed = self.host.relayed();
            // An error would mean that the relay has ended, and with it everything that could be waited for.
            let _ = relayed.wait_for(|place| *place >= head).await;
            for durable in self.host.durables() {
                let mut settled = durable.settled_up_to.subscribe();
                let _ = settled
                    .wait_for(|place| place.is_some_and(|place| place >= head) || durable.is_idle())
                    .await;
            }
            self.bridge.settled().await;
            for projection in self.host.projections() {
                let mut states = projection.states();
                tokio::select! {
                    // The time limit is one that no test reaches: a projection that stops is seen below.
                    _ = projection.reached(head, PROJECTION_TIME_MAX) => {}
                    _ = states.wait_for(|state| state.condition != Condition::Running) => {}
                }
            }
            let is_quiet = self.host.durables().iter().all(|durable| durable.is_settled_at(head));
            if is_quiet && *self.store.head().borrow() == head && self.bridge.is_settled() {
                return;
            }
        }
    }

    /// Everything that handlers did, in the order in which it was settled.
    pub fn observations(&self) -> Vec<Observation> {
        self.log.entries()
    }

    /// What one handler did, by its name as `sendWelcomeEmail`.
    pub fn handled(&self, name: &str) -> Vec<Observation> {
        self.log.entries().into_iter().filter(|entry| entry.handler.target() == name).collect()
    }

    /// What one handler saw, decoded.
    ///
    /// # Panics
    ///
    /// When it saw something of another form.
    #[expect(clippy::expect_used, reason = "a test ends here")]
    pub fn saw<T: DeserializeOwned>(&self, name: &str) -> Vec<T> {
        let seen = self.handled(name).into_iter();
        seen.map(|entry| {
            serde_json::from_slice(&entry.input).expect("the handler saw something of another form")
        })
        .collect()
    }

    /// How the deliveries to one handler ended, in order.
    pub fn endings(&self, name: &str) -> Vec<Ending> {
        self.handled(name).into_iter().map(|entry| entry.ending).collect()
    }

    /// The events of one type that left, decoded, in order.
    ///
    /// # Panics
    ///
    /// When one has another form than `E`.
    #[expect(clippy::expect_used, reason = "a test ends here")]
    pub fn emitted<E: Event>(&self) -> Vec<E> {
        let left = self
            .log
            .entries()
            .into_iter()
            .flat_map(|entry| entry.emitted)
            .filter(|(name, _)| name == E::NAME);
        left.map(|(_, json)| E::decode(&json).expect("an event of this name has another form")).collect()
    }

    /// The store, to look into or to make fail.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The host itself.
    pub fn host(&self) -> &RunningHost {
        &self.host
    }

    /// The time of day in the test.
    pub fn now(&self) -> Timestamp {
        self.host.runtime().clock.now()
    }

    /// Stops in order; the store keeps what it has, for a next host.
    pub async fn stop(self) -> (DrainReport, S) {
        let report = self.host.stop().await;
        (report, self.store)
    }
}

impl<S> fmt::Debug for TestHost<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestHost").field("host", &self.host).finish_non_exhaustive()
    }
}

/// Builds a [`TestHost`].
#[must_use = "a host does nothing until it is started"]
pub struct TestHostBuilder<S = MemoryStore> {
    services: Vec<Service>,
    open: Box<dyn FnOnce(&Clock) -> S>,
    is_real_time: bool,
    always_encodes: bool,
    configure: Box<dyn FnOnce(HostBuilder) -> HostBuilder>,
}

impl TestHostBuilder {
    /// Continues with what an earlier host stored: a restart.
    pub fn store(mut self, store: MemoryStore) -> Self {
        self.open = Box::new(move |_| store.reopen());
        self
    }
}

impl<S: EventStore + Clone> TestHostBuilder<S> {
    /// Runs these services.
    pub fn services(mut self, services: impl IntoIterator<Item = Service>) -> Self {
        self.services.extend(services);
        self
    }

    /// Runs in real time, on the machine's clock: for handlers that use sockets, files or threads.
    ///
    /// Retries then take as long as they say; shorten them in the test. Time that the test paused is resumed.
    pub fn real_time(mut self) -> Self {
        self.is_real_time = true;
        self
    }

    /// Runs on this store, such as a `SqliteStore` whose tables a projection fills, in real time: a store works on threads or
    /// over a connection, which paused time does not wait for.
    pub fn on_store<T: EventStore + Clone>(self, store: T) -> TestHostBuilder<T> {
        let Self { services, open: _, is_real_time: _, always_encodes, configure } = self;
        TestHostBuilder {
            services,
            open: Box::new(move |_| store),
            is_real_time: true,
            always_encodes,
            configure,
        }
    }

    /// Encodes every payload, as a broker does.
    pub fn always_encoding(mut self) -> Self {
        self.always_encodes = true;
        self
    }

    /// Changes the host, as to give it configuration.
    pub fn configure(mut self, configure: impl FnOnce(HostBuilder) -> HostBuilder + 'static) -> Self {
        self.configure = Box::new(configure);
        self
    }

    /// Pauses time, unless real time was asked for, and starts.
    ///
    /// # Panics
    ///
    /// When the host refuses to start, with its reasons; and under paused time outside of a current-thread runtime.
    pub async fn start(self) -> TestHost<S> {
        match self.try_start().await {
            Ok(host) => host,
            Err(error) => panic!("{error}"),
        }
    }

    /// Pauses time, unless real time was asked for, and starts; an error of the start is returned.
    ///
    /// # Errors
    ///
    /// Returns why the host does not start.
    ///
    /// # Panics
    ///
    /// Under paused time, outside of a current-thread runtime.
    pub async fn try_start(self) -> Result<TestHost<S>, crate::host::StartError> {
        let clock = if self.is_real_time {
            time::resume();
            Clock::system()
        } else {
            time::pause();
            Clock::follows_tokio(TEST_BEGINS, 1)
        };
        let store = (self.open)(&clock);
        let bridge =
            if self.always_encodes { InProcessBridge::always_encoding() } else { InProcessBridge::new() };
        let bridge = Arc::new(SettlingBridge::new(bridge));
        let log = Arc::new(Log::default());
        let builder =
            Host::builder().clock(clock).store(store.clone()).observer(Arc::clone(&log) as Arc<dyn Observer>);
        let builder =
            builder.shared_bridge(Arc::clone(&bridge) as Arc<dyn purista_core::bridge::EventBridge>);
        let builder = self.services.into_iter().fold((self.configure)(builder), HostBuilder::service);
        Ok(TestHost { host: builder.start().await?, store, bridge, log })
    }
}

impl<S> fmt::Debug for TestHostBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestHostBuilder").field("services", &self.services).finish_non_exhaustive()
    }
}

/// The observations of one host.
#[derive(Default)]
struct Log(Mutex<Vec<Observation>>);

impl Log {
    fn entries(&self) -> Vec<Observation> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Observer for Log {
    fn settled(&self, observation: Observation) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(observation);
    }
}
