//! What every handler of one host shares: the client, the stores, the clock.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use purista_core::bridge::{Capabilities, EventBridge};
use purista_core::client::Client;
use purista_core::clock::Clock;
use purista_core::id::Id;
use purista_core::payload::ENVELOPE_BYTES;
use purista_core::recording::RecordError;
use purista_events::store::EventStore;
use purista_events::upcast::Upcasters;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::gated::{GatedConfig, GatedSecrets};
use crate::idempotency::Running;
use crate::observation::Observer;
use crate::state::StateBackend;

impl Runtime {
    /// Refuses an event whose message the bridge does not carry: its command fails, and not the relay after it. A small one
    /// is carried by every broker, so nothing is asked for it.
    pub(crate) fn check_carried(&self, event: &'static str, bytes: usize) -> Result<(), RecordError> {
        check_carried(&*self.bridge, event, bytes)
    }
}

pub(crate) fn check_carried(
    bridge: &dyn EventBridge,
    event: &'static str,
    bytes: usize,
) -> Result<(), RecordError> {
    if bytes <= ENVELOPE_BYTES {
        return Ok(());
    }
    // The limit can change with each connection.
    let Capabilities { is_local, message_bytes_max: most, name, .. } = bridge.capabilities();
    if is_local || bytes.saturating_add(ENVELOPE_BYTES) <= most {
        return Ok(());
    }
    Err(RecordError::not_carried(event, bytes, most, name))
}

/// What handlers share. One a host; nothing of it is global, so that two hosts fit in one test.
pub(crate) struct Runtime {
    pub(crate) client: Client,
    pub(crate) bridge: Arc<dyn EventBridge>,
    pub(crate) clock: Clock,
    pub(crate) instance: Id,
    pub(crate) store: Option<Arc<dyn EventStore>>,
    pub(crate) state: StateBackend,
    /// How events of older forms are read.
    pub(crate) upcasters: Upcasters,
    pub(crate) config: GatedConfig,
    pub(crate) secrets: GatedSecrets,
    /// Cancelled when the host stops: handlers that wait for something endless listen to it.
    pub(crate) stop: CancellationToken,
    /// What runs beside handlers; the host waits for it when it stops.
    pub(crate) tasks: TaskTracker,
    /// Keyed commands under way in this process.
    pub(crate) running: Running,
    /// Told of everything that a handler did; tests set it.
    pub(crate) observer: Option<Arc<dyn Observer>>,
    /// Whether listeners that share their messages hear in this process what the relay brings over a bridge within it: among
    /// processes that share a store, one at a time does.
    pub(crate) relays_to_shared: AtomicBool,
    /// Whether an invoke needs a key of its own: somebody it reaches may keep a store.
    pub(crate) derives_keys: bool,
}
