//! What a message carries: bytes, or a typed value that is encoded only if somebody needs bytes.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::contract::{Command, Contract, ContractError, json_of};
use crate::parameter;

/// The largest payload of a message and body of a request, in bytes, so that the rest of the message fits the 1 MiB
/// that brokers allow by default.
pub const PAYLOAD_BYTES_MAX: usize = 896 * 1024;

/// The largest body of one event, in bytes.
pub const EVENT_BYTES_MAX: usize = 256 * 1024;

/// How many bytes of a message are usually not its payload, at most: names, ids, tenant, principal, headers.
pub const ENVELOPE_BYTES: usize = 4 * 1024;

/// The content of a message. Cheap to clone: clones share the bytes, the value and its encoding.
#[derive(Clone, Default)]
pub struct Payload(Repr);

#[derive(Clone, Default)]
enum Repr {
    #[default]
    Empty,
    Encoded(Bytes),
    Typed(Arc<dyn Typed>),
}

/// A value of a contract type whose type was erased, with its encoding once somebody asked for it.
trait Typed: Any + Send + Sync {
    /// Puts the value into `place` when that is an `Option` of its type; else it gives itself back.
    fn take(self: Arc<Self>, place: &mut dyn Any) -> Option<Arc<dyn Typed>>;
    /// Puts a copy of the value into `place` when that is an `Option` of its type.
    fn copy(&self, place: &mut dyn Any);
    fn encoded(&self) -> Result<Bytes, ContractError>;
    /// The same for once: nobody else will ask.
    fn encode(&self) -> Result<Bytes, ContractError>;
    /// The same, without asking whether the type reads it back.
    fn unread(&self) -> Result<Bytes, ContractError>;
    fn write_into(&self, json: &mut Vec<u8>) -> Result<(), ContractError>;
    fn parameters(&self) -> &'static [&'static str];
}

struct Slot<T> {
    value: T,
    encoded: OnceLock<Bytes>,
    parameters: &'static [&'static str],
}

impl<T: Contract> Typed for Slot<T> {
    fn take(self: Arc<Self>, place: &mut dyn Any) -> Option<Arc<dyn Typed>> {
        let Some(place) = place.downcast_mut::<Option<T>>() else { return Some(self) };
        *place = Some(Arc::try_unwrap(self).map_or_else(|shared| shared.value.clone(), |slot| slot.value));
        None
    }

    fn copy(&self, place: &mut dyn Any) {
        if let Some(place) = place.downcast_mut::<Option<T>>() {
            *place = Some(self.value.clone());
        }
    }

    fn encoded(&self) -> Result<Bytes, ContractError> {
        if let Some(bytes) = self.encoded.get() {
            return Ok(bytes.clone());
        }
        let bytes = self.value.encode()?;
        Ok(self.encoded.get_or_init(|| bytes).clone())
    }

    fn encode(&self) -> Result<Bytes, ContractError> {
        self.encoded.get().map_or_else(|| self.value.encode(), |bytes| Ok(bytes.clone()))
    }

    fn unread(&self) -> Result<Bytes, ContractError> {
        let write = || json_of(|json| self.value.write_unread(json));
        self.encoded.get().map_or_else(write, |bytes| Ok(bytes.clone()))
    }

    fn write_into(&self, json: &mut Vec<u8>) -> Result<(), ContractError> {
        match self.encoded.get() {
            Some(bytes) => json.extend_from_slice(bytes),
            None => self.value.write_into(json)?,
        }
        Ok(())
    }

    fn parameters(&self) -> &'static [&'static str] {
        self.parameters
    }
}

impl Payload {
    /// No payload at all: the key is left out on the wire.
    pub const fn empty() -> Self {
        Self(Repr::Empty)
    }

    /// JSON as it came or goes.
    pub const fn encoded(json: Bytes) -> Self {
        Self(Repr::Encoded(json))
    }

    /// A value; it is encoded at most once, however many consumers ask.
    pub fn typed<T: Contract>(value: T) -> Self {
        Self(Repr::Typed(Arc::new(Slot { value, encoded: OnceLock::new(), parameters: &[] })))
    }

    /// A command; the fields that travel apart are split off when it is written.
    pub fn command<C: Command>(command: C) -> Self {
        Self(Repr::Typed(Arc::new(Slot {
            value: command,
            encoded: OnceLock::new(),
            parameters: C::PARAMETERS,
        })))
    }

    /// As PURISTA carries a command some of whose fields travel apart: the rest, and those. `None` where none do.
    pub(crate) fn split(&self) -> Result<Option<(Bytes, Bytes)>, ContractError> {
        match &self.0 {
            Repr::Typed(typed) if !typed.parameters().is_empty() => {
                parameter::split(&typed.encoded()?, typed.parameters()).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Appends the JSON to what is there; nothing when there is no payload. What came as bytes is checked to be JSON,
    /// since it goes into the midst of other JSON.
    pub(crate) fn write_into(&self, json: &mut Vec<u8>) -> Result<(), ContractError> {
        match &self.0 {
            Repr::Empty => Ok(()),
            Repr::Encoded(bytes) => append(bytes, json),
            Repr::Typed(typed) => typed.write_into(json),
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        matches!(self.0, Repr::Empty)
    }

    /// Whether it holds a value rather than bytes.
    pub fn is_typed(&self) -> bool {
        matches!(self.0, Repr::Typed(_))
    }

    /// The JSON, `None` when there is no payload.
    pub fn bytes(&self) -> Result<Option<Bytes>, ContractError> {
        match &self.0 {
            Repr::Empty => Ok(None),
            Repr::Encoded(bytes) => Ok(Some(bytes.clone())),
            Repr::Typed(typed) => typed.encoded().map(Some),
        }
    }

    /// The JSON for a reader that is no such Rust type, as an HTTP client; `None` when there is no payload. It is not asked
    /// whether the type reads it back.
    pub fn unread_bytes(&self) -> Result<Option<Bytes>, ContractError> {
        match &self.0 {
            Repr::Typed(typed) => typed.unread().map(Some),
            _ => self.bytes(),
        }
    }

    /// How many bytes of JSON it holds; 0 for a value that is not encoded.
    pub fn encoded_len(&self) -> usize {
        match &self.0 {
            Repr::Encoded(bytes) => bytes.len(),
            Repr::Empty | Repr::Typed(_) => 0,
        }
    }

    /// The JSON, `None` when there is no payload. Cheaper than [`Payload::bytes`] for who has no more use for the payload.
    pub fn into_bytes(self) -> Result<Option<Bytes>, ContractError> {
        match self.0 {
            Repr::Encoded(bytes) => Ok(Some(bytes)),
            Repr::Typed(typed) if Arc::strong_count(&typed) == 1 => typed.encode().map(Some),
            other => Self(other).bytes(),
        }
    }

    /// A copy of the value, decoded when there are only bytes. For who shares the payload with others: it counts nobody in
    /// or out, which between threads costs more than the copy. An absent payload reads as JSON `null`, or as `{}` where the
    /// type is an object.
    pub fn value<T: Contract>(&self) -> Result<T, ContractError> {
        match &self.0 {
            Repr::Empty => absent(),
            Repr::Encoded(bytes) => T::decode(bytes),
            Repr::Typed(typed) => {
                let mut value: Option<T> = None;
                typed.copy(&mut value);
                // None: another Rust type of the same contract, as in two versions of one crate.
                value.map_or_else(|| T::decode(&typed.encoded()?), Ok)
            }
        }
    }

    /// The value: moved out when nobody shares it, copied when somebody does, decoded when there are only bytes.
    /// An absent payload reads as JSON `null`, or as `{}` where the type is an object.
    pub fn take<T: Contract>(self) -> Result<T, ContractError> {
        match self.0 {
            Repr::Empty => absent(),
            Repr::Encoded(bytes) => T::decode(&bytes),
            Repr::Typed(typed) => {
                let mut value: Option<T> = None;
                match (typed.take(&mut value), value) {
                    (None, Some(value)) => Ok(value),
                    // Another Rust type of the same contract, as in two versions of one crate.
                    (Some(other), _) => T::decode(&other.encoded()?),
                    (None, None) => absent(),
                }
            }
        }
    }
}

/// Appends what is one JSON value, without the blanks around it.
pub(crate) fn append(bytes: &[u8], json: &mut Vec<u8>) -> Result<(), ContractError> {
    let raw: &RawValue = serde_json::from_slice(bytes)?;
    json.extend_from_slice(raw.get().as_bytes());
    Ok(())
}

/// What a peer means who has nothing to say: PURISTA leaves the key out, also where a type without a required field waits.
#[cold]
fn absent<T: Contract>() -> Result<T, ContractError> {
    T::decode(b"null").or_else(|_| T::decode(b"{}"))
}

impl fmt::Debug for Payload {
    /// Shows size, never content: payloads hold what users keep private.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Empty => f.write_str("Payload(empty)"),
            Repr::Encoded(bytes) => write!(f, "Payload({} bytes)", bytes.len()),
            Repr::Typed(_) => f.write_str("Payload(typed)"),
        }
    }
}
