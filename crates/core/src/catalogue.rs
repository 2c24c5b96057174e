//! What a host serves, for those who describe it or lead to it: gateways, documents, the console.

use std::any::TypeId;
use std::fmt;

use serde_json::{Map, Value, json};

use crate::address::{Address, ServiceId};
use crate::checker::Checker;
use crate::contract::{Command, Contract, ContractError};
use crate::event::Event;
use crate::length_unit::{self, ByteRule};
use crate::route::Route;
use crate::subscription::Filter;

/// One command.
#[derive(Clone)]
pub struct CommandEntry {
    /// Where it is found.
    pub address: Address,
    /// One sentence.
    pub summary: &'static str,
    /// Where HTTP finds it.
    pub route: Option<Route>,
    /// The fields that travel apart.
    pub parameters: &'static [&'static str],
    /// The errors that it answers with on purpose.
    pub errors: &'static [(u16, &'static str)],
    /// The event that its answer is marked with.
    pub success_event: Option<&'static str>,
    input: fn() -> schemars::Schema,
    output: fn() -> schemars::Schema,
    input_byte_rules: fn() -> Vec<ByteRule>,
    output_byte_rules: fn() -> Vec<ByteRule>,
    output_type: TypeId,
    checker: fn() -> Checker,
}

impl CommandEntry {
    /// The entry of a contract; a gateway in a process of its own lists contracts this way.
    pub fn of<C: Command>() -> Self {
        Self {
            address: Address::known(C::ADDRESS),
            summary: C::SUMMARY,
            route: C::HTTP,
            parameters: C::PARAMETERS,
            errors: C::ERRORS,
            success_event: None,
            input: C::schema,
            output: C::Output::schema,
            input_byte_rules: length_unit::byte_rules::<C>,
            output_byte_rules: length_unit::byte_rules::<C::Output>,
            output_type: TypeId::of::<C::Output>(),
            checker: Checker::of::<C>,
        }
    }

    /// The schema of the input, parameters included. It says which lengths are counted in bytes.
    pub fn input(&self) -> Value {
        let mut schema = (self.input)().to_value();
        length_unit::annotate(&mut schema, &self.input_byte_rules());
        schema
    }

    /// The schema of the output. It says which lengths are counted in bytes.
    pub fn output(&self) -> Value {
        let mut schema = (self.output)().to_value();
        length_unit::annotate(&mut schema, &(self.output_byte_rules)());
        schema
    }

    /// The string rules of the input that count bytes, where JSON Schema counts characters.
    pub fn input_byte_rules(&self) -> Vec<ByteRule> {
        (self.input_byte_rules)()
    }

    /// What checks the input where the command is not served.
    pub fn checker(&self) -> Checker {
        (self.checker)()
    }

    /// Whether it answers with nothing (`()`), which HTTP says as 204.
    pub fn answers_nothing(&self) -> bool {
        (self.output)().get("type").is_some_and(|kind| kind == "null")
    }

    /// PURISTA's metadata of a command, the payload of `infoServiceFunctionAdded`.
    pub fn metadata(&self) -> Value {
        let mut expose = Map::new();
        let mut put = |name: &str, value: Value| expose.insert(name.to_owned(), value);
        for direction in ["Request", "Response"] {
            put(&format!("contentType{direction}"), "application/json".into());
            put(&format!("contentEncoding{direction}"), "utf-8".into());
        }
        let (input, parameter) = split(self.input(), self.parameters);
        put("inputPayload", input);
        if let Some(parameter) = parameter {
            put("parameter", parameter);
        }
        if !self.answers_nothing() {
            put("outputPayload", self.output());
        }
        put("deprecated", false.into());
        if let Some(route) = self.route {
            let query = self
                .query_parameters()
                .map(|name| json!({"name": name, "required": false}))
                .collect::<Vec<_>>();
            let http = json!({
                "method": route.method().as_str(), "path": gateway_path(route.path()),
                "openApi": {
                    "description": self.summary, "summary": self.address.target(),
                    "isSecure": route.access() == crate::route::Access::Authenticated,
                    "query": query, "tags": [], "operationId": self.address.target(),
                    "additionalStatusCodes": self.errors.iter().map(|(status, _)| status).collect::<Vec<_>>(),
                },
            });
            put("http", http);
        }
        json!({ "expose": expose })
    }

    /// The parameters that are not in the path of the route.
    pub fn query_parameters(&self) -> impl Iterator<Item = &'static str> {
        let route = self.route;
        self.parameters.iter().copied().filter(move |name| {
            !route.is_some_and(|route| route.path_parameters().any(|in_path| in_path == *name))
        })
    }
}

/// The path of a route as PURISTA's gateway reads it: a parameter is `:name` there.
fn gateway_path(path: &str) -> String {
    let segment = |segment: &str| match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        Some(name) => format!(":{name}"),
        None => segment.to_owned(),
    };
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

/// The schema of a command as PURISTA shows it: that of the payload, and that of the fields that travel apart, if any do.
fn split(mut input: Value, parameters: &[&str]) -> (Value, Option<Value>) {
    if parameters.is_empty() {
        return (input, None);
    }
    let is_apart = |name: &str| parameters.contains(&name);
    let mut parameter = input.clone();
    for (schema, stays) in [(&mut input, false), (&mut parameter, true)] {
        if let Some(fields) = schema.get_mut("properties").and_then(Value::as_object_mut) {
            fields.retain(|name, _| is_apart(name) == stays);
        }
        if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
            required.retain(|name| name.as_str().is_some_and(is_apart) == stays);
        }
    }
    // What was flattened into the input travels in the payload.
    if let Some(parameter) = parameter.as_object_mut() {
        let is_flattened = |name: &str, schema: &Value| match name {
            "allOf" | "anyOf" | "oneOf" | "patternProperties" => true,
            "additionalProperties" | "unevaluatedProperties" => *schema != Value::Bool(false),
            _ => false,
        };
        parameter.retain(|name, schema| !is_flattened(name, schema));
    }
    (input, Some(parameter))
}

impl fmt::Debug for CommandEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandEntry")
            .field("address", &self.address)
            .field("route", &self.route)
            .finish_non_exhaustive()
    }
}

/// One subscription.
#[derive(Debug, Clone)]
pub struct SubscriptionEntry {
    /// Where it lives.
    pub address: Address,
    /// What it gets.
    pub filter: Filter,
    /// Whether messages wait for it.
    pub durable: bool,
}

/// One event type that is emitted or handled here.
#[derive(Clone)]
pub struct EventEntry {
    /// Its name.
    pub name: &'static str,
    /// The version of its form.
    pub version: u32,
    schema: fn() -> schemars::Schema,
    byte_rules: fn() -> Vec<ByteRule>,
    decode: fn(&[u8]) -> Result<(), ContractError>,
    type_id: TypeId,
}

impl EventEntry {
    /// The entry of an event.
    pub fn of<E: Event>() -> Self {
        Self {
            name: E::NAME,
            version: E::VERSION,
            schema: E::schema,
            byte_rules: length_unit::byte_rules::<E>,
            decode: |json| E::decode(json).map(drop),
            type_id: TypeId::of::<E>(),
        }
    }

    /// Checks that this JSON is the body of such an event.
    ///
    /// # Errors
    ///
    /// Returns an error if the type cannot be decoded from it.
    pub fn decode(&self, body: &[u8]) -> Result<(), ContractError> {
        (self.decode)(body)
    }

    /// Whether the command's output is of this event's type.
    pub fn is_output_of(&self, command: &CommandEntry) -> bool {
        self.type_id == command.output_type
    }

    /// The schema of its body. It says which lengths are counted in bytes.
    pub fn schema(&self) -> Value {
        let mut schema = (self.schema)().to_value();
        length_unit::annotate(&mut schema, &self.byte_rules());
        schema
    }

    /// The string rules of its body that count bytes, where JSON Schema counts characters.
    pub fn byte_rules(&self) -> Vec<ByteRule> {
        (self.byte_rules)()
    }
}

impl fmt::Debug for EventEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventEntry({} v{})", self.name, self.version)
    }
}

/// One service.
#[derive(Debug, Clone)]
pub struct ServiceEntry {
    /// Its name and version.
    pub id: ServiceId,
    /// One sentence.
    pub description: &'static str,
    /// What can be asked of it.
    pub commands: Vec<CommandEntry>,
    /// What it listens to.
    pub subscriptions: Vec<SubscriptionEntry>,
    /// What it emits.
    pub events: Vec<EventEntry>,
}

/// Everything that a host serves.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    /// The services, in the order in which they were added.
    pub services: Vec<ServiceEntry>,
}

impl Catalogue {
    /// The commands of all services.
    pub fn commands(&self) -> impl Iterator<Item = &CommandEntry> {
        self.services.iter().flat_map(|service| &service.commands)
    }
}

#[cfg(test)]
mod tests {
    use garde::Validate;
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
    #[serde(rename_all = "camelCase")]
    #[garde(allow_unvalidated)]
    struct Rename {
        user_id: String,
        name: String,
    }
    impl Command for Rename {
        const SERVICE: ServiceId = ServiceId::new("User", "1");
        const NAME: &'static str = "rename";
        const PARAMETERS: &'static [&'static str] = &["userId"];
        const HTTP: Option<Route> = Some(Route::patch("users/{userId}"));
        type Output = ();
    }

    #[test]
    fn metadata_shows_apart_what_travels_apart_and_no_output_where_there_is_none() {
        let expose = CommandEntry::of::<Rename>().metadata()["expose"].take();
        let named = |schema: &Value| {
            let fields = schema["properties"].as_object().unwrap();
            (fields.keys().cloned().collect::<Vec<_>>(), schema["required"].clone())
        };
        assert_eq!(named(&expose["inputPayload"]), (vec!["name".to_owned()], json!(["name"])));
        assert_eq!(named(&expose["parameter"]), (vec!["userId".to_owned()], json!(["userId"])));
        assert_eq!(expose.get("outputPayload"), None);
        assert_eq!(expose["http"]["openApi"]["query"], json!([]), "it is part of the path");
        assert_eq!(expose["http"]["path"], "users/:userId", "as PURISTA's gateway reads it");
    }

    #[test]
    fn what_is_flattened_into_an_input_is_shown_in_the_payload_and_not_among_parameters() {
        let input = json!({
            "type": "object", "properties": {"userId": {"type": "string"}}, "required": ["userId"],
            "additionalProperties": {"type": "string"}, "oneOf": [{"required": ["kind"]}],
        });
        let (payload, parameter) = split(input, &["userId"]);
        assert_eq!(
            (&payload["additionalProperties"], &payload["oneOf"][0]["required"]),
            (&json!({"type": "string"}), &json!(["kind"]))
        );
        let expect =
            json!({"type": "object", "properties": {"userId": {"type": "string"}}, "required": ["userId"]});
        assert_eq!(parameter, Some(expect));
    }
}
