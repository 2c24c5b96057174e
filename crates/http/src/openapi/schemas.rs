//! The schemas of the document: each contract brings its own definitions, which are moved to one place under names that
//! are theirs alone.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

const PLACE: &str = "#/components/schemas/";
const LOCAL: &str = "#/$defs/";

/// All schemas of a document. Definitions that are alike in everything they lead to share a name.
pub(super) struct Schemas {
    all: Map<String, Value>,
    /// What a name of the document stood for where it came from: the definition, and all that it leads to.
    origins: BTreeMap<String, Origin>,
}

#[derive(Debug, Clone, PartialEq)]
struct Origin {
    schema: Value,
    leads_to: BTreeMap<String, Value>,
}

impl Schemas {
    /// Nothing but the form of errors (RFC 9457).
    pub(super) fn with_problem() -> Self {
        let mut all = Map::new();
        all.insert("Problem".to_owned(), problem());
        Self { all, origins: BTreeMap::new() }
    }

    pub(super) fn into_all(self) -> Value {
        Value::Object(self.all)
    }

    /// Moves the definitions of a contract's schema into the document, and returns the schema with its references led
    /// there. `fallback` names a schema without a title.
    pub(super) fn take_in(&mut self, mut schema: Value, fallback: &str) -> Value {
        let Some(root) = schema.as_object_mut() else { return schema };
        root.remove("$schema");
        let local = match root.remove("$defs") {
            Some(Value::Object(local)) => local,
            _ => Map::new(),
        };
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        let mut fresh = Vec::new();
        for (name, definition) in &local {
            let origin = Origin { schema: definition.clone(), leads_to: reachable(definition, &local) };
            let (assigned, is_new) = self.assign(name, origin);
            if is_new {
                fresh.push((assigned.clone(), definition.clone()));
            }
            names.insert(format!("{LOCAL}{name}"), format!("{PLACE}{assigned}"));
        }
        if refers_to(&schema, "#") || local.values().any(|definition| refers_to(definition, "#")) {
            let origin = Origin { schema: schema.clone(), leads_to: reachable(&schema, &local) };
            let (assigned, is_new) = self.assign(&title_of(&schema, fallback), origin);
            if is_new {
                fresh.push((assigned.clone(), untitled(schema.clone())));
            }
            names.insert("#".to_owned(), format!("{PLACE}{assigned}"));
        }
        for (assigned, mut definition) in fresh {
            lead(&mut definition, &names);
            self.all.insert(assigned, definition);
        }
        lead(&mut schema, &names);
        schema
    }

    /// Adds a schema that was taken in under the name of its title, and returns the reference to it.
    pub(super) fn add(&mut self, schema: Value, fallback: &str) -> Value {
        if !schema.is_object() {
            return schema;
        }
        let title = title_of(&schema, fallback);
        let schema = untitled(schema);
        let (name, is_new) =
            self.assign(&title, Origin { schema: schema.clone(), leads_to: BTreeMap::new() });
        if is_new {
            self.all.insert(name.clone(), schema);
        }
        json!({"$ref": format!("{PLACE}{name}")})
    }

    /// The name in the document, and whether it is new there.
    fn assign(&mut self, wanted: &str, origin: Origin) -> (String, bool) {
        let wanted = allowed(wanted);
        let mut name = wanted.clone();
        for number in 2.. {
            if self.origins.get(&name).is_some_and(|taken| *taken == origin) {
                return (name, false);
            }
            // A schema may be there under this name in the form that it has in the document.
            if self.all.get(&name).is_some_and(|there| *there == origin.schema && origin.leads_to.is_empty())
            {
                return (name, false);
            }
            if !self.all.contains_key(&name) && !self.origins.contains_key(&name) {
                break;
            }
            name = format!("{wanted}{number}");
        }
        self.origins.insert(name.clone(), origin);
        (name, true)
    }
}

/// A schema whose title has become its name; the same type within another one has none either.
fn untitled(mut schema: Value) -> Value {
    if let Some(members) = schema.as_object_mut() {
        members.remove("title");
    }
    schema
}

fn title_of(schema: &Value, fallback: &str) -> String {
    schema["title"].as_str().unwrap_or(fallback).to_owned()
}

/// A name as OpenAPI allows it: letters, digits, `.`, `-` and `_`.
fn allowed(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '_' }).collect()
}

/// Every definition that a schema leads to, by way of others too.
fn reachable(schema: &Value, local: &Map<String, Value>) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let mut open: Vec<&Value> = vec![schema];
    while let Some(schema) = open.pop() {
        let mut targets = BTreeSet::new();
        each_reference(schema, &mut |target| {
            targets.extend(target.strip_prefix(LOCAL).map(ToOwned::to_owned));
        });
        for name in targets {
            if let Some(definition) = local.get(&name).filter(|_| !found.contains_key(&name)) {
                found.insert(name, definition.clone());
                open.push(definition);
            }
        }
    }
    found
}

fn refers_to(schema: &Value, target: &str) -> bool {
    let mut refers = false;
    each_reference(schema, &mut |found| refers |= found == target);
    refers
}

fn each_reference(schema: &Value, visit: &mut impl FnMut(&str)) {
    match schema {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(target) if name == "$ref" => visit(target),
                    member => each_reference(member, visit),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| each_reference(item, visit)),
        _ => {}
    }
}

/// Leads every reference to where its target was moved.
fn lead(schema: &mut Value, names: &BTreeMap<String, String>) {
    match schema {
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                match member {
                    Value::String(target) if name == "$ref" => {
                        if let Some(moved) = names.get(target) {
                            moved.clone_into(target);
                        }
                    }
                    member => lead(member, names),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| lead(item, names)),
        _ => {}
    }
}

fn problem() -> Value {
    json!({
        "title": "Problem",
        "description": "An error (RFC 9457).",
        "type": "object",
        "required": ["type", "title", "status", "detail", "instance", "traceId"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string"},
            "instance": {"type": "string", "format": "uri-reference"},
            "traceId": {"type": "string", "description": "Names the flow, for support and logs."},
            "errors": {
                "type": "array",
                "description": "Every field at fault.",
                "items": {
                    "type": "object",
                    "required": ["message", "path"],
                    "properties": {
                        "message": {"type": "string"},
                        "path": {"type": "array", "items": {"type": "string"}},
                    },
                },
            },
            "data": {"description": "Further details."},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_place(city: &str) -> Value {
        json!({
            "$schema": "x", "title": "User", "type": "object",
            "properties": {"home": {"$ref": "#/$defs/Place"}},
            "$defs": {"Place": {"type": "object", "properties": {"city": {"$ref": "#/$defs/City"}}}, "City": {"type": city}},
        })
    }

    #[test]
    fn alike_definitions_share_a_name_and_others_get_their_own() {
        let mut schemas = Schemas::with_problem();
        for (city, place) in [("string", "Place"), ("string", "Place"), ("integer", "Place2")] {
            let taken = schemas.take_in(with_place(city), "x");
            assert_eq!(taken["properties"]["home"]["$ref"], format!("{PLACE}{place}"));
            assert!(taken.get("$defs").is_none() && taken.get("$schema").is_none());
        }
        let all = schemas.into_all();
        assert_eq!(all["Place2"]["properties"]["city"]["$ref"], format!("{PLACE}City2"));
        assert_eq!(all["City"]["type"], "string");
        assert_eq!(all.as_object().unwrap().len(), 5);
    }

    #[test]
    fn a_type_that_holds_itself_refers_to_its_own_place() {
        let mut schemas = Schemas::with_problem();
        let tree = json!({"title": "Tree", "properties": {"left": {"$ref": "#"}}});
        let taken = schemas.take_in(tree, "x");
        assert_eq!(taken["properties"]["left"]["$ref"], format!("{PLACE}Tree"));
        assert_eq!(schemas.add(taken, "x"), json!({"$ref": format!("{PLACE}Tree")}));
        assert_eq!(schemas.into_all().as_object().unwrap().len(), 2);
    }

    #[test]
    fn a_contract_called_problem_does_not_replace_the_form_of_errors() {
        let mut schemas = Schemas::with_problem();
        let reference = schemas.add(json!({"title": "Problem", "type": "string"}), "x");
        assert_eq!(reference["$ref"], format!("{PLACE}Problem2"));
        let reference = schemas.add(json!({"title": "a b/<c>"}), "x");
        assert_eq!(reference["$ref"], format!("{PLACE}a_b__c_"));
    }
}
