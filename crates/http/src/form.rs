//! Bodies that are forms or plain text, as the JSON object of the command.
//!
//! A form knows texts only. A field that wants a number or a boolean gets one, as its schema says; what fits no schema
//! stays a text, so that the command's own validation names it.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

use crate::parameter::{self, Malformed, push_text};

/// What the fields of a form become.
#[derive(Debug, Default)]
pub(crate) struct Form {
    kinds: BTreeMap<String, Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Boolean,
    Texts,
    Numbers,
}

impl Form {
    /// The form of an input with this schema.
    pub(crate) fn of(schema: &Value) -> Self {
        let properties = schema["properties"].as_object();
        let kinds =
            properties.into_iter().flatten().map(|(name, field)| (name.clone(), kind_of(field, schema)));
        Self { kinds: kinds.collect() }
    }

    /// The JSON object of a form.
    pub(crate) fn to_json(&self, encoded: &str) -> Result<Bytes, Malformed> {
        let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in parameter::pairs(encoded) {
            let (name, value) = pair?;
            fields.entry(name.into_owned()).or_default().push(value.into_owned());
        }
        let mut json = vec![b'{'];
        for (name, values) in &fields {
            let kind = self.kinds.get(name).copied().unwrap_or(Kind::Text);
            let is_left_open =
                matches!(kind, Kind::Number | Kind::Boolean) && values.iter().all(String::is_empty);
            if is_left_open {
                continue;
            }
            if json.len() > 1 {
                json.push(b',');
            }
            push_text(&mut json, name);
            json.push(b':');
            push_values(&mut json, kind, values);
        }
        json.push(b'}');
        Ok(json.into())
    }
}

fn push_values(json: &mut Vec<u8>, kind: Kind, values: &[String]) {
    if let (Kind::Text | Kind::Number | Kind::Boolean, [only]) = (kind, values) {
        return push_value(json, kind, only);
    }
    json.push(b'[');
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        push_value(json, kind, value);
    }
    json.push(b']');
}

fn push_value(json: &mut Vec<u8>, kind: Kind, text: &str) {
    match (kind, text) {
        // What browsers send for a checkbox that is checked; for another they send nothing.
        (Kind::Boolean, "true" | "on") => json.extend_from_slice(b"true"),
        (Kind::Boolean, "false" | "off") => json.extend_from_slice(b"false"),
        (Kind::Number | Kind::Numbers, _) if is_number(text) => {
            json.extend_from_slice(text.trim().as_bytes());
        }
        _ => push_text(json, text),
    }
}

fn is_number(text: &str) -> bool {
    matches!(serde_json::from_str::<Value>(text), Ok(Value::Number(_)))
}

fn kind_of(field: &Value, root: &Value) -> Kind {
    let field = resolved(field, root);
    if let Some(options) = field["anyOf"].as_array() {
        let kinds = options.iter().map(|option| kind_of(option, root));
        return kinds.into_iter().find(|kind| *kind != Kind::Text).unwrap_or(Kind::Text);
    }
    let is = |name: &str| match &field["type"] {
        Value::String(one) => one == name,
        Value::Array(several) => several.iter().any(|one| one == name),
        _ => false,
    };
    if is("array") {
        match kind_of(&field["items"], root) {
            Kind::Number => Kind::Numbers,
            _ => Kind::Texts,
        }
    } else if is("string") {
        Kind::Text
    } else if is("integer") || is("number") {
        Kind::Number
    } else if is("boolean") {
        Kind::Boolean
    } else {
        Kind::Text
    }
}

fn resolved<'v>(field: &'v Value, root: &'v Value) -> &'v Value {
    let pointer = field["$ref"].as_str().and_then(|target| target.strip_prefix('#'));
    pointer.and_then(|pointer| root.pointer(pointer)).unwrap_or(field)
}

/// The JSON object of a plain text: the whole body is one field.
pub(crate) fn text_to_json(field: &str, text: &str) -> Bytes {
    let mut json = Vec::with_capacity(text.len() + field.len() + 8);
    json.push(b'{');
    push_text(&mut json, field);
    json.push(b':');
    push_text(&mut json, text);
    json.push(b'}');
    json.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(encoded: &str, expect: &Value) {
        let schema = json!({
            "properties": {
                "name": {"type": "string"}, "age": {"type": ["integer", "null"]}, "agreed": {"type": "boolean"},
                "size": {"$ref": "#/$defs/Size"}, "tags": {"type": "array", "items": {"type": "string"}},
                "ids": {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "null"}]},
            },
            "$defs": {"Size": {"type": "number"}},
        });
        let json = Form::of(&schema).to_json(encoded).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&json).unwrap(), *expect, "{encoded}");
    }

    #[test]
    fn fields_become_what_their_schema_asks_for() {
        check("", &json!({}));
        check(
            "name=42&age=42&agreed=on&size=1.5",
            &json!({"name": "42", "age": 42, "agreed": true, "size": 1.5}),
        );
        check("tags=1&ids=1", &json!({"tags": ["1"], "ids": [1]}));
        check("tags=a&tags=b&ids=1&ids=x", &json!({"tags": ["a", "b"], "ids": [1, "x"]}));
    }

    #[test]
    fn what_fits_no_schema_stays_a_text_for_validation_to_name() {
        check("age=old&agreed=maybe&unknown=1", &json!({"age": "old", "agreed": "maybe", "unknown": "1"}));
        check("name=a&name=b", &json!({"name": ["a", "b"]}));
        check("age=1,\"x\":2", &json!({"age": "1,\"x\":2"}));
        check("age=&name=", &json!({"name": ""}));
    }

    #[test]
    fn a_text_is_one_field() {
        assert_eq!(text_to_json("note", "a\"b\n"), r#"{"note":"a\"b\n"}"#);
    }
}
