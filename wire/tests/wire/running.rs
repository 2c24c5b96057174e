//! Hosts that run the services, and a caller.

use std::sync::Arc;

use purista::{Host, HostBuilder, RunningHost, ServiceId};
use purista_core::address::Address;
use purista_core::client::{CALLS_IN_FLIGHT_DEFAULT, Client};
use purista_core::clock::Clock;
use serde_json::Value;

use crate::carrier::{Bridge, Carrier, Tap};
use crate::services;

const CALLER: ServiceId = ServiceId::new("Caller", "1");

/// User and Email in hosts of their own, beside a caller and a tap.
pub(crate) struct Running<C> {
    pub(crate) carrier: C,
    pub(crate) tap: Tap,
    /// What the bridge of User counts.
    pub(crate) serving: Bridge,
    pub(crate) user: RunningHost,
    pub(crate) email: RunningHost,
    pub(crate) caller: Bridge,
    pub(crate) client: Client,
}

impl<C: Carrier> Running<C> {
    /// Starts them one after the other; what they told of it waits at the tap.
    pub(crate) async fn start() -> Self {
        Self::start_with(|user| user, |email| email).await
    }

    /// The same where nobody listens to what is not for him: a broker says at once what nobody serves.
    pub(crate) async fn untapped() -> Self {
        let carrier = C::start().await;
        Self::start_on(carrier, Tap::deaf(), |user| user, |email| email).await
    }

    /// The same with stores, as far as these give them.
    pub(crate) async fn start_with(
        of_user: impl FnOnce(HostBuilder) -> HostBuilder,
        of_email: impl FnOnce(HostBuilder) -> HostBuilder,
    ) -> Self {
        let carrier = C::start().await;
        let tap = carrier.tap().await;
        Self::start_on(carrier, tap, of_user, of_email).await
    }

    async fn start_on(
        carrier: C,
        tap: Tap,
        of_user: impl FnOnce(HostBuilder) -> HostBuilder,
        of_email: impl FnOnce(HostBuilder) -> HostBuilder,
    ) -> Self {
        let serving = carrier.bridge("userInstance1").await;
        let user = of_user(Host::builder().bridge(serving.clone()).service(services::user()));
        let user = user.start().await.unwrap();
        let email = Host::builder().bridge(carrier.bridge("emailInstance1").await);
        let email = of_email(email.service(services::email())).start().await.unwrap();
        let caller = carrier.bridge("callerInstance1").await;
        let client = client(&caller);
        Self { carrier, tap, serving, user, email, caller, client }
    }

    /// The same when all that they told of their start has passed the tap.
    pub(crate) async fn ready() -> Self {
        let mut running = Self::start().await;
        running.told_at_start().await;
        running
    }

    pub(crate) async fn told_at_start(&mut self) -> Vec<Value> {
        let mut ready = 0;
        let told = self.tap.until(|message| {
            ready += usize::from(message["body"]["messageType"] == "infoServiceReady");
            ready == 2
        });
        told.await
    }
}

/// A client that calls itself what the captured caller does.
pub(crate) fn client(caller: &Bridge) -> Client {
    let sender = Address::of(CALLER, "main");
    Client::new(Arc::clone(&caller.inner), sender, Clock::system(), CALLS_IN_FLIGHT_DEFAULT)
}
