//! Canonical JSON of contract values: equal values are equal bytes, whatever order a map or a set iterates in.
//!
//! * Members are sorted by name, elements of sets (`uniqueItems` in the schema) by their JSON.
//! * A member that is `None` is absent, as in every encoding of ours.
//! * A member that equals the default of its field is absent. So a field that gets a `#[serde(default)]` in a newer version
//!   of its type leaves the bytes of older values as they were. Where several alternatives of an enum know the member, all of
//!   them must have this default, so that two different values never become one.
//! * Numbers and texts are as we write them.
//!
//! Fingerprints of inputs are taken over it. It parses what was encoded a moment before, which takes about as long as the
//! encoding; it is asked for only where a key is given or derived, never for a plain command.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::contract::{Contract, ContractError};
use crate::outline::Outline;

/// The canonical JSON of a value.
///
/// # Errors
///
/// Returns an error if the value holds what JSON cannot say, as a number that is not finite.
pub fn canonical_json<T: Contract>(value: &T) -> Result<Vec<u8>, ContractError> {
    let mut json = Vec::new();
    value.write_unread(&mut json)?;
    let raw: &RawValue = serde_json::from_slice(&json)?;
    let outline = Outline::of::<T>();
    let mut canonical = String::with_capacity(json.len());
    write(raw, &outline.alternatives([outline.schema()]), &outline, &mut canonical)?;
    Ok(canonical.into_bytes())
}

fn write(
    raw: &RawValue,
    schemas: &[&Map<String, Value>],
    outline: &Outline,
    into: &mut String,
) -> Result<(), ContractError> {
    match raw.get().as_bytes().first() {
        Some(b'{') => write_object(raw, schemas, outline, into),
        Some(b'[') => write_list(raw, schemas, outline, into),
        _ => {
            into.push_str(raw.get());
            Ok(())
        }
    }
}

fn write_object(
    raw: &RawValue,
    schemas: &[&Map<String, Value>],
    outline: &Outline,
    into: &mut String,
) -> Result<(), ContractError> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(raw.get())?;
    into.push('{');
    let mut is_first = true;
    for (name, raw) in members {
        let before = into.len();
        if !is_first {
            into.push(',');
        }
        into.push_str(&serde_json::to_string(&name)?);
        into.push(':');
        let begin = into.len();
        let own: Vec<&Value> = under(schemas, "properties", &name).collect();
        let of_any_name = || schemas.iter().filter_map(|schema| schema.get("additionalProperties"));
        let inner = if own.is_empty() {
            outline.alternatives(of_any_name())
        } else {
            outline.alternatives(own.iter().copied())
        };
        write(raw, &inner, outline, into)?;
        if is_default(into.get(begin..).unwrap_or_default(), &own, &inner, outline)? {
            into.truncate(before);
        } else {
            is_first = false;
        }
    }
    into.push('}');
    Ok(())
}

/// Whether a member has the default that each schema of it gives. A `null` that was written was meant.
fn is_default(
    json: &str,
    own: &[&Value],
    inner: &[&Map<String, Value>],
    outline: &Outline,
) -> Result<bool, ContractError> {
    if own.is_empty() || json == "null" {
        return Ok(false);
    }
    for schema in own {
        let Some(default) = schema.get("default") else { return Ok(false) };
        let mut canonical = String::new();
        write(&serde_json::value::to_raw_value(default)?, inner, outline, &mut canonical)?;
        if canonical != json {
            return Ok(false);
        }
    }
    Ok(true)
}

fn write_list(
    raw: &RawValue,
    schemas: &[&Map<String, Value>],
    outline: &Outline,
    into: &mut String,
) -> Result<(), ContractError> {
    let elements: Vec<&RawValue> = serde_json::from_str(raw.get())?;
    let of_all = outline.alternatives(schemas.iter().filter_map(|schema| schema.get("items")));
    let mut written = Vec::with_capacity(elements.len());
    for (nth, raw) in elements.into_iter().enumerate() {
        let at_place = schemas.iter().filter_map(|schema| schema.get("prefixItems")?.get(nth));
        let at_place = outline.alternatives(at_place);
        let inner = if at_place.is_empty() { &of_all } else { &at_place };
        let mut json = String::new();
        write(raw, inner, outline, &mut json)?;
        written.push(json);
    }
    if schemas.iter().any(|schema| schema.get("uniqueItems") == Some(&Value::Bool(true))) {
        written.sort_unstable();
    }
    into.push('[');
    into.push_str(&written.join(","));
    into.push(']');
    Ok(())
}

fn under<'s>(
    schemas: &[&'s Map<String, Value>],
    keyword: &'static str,
    name: &str,
) -> impl Iterator<Item = &'s Value> {
    schemas.iter().filter_map(move |schema| schema.get(keyword)?.get(name))
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use garde::Validate;
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    use super::*;

    fn text<T: Contract>(value: &T) -> String {
        String::from_utf8(canonical_json(value).unwrap()).unwrap()
    }

    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
    #[garde(allow_unvalidated)]
    struct Order {
        options: HashMap<String, Vec<u128>>,
        labels: HashSet<String>,
        nested: Vec<HashMap<String, u8>>,
        anything: Value,
        note: Option<String>,
    }

    #[test]
    fn equal_values_have_equal_bytes_whatever_the_order_of_their_maps_and_sets() {
        let made = || Order {
            options: (0..32).map(|nth| (format!("k{nth}"), vec![u128::MAX - nth])).collect(),
            labels: (0..32).map(|nth| format!("l{nth}")).collect(),
            nested: vec![(0..32).map(|nth| (format!("n{nth}"), 1)).collect()],
            anything: serde_json::json!({"b": [3, 1, 2], "a": null}),
            note: None,
        };
        let first = text(&made());
        for _ in 0..8 {
            assert_eq!(text(&made()), first);
        }
        assert!(
            first.starts_with(r#"{"anything":{"a":null,"b":[3,1,2]},"labels":["l0","l1","l10""#),
            "{first}"
        );
        assert!(first.contains(&u128::MAX.to_string()), "{first}");
        let mut other = made();
        other.options.insert("k0".to_owned(), vec![u128::MAX - 1]);
        assert_ne!(text(&other), first);
    }

    #[test]
    fn a_field_that_gets_a_default_in_a_newer_version_leaves_older_values_as_they_were() {
        #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
        #[garde(allow_unvalidated)]
        struct Old {
            title: String,
        }
        #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
        #[garde(allow_unvalidated)]
        struct New {
            #[serde(default)]
            copies: u32,
            title: String,
            #[serde(default)]
            settings: Settings,
            #[serde(default = "one")]
            weight: f64,
            author: Option<String>,
        }
        #[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, Validate)]
        #[garde(allow_unvalidated)]
        struct Settings {
            #[serde(default)]
            names: HashMap<String, u8>,
            dark: bool,
        }
        fn one() -> f64 {
            1.0
        }
        let old = text(&Old { title: "a".to_owned() });
        let new = New::decode(old.as_bytes()).unwrap();
        assert_eq!(text(&new), old);
        assert_ne!(text(&New { copies: 1, ..new.clone() }), old);
        assert_ne!(text(&New { settings: Settings { dark: true, ..Settings::default() }, ..new }), old);
    }

    #[test]
    fn a_null_that_is_meant_is_not_absent() {
        #[expect(clippy::option_option, reason = "this is how null is told from absent")]
        #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
        #[garde(allow_unvalidated)]
        struct Patch {
            #[serde(default, deserialize_with = "crate::encoding::nullable")]
            name: Option<Option<String>>,
        }
        assert_eq!(text(&Patch { name: None }), "{}");
        assert_eq!(text(&Patch { name: Some(None) }), r#"{"name":null}"#);
    }
}
