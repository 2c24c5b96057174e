//! The three key-value duties: state that services keep, configuration that they read, secrets that nobody prints.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use secrecy::SecretString;
use serde::Serialize;
use serde_json::Value;

use crate::encoding;
use crate::payload::PAYLOAD_BYTES_MAX;

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;

/// The longest key as a store has it, in bytes: the key of a handler behind the name of its service.
pub const STORED_KEY_BYTES_MAX: usize = KEY_BYTES_MAX + 130;

/// The largest value of state as JSON, in bytes: what a store in a broker takes as well, wherever the value is kept.
pub const STATE_BYTES_MAX: usize = PAYLOAD_BYTES_MAX;

/// One value with the version by which a writer says "only if it is still the same".
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned {
    /// The value.
    pub value: Value,
    /// Grows with every write of its key, from 1.
    pub version: u64,
}

/// What must be so for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expect {
    /// Anything.
    #[default]
    Any,
    /// There is no value.
    Absent,
    /// The value has this version.
    Version(u64),
}

/// A change to one key: a value to set, or `None` to remove it.
#[derive(Debug, Clone, PartialEq)]
pub struct StateChange {
    /// The key, unique in its tenant.
    pub key: String,
    /// What must be so.
    pub expect: Expect,
    /// The new value; `None` removes.
    pub value: Option<Value>,
    /// After which time it is as if it had been removed; `None` keeps it.
    pub time_to_live: Option<Duration>,
}

/// State of services, by tenant and key.
pub trait StateStore: Send + Sync + 'static {
    /// Several values at once; absent and expired keys are left out.
    fn get<'a>(
        &'a self,
        tenant: Option<&'a str>,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<BTreeMap<String, Versioned>, KeyValueError>>;
    /// Changes one key, if what it expects is so. Returns the new version, 0 after a removal.
    fn change<'a>(
        &'a self,
        tenant: Option<&'a str>,
        change: StateChange,
    ) -> BoxFuture<'a, Result<u64, KeyValueError>>;
}

/// Configuration: read by handlers, written only where the gate says so.
pub trait ConfigStore: Send + Sync + 'static {
    /// Several values at once; absent keys are left out.
    fn get<'a>(&'a self, keys: &'a [String])
    -> BoxFuture<'a, Result<BTreeMap<String, Value>, KeyValueError>>;
    /// Sets a value, or removes it.
    fn set(&self, key: String, value: Option<Value>) -> BoxFuture<'_, Result<(), KeyValueError>>;
}

/// Secrets: they have no `Debug` that shows them, and no way into a message or a log.
pub trait SecretStore: Send + Sync + 'static {
    /// Several secrets at once; absent keys are left out.
    fn get<'a>(
        &'a self,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<BTreeMap<String, SecretString>, KeyValueError>>;
    /// Sets a secret, or removes it.
    fn set(&self, key: String, value: Option<SecretString>) -> BoxFuture<'_, Result<(), KeyValueError>>;
}

/// What handlers may do with a store. Configuration and secrets are read only unless somebody opens them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate {
    /// Whether values may be read.
    pub get: bool,
    /// Whether values may be written.
    pub set: bool,
    /// Whether values may be removed.
    pub remove: bool,
}

impl Gate {
    /// Everything.
    pub const OPEN: Self = Self { get: true, set: true, remove: true };
    /// Reading only.
    pub const READ_ONLY: Self = Self { get: true, set: false, remove: false };
}

/// Why a value could not be read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyValueErrorKind {
    /// What the write expected is not so; nothing was written.
    Conflict,
    /// The gate is closed; nothing was done.
    Forbidden,
    /// The key is empty or longer than [`KEY_BYTES_MAX`].
    InvalidKey,
    /// The value has more bytes than [`STATE_BYTES_MAX`], or holds what JSON cannot say; nothing was written.
    InvalidValue,
    /// The store refused or cannot be reached; nothing was written.
    Rejected,
    /// The store's answer was lost; it may have been written.
    Unknown,
}

/// A value could not be read or written. It names the key, never the value.
#[derive(Debug)]
pub struct KeyValueError {
    kind: KeyValueErrorKind,
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl KeyValueError {
    /// An error of this kind; `what` says what was tried.
    pub fn new(kind: KeyValueErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), source: None }
    }

    /// The same, with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Why.
    pub fn kind(&self) -> KeyValueErrorKind {
        self.kind
    }

    /// The value as JSON; refuses one that is larger than [`STATE_BYTES_MAX`], or that JSON cannot say.
    ///
    /// # Errors
    ///
    /// Returns [`KeyValueErrorKind::InvalidValue`], with the field as its source.
    pub fn encode_value<T: Serialize>(key: &str, value: &T) -> Result<Value, Self> {
        encoding::bounded_value(value, STATE_BYTES_MAX).map_err(|error| {
            Self::new(KeyValueErrorKind::InvalidValue, format!("the value of `{key}` cannot be kept"))
                .with_source(error)
        })
    }

    /// Refuses a key that no store would take; see [`STORED_KEY_BYTES_MAX`].
    ///
    /// # Errors
    ///
    /// Returns [`KeyValueErrorKind::InvalidKey`].
    pub fn check_stored_key(key: &str) -> Result<(), Self> {
        Self::check_key_of(key, STORED_KEY_BYTES_MAX)
    }

    /// Refuses a key that no handler may use.
    pub fn check_key(key: &str) -> Result<(), Self> {
        Self::check_key_of(key, KEY_BYTES_MAX)
    }

    fn check_key_of(key: &str, bytes_max: usize) -> Result<(), Self> {
        if key.is_empty() || key.len() > bytes_max {
            let what = format!("a key is 1 to {bytes_max} bytes, this one has {}", key.len());
            return Err(Self::new(KeyValueErrorKind::InvalidKey, what));
        }
        Ok(())
    }
}

impl fmt::Display for KeyValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for KeyValueError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
