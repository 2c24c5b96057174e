//! How a host is, part by part.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use purista_core::bridge::BridgeState;
use purista_core::catalogue::Catalogue;
use purista_core::health::{Condition, Health, HealthReport, PartHealth};

use crate::durable::{DurableControl, DurableState, PARKED_MAX};
use crate::runtime::Runtime;

/// Asks the parts each time. Cheap to clone.
#[derive(Clone)]
pub(super) struct HostHealth(Arc<Inner>);

struct Inner {
    is_ready: AtomicBool,
    runtime: Arc<Runtime>,
    catalogue: Arc<Catalogue>,
    durables: Mutex<Vec<Arc<DurableControl>>>,
}

impl HostHealth {
    pub(super) fn new(runtime: &Arc<Runtime>, catalogue: &Arc<Catalogue>) -> Self {
        Self(Arc::new(Inner {
            is_ready: AtomicBool::new(false),
            runtime: Arc::clone(runtime),
            catalogue: Arc::clone(catalogue),
            durables: Mutex::default(),
        }))
    }

    pub(super) fn set_ready(&self, is_ready: bool) {
        self.0.is_ready.store(is_ready, Ordering::Release);
    }

    pub(super) fn watch(&self, durables: Vec<Arc<DurableControl>>) {
        *self.0.durables.lock().unwrap_or_else(PoisonError::into_inner) = durables;
    }

    pub(super) fn shared(&self) -> Health {
        let inner = Arc::clone(&self.0);
        Health::new(move || inner.report())
    }
}

impl Inner {
    fn report(&self) -> HealthReport {
        let mut parts = vec![self.bridge()];
        parts.extend(self.store());
        let durables = self.durables.lock().unwrap_or_else(PoisonError::into_inner).clone();
        parts.extend(self.catalogue.services.iter().map(|service| {
            let id = service.id.to_string();
            let of_service = durables
                .iter()
                .filter(|one| one.id.as_str().strip_prefix(&id).is_some_and(|rest| rest.starts_with('.')));
            let worst = of_service.filter_map(|one| ailing(one)).max_by_key(|(condition, _)| *condition);
            let (condition, detail) =
                worst.map_or((Condition::Up, None), |(condition, detail)| (condition, Some(detail)));
            PartHealth { name: format!("service {id}"), condition, detail }
        }));
        HealthReport { is_ready: self.is_ready.load(Ordering::Acquire), parts }
    }

    fn bridge(&self) -> PartHealth {
        let (condition, detail) = match *self.runtime.bridge.state().borrow() {
            BridgeState::Connected => (Condition::Up, None),
            BridgeState::Reconnecting => {
                (Condition::Down, Some("the connection is lost and tried again".to_owned()))
            }
            BridgeState::Closed => (Condition::Down, Some("it is closed".to_owned())),
        };
        PartHealth { name: format!("bridge {}", self.runtime.bridge.capabilities().name), condition, detail }
    }

    fn store(&self) -> Option<PartHealth> {
        let store = self.runtime.store.as_ref()?;
        let detail = store.poisoned();
        let condition = if detail.is_some() { Condition::Down } else { Condition::Up };
        Some(PartHealth { name: "store".to_owned(), condition, detail })
    }
}

fn ailing(durable: &DurableControl) -> Option<(Condition, String)> {
    let id = &durable.id;
    match durable.state() {
        DurableState::Running => None,
        DurableState::Paused(_) => {
            Some((Condition::Degraded, format!("the subscription {id} is paused: see the log")))
        }
        DurableState::Full => Some((
            Condition::Degraded,
            format!("the subscription {id} fetches no more: {PARKED_MAX} events are parked"),
        )),
        DurableState::Failing(_) => {
            Some((Condition::Down, format!("the subscription {id} waits for its store")))
        }
    }
}
