//! Finds string rules that count bytes of UTF-8, where the JSON schema of the type says characters.
//!
//! garde's `length(max = 80)` counts the bytes of a text, `length(chars, max = 80)` its characters. schemars writes
//! `maxLength: 80` for both, which counts characters. Neither library says which one an attribute asks for, so the type is
//! asked: a value is made from its schema, and checked with texts of the same number of characters and different numbers of
//! bytes. It happens at the start of a host, when the schema is shown, and when an input is refused; never on the path of a
//! message.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Map, Value};

use crate::contract::Contract;
use crate::fault::Fault;

/// The most rules of one type that are tried.
const RULES_MAX: usize = 64;
/// The deepest place of a rule that is tried.
const DEPTH_MAX: usize = 8;
/// The longest text that is made.
const TEXT_CHARS_MAX: u64 = 64 * 1024;
/// One character that is one byte, and one that is two.
const NARROW: char = 'e';
const WIDE: char = 'é';
/// How garde begins what it says of a text that is too long or too short.
const TOO_LONG: &str = "length is greater than ";
const TOO_SHORT: &str = "length is lower than ";

/// A string rule that counts bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByteRule {
    /// The way to the field, in the names of Rust, as in [`Fault::path`].
    pub path: Vec<String>,
    /// Where the string is in the schema, as a JSON pointer.
    pub pointer: String,
}

/// The string rules of a type that count bytes. A type of which no value can be made from its schema has none that could be
/// found.
pub fn byte_rules<C: Contract>() -> Vec<ByteRule> {
    let schema = C::schema().to_value();
    let mut strings = Vec::new();
    Maker { root: &schema, probed: None }.make(&schema, "", 0, &mut strings);
    // Rules are the user's code, and have never seen such values.
    let check = |value: &Value| catch_unwind(AssertUnwindSafe(|| faults_of::<C>(value))).ok().flatten();
    strings.iter().take(RULES_MAX).filter_map(|string| rule_at(&schema, string, check)).collect()
}

/// Says in a schema which of its lengths are counted in bytes.
pub(crate) fn annotate(schema: &mut Value, rules: &[ByteRule]) {
    for rule in rules {
        let Some(string) = schema.pointer_mut(&rule.pointer).and_then(Value::as_object_mut) else { continue };
        let note = "Its length is counted in bytes of UTF-8.";
        let described = match string.get("description").and_then(Value::as_str) {
            Some(description) => format!("{description} {note}"),
            None => note.to_owned(),
        };
        string.insert("description".to_owned(), described.into());
    }
}

/// Names the unit in what was found by rules that count bytes.
pub(crate) fn name_unit(found: &mut [Fault], rules: &[ByteRule]) {
    for fault in found {
        let is_length = fault.message.starts_with(TOO_LONG) || fault.message.starts_with(TOO_SHORT);
        if is_length && rules.iter().any(|rule| rule.path == fault.path) {
            fault.message.push_str(" bytes of UTF-8");
        }
    }
}

fn faults_of<C: Contract>(value: &Value) -> Option<Vec<Fault>> {
    let value = C::decode(value.to_string().as_bytes()).ok()?;
    Some(value.check().err().unwrap_or_default())
}

/// A string in a schema, with its bounds.
struct Bounded {
    pointer: String,
    min: Option<u64>,
    max: Option<u64>,
}

fn rule_at(
    schema: &Value,
    string: &Bounded,
    check: impl Fn(&Value) -> Option<Vec<Fault>>,
) -> Option<ByteRule> {
    let faults = |c: char, count: u64| {
        let text: String = std::iter::repeat_n(c, usize::try_from(count).ok()?).collect();
        let probed = Some((string.pointer.as_str(), text));
        check(&Maker { root: schema, probed }.make(schema, "", 0, &mut Vec::new())?)
    };
    let found = if let Some(max) = string.max.filter(|max| (1..=TEXT_CHARS_MAX).contains(max)) {
        only_in(&faults(WIDE, max)?, &faults(NARROW, max)?, TOO_LONG)
    } else {
        let too_few = string.min.filter(|min| (2..=TEXT_CHARS_MAX).contains(min))? - 1;
        only_in(&faults(NARROW, too_few)?, &faults(WIDE, too_few)?, TOO_SHORT)
    };
    found.map(|fault| ByteRule { path: fault.path, pointer: string.pointer.clone() })
}

fn only_in(these: &[Fault], others: &[Fault], text: &str) -> Option<Fault> {
    these.iter().find(|fault| fault.message.starts_with(text) && !others.contains(fault)).cloned()
}

/// Makes a value of a schema. It need not obey every rule: only its form counts.
struct Maker<'s> {
    root: &'s Value,
    /// The string, by its place in the schema, that becomes this text.
    probed: Option<(&'s str, String)>,
}

impl<'s> Maker<'s> {
    /// A value of the schema at `pointer`; `None` where none can be made. Bounded strings on the way are noted.
    fn make(
        &self,
        schema: &'s Value,
        pointer: &str,
        depth: usize,
        strings: &mut Vec<Bounded>,
    ) -> Option<Value> {
        if depth > DEPTH_MAX {
            return None;
        }
        if schema.is_boolean() {
            return Some(Value::Null);
        }
        let map = schema.as_object()?;
        if let Some(target) = map.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix('#')) {
            return self.make(self.root.pointer(target)?, target, depth + 1, strings);
        }
        if let Some(only) = map.get("const").or_else(|| map.get("enum")?.get(0)) {
            return Some(only.clone());
        }
        for name in ["anyOf", "oneOf", "allOf"] {
            let options = map.get(name).and_then(Value::as_array).into_iter().flatten().enumerate();
            let mut options = options.filter(|(_, option)| option["type"] != "null");
            if let Some((number, option)) = options.next().filter(|_| !map.contains_key("properties")) {
                return self.make(option, &format!("{pointer}/{name}/{number}"), depth + 1, strings);
            }
        }
        let kind = match map.get("type")? {
            Value::Array(kinds) => kinds.iter().find(|kind| *kind != "null")?.as_str()?,
            kind => kind.as_str()?,
        };
        match kind {
            "object" => self.object(map, pointer, depth, strings),
            "array" => self.array(map, pointer, depth, strings),
            "string" => Some(self.string(map, pointer, strings).into()),
            "integer" | "number" => Some(map.get("minimum").cloned().unwrap_or_else(|| 1.into())),
            "boolean" => Some(false.into()),
            _ => Some(Value::Null),
        }
    }

    fn object(
        &self,
        map: &'s Map<String, Value>,
        pointer: &str,
        depth: usize,
        strings: &mut Vec<Bounded>,
    ) -> Option<Value> {
        let required = map.get("required").and_then(Value::as_array);
        let mut made = Map::new();
        for (name, schema) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let place = format!("{pointer}/properties/{}", name.replace('~', "~0").replace('/', "~1"));
            match self.make(schema, &place, depth + 1, strings) {
                Some(value) => drop(made.insert(name.clone(), value)),
                None if required.is_some_and(|all| all.iter().any(|one| one == name)) => return None,
                None => {}
            }
        }
        Some(Value::Object(made))
    }

    fn array(
        &self,
        map: &'s Map<String, Value>,
        pointer: &str,
        depth: usize,
        strings: &mut Vec<Bounded>,
    ) -> Option<Value> {
        if let Some(places) = map.get("prefixItems").and_then(Value::as_array) {
            let made = places.iter().enumerate().map(|(number, schema)| {
                self.make(schema, &format!("{pointer}/prefixItems/{number}"), depth + 1, strings)
            });
            return made.collect();
        }
        let least = map.get("minItems").and_then(Value::as_u64).unwrap_or(0);
        let item = map
            .get("items")
            .and_then(|schema| self.make(schema, &format!("{pointer}/items"), depth + 1, strings));
        match item {
            Some(item) => {
                let count = usize::try_from(least.clamp(1, 64)).unwrap_or(1);
                Some(Value::Array(vec![item; count]))
            }
            None => (least == 0).then(|| Value::Array(Vec::new())),
        }
    }

    fn string(&self, map: &Map<String, Value>, pointer: &str, strings: &mut Vec<Bounded>) -> String {
        let bound = |name: &str| map.get(name).and_then(Value::as_u64);
        let (min, max) = (bound("minLength"), bound("maxLength"));
        if min.is_some() || max.is_some() {
            strings.push(Bounded { pointer: pointer.to_owned(), min, max });
        }
        if let Some((_, text)) = self.probed.as_ref().filter(|(probed, _)| *probed == pointer) {
            return text.clone();
        }
        match map.get("format").and_then(Value::as_str) {
            Some("date-time") => "2026-01-01T00:00:00Z".to_owned(),
            Some("date") => "2026-01-01".to_owned(),
            Some("time") => "00:00:00".to_owned(),
            Some("uuid") => "00000000-0000-4000-8000-000000000000".to_owned(),
            Some("email") => "a@example.com".to_owned(),
            Some("uri" | "url") => "https://example.com".to_owned(),
            Some("ipv4" | "ip") => "127.0.0.1".to_owned(),
            Some("ipv6") => "::1".to_owned(),
            _ => NARROW.to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
