//! The one encoding of contract types, and how it is made sure that a value is read back from it.
//!
//! What is stored and cannot be read by its own type closes its stream; what is sent and cannot be read is lost. So a value is
//! refused before it leaves when its JSON would not give it back:
//!
//! * A number that is NaN or infinite is an error that names the field.
//! * A value of a *shape* that this thread has not met is decoded once, and what is decoded is encoded again: members that
//!   are lost on the way, a name that is written one way and read another, a variant that reads as another one are found
//!   then. The shape of a value is which members are present, which variants it has, and for each number and text a class
//!   (negative, zero, below 2³¹, below 2⁵³, more; empty, up to 64 bytes, more). Elements of lists and maps have shapes of
//!   their own, so that a list has no other shape for each combination of them. The next values of the same shape cost a
//!   look-up. A thread remembers [`SHAPES_MAX`] shapes.
//!
//! What this does not find: a type that reads some values of one class and refuses others, as `TryFrom` behind
//! `#[serde(try_from)]` may. Rules belong into `#[garde(..)]`, which is asked each time.
//!
//! A member of a struct whose value is `None` is left out. A type that does not read itself without it (`#[serde(with = ..)]`
//! without `default`) is found by the same check, and its values are written with `null`.

use std::any::TypeId;
use std::cell::Cell;
use std::hash::{Hash, Hasher};

use rustc_hash::{FxBuildHasher, FxHasher};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::contract::{ContractError, json_of};

mod shape;
mod sink;
mod writer;

use shape::Known;
use sink::{Counter, Fail};
use writer::Writer;

/// How many shapes of values a thread remembers; then it begins again.
pub const SHAPES_MAX: usize = 4_096;

thread_local! {
    static KNOWN: Cell<Known> = const { Cell::new(Known::with_hasher(FxBuildHasher)) };
}

/// Appends the JSON of a value that its type reads back.
pub(crate) fn write<T>(value: &T, json: &mut Vec<u8>) -> Result<(), ContractError>
where
    T: Serialize + DeserializeOwned + 'static,
{
    let mut known = KNOWN.take();
    let written = write_known(value, json, &mut known);
    KNOWN.set(known);
    written
}

fn write_known<T>(value: &T, json: &mut Vec<u8>, known: &mut Known) -> Result<(), ContractError>
where
    T: Serialize + DeserializeOwned + 'static,
{
    let begin = json.len();
    let shapes = write_once(value, json, known, false)?;
    match known.get(&shapes.root) {
        Some(false) if shapes.fresh.is_empty() => return Ok(()),
        Some(true) => return write_with_nulls(value, json, known, begin, shapes.root),
        _ => {}
    }
    match survives::<T>(json.get(begin..).unwrap_or_default(), false) {
        Ok(()) => {
            remember(known, shapes.root, false, shapes.fresh);
            Ok(())
        }
        Err(lost) if shapes.left_out => {
            write_with_nulls(value, json, known, begin, shapes.root).map_err(|_| lost)
        }
        Err(lost) => Err(lost),
    }
}

#[cold]
fn write_with_nulls<T>(
    value: &T,
    json: &mut Vec<u8>,
    known: &mut Known,
    begin: usize,
    without: u64,
) -> Result<(), ContractError>
where
    T: Serialize + DeserializeOwned + 'static,
{
    json.truncate(begin);
    let mut shapes = write_once(value, json, known, true)?;
    if !known.contains_key(&shapes.root) || !shapes.fresh.is_empty() {
        survives::<T>(json.get(begin..).unwrap_or_default(), true)?;
        shapes.fresh.push(shapes.root);
        remember(known, without, true, shapes.fresh);
    }
    Ok(())
}

/// What was seen of a value while it was written.
struct Shapes {
    root: u64,
    fresh: Vec<u64>,
    left_out: bool,
}

fn write_once<T: Serialize + 'static>(
    value: &T,
    json: &mut Vec<u8>,
    known: &Known,
    writes_nulls: bool,
) -> Result<Shapes, ContractError> {
    let mut seed = FxHasher::default();
    TypeId::of::<T>().hash(&mut seed);
    let mut writer = Writer::new(json, known, seed.finish(), writes_nulls);
    value.serialize(&mut writer).map_err(not_encodable::<T>)?;
    Ok(Shapes { root: writer.shape, left_out: writer.left_out, fresh: writer.fresh })
}

fn remember(known: &mut Known, root: u64, needs_nulls: bool, fresh: Vec<u64>) {
    if known.len() + fresh.len() >= SHAPES_MAX {
        known.clear();
    }
    known.insert(root, needs_nulls);
    known.extend(fresh.into_iter().take(SHAPES_MAX / 2).map(|shape| (shape, false)));
}

/// Decodes, encodes again, and looks whether both say the same members.
#[cold]
fn survives<T>(json: &[u8], writes_nulls: bool) -> Result<(), ContractError>
where
    T: Serialize + DeserializeOwned + 'static,
{
    let lost = |what: &str| ContractError::lost::<T>(what.to_owned());
    let decoded: T = serde_json::from_slice(json).map_err(|error| lost(&error.to_string()))?;
    let mut again = Vec::new();
    write_once(&decoded, &mut again, &Known::default(), writes_nulls)?;
    let (Ok(first), Ok(second)) = (value_of(json), value_of(&again)) else {
        return Err(lost("it is not JSON"));
    };
    let mut path = Vec::new();
    if is_alike(&first, &second, &mut path) {
        return Ok(());
    }
    path.reverse();
    Err(lost(&format!("`{}` is lost or becomes something else", path.join("."))))
}

fn value_of(json: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice(json)
}

/// Whether two values have the same members of the same kinds; texts and numbers may differ, as by rounding or trimming.
fn is_alike(one: &Value, other: &Value, path: &mut Vec<String>) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let missing = |of: &serde_json::Map<String, Value>, all: &serde_json::Map<String, Value>| {
                all.keys().find(|name| !of.contains_key(*name)).cloned()
            };
            if let Some(name) = missing(other, one).or_else(|| missing(one, other)) {
                path.push(name);
                return false;
            }
            one.iter().all(|(name, value)| {
                let is_same = other.get(name).is_some_and(|other| is_alike(value, other, path));
                if !is_same {
                    path.push(name.clone());
                }
                is_same
            })
        }
        // A set has no order.
        (Value::Array(one), Value::Array(other)) => {
            one.is_empty() == other.is_empty()
                && one.iter().enumerate().all(|(nth, value)| {
                    let is_same = other.get(nth).is_some_and(|other| is_alike(value, other, &mut Vec::new()))
                        || other.iter().any(|other| is_alike(value, other, &mut Vec::new()));
                    if !is_same {
                        path.push(nth.to_string());
                    }
                    is_same
                })
        }
        (one, other) => std::mem::discriminant(one) == std::mem::discriminant(other),
    }
}

fn not_encodable<T>(fail: Fail) -> ContractError {
    let (field, what) = fail.into_parts();
    ContractError::not_encodable::<T>(&field, &what)
}

/// An upper bound of the bytes of a value's JSON. Allocates nothing; refuses what cannot be written.
pub(crate) fn measure<T: Serialize>(value: &T) -> Result<usize, ContractError> {
    let known = Known::default();
    let mut writer = Writer::new(Counter::default(), &known, 0, false);
    value.serialize(&mut writer).map_err(not_encodable::<T>)?;
    Ok(writer.into_sink().0)
}

/// A value of any type as JSON, of at most so many bytes: for what another type reads, as a service's own state.
///
/// # Errors
///
/// Returns an error that names the field if a number is not finite, or one for which [`ContractError::is_too_large`] holds.
pub fn bounded_value<T: Serialize>(value: &T, bytes_max: usize) -> Result<Value, ContractError> {
    check_size(value, bytes_max)?;
    Ok(serde_json::to_value(value)?)
}

/// Refuses a value whose JSON has more bytes than this, or that JSON cannot say. Only what may be too large is encoded.
///
/// # Errors
///
/// As [`bounded_value`].
pub fn check_size<T: Serialize>(value: &T, bytes_max: usize) -> Result<(), ContractError> {
    if measure(value)? <= bytes_max {
        return Ok(());
    }
    let bytes = json_of(|json| write_unread(value, json))?.len();
    if bytes <= bytes_max { Ok(()) } else { Err(ContractError::too_large::<T>(bytes, bytes_max)) }
}

/// The JSON of any value, without the check that it is read back: for values whose reader is another type.
pub(crate) fn write_unread<T: Serialize>(value: &T, json: &mut Vec<u8>) -> Result<(), ContractError> {
    let known = Known::default();
    let mut writer = Writer::new(json, &known, 0, false);
    value.serialize(&mut writer).map_err(not_encodable::<T>)
}

/// Reads a member that tells `null` from absent: `None` is absent, `Some(None)` is `null`.
///
/// A `None` member of a contract is left out of its JSON. Where a contract must be able to say `null`, as a patch that removes
/// a value, the member is an `Option<Option<T>>`:
///
/// ```
/// use purista_core::contract::Contract;
/// # use garde::Validate; use schemars::JsonSchema; use serde::{Deserialize, Serialize};
/// #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
/// #[garde(allow_unvalidated)]
/// struct ChangeUser {
///     #[serde(default, deserialize_with = "purista_core::encoding::nullable")]
///     nickname: Option<Option<String>>,
/// }
/// let json = |nickname| String::from_utf8(ChangeUser { nickname }.encode().unwrap().to_vec()).unwrap();
/// assert_eq!(json(None), "{}");
/// assert_eq!(json(Some(None)), r#"{"nickname":null}"#);
/// assert_eq!(json(Some(Some("Ada".to_owned()))), r#"{"nickname":"Ada"}"#);
/// assert_eq!(ChangeUser::decode(br#"{"nickname":null}"#).unwrap(), ChangeUser { nickname: Some(None) });
/// ```
///
/// # Errors
///
/// Returns the deserializer's error if the value is present and no `T`.
pub fn nullable<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests;
