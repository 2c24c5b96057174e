//! Tests of services on the real dispatch path: real bridge, real log in memory, time that is the test's.
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

use futures_util::future::LocalBoxFuture;
use jiff::Timestamp;
use purista_core::clock::Clock;
use purista_core::contract::Command;
use purista_core::event::Event;
use purista_core::in_process::InProcessBridge;
use purista_core::invoke_error::InvokeError;
use purista_events::memory::MemoryStore;
use purista_events::store::EventStore;
use serde::de::DeserializeOwned;

use crate::host::{DrainReport, Host, HostBuilder, RunningHost};
use crate::observation::{Ending, Observation, Observer};
use crate::service::Service;

mod given;
mod settling;

pub use given::{Given, Then, given};
use settling::SettlingBridge;

/// The time of day at which every test begins.
pub const TEST_BEGINS: Timestamp = Timestamp::constant(1_767_225_600, 0); // 2026-01-01T00:00:00Z

/// A host under test: the memory store, the in-process bridge, and paused time.
///
/// `invoke` and `emit` return when everything that they caused has settled: every subscription that heard of it, and all
/// that followed. Time is paused and moves by itself when nothing else is to be done, so a retry in ten minutes passes at
/// once. It needs tokio's current-thread runtime, which `#[tokio::test]` gives.
pub struct TestHost {
    host: RunningHost,
    store: MemoryStore,
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
            store: None,
            always_encodes: false,
            configure: Box::new(|host| host),
        }
    }

    /// Asks, and waits until everything that it caused has settled.
    pub async fn invoke<C: Command>(&self, command: C) -> Result<C::Output, InvokeError> {
        let result = self.host.client().invoke(command).await;
        self.settled().await;
        result
    }

    /// Asks under an idempotency key, and waits until everything that it caused has settled.
    pub async fn invoke_with_key<C: Command>(&self, command: C, key: &str) -> Result<C::Output, InvokeError> {
        let result = self.host.client().call(command).idempotency_key(key).send().await;
        self.settled().await;
        result
    }

    /// Emits from outside like [`purista_core::client::Client::emit`], and waits until everything that it caused has settled.
    /// A tenant and a principal can be given before it is awaited.
    pub fn emit<E: Event>(&self, event: E) -> TestEmit<'_, E> {
        TestEmit { host: self, event, tenant_id: None, principal_id: None }
    }

    /// Lets this much of the test's time pass, and runs whatever becomes due in it. It takes no real time.
    pub async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Waits until nothing is under way or parked, retries in the future included; a paused subscription counts as settled.
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
    pub fn store(&self) -> &MemoryStore {
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
    pub async fn stop(self) -> (DrainReport, MemoryStore) {
        let report = self.host.stop().await;
        (report, self.store)
    }
}

/// One event from outside; made by [`TestHost::emit`].
#[derive(Debug)]
#[must_use = "an event is not emitted until it is awaited"]
pub struct TestEmit<'h, E: Event> {
    host: &'h TestHost,
    event: E,
    tenant_id: Option<Arc<str>>,
    principal_id: Option<Arc<str>>,
}

impl<E: Event> TestEmit<'_, E> {
    /// The tenant.
    pub fn tenant(mut self, id: impl Into<Arc<str>>) -> Self {
        self.tenant_id = Some(id.into());
        self
    }

    /// The authenticated principal.
    pub fn principal(mut self, id: impl Into<Arc<str>>) -> Self {
        self.principal_id = Some(id.into());
        self
    }
}

impl<'h, E: Event> IntoFuture for TestEmit<'h, E> {
    type Output = Result<(), InvokeError>;
    type IntoFuture = LocalBoxFuture<'h, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let client = self.host.host.client();
            let mut emit = client.emit(self.event);
            if let Some(tenant) = self.tenant_id {
                emit = emit.tenant(tenant);
            }
            if let Some(principal) = self.principal_id {
                emit = emit.principal(principal);
            }
            let result = emit.send().await;
            self.host.settled().await;
            result
        })
    }
}

impl fmt::Debug for TestHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestHost").field("host", &self.host).finish_non_exhaustive()
    }
}

/// Builds a [`TestHost`].
#[must_use = "a host does nothing until it is started"]
pub struct TestHostBuilder {
    services: Vec<Service>,
    store: Option<MemoryStore>,
    always_encodes: bool,
    configure: Box<dyn FnOnce(HostBuilder) -> HostBuilder>,
}

impl TestHostBuilder {
    /// Runs these services.
    pub fn services(mut self, services: impl IntoIterator<Item = Service>) -> Self {
        self.services.extend(services);
        self
    }

    /// Goes on with what an earlier host left: a restart.
    pub fn store(mut self, store: MemoryStore) -> Self {
        self.store = Some(store);
        self
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

    /// Pauses time and starts.
    ///
    /// # Panics
    ///
    /// When the host refuses to start, with its reasons; and outside of a current-thread runtime.
    pub async fn start(self) -> TestHost {
        match self.try_start().await {
            Ok(host) => host,
            Err(error) => panic!("{error}"),
        }
    }

    /// Pauses time and starts; a refusal is returned.
    ///
    /// # Panics
    ///
    /// Outside of a current-thread runtime.
    pub async fn try_start(self) -> Result<TestHost, crate::host::StartError> {
        pause_time();
        let clock = Clock::follows_tokio(TEST_BEGINS, 1);
        let store = self.store.map_or_else(|| MemoryStore::new(clock.clone()), |store| store.reopen());
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

impl fmt::Debug for TestHostBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestHostBuilder").field("services", &self.services).finish_non_exhaustive()
    }
}

/// Time may be paused already, by the test itself or by a host before this one.
fn pause_time() {
    thread_local! {
        static PAUSED: std::cell::Cell<Option<tokio::runtime::Id>> = const { std::cell::Cell::new(None) };
    }
    let runtime = tokio::runtime::Handle::current().id();
    if PAUSED.replace(Some(runtime)) != Some(runtime) {
        // It panics when the test paused time before; then there is nothing left to do.
        let _ = std::panic::catch_unwind(tokio::time::pause);
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
