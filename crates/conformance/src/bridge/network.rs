//! The way between the processes of a system and their server, with a proxy on it.

use std::sync::Arc;
use std::time::Duration;

use purista_core::bridge::{BridgeState, EventBridge};

use super::Outages;
use super::world::{PATIENCE, World};
use crate::proxy::Proxy;

/// A server, and the proxy in front of it. Clones are the same.
#[derive(Clone)]
pub struct Network {
    outages: Arc<dyn Outages>,
    proxy: Arc<Proxy>,
}

impl Network {
    pub(super) async fn new(outages: Arc<dyn Outages>) -> Self {
        let proxy = Arc::new(Proxy::start(outages.port()).await);
        Self { outages, proxy }
    }

    /// What stands between the server and those that go through it.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// The server.
    pub fn server(&self) -> &dyn Outages {
        &*self.outages
    }

    /// One more process, behind the proxy.
    pub async fn bridge(&self, world: &World, name: &str) -> Arc<dyn EventBridge> {
        world.keep(self.outages.bridge(self.proxy.port(), name).await)
    }

    /// The same for durable subscriptions.
    pub async fn durable_bridge(&self, world: &World, name: &str) -> Arc<dyn EventBridge> {
        world.keep(self.outages.durable_bridge(self.proxy.port(), name).await)
    }

    /// One more process, which the proxy does not disturb.
    pub async fn direct(&self, world: &World, name: &str) -> Arc<dyn EventBridge> {
        world.keep(self.outages.bridge(self.outages.port(), name).await)
    }

    /// Waits until so many connections go through the proxy.
    pub async fn until_open(&self, wanted: usize) {
        let reached = async {
            while self.proxy.open() != wanted {
                tokio::task::yield_now().await;
            }
        };
        let open = tokio::time::timeout(PATIENCE, reached).await;
        open.unwrap_or_else(|_| panic!("{} connections instead of {wanted}", self.proxy.open()));
    }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

/// Waits until a bridge says so of itself.
pub async fn until(bridge: &Arc<dyn EventBridge>, wanted: BridgeState) {
    until_within(bridge, wanted, PATIENCE).await;
}

/// The same within a time.
pub async fn until_within(bridge: &Arc<dyn EventBridge>, wanted: BridgeState, within: Duration) {
    let mut state = bridge.state();
    let waiting = tokio::time::timeout(within, state.wait_for(|state| *state == wanted)).await;
    let reached = waiting.unwrap_or_else(|_| panic!("it is not {wanted:?} within {within:?}"));
    reached.expect("the bridge lives");
}
