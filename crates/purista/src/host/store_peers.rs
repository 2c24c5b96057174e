//! Finds other processes that run the same service with another store.
//!
//! The processes of a service compete for its commands. If their stores differ, each decides on a log of its own, so that a
//! rule such as "each e-mail address once" holds per process only. The ready message of a service that has commands therefore
//! carries the id of the store, as the extra key `origin`. Each process compares what it receives with its own, logs a warning
//! once per peer, and is degraded while the peer is there.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use purista_core::address::{Address, AddressParts, ServiceId};
use purista_core::bridge::{BridgeError, Consumer, Delivery, Outcome, Registration};
use purista_core::health::{Condition, PartHealth};
use purista_core::message::{Message, MessageType};
use purista_core::subscription::{Filter, Sharing, Subscription};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{HOST, announcing};
use crate::runtime::Runtime;

/// How often each service announces its store again, for peers that missed a message.
const ANNOUNCED_EVERY: Duration = Duration::from_secs(60);

/// How long after its last announcement a peer counts as gone.
const EXPIRES_AFTER: Duration = Duration::from_secs(3 * 60);

/// The most peers that are remembered; further ones are ignored until one expires.
const PEERS_MAX: usize = 64;

/// The most announcements that are handled at a time.
const IN_FLIGHT: usize = 4;

static ADDRESS: AddressParts = AddressParts::known(HOST, "storePeers");

/// Peers that run a service of this host with another store.
pub(super) struct StorePeers {
    runtime: Arc<Runtime>,
    store_id: Arc<str>,
    /// The services of this host that have commands.
    services: Vec<ServiceId>,
    peers: Mutex<BTreeMap<(ServiceId, String), Instant>>,
}

impl StorePeers {
    /// `None` if no other process can be there, or nothing is decided on a store here.
    pub(super) fn new(runtime: &Arc<Runtime>, services: Vec<ServiceId>) -> Option<Arc<Self>> {
        if services.is_empty() || runtime.bridge.capabilities().is_local {
            return None;
        }
        let store_id = runtime.store.as_ref()?.origin();
        let runtime = Arc::clone(runtime);
        Some(Arc::new(Self { runtime, store_id, services, peers: Mutex::default() }))
    }

    /// Receives the announcements of other processes from now on.
    pub(super) async fn subscribe(self: &Arc<Self>) -> Result<Registration, BridgeError> {
        let subscription = Subscription {
            address: Address::known(&ADDRESS),
            filter: Filter { kind: Some(MessageType::InfoServiceReady), ..Filter::default() },
            sharing: Sharing::EveryInstance,
            durable: false,
            from_start: false,
            in_flight: IN_FLIGHT,
            answers: false,
        };
        self.runtime.bridge.subscribe(subscription, Arc::new(Receiver(Arc::clone(self)))).await
    }

    /// The store that a service announces, if it has commands.
    pub(super) fn store_of(&self, service: ServiceId) -> Option<Arc<str>> {
        self.services.contains(&service).then(|| Arc::clone(&self.store_id))
    }

    /// Announces the store at regular intervals until it is stopped.
    pub(super) async fn announce(self: Arc<Self>, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(ANNOUNCED_EVERY)).await.is_some() {
            for service in &self.services {
                announcing::ready(&self.runtime, *service, self.store_of(*service)).await;
            }
        }
    }

    /// Degraded while a peer with another store is there; `None` without one.
    pub(super) fn health(&self) -> Option<PartHealth> {
        let peers = self.live();
        let ((service, instance), _) = peers.first_key_value()?;
        let more = match peers.len() {
            1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        Some(PartHealth {
            name: "store peers".to_owned(),
            condition: Condition::Degraded,
            detail: Some(format!(
                "the service {service} is also run by the instance {instance}{more} with another store: its commands are split \
                 between two logs"
            )),
            events_behind: None,
        })
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<(ServiceId, String), Instant>> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|_, seen| seen.elapsed() < EXPIRES_AFTER);
        peers
    }

    /// Notes the sender of an announcement; the service, if a peer with another store is new.
    fn note(&self, message: &Message) -> Option<ServiceId> {
        let store_id = message.record.as_ref()?.origin.as_ref()?;
        let address = &message.sender.address;
        let is_same = |service: &&ServiceId| {
            service.name() == address.service() && service.version() == address.version()
        };
        let service = *self.services.iter().find(is_same)?;
        if *store_id == self.store_id {
            return None;
        }
        let instance = message.sender.instance.as_ref().map(ToString::to_string).unwrap_or_default();
        let mut peers = self.live();
        let (key, is_full) = ((service, instance), peers.len() >= PEERS_MAX);
        match peers.get_mut(&key) {
            Some(seen) => {
                *seen = Instant::now();
                None
            }
            None if is_full => None,
            None => {
                tracing::warn!(
                    service = %key.0,
                    instance = key.1,
                    store = %store_id,
                    own_store = %self.store_id,
                    "another process runs this service with another store: commands are split between two logs, and a rule over \
                     events holds in each of them only; give all processes of a service one store"
                );
                peers.insert(key, Instant::now());
                Some(service)
            }
        }
    }
}

impl fmt::Debug for StorePeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StorePeers").field("services", &self.services).finish_non_exhaustive()
    }
}

struct Receiver(Arc<StorePeers>);

impl Consumer for Receiver {
    fn consume(&self, delivery: Delivery) -> BoxFuture<'static, Outcome> {
        let peers = Arc::clone(&self.0);
        Box::pin(async move {
            // A peer that started later has not received the first announcement. It answers in turn only if this process is
            // new to it, so the exchange ends.
            if let Some(service) = peers.note(&delivery.message) {
                announcing::ready(&peers.runtime, service, peers.store_of(service)).await;
            }
            Outcome::Ack
        })
    }
}
