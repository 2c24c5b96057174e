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
use purista_events::store::{StoreError, WriterState};
use purista_events::subscriptions::{RELAY, SubscriptionId};
use tokio::time::Instant;

use super::store_peers::StorePeers;
use super::supervisor::Supervisor;
use crate::durable::{DurableControl, DurableState, PARKED_MAX};
use crate::projecting;
use crate::relay::RelayControl;
use crate::runtime::Runtime;

/// How long something that has work to do may take nothing in before its health says so.
const STANDS_MAX: Duration = Duration::from_secs(60);

/// How long what the store said is shown again: however many ask, it is asked no more often.
const FOUND_FOR: Duration = Duration::from_secs(1);

/// How long a store may take to answer before it counts as away.
const STORE_ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// What a store said when it was asked.
#[derive(Debug, Clone)]
struct Found {
    at: Instant,
    /// How many dead letters there are, and how many of them are the relay's; or that it did not say.
    dead_letters: Result<(u64, u64), String>,
}

/// How long one piece of work may hold the writer of a store before its health says so.
const WRITER_HELD_MAX: Duration = Duration::from_secs(1);

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
    supervisor: Supervisor,
    relay: OnceLock<Arc<RelayControl>>,
    /// One asks the store at a time; those who come meanwhile get the same.
    asking: tokio::sync::Mutex<()>,
    /// What the store said last.
    found: Mutex<Option<Found>>,
    /// Where each stood that had something to do, and since when.
    standing: Mutex<HashMap<String, (u64, Instant)>>,
}

impl HostHealth {
    pub(super) fn new(runtime: &Arc<Runtime>, catalogue: &Arc<Catalogue>, supervisor: Supervisor) -> Self {
        Self(Arc::new(Inner {
            is_ready: AtomicBool::new(false),
            runtime: Arc::clone(runtime),
            catalogue: Arc::clone(catalogue),
            durables: Mutex::default(),
            projections: Mutex::default(),
            store_peers: OnceLock::new(),
            supervisor,
            relay: OnceLock::new(),
            asking: tokio::sync::Mutex::default(),
            found: Mutex::default(),
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

    pub(super) fn watch_relay(&self, relay: Arc<RelayControl>) {
        // There is one a host.
        let _ = self.0.relay.set(relay);
    }

    pub(super) fn shared(&self) -> Health {
        let (inner, asked) = (Arc::clone(&self.0), Arc::clone(&self.0));
        Health::new(move || inner.report()).asking(move || {
            let inner = Arc::clone(&asked);
            Box::pin(async move { inner.ask().await })
        })
    }
}

impl Inner {
    fn report(&self) -> HealthReport {
        let bridge = &self.runtime.bridge;
        let bridge_state = *bridge.state().borrow();
        let of_bridge = PartHealth::of_bridge(bridge.capabilities().name, bridge_state);
        let mut parts = vec![of_bridge.with_alarm(bridge.alarm())];
        let of_store = self.store();
        let has_store = of_store.as_ref().is_none_or(|part| part.condition != Condition::Down);
        parts.extend(of_store);
        parts.extend(self.relay());
        parts.extend(self.store_peers.get().and_then(|peers| peers.health()));
        parts.extend(self.supervisor.health());
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
            // What waits for another attempt is no fault yet, and worth to be seen.
            let deferred: usize = of_service.iter().map(|one| one.deferred()).sum();
            let deferred = (deferred > 0).then(|| format!("{deferred} events wait for another attempt"));
            let (condition, detail) = match worst {
                None => (Condition::Up, deferred),
                Some((condition, detail)) => (
                    condition,
                    Some([Some(detail), deferred].into_iter().flatten().collect::<Vec<_>>().join("; ")),
                ),
            };
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
        let is_ready =
            self.is_ready.load(Ordering::Acquire) && bridge_state == BridgeState::Connected && has_store;
        HealthReport { is_ready, parts }
    }

    /// Asks the store, unless it was asked just now.
    async fn ask(&self) {
        let Some(store) = &self.runtime.store else { return };
        let _one = self.asking.lock().await;
        if self.found().is_some_and(|found| found.at.elapsed() < FOUND_FOR) {
            return;
        }
        let relay = SubscriptionId::new(RELAY);
        let asking = async {
            let all = store.dead_letter_count(None).await?;
            let of_relay = if all == 0 { 0 } else { store.dead_letter_count(Some(&relay)).await? };
            Ok::<_, StoreError>((all, of_relay))
        };
        let dead_letters = match tokio::time::timeout(STORE_ANSWERS_WITHIN, asking).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => {
                tracing::warn!(error = %purista_core::error::chain(&error), "the store does not work");
                Err(error.to_string())
            }
            Err(_) => Err(format!("it did not answer within {} s", STORE_ANSWERS_WITHIN.as_secs())),
        };
        let found = Found { at: Instant::now(), dead_letters };
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
    }

    fn found(&self) -> Option<Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

    /// The relay needs attention when it has published nothing for a minute though there is something, and why.
    fn relay(&self) -> Option<PartHealth> {
        let (relay, store) = (self.relay.get()?, self.runtime.store.as_deref()?);
        let (head, relayed) = (*store.head().borrow(), *relay.relayed.borrow());
        let events_behind = store.between(relayed, head);
        let part =
            |condition, detail| PartHealth { name: "relay".to_owned(), condition, detail, events_behind };
        if relay.has_ended() {
            let detail = "its task has ended: no event is published any more".to_owned();
            return Some(part(Condition::Down, Some(detail)));
        }
        let trouble = relay.trouble().filter(|_| !relay.is_elsewhere());
        let stands = self.stands("relay", (relayed < head).then(|| relay.progress()));
        let troubled =
            trouble.as_ref().map(|(since, _)| since.elapsed()).filter(|since| *since >= STANDS_MAX);
        let Some(since) = stands.max(troubled) else {
            let set_aside =
                self.found().and_then(|found| found.dead_letters.ok()).map_or(0, |(_, of_relay)| of_relay);
            if set_aside == 0 {
                return Some(part(Condition::Up, None));
            }
            let detail = format!(
                "{set_aside} events could not be published and are set aside: see `purista dead-letters list --subscription {RELAY}`"
            );
            return Some(part(Condition::Degraded, Some(detail)));
        };
        let here = if relay.is_elsewhere() { "another process has it and" } else { "it" };
        let why = trouble.map_or_else(String::new, |(_, why)| format!(": {why}"));
        let detail = format!("{here} has published nothing for {} s{why}", since.as_secs());
        Some(part(Condition::Degraded, Some(detail)))
    }

    fn store(&self) -> Option<PartHealth> {
        let store = self.runtime.store.as_ref()?;
        let found = self.found().map(|found| found.dead_letters);
        // The writer first: what holds it explains the rest.
        let attention = held(&store.writer()).or_else(|| store.attention());
        let (condition, detail) = match (store.poisoned(), attention, found) {
            (Some(reason), ..) | (None, _, Some(Err(reason))) => (Condition::Down, Some(reason)),
            (None, Some(reason), _) => (Condition::Degraded, Some(reason)),
            (None, None, Some(Ok((dead_letters @ 1.., _)))) => {
                (Condition::Up, Some(format!("{dead_letters} dead letters: see `purista dead-letters list`")))
            }
            (None, None, _) => (Condition::Up, None),
        };
        Some(PartHealth { name: "store".to_owned(), condition, detail, events_behind: None })
    }
}

/// What holds the writer of a store, once that is too long.
fn held(WriterState { busy_with, busy_for, oldest_waits_for, .. }: &WriterState) -> Option<String> {
    let held_for = busy_for.filter(|time| *time >= WRITER_HELD_MAX)?.as_secs();
    let with = busy_with.as_deref().unwrap_or("the disk");
    let waits = oldest_waits_for
        .map_or_else(String::new, |age| format!("; the oldest commit waits for {:.1} s", age.as_secs_f64()));
    Some(format!("{with} has held the writer for {held_for} s{waits}"))
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
            format!(
                "{PARKED_MAX} events of the subscription {id} wait for another attempt: the next that fails becomes a dead letter"
            ),
        )),
        DurableState::Failing(_) => {
            Some((Condition::Down, format!("the subscription {id} waits for its store")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_that_is_held_is_named_with_the_age_of_its_queue() {
        let mut state = WriterState::default();
        assert_eq!(held(&state), None);
        state.busy_for = Some(Duration::from_millis(900));
        assert_eq!(held(&state), None);
        state.busy_for = Some(Duration::from_secs(7));
        assert_eq!(held(&state).as_deref(), Some("the disk has held the writer for 7 s"));
        state.busy_with = Some("the projection names v2".to_owned());
        state.oldest_waits_for = Some(Duration::from_millis(5_500));
        let held = held(&state);
        let expected =
            "the projection names v2 has held the writer for 7 s; the oldest commit waits for 5.5 s";
        assert_eq!(held.as_deref(), Some(expected));
    }
}
