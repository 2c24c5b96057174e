//! How a host is, part by part.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use purista_core::bridge::BridgeState;
use purista_core::catalogue::Catalogue;
use purista_core::health::{Condition, Health, HealthReport, PartHealth};
use purista_events::position::Position;
use purista_events::projector::ProjectionHandle;
use tokio::time::Instant;

use super::store_peers::StorePeers;
use crate::durable::{DurableControl, DurableState, PARKED_MAX};
use crate::projecting;
use crate::runtime::Runtime;

/// How long something that has work to do may take nothing in before its health says so.
const STANDS_MAX: Duration = Duration::from_secs(60);

/// Asks the parts each time. Cheap to clone.
#[derive(Clone)]
pub(super) struct HostHealth(Arc<Inner>);

struct Inner {
    is_ready: AtomicBool,
    runtime: Arc<Runtime>,
    catalogue: Arc<Catalogue>,
    durables: Mutex<Vec<Arc<DurableControl>>>,
    projections: Mutex<Vec<ProjectionHandle>>,
    store_peers: OnceLock<Arc<StorePeers>>,
    /// Where each stood that had something to do, and since when.
    standing: Mutex<HashMap<String, (u64, Instant)>>,
}

impl HostHealth {
    pub(super) fn new(runtime: &Arc<Runtime>, catalogue: &Arc<Catalogue>) -> Self {
        Self(Arc::new(Inner {
            is_ready: AtomicBool::new(false),
            runtime: Arc::clone(runtime),
            catalogue: Arc::clone(catalogue),
            durables: Mutex::default(),
            projections: Mutex::default(),
            store_peers: OnceLock::new(),
            standing: Mutex::default(),
        }))
    }

    pub(super) fn set_ready(&self, is_ready: bool) {
        self.0.is_ready.store(is_ready, Ordering::Release);
    }

    pub(super) fn watch(&self, durables: Vec<Arc<DurableControl>>) {
        *self.0.durables.lock().unwrap_or_else(PoisonError::into_inner) = durables;
    }

    pub(super) fn watch_projections(&self, projections: Vec<ProjectionHandle>) {
        *self.0.projections.lock().unwrap_or_else(PoisonError::into_inner) = projections;
    }

    /// Reports peers with another store; a second call has no effect.
    pub(super) fn watch_store_peers(&self, peers: Arc<StorePeers>) {
        let _ = self.0.store_peers.set(peers);
    }

    pub(super) fn shared(&self) -> Health {
        let inner = Arc::clone(&self.0);
        Health::new(move || inner.report())
    }
}

impl Inner {
    fn report(&self) -> HealthReport {
        let bridge = &self.runtime.bridge;
        let bridge_state = *bridge.state().borrow();
        let mut parts = vec![PartHealth::of_bridge(bridge.capabilities().name, bridge_state)];
        parts.extend(self.store());
        parts.extend(self.store_peers.get().and_then(|peers| peers.health()));
        let store = self.runtime.store.as_deref();
        let head = store.map_or(Position::START, |store| *store.head().borrow());
        let durables = self.durables.lock().unwrap_or_else(PoisonError::into_inner).clone();
        parts.extend(self.catalogue.services.iter().map(|service| {
            let id = service.id.to_string();
            let of_service: Vec<_> = durables
                .iter()
                .filter(|one| one.id.as_str().strip_prefix(&id).is_some_and(|rest| rest.starts_with('.')))
                .collect();
            // Of several, the one that is furthest behind; of one of which it cannot be told, nobody knows.
            let left = store.into_iter().flat_map(|store| of_service.iter().map(|one| one.left(store, head)));
            let events_behind = left.collect::<Option<Vec<_>>>().and_then(|each| each.into_iter().max());
            let ailing =
                of_service.iter().filter_map(|one| ailing(one).or_else(|| self.standing_durable(one)));
            let worst = ailing.max_by_key(|(condition, _)| *condition);
            let (condition, detail) =
                worst.map_or((Condition::Up, None), |(condition, detail)| (condition, Some(detail)));
            PartHealth { name: format!("service {id}"), condition, detail, events_behind }
        }));
        let projections = self.projections.lock().unwrap_or_else(PoisonError::into_inner);
        // Without a store there are none.
        parts.extend(
            store.into_iter().flat_map(|store| projections.iter().map(move |one| (one, store))).map(
                |(one, store)| {
                    let part = projecting::health(one, store, head);
                    let is_behind = part.condition == Condition::Up && part.events_behind != Some(0);
                    match self.stands(&part.name, is_behind.then(|| projecting::place(one))) {
                        // A restart of this process would move nothing.
                        Some(since) if projecting::is_elsewhere(one) => PartHealth {
                            condition: Condition::Degraded,
                            detail: Some(format!(
                                "another process has it and has taken nothing in for {} s",
                                since.as_secs()
                            )),
                            ..part
                        },
                        Some(since) => PartHealth {
                            condition: Condition::Down,
                            detail: Some(format!("it has taken nothing in for {} s", since.as_secs())),
                            ..part
                        },
                        None => part,
                    }
                },
            ),
        );
        drop(projections);
        let is_ready = self.is_ready.load(Ordering::Acquire) && bridge_state == BridgeState::Connected;
        HealthReport { is_ready, parts }
    }

    /// How long something that has work to do has stood at this place, when that is too long. It is told from one report to
    /// the next, so it takes somebody who asks.
    fn stands(&self, name: &str, place: Option<u64>) -> Option<Duration> {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = place else {
            standing.remove(name);
            return None;
        };
        let seen = standing.entry(name.to_owned()).or_insert_with(|| (place, Instant::now()));
        if seen.0 != place {
            *seen = (place, Instant::now());
        }
        Some(seen.1.elapsed()).filter(|since| *since >= STANDS_MAX)
    }

    /// Its handler may be slow on purpose: it needs attention, and no restart.
    fn standing_durable(&self, one: &DurableControl) -> Option<(Condition, String)> {
        let since = self.stands(one.id.as_str(), one.is_at_work().then(|| one.ended()))?;
        let what = format!("no attempt of the subscription {} has ended for {} s", one.id, since.as_secs());
        Some((Condition::Degraded, what))
    }

    fn store(&self) -> Option<PartHealth> {
        let store = self.runtime.store.as_ref()?;
        let (condition, detail) = match (store.poisoned(), store.attention()) {
            (Some(reason), _) => (Condition::Down, Some(reason)),
            (None, Some(reason)) => (Condition::Degraded, Some(reason)),
            (None, None) => (Condition::Up, None),
        };
        Some(PartHealth { name: "store".to_owned(), condition, detail, events_behind: None })
    }
}

fn ailing(durable: &DurableControl) -> Option<(Condition, String)> {
    let id = &durable.id;
    match durable.state() {
        DurableState::Running | DurableState::Elsewhere => None,
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
