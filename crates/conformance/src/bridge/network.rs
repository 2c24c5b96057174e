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
    /// The system's server, and the way to it. `None` where there is none, which only a bridge may say whose peers are all in
    /// one process.
    pub async fn of(world: &World) -> Option<Self> {
        Self::reached(world, world.system().outages().await).await
    }

    /// The same with a server that nobody else uses.
    pub async fn alone(world: &World) -> Option<Self> {
        Self::reached(world, world.system().outages_alone().await).await
    }

    async fn reached(world: &World, outages: Option<Arc<dyn Outages>>) -> Option<Self> {
        let Some(outages) = outages else {
            let promised = world.capabilities().await;
            assert!(promised.is_local, "{} has a server: let its system say `outages`", promised.name);
            return None;
        };
        let proxy = Arc::new(Proxy::start(outages.port()).await);
        world.keep_network(Arc::clone(&outages), Arc::clone(&proxy));
        Some(Self { outages, proxy })
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
