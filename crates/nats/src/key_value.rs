//! State and configuration in buckets of the server, for hosts without a store.
//!
//! Names of buckets and values are PURISTA's: a value is its JSON under its key, as far as the server takes the key.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_nats::jetstream::kv::Entry;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use purista_core::store::{
    ConfigStore, Expect, KeyValueError, KeyValueErrorKind, StateChange, StateStore, Versioned,
};
use serde_json::{Value, json};

use crate::bucket::{Bucket, is_value, key_of};

/// The bucket of state, unless told otherwise.
pub const STATE_BUCKET: &str = "purista-state-store";
/// The bucket of configuration, unless told otherwise.
pub const CONFIG_BUCKET: &str = "purista-config-store";
/// The key of the object in which a value lies that ends by itself.
const ENDING: &str = "$purista.expiresAt";

/// State of services in a bucket of the NATS server, by tenant and key; made by
/// [`NatsBridge::state_store`](crate::bridge::NatsBridge::state_store).
///
/// A host without a store writes what a handler has set after the handler's `Ok`, one key after the other, each only if it is
/// still what the handler has read. What a crash in between leaves is half of it: who needs all or nothing has a store.
///
/// **Versions** are the bucket's revisions: they grow with every write, and not by one. **A value with a time to live** lies in an
/// object with that time, by the clocks of who writes and who reads; it is taken for absent then, and the next write takes its
/// place. **`Ok`** means that the server has stored it; what that survives is said in the crate's table for events.
/// Reads and writes wait up to five seconds for a lost connection. All of it is cancel safe; a write that was dropped may happen.
#[derive(Clone)]
pub struct NatsStateStore(pub(crate) Bucket);

/// Configuration in a bucket of the NATS server; made by [`NatsBridge::config_store`](crate::bridge::NatsBridge::config_store).
/// What another process sets is seen by the next read.
#[derive(Clone)]
pub struct NatsConfigStore(pub(crate) Bucket);

impl StateStore for NatsStateStore {
    fn get<'a>(
        &'a self,
        tenant: Option<&'a str>,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<BTreeMap<String, Versioned>, KeyValueError>> {
        Box::pin(async move {
            let mut found = BTreeMap::new();
            for (key, entry) in self.0.entries(tenant, keys).await? {
                found.extend(self.current(&entry)?.map(|value| (key, value)));
            }
            Ok(found)
        })
    }

    fn change<'a>(
        &'a self,
        tenant: Option<&'a str>,
        change: StateChange,
    ) -> BoxFuture<'a, Result<u64, KeyValueError>> {
        Box::pin(async move {
            let name = key_of(tenant, &change.key)?;
            let value =
                change.value.as_ref().map(|value| self.encoded(value, change.time_to_live)).transpose()?;
            if change.expect == Expect::Any {
                return match value {
                    Some(value) => self.0.put(&name, value).await,
                    None => self.0.delete(&name, None).await.map(|()| 0),
                };
            }
            // What it expects is looked at here; that it is still so when it is written, the server sees to.
            let entry = self.0.entry(&name).await?;
            let current = entry.as_ref().map(|entry| self.current(entry)).transpose()?.flatten();
            let holds = match change.expect {
                Expect::Version(version) => current.as_ref().is_some_and(|value| value.version == version),
                _ => current.is_none(),
            };
            if !holds {
                return Err(conflict(&change.key));
            }
            let revision = entry.as_ref().map_or(0, |entry| entry.revision);
            let written = match value {
                Some(value) => self.0.update(&name, value, revision).await,
                // Nothing is there that could be removed.
                None if current.is_none() => Ok(0),
                None => self.0.delete(&name, Some(revision)).await.map(|()| 0),
            };
            written.map_err(|error| match error.kind() {
                KeyValueErrorKind::Conflict => conflict(&change.key).with_source(error),
                _ => error,
            })
        })
    }
}

impl NatsStateStore {
    /// The value of an entry, unless it was removed or has ended.
    fn current(&self, entry: &Entry) -> Result<Option<Versioned>, KeyValueError> {
        if !is_value(entry) {
            return Ok(None);
        }
        let mut value = decoded(&entry.value)?;
        if let Some(ending) = value.get(ENDING).and_then(Value::as_i64) {
            if ending <= self.0.now_ms() {
                return Ok(None);
            }
            value = value.get_mut("value").map(Value::take).unwrap_or_default();
        }
        Ok(Some(Versioned { value, version: entry.revision }))
    }

    fn encoded(&self, value: &Value, time_to_live: Option<Duration>) -> Result<Bytes, KeyValueError> {
        let Some(time) = time_to_live else { return encoded(value) };
        let ends = self.0.now_ms().saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
        encoded(&json!({ ENDING: ends, "value": value }))
    }
}

impl ConfigStore for NatsConfigStore {
    fn get<'a>(
        &'a self,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<BTreeMap<String, Value>, KeyValueError>> {
        Box::pin(async move {
            let entries = self.0.entries(None, keys).await?.into_iter();
            let values = entries.filter(|(_, entry)| is_value(entry));
            values.map(|(key, entry)| Ok((key, decoded(&entry.value)?))).collect()
        })
    }

    fn set(&self, key: String, value: Option<Value>) -> BoxFuture<'_, Result<(), KeyValueError>> {
        Box::pin(async move {
            let name = key_of(None, &key)?;
            match value {
                Some(value) => self.0.put(&name, encoded(&value)?).await.map(|_| ()),
                None => self.0.delete(&name, None).await,
            }
        })
    }
}

fn conflict(key: &str) -> KeyValueError {
    KeyValueError::new(KeyValueErrorKind::Conflict, format!("the state `{key}` was changed by somebody else"))
}

fn encoded(value: &Value) -> Result<Bytes, KeyValueError> {
    let bytes = serde_json::to_vec(value).map(Bytes::from);
    bytes.map_err(|error| {
        KeyValueError::new(KeyValueErrorKind::Rejected, "a value has no JSON").with_source(error)
    })
}

fn decoded(bytes: &[u8]) -> Result<Value, KeyValueError> {
    serde_json::from_slice(bytes).map_err(|error| {
        KeyValueError::new(KeyValueErrorKind::Rejected, "what lies in the bucket is not JSON")
            .with_source(error)
    })
}

impl fmt::Debug for NatsStateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsStateStore").finish_non_exhaustive()
    }
}

impl fmt::Debug for NatsConfigStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsConfigStore").finish_non_exhaustive()
    }
}
