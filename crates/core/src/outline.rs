//! What the schema of a contract says about its values: how large their JSON can be, whether they can hold a
//! floating-point number, and where a member has a default.
//!
//! It is read once a type, and answers what would otherwise be asked of every value.

use std::any::TypeId;
use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use rustc_hash::FxHashMap;
use serde_json::{Map, Value};

use crate::contract::{Contract, ContractError};

/// How deep references between schemas are followed.
const REFERENCES_MAX: usize = 16;

/// The most bytes that one number takes as JSON.
const NUMBER_BYTES_MAX: usize = 48;

/// The schema of a type, and what follows from it.
pub(crate) struct Outline {
    schema: Value,
    bytes_max: Option<usize>,
    may_hold_floats: bool,
}

impl Outline {
    /// The outline of a contract type, from its first use on kept for the life of the process: one a type.
    pub(crate) fn of<T: Contract>() -> Arc<Self> {
        static OUTLINES: OnceLock<RwLock<FxHashMap<TypeId, Arc<Outline>>>> = OnceLock::new();
        let outlines = OUTLINES.get_or_init(RwLock::default);
        let known = outlines.read().unwrap_or_else(PoisonError::into_inner).get(&TypeId::of::<T>()).cloned();
        known.unwrap_or_else(|| {
            let made = Arc::new(Self::of_schema(T::schema().to_value()));
            let mut outlines = outlines.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(outlines.entry(TypeId::of::<T>()).or_insert(made))
        })
    }

    fn of_schema(schema: Value) -> Self {
        let bytes_max = bytes_max(&schema, &schema, 0);
        let may_hold_floats = may_hold_floats(&schema);
        Self { schema, bytes_max, may_hold_floats }
    }

    /// The schema as it is.
    pub(crate) fn schema(&self) -> &Value {
        &self.schema
    }

    /// The schemas that a value may follow at one place: references, alternatives and parts, each by itself.
    pub(crate) fn alternatives<'s>(
        &'s self,
        schemas: impl IntoIterator<Item = &'s Value>,
    ) -> Vec<&'s Map<String, Value>> {
        let mut found = Vec::new();
        for schema in schemas {
            alternatives(schema, &self.schema, 0, &mut found);
        }
        found
    }
}

fn alternatives<'s>(
    schema: &'s Value,
    root: &'s Value,
    depth: usize,
    found: &mut Vec<&'s Map<String, Value>>,
) {
    let Some(object) = schema.as_object().filter(|_| depth < REFERENCES_MAX) else { return };
    found.push(object);
    if let Some(target) = referred(object, root) {
        alternatives(target, root, depth + 1, found);
    }
    for keyword in ["anyOf", "oneOf", "allOf"] {
        for part in object.get(keyword).and_then(Value::as_array).into_iter().flatten() {
            alternatives(part, root, depth + 1, found);
        }
    }
}

fn referred<'s>(object: &Map<String, Value>, root: &'s Value) -> Option<&'s Value> {
    root.pointer(object.get("$ref")?.as_str()?.strip_prefix('#')?)
}

/// Whether a number of any of these schemas may be one with a fraction; a schema that says nothing may be anything.
fn may_hold_floats(schema: &Value) -> bool {
    match schema {
        Value::Bool(is_anything) => *is_anything,
        Value::Object(object) => {
            let is_number = |kind: &Value| kind == "number";
            let kind = object.get("type");
            let says_number = kind.is_some_and(|kind| {
                is_number(kind) || kind.as_array().is_some_and(|all| all.iter().any(is_number))
            });
            says_number || says_nothing(object) || parts(object).any(may_hold_floats)
        }
        _ => false,
    }
}

fn says_nothing(object: &Map<String, Value>) -> bool {
    !["type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const"]
        .iter()
        .any(|keyword| object.contains_key(*keyword))
}

/// The schemas in a schema.
fn parts(object: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    object.iter().flat_map(|(keyword, value)| -> Box<dyn Iterator<Item = &Value>> {
        match (keyword.as_str(), value) {
            ("properties" | "patternProperties" | "$defs", Value::Object(named)) => Box::new(named.values()),
            ("anyOf" | "oneOf" | "allOf" | "prefixItems", Value::Array(all)) => Box::new(all.iter()),
            // `items: false` after the items of a tuple, `additionalProperties: false`.
            ("items" | "additionalProperties", one) => Box::new(std::iter::once(one)),
            _ => Box::new(std::iter::empty()),
        }
    })
}

/// An upper bound of the bytes of a value's JSON; `None` where the schema gives none.
fn bytes_max(schema: &Value, root: &Value, depth: usize) -> Option<usize> {
    let object = match schema {
        Value::Object(object) if depth < REFERENCES_MAX => object,
        Value::Bool(false) => return Some(0),
        _ => return None,
    };
    if let Some(values) = object.get("enum").and_then(Value::as_array) {
        return values.iter().map(|value| value.to_string().len()).max();
    }
    if let Some(value) = object.get("const") {
        return Some(value.to_string().len());
    }
    if says_nothing(object) {
        return None;
    }
    let mut sum: usize = 0;
    if let Some(kind) = object.get("type") {
        let kinds = kind.as_array().map_or_else(|| std::slice::from_ref(kind), Vec::as_slice);
        let mut largest = 0;
        for kind in kinds {
            largest = largest.max(bytes_of_kind(kind.as_str()?, object, root, depth)?);
        }
        sum = sum.saturating_add(largest);
    }
    if object.contains_key("$ref") {
        sum = sum.saturating_add(bytes_max(referred(object, root)?, root, depth + 1)?);
    }
    for keyword in ["anyOf", "oneOf"] {
        let mut largest = 0;
        for part in object.get(keyword).and_then(Value::as_array).into_iter().flatten() {
            largest = largest.max(bytes_max(part, root, depth + 1)?);
        }
        sum = sum.saturating_add(largest);
    }
    for part in object.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        sum = sum.saturating_add(bytes_max(part, root, depth + 1)?);
    }
    Some(sum)
}

fn bytes_of_kind(kind: &str, object: &Map<String, Value>, root: &Value, depth: usize) -> Option<usize> {
    let number =
        |keyword: &str| object.get(keyword).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    match kind {
        "null" | "boolean" => Some(5),
        "integer" | "number" => Some(NUMBER_BYTES_MAX),
        // Each character takes at most six bytes, as an escape.
        "string" => match object.get("format").and_then(Value::as_str) {
            Some("uuid" | "date" | "time" | "date-time" | "duration" | "ipv4" | "ipv6") => Some(128),
            _ => Some(number("maxLength")?.saturating_mul(6).saturating_add(2)),
        },
        "array" => {
            let mut sum: usize = 2;
            let first = object.get("prefixItems").and_then(Value::as_array);
            for item in first.into_iter().flatten() {
                sum = sum.saturating_add(bytes_max(item, root, depth + 1)?).saturating_add(1);
            }
            let rest = number("maxItems").map(|max| max.saturating_sub(first.map_or(0, Vec::len)));
            match (rest, object.get("items")) {
                (Some(0), _) | (_, Some(Value::Bool(false))) => Some(sum),
                (Some(most), Some(item)) => {
                    let item = bytes_max(item, root, depth + 1)?.saturating_add(1);
                    Some(sum.saturating_add(item.saturating_mul(most)))
                }
                _ => None,
            }
        }
        "object" => {
            let is_open =
                |keyword: &str| object.get(keyword).is_some_and(|value| *value != Value::Bool(false));
            if is_open("additionalProperties") || is_open("patternProperties") {
                return None;
            }
            let mut sum: usize = 2;
            for (name, property) in object.get("properties").and_then(Value::as_object).into_iter().flatten()
            {
                let member = bytes_max(property, root, depth + 1)?.saturating_add(name.len() * 6 + 4);
                sum = sum.saturating_add(member);
            }
            Some(sum)
        }
        _ => None,
    }
}

/// What a value is held to that stays in the process, where no broker encodes it: the same as if one did.
///
/// Most types need no look at each value: their schema holds no number with a fraction, and bounds every text and list. The
/// others are counted as they would be written, without writing them; only what may be too large by that count is encoded.
///
/// ```
/// use purista_core::outline::UnencodedBounds;
/// # use garde::Validate; use schemars::JsonSchema; use serde::{Deserialize, Serialize};
/// #[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)]
/// #[garde(allow_unvalidated)]
/// struct Measured { mean: f64 }
/// let bounds = UnencodedBounds::new::<Measured>(1_024);
/// assert!(bounds.check(&Measured { mean: 1.5 }).is_ok());
/// let error = bounds.check(&Measured { mean: f64::NAN }).unwrap_err();
/// assert!(error.to_string().contains("`mean`"), "{error}");
/// ```
#[derive(Clone, Copy)]
pub struct UnencodedBounds {
    is_needed: bool,
    bytes_max: usize,
}

impl UnencodedBounds {
    /// The bounds of a type of which a value may take so many bytes.
    pub fn new<T: Contract>(bytes_max: usize) -> Self {
        let outline = Outline::of::<T>();
        let may_be_larger = outline.bytes_max.is_none_or(|most| most > bytes_max);
        Self { is_needed: may_be_larger || outline.may_hold_floats, bytes_max }
    }

    /// Refuses a value that JSON cannot say, or whose JSON is too large.
    ///
    /// # Errors
    ///
    /// Returns an error that names the type and the field, or one for which [`ContractError::is_too_large`] holds.
    #[inline]
    pub fn check<T: Contract>(self, value: &T) -> Result<(), ContractError> {
        if self.is_needed { self.look(value) } else { Ok(()) }
    }

    /// Whether values of the type have to be looked at.
    #[inline]
    pub fn is_needed(self) -> bool {
        self.is_needed
    }

    #[cold]
    fn look<T: Contract>(self, value: &T) -> Result<(), ContractError> {
        value.check_size(self.bytes_max)
    }
}

impl fmt::Debug for UnencodedBounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnencodedBounds")
            .field("is_needed", &self.is_needed)
            .field("bytes_max", &self.bytes_max)
            .finish()
    }
}

#[cfg(test)]
mod tests;
