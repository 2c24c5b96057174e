//! State, configuration and secrets in memory: for tests, and for hosts that keep nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use purista_core::store::{
    ConfigStore, Expect, KeyValueError, KeyValueErrorKind, SecretStore, StateChange, StateStore, Versioned,
};
use secrecy::SecretString;
use serde_json::Value;
use tokio::time::Instant;

/// How many keys each of these stores holds; a further one is refused.
pub const MEMORY_KEYS_MAX: usize = 1_000_000;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one insert or remove, so what a panic left behind is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn full() -> KeyValueError {
    KeyValueError::new(
        KeyValueErrorKind::Rejected,
        format!("the store in memory holds at most {MEMORY_KEYS_MAX} keys"),
    )
}

/// State in memory; it ends with the process.
#[derive(Debug, Default)]
pub struct MemoryStateStore {
    entries: Mutex<BTreeMap<(Option<String>, String), Entry>>,
}

#[derive(Debug)]
struct Entry {
    /// `None` was removed; its version stays, so that no writer takes a new value for the one it has seen.
    value: Option<Value>,
    version: u64,
    expires: Option<Instant>,
}

impl Entry {
    fn current(&self) -> Option<Versioned> {
        let has_expired = self.expires.is_some_and(|expires| expires <= Instant::now());
        let value = self.value.clone().filter(|_| !has_expired)?;
        Some(Versioned { value, version: self.version })
    }
}

impl StateStore for MemoryStateStore {
    fn get<'a>(
        &'a self,
        tenant: Option<&'a str>,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<BTreeMap<String, Versioned>, KeyValueError>> {
        let entries = locked(&self.entries);
        let tenant = tenant.map(ToOwned::to_owned);
        let found = keys.iter().filter_map(|key| {
            let value = entries.get(&(tenant.clone(), key.clone()))?.current()?;
            Some((key.clone(), value))
        });
        let found = found.collect();
        Box::pin(std::future::ready(Ok(found)))
    }

    fn change<'a>(
        &'a self,
        tenant: Option<&'a str>,
        change: StateChange,
    ) -> BoxFuture<'a, Result<u64, KeyValueError>> {
        let result = KeyValueError::check_stored_key(&change.key).and_then(|()| {
            let mut entries = locked(&self.entries);
            let is_full = entries.len() >= MEMORY_KEYS_MAX;
            let place = (tenant.map(ToOwned::to_owned), change.key.clone());
            let known = entries.get(&place);
            let current = known.and_then(Entry::current);
            let holds = match change.expect {
                Expect::Any => true,
                Expect::Absent => current.is_none(),
                Expect::Version(version) => {
                    current.as_ref().is_some_and(|current| current.version == version)
                }
            };
            if !holds {
                let what = format!("the state `{}` was changed by somebody else", change.key);
                return Err(KeyValueError::new(KeyValueErrorKind::Conflict, what));
            }
            if known.is_none() && is_full {
                return Err(full());
            }
            let version = known.map_or(0, |entry| entry.version) + 1;
            let is_removal = change.value.is_none();
            let expires = change.time_to_live.and_then(|ttl| Instant::now().checked_add(ttl));
            entries.insert(place, Entry { value: change.value, version, expires });
            Ok(if is_removal { 0 } else { version })
        });
        Box::pin(std::future::ready(result))
    }
}

/// Configuration in memory.
#[derive(Debug, Default)]
pub struct MemoryConfigStore {
    entries: Mutex<BTreeMap<String, Value>>,
}

impl MemoryConfigStore {
    /// A configuration of these values.
    pub fn of(values: impl IntoIterator<Item = (String, Value)>) -> Self {
        Self { entries: Mutex::new(values.into_iter().collect()) }
    }
}

impl ConfigStore for MemoryConfigStore {
    fn get<'a>(
        &'a self,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<BTreeMap<String, Value>, KeyValueError>> {
        let entries = locked(&self.entries);
        let found = keys.iter().filter_map(|key| Some((key.clone(), entries.get(key)?.clone()))).collect();
        Box::pin(std::future::ready(Ok(found)))
    }

    fn set(&self, key: String, value: Option<Value>) -> BoxFuture<'_, Result<(), KeyValueError>> {
        Box::pin(std::future::ready(replace(&mut locked(&self.entries), key, value)))
    }
}

/// Secrets in memory. Its `Debug` shows how many there are.
#[derive(Default)]
pub struct MemorySecretStore {
    entries: Mutex<BTreeMap<String, SecretString>>,
}

impl MemorySecretStore {
    /// A store of these secrets.
    pub fn of(values: impl IntoIterator<Item = (String, SecretString)>) -> Self {
        Self { entries: Mutex::new(values.into_iter().collect()) }
    }
}

impl SecretStore for MemorySecretStore {
    fn get<'a>(
        &'a self,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<BTreeMap<String, SecretString>, KeyValueError>> {
        let entries = locked(&self.entries);
        let found = keys.iter().filter_map(|key| Some((key.clone(), entries.get(key)?.clone()))).collect();
        Box::pin(std::future::ready(Ok(found)))
    }

    fn set(&self, key: String, value: Option<SecretString>) -> BoxFuture<'_, Result<(), KeyValueError>> {
        Box::pin(std::future::ready(replace(&mut locked(&self.entries), key, value)))
    }
}

impl fmt::Debug for MemorySecretStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemorySecretStore({} secrets)", locked(&self.entries).len())
    }
}

fn replace<V>(entries: &mut BTreeMap<String, V>, key: String, value: Option<V>) -> Result<(), KeyValueError> {
    match value {
        Some(_) if entries.len() >= MEMORY_KEYS_MAX && !entries.contains_key(&key) => return Err(full()),
        Some(value) => entries.insert(key, value),
        None => entries.remove(&key),
    };
    Ok(())
}
