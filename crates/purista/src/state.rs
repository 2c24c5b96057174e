//! State as handlers reach it: reads see the handler's own writes, and writes are part of its unit of work.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use purista_core::store::{Expect, KeyValueError, KeyValueErrorKind, StateChange, StateStore, Versioned};
use purista_events::store::EventStore;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::Instrument;

use crate::unit_of_work::{Changes, UnitClosed, UnitOfWork};

mod key;

pub(crate) use key::SHARED;
use key::{old_key, stored_key};

/// Where state lies: in the store's own file, so that it commits with the events, or in a store of its own.
pub(crate) enum StateBackend {
    Events(Arc<dyn EventStore>),
    Apart(Arc<dyn StateStore>),
}

impl StateBackend {
    pub(crate) async fn get(
        &self,
        tenant: Option<&str>,
        keys: &[String],
    ) -> Result<BTreeMap<String, Versioned>, KeyValueError> {
        match self {
            Self::Apart(store) => store.get(tenant, keys).await,
            Self::Events(store) => store.state(tenant, keys).await.map_err(|error| {
                KeyValueError::new(KeyValueErrorKind::Rejected, "the state cannot be read").with_source(error)
            }),
        }
    }
}

/// The state of a service in the message's tenant, by `ctx.state()`, or of all services in it, by `ctx.shared_state()`.
///
/// Writes are collected and committed with the events when the handler returns `Ok`. A key that was read and then written
/// is written only if nobody else wrote it in between: a lost race is 409 to the caller of a command, and another attempt
/// in a subscription.
///
/// A store may hold keys from before keys were those of a service. Such a key is read where the service has none of its name,
/// and moved when the service (or, by `ctx.shared_state()`, any) first writes it, in the same commit; then it is that
/// service's alone.
pub struct State<'c> {
    pub(crate) backend: &'c StateBackend,
    pub(crate) unit: &'c UnitOfWork,
    pub(crate) tenant: Option<&'c str>,
    /// The service's name, [`SHARED`] for all.
    pub(crate) service: &'c str,
}

impl State<'_> {
    /// One value, `None` when it is absent or has expired. A value of another form is an error that names the key.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, KeyValueError> {
        let value = self.get_many(&[key.to_owned()]).await?.remove(key);
        value.map(serde_json::from_value).transpose().map_err(|error| {
            let what = format!("the state `{key}` has another form than the one asked for");
            KeyValueError::new(KeyValueErrorKind::Rejected, what).with_source(error)
        })
    }

    /// Several values at once; absent and expired keys are left out.
    pub async fn get_many(&self, keys: &[String]) -> Result<BTreeMap<String, Value>, KeyValueError> {
        keys.iter().try_for_each(|key| KeyValueError::check_key(key))?;
        let pending = |stored: &str| {
            self.unit.look(|changes| changes.state.get(stored).map(|change| change.value.clone())).flatten()
        };
        let (mut found, mut missing) = (BTreeMap::new(), Vec::new());
        for key in keys {
            let stored = stored_key(self.service, key);
            match pending(&stored) {
                Some(Some(value)) => drop(found.insert(key.clone(), value)),
                Some(None) => {}
                None => missing.push((key, stored)),
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        // Both names of a key in one question: which one it lies under shows only then.
        let own = missing.iter().map(|(_, stored)| stored.clone());
        let old = missing.iter().filter_map(|(key, _)| old_key(key)).map(ToOwned::to_owned);
        let asked: Vec<String> = own.chain(old).collect();
        let span = tracing::debug_span!("purista.stateStore.getValue", keys = missing.len());
        let mut read = self.backend.get(self.tenant, &asked).instrument(span).await?;
        for (key, stored) in missing {
            let own = read.remove(&stored);
            let old = if own.is_some() { None } else { old_key(key).and_then(|old| read.get(old).cloned()) };
            let version = |versioned: &Option<Versioned>| versioned.as_ref().map_or(0, |found| found.version);
            let (own_version, old_version) = (version(&own), version(&old));
            // A closed unit writes nothing any more, so it need not remember what was read.
            let _ = self.unit.change(|changes| {
                changes.seen.entry(stored.clone()).or_insert(own_version);
                changes.seen_old.entry(stored).or_insert(old_version);
            });
            if let Some(versioned) = own.or(old) {
                found.insert(key.clone(), versioned.value);
            }
        }
        Ok(found)
    }

    /// Sets a value when the handler returns `Ok`.
    pub fn set<T: Serialize>(&self, key: &str, value: &T) -> Result<(), KeyValueError> {
        self.write(key, Expect::Any, Some(value), None)
    }

    /// Sets a value that is as if removed after `time_to_live`.
    pub fn set_for<T: Serialize>(
        &self,
        key: &str,
        value: &T,
        time_to_live: Duration,
    ) -> Result<(), KeyValueError> {
        self.write(key, Expect::Any, Some(value), Some(time_to_live))
    }

    /// Sets a value if what is expected is so at the commit.
    pub fn compare_and_set<T: Serialize>(
        &self,
        key: &str,
        expect: Expect,
        value: &T,
    ) -> Result<(), KeyValueError> {
        self.write(key, expect, Some(value), None)
    }

    /// Removes a value when the handler returns `Ok`.
    pub fn remove(&self, key: &str) -> Result<(), KeyValueError> {
        self.write::<()>(key, Expect::Any, None, None)
    }

    fn write<T: Serialize>(
        &self,
        key: &str,
        expect: Expect,
        value: Option<&T>,
        time_to_live: Option<Duration>,
    ) -> Result<(), KeyValueError> {
        KeyValueError::check_key(key)?;
        let value = value.map(|value| KeyValueError::encode_value(key, value)).transpose()?;
        let change = StateChange { key: stored_key(self.service, key), expect, value, time_to_live };
        self.unit.change(|changes| changes.write(change)).map_err(|closed: UnitClosed| {
            KeyValueError::new(KeyValueErrorKind::Rejected, format!("the state `{key}` cannot be written"))
                .with_source(closed)
        })
    }
}

/// The writes of a unit as its store gets them: behind each write of a key that still lies under its old name, the removal of
/// that. Of keys that were written without having been read it is looked up now. What a writer expects holds for the value
/// under whichever name it lies.
pub(crate) async fn changes_of_state(
    backend: &StateBackend,
    tenant: Option<&str>,
    changes: &mut Changes,
) -> Result<Vec<StateChange>, KeyValueError> {
    let state = std::mem::take(&mut changes.state);
    let unread = state.keys().filter(|stored| !changes.seen_old.contains_key(*stored));
    let unread: Vec<String> =
        unread.filter_map(|stored| key::old_of(stored)).map(ToOwned::to_owned).collect();
    let old = if unread.is_empty() { BTreeMap::new() } else { backend.get(tenant, &unread).await? };
    let mut writes = Vec::with_capacity(state.len());
    for (stored, mut change) in state {
        let old_key = key::old_of(&stored).map(ToOwned::to_owned);
        let seen = changes.seen_old.get(&stored).copied();
        let version = seen.unwrap_or_else(|| {
            old_key.as_ref().and_then(|old_key| old.get(old_key)).map_or(0, |found| found.version)
        });
        let Some(old_key) = old_key.filter(|_| version > 0) else {
            writes.push(change);
            continue;
        };
        let of_old = |expect| StateChange { key: old_key.clone(), expect, value: None, time_to_live: None };
        if changes.expects_absent.contains(&stored) {
            // It is there, under its old name: the store says so.
            writes.push(of_old(Expect::Absent));
        }
        if change.expect == Expect::Version(version) {
            change.expect = Expect::Absent;
        }
        writes.push(change);
        writes.push(of_old(Expect::Version(version)));
    }
    Ok(writes)
}

impl fmt::Debug for State<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("tenant", &self.tenant)
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}
