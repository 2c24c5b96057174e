//! Calls and events of a test with more than their input.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use purista_core::contract::Command;
use purista_core::event::Event;
use purista_core::invoke_error::InvokeError;
use purista_events::store::EventStore;

use super::TestHost;

/// One call with more than its input; made by [`TestHost::call`].
#[derive(Debug)]
#[must_use = "a call does nothing until it is sent"]
pub struct TestCall<'h, S, C> {
    host: &'h TestHost<S>,
    command: C,
    principal: Option<Arc<str>>,
    tenant: Option<Arc<str>>,
    key: Option<Arc<str>>,
    timeout: Option<Duration>,
}

impl<'h, S: EventStore + Clone, C: Command> TestCall<'h, S, C> {
    pub(super) fn new(host: &'h TestHost<S>, command: C) -> Self {
        Self { host, command, principal: None, tenant: None, key: None, timeout: None }
    }

    /// The authenticated principal of the call.
    pub fn principal(mut self, id: impl Into<Arc<str>>) -> Self {
        self.principal = Some(id.into());
        self
    }

    /// The tenant of the call.
    pub fn tenant(mut self, id: impl Into<Arc<str>>) -> Self {
        self.tenant = Some(id.into());
        self
    }

    /// The idempotency key of the call: under one key a command does its work once.
    pub fn idempotency_key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The time limit of the call.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends the command, and waits until everything that it caused has settled.
    ///
    /// # Errors
    ///
    /// Returns the error of the command, as [`purista_core::client::Call::send`] does.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not stop the handler.
    pub async fn send(self) -> Result<C::Output, InvokeError> {
        let client = self.host.host().client();
        let mut call = client.call(self.command);
        if let Some(principal) = self.principal {
            call = call.principal(principal);
        }
        if let Some(tenant) = self.tenant {
            call = call.tenant(tenant);
        }
        if let Some(key) = self.key {
            call = call.idempotency_key(key);
        }
        if let Some(timeout) = self.timeout {
            call = call.timeout(timeout);
        }
        let result = call.send().await;
        self.host.settled().await;
        result
    }
}

/// One event from outside; made by [`TestHost::emit`].
#[derive(Debug)]
#[must_use = "an event is not emitted until it is awaited"]
pub struct TestEmit<'h, S, E: Event> {
    host: &'h TestHost<S>,
    event: E,
    tenant_id: Option<Arc<str>>,
    principal_id: Option<Arc<str>>,
}

impl<'h, S: EventStore + Clone, E: Event> TestEmit<'h, S, E> {
    pub(super) fn new(host: &'h TestHost<S>, event: E) -> Self {
        Self { host, event, tenant_id: None, principal_id: None }
    }

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

impl<'h, S: EventStore + Clone, E: Event> IntoFuture for TestEmit<'h, S, E> {
    type Output = Result<(), InvokeError>;
    type IntoFuture = LocalBoxFuture<'h, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let client = self.host.host().client();
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
