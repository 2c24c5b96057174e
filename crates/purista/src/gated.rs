//! Configuration and secrets behind their gates.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use purista_core::store::{ConfigStore, Gate, KeyValueError, KeyValueErrorKind, SecretStore};
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::{Instrument, debug_span};

fn open(is_open: bool, what: &str, key: &str) -> Result<(), KeyValueError> {
    KeyValueError::check_key(key)?;
    if is_open {
        return Ok(());
    }
    let what =
        format!("to {what} `{key}` is closed for handlers: open it with a `Gate` on the host's builder");
    Err(KeyValueError::new(KeyValueErrorKind::Forbidden, what))
}

/// Configuration as handlers reach it, by `ctx.config()`.
#[derive(Clone)]
pub struct GatedConfig {
    store: Arc<dyn ConfigStore>,
    gate: Gate,
}

impl GatedConfig {
    pub(crate) fn new(store: Arc<dyn ConfigStore>, gate: Gate) -> Self {
        Self { store, gate }
    }

    /// One value, `None` when it is absent. A value of another form is an error that names the key.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, KeyValueError> {
        open(self.gate.get, "read", key)?;
        let value = self
            .store
            .get(&[key.to_owned()])
            .instrument(debug_span!("purista.configStore.getValue", key))
            .await?
            .remove(key);
        value.map(serde_json::from_value).transpose().map_err(|error| {
            let what = format!("the configuration `{key}` has another form than the one asked for");
            KeyValueError::new(KeyValueErrorKind::Rejected, what).with_source(error)
        })
    }

    /// Several values at once; absent keys are left out.
    pub async fn get_many(&self, keys: &[String]) -> Result<BTreeMap<String, Value>, KeyValueError> {
        keys.iter().try_for_each(|key| open(self.gate.get, "read", key))?;
        self.store.get(keys).instrument(debug_span!("purista.configStore.getValue", keys = keys.len())).await
    }

    /// Sets a value, at once and outside of the unit of work.
    pub async fn set(&self, key: &str, value: Value) -> Result<(), KeyValueError> {
        open(self.gate.set, "set", key)?;
        self.store
            .set(key.to_owned(), Some(value))
            .instrument(debug_span!("purista.configStore.setValue", key))
            .await
    }

    /// Removes a value, at once and outside of the unit of work.
    pub async fn remove(&self, key: &str) -> Result<(), KeyValueError> {
        open(self.gate.remove, "remove", key)?;
        self.store
            .set(key.to_owned(), None)
            .instrument(debug_span!("purista.configStore.removeValue", key))
            .await
    }
}

impl fmt::Debug for GatedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatedConfig").field("gate", &self.gate).finish_non_exhaustive()
    }
}

/// Secrets as handlers reach them, by `ctx.secrets()`.
#[derive(Clone)]
pub struct GatedSecrets {
    store: Arc<dyn SecretStore>,
    gate: Gate,
}

impl GatedSecrets {
    pub(crate) fn new(store: Arc<dyn SecretStore>, gate: Gate) -> Self {
        Self { store, gate }
    }

    /// One secret, `None` when it is absent.
    pub async fn get(&self, key: &str) -> Result<Option<SecretString>, KeyValueError> {
        open(self.gate.get, "read", key)?;
        Ok(self
            .store
            .get(&[key.to_owned()])
            .instrument(debug_span!("purista.secretStore.getValue", key))
            .await?
            .remove(key))
    }

    /// Sets a secret, at once and outside of the unit of work.
    pub async fn set(&self, key: &str, value: SecretString) -> Result<(), KeyValueError> {
        open(self.gate.set, "set", key)?;
        self.store
            .set(key.to_owned(), Some(value))
            .instrument(debug_span!("purista.secretStore.setValue", key))
            .await
    }

    /// Removes a secret, at once and outside of the unit of work.
    pub async fn remove(&self, key: &str) -> Result<(), KeyValueError> {
        open(self.gate.remove, "remove", key)?;
        self.store
            .set(key.to_owned(), None)
            .instrument(debug_span!("purista.secretStore.removeValue", key))
            .await
    }
}

impl fmt::Debug for GatedSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatedSecrets").field("gate", &self.gate).finish_non_exhaustive()
    }
}
