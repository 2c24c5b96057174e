//! The fields of a command that PURISTA carries apart from its payload: split off when a message is written, joined
//! again when it is read.
//!
//! Over HTTP they come from the path and the query, and so as texts; a field that wants a number or a boolean gets one.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::contract::{Command, ContractError};

/// Splits the JSON object of a command into its payload and the named fields.
pub(crate) fn split(json: &[u8], names: &[&str]) -> Result<(Bytes, Bytes), ContractError> {
    let fields: BTreeMap<&str, &RawValue> = serde_json::from_slice(json)?;
    let (parameter, payload): (BTreeMap<_, _>, BTreeMap<_, _>) =
        fields.into_iter().partition(|(name, _)| names.contains(name));
    Ok((serde_json::to_vec(&payload)?.into(), serde_json::to_vec(&parameter)?.into()))
}

/// Joins payload and parameters of one command type.
#[derive(Debug)]
pub struct Parameters {
    forms: BTreeMap<&'static str, Form>,
}

/// What a text from a path or query is turned into.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    Text,
    /// A number or a boolean, when the text is one.
    Scalar,
    List(Box<Form>),
}

impl Parameters {
    /// The parameters of a command; their forms are read from its schema.
    pub fn of<C: Command>() -> Self {
        let schema = if C::PARAMETERS.is_empty() { Value::Null } else { C::schema().to_value() };
        let forms =
            C::PARAMETERS.iter().map(|name| (*name, form_of(at(at(&schema, "properties"), name), &schema)));
        Self { forms: forms.collect() }
    }

    /// One JSON object of both. A parameter wins over a field of the payload with its name, so that a body cannot
    /// contradict the path; an object that names unknown parameters loses them.
    pub fn join(&self, payload: &[u8], parameter: &[u8]) -> Result<Bytes, ContractError> {
        let mut fields: Map<String, Value> =
            if payload == b"null" { Map::new() } else { serde_json::from_slice(payload)? };
        let parameter: Map<String, Value> = serde_json::from_slice(parameter)?;
        for (name, value) in parameter {
            if let Some(form) = self.forms.get(name.as_str()) {
                fields.insert(name, shape(value, form));
            }
        }
        Ok(serde_json::to_vec(&fields)?.into())
    }
}

/// Joins payload and parameter of a command whose type is not known here, as one who listens to commands sees them.
pub fn join_untyped(payload: &[u8], parameter: &[u8]) -> Result<Bytes, ContractError> {
    let mut fields: Map<String, Value> =
        if payload == b"null" { Map::new() } else { serde_json::from_slice(payload)? };
    fields.extend(serde_json::from_slice::<Map<String, Value>>(parameter)?);
    Ok(serde_json::to_vec(&fields)?.into())
}

fn shape(value: Value, form: &Form) -> Value {
    match (form, value) {
        (Form::Scalar, Value::String(text)) => match serde_json::from_str(&text) {
            Ok(scalar @ (Value::Number(_) | Value::Bool(_))) => scalar,
            _ => Value::String(text),
        },
        (Form::List(item), Value::Array(values)) => {
            values.into_iter().map(|value| shape(value, item)).collect()
        }
        (Form::List(item), single @ Value::String(_)) => Value::Array(vec![shape(single, item)]),
        (_, value) => value,
    }
}

fn form_of(property: &Value, root: &Value) -> Form {
    let property = resolve(property, root);
    if let Some(options) = at(property, "anyOf").as_array() {
        return options
            .iter()
            .map(|option| form_of(option, root))
            .find(|form| *form != Form::Text)
            .unwrap_or(Form::Text);
    }
    let is = |name: &str| match at(property, "type") {
        Value::String(one) => one == name,
        Value::Array(several) => several.iter().any(|one| one == name),
        _ => false,
    };
    if is("array") {
        Form::List(Box::new(form_of(at(property, "items"), root)))
    } else if is("string") || !(is("integer") || is("number") || is("boolean")) {
        Form::Text
    } else {
        Form::Scalar
    }
}

/// A field, or `null` where there is none.
fn at<'v>(value: &'v Value, field: &str) -> &'v Value {
    value.get(field).unwrap_or(&Value::Null)
}

fn resolve<'v>(property: &'v Value, root: &'v Value) -> &'v Value {
    let pointer = at(property, "$ref").as_str().and_then(|target| target.strip_prefix('#'));
    pointer.and_then(|pointer| root.pointer(pointer)).unwrap_or(property)
}

#[cfg(test)]
mod tests {
    use garde::Validate;
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::address::ServiceId;
    use crate::payload::Payload;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
    #[serde(rename_all = "camelCase")]
    #[garde(allow_unvalidated)]
    struct Find {
        user_id: String,
        page: Option<u32>,
        deep: bool,
        ids: Vec<u8>,
        text: String,
    }
    impl Command for Find {
        const SERVICE: ServiceId = ServiceId::new("User", "1");
        const NAME: &'static str = "find";
        const PARAMETERS: &'static [&'static str] = &["userId", "page", "deep", "ids"];
        type Output = ();
    }

    fn joined(payload: &str, parameter: &str) -> Value {
        let json = Parameters::of::<Find>().join(payload.as_bytes(), parameter.as_bytes()).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    #[test]
    fn texts_become_what_the_schema_asks_for() {
        let parameter = r#"{"userId":"7","page":"2","deep":"true","ids":["1","2"],"unknown":"x"}"#;
        let expected =
            serde_json::json!({"userId": "7", "page": 2, "deep": true, "ids": [1, 2], "text": "t"});
        assert_eq!(joined(r#"{"text":"t"}"#, parameter), expected);
        assert_eq!(joined("null", r#"{"page":"x"}"#), serde_json::json!({"page": "x"}));
    }

    #[test]
    fn the_path_wins_over_the_body() {
        assert_eq!(joined(r#"{"userId":"evil"}"#, r#"{"userId":"7"}"#)["userId"], "7");
    }

    #[test]
    fn a_command_is_split_and_joined_without_loss() {
        let find = Find { user_id: "7".into(), page: None, deep: true, ids: vec![1], text: "t".into() };
        let (payload, parameter) = Payload::command(find.clone()).split().unwrap().unwrap();
        assert_eq!(&payload[..], br#"{"text":"t"}"#);
        let json = Parameters::of::<Find>().join(&payload, &parameter).unwrap();
        assert_eq!(serde_json::from_slice::<Find>(&json).unwrap(), find);
    }
}
