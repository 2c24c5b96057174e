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

use crate::unit_of_work::{UnitClosed, UnitOfWork};

/// Where state lies: in the store's own file, so that it commits with the events, or in a store of its own.
pub(crate) enum StateBackend {
    Events(Arc<dyn EventStore>),
    Apart(Arc<dyn StateStore>),
}

impl StateBackend {
    async fn get(
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

/// The state of a message's tenant, by `ctx.state()`.
///
/// Writes are collected and committed with the events when the handler returns `Ok`. A key that was read and then written
/// is written only if nobody else wrote it in between: a lost race is 409 to the caller of a command, and another attempt
/// in a subscription.
pub struct State<'c> {
    pub(crate) backend: &'c StateBackend,
    pub(crate) unit: &'c UnitOfWork,
    pub(crate) tenant: Option<&'c str>,
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
        let pending = |key: &String| {
            self.unit.look(|changes| changes.state.get(key).map(|change| change.value.clone())).flatten()
        };
        let (mut found, mut missing) = (BTreeMap::new(), Vec::new());
        for key in keys {
            match pending(key) {
                Some(Some(value)) => drop(found.insert(key.clone(), value)),
                Some(None) => {}
                None => missing.push(key.clone()),
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        let span = tracing::debug_span!("purista.stateStore.getValue", keys = missing.len());
        let read = self.backend.get(self.tenant, &missing).instrument(span).await?;
        // A closed unit writes nothing any more, so it need not remember what was read.
        let _ = self.unit.change(|changes| {
            for key in &missing {
                let version = read.get(key).map_or(0, |versioned| versioned.version);
                changes.seen.entry(key.clone()).or_insert(version);
            }
        });
        found.extend(read.into_iter().map(|(key, versioned)| (key, versioned.value)));
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
        let value = value.map(serde_json::to_value).transpose().map_err(|error| {
            KeyValueError::new(KeyValueErrorKind::Rejected, format!("the state `{key}` cannot be encoded"))
                .with_source(error)
        })?;
        let change = StateChange { key: key.to_owned(), expect, value, time_to_live };
        self.unit.change(|changes| changes.write(change)).map_err(|closed: UnitClosed| {
            KeyValueError::new(KeyValueErrorKind::Rejected, format!("the state `{key}` cannot be written"))
                .with_source(closed)
        })
    }
}

impl fmt::Debug for State<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}
