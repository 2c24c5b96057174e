//! The bridge in the process passes the suite, whether values go as they are or as bytes.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use purista_conformance::bridge::BridgeSystem;
use purista_core::bridge::EventBridge;
use purista_core::in_process::InProcessBridge;

/// A system of one process: every bridge of it is the same.
struct OneProcess(InProcessBridge);

impl BridgeSystem for OneProcess {
    fn bridge(&self) -> BoxFuture<'_, Arc<dyn EventBridge>> {
        let bridge: Arc<dyn EventBridge> = Arc::new(self.0.clone());
        Box::pin(std::future::ready(bridge))
    }
}

mod values_as_they_are {
    use super::*;

    purista_conformance::bridge_suite!(async { OneProcess(InProcessBridge::new()) });
}

mod values_as_bytes {
    use super::*;

    purista_conformance::bridge_suite!(async { OneProcess(InProcessBridge::always_encoding()) });
}
