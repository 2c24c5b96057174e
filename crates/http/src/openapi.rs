//! The OpenAPI 3.1 document, made once from the catalogue: what is documented is what is served.

use std::collections::BTreeMap;

use purista_core::catalogue::CommandEntry;
use purista_core::route::{Access, Body, Route};
use serde_json::{Map, Value, json};

use crate::authenticator::SecurityScheme;
use crate::exchange::{IDEMPOTENCY_KEY, IDEMPOTENCY_KEY_BYTES_MAX};
use crate::limits::Limits;

mod schemas;

use schemas::Schemas;

/// What the document says about itself and its gateway.
pub(crate) struct Subject<'a> {
    pub(crate) title: &'a str,
    pub(crate) version: &'a str,
    pub(crate) limits: &'a Limits,
    pub(crate) scheme: Option<&'a SecurityScheme>,
    /// Names and descriptions of services.
    pub(crate) services: Vec<(&'static str, &'static str)>,
}

/// The document of these commands, each with the path at which it is served.
pub(crate) fn document(subject: &Subject<'_>, commands: &[(&CommandEntry, Route, String)]) -> Value {
    let mut schemas = Schemas::with_problem();
    let mut paths = Paths::default();
    for (entry, route, path) in commands {
        let (path, names) = paths.place(path);
        let is_unique =
            commands.iter().filter(|(other, ..)| other.address.target() == entry.address.target()).count()
                == 1;
        let operation = Operation { entry, route, names, is_unique, subject };
        let method = route.method().as_str().to_ascii_lowercase();
        let described = operation.describe(&mut schemas);
        paths.add(path, method, described);
    }
    let security_schemes =
        subject.scheme.map_or_else(|| json!({}), |scheme| json!({scheme.name: scheme.definition}));
    json!({
        "openapi": "3.1.0",
        "info": {"title": subject.title, "version": subject.version},
        "tags": tags(subject),
        "paths": paths.documented,
        "components": {
            "schemas": schemas.into_all(),
            "parameters": parameters(),
            "headers": {"TraceId": {"description": "Names the flow, for support and logs.", "schema": {"type": "string"}}},
            "responses": standard_responses(subject.limits),
            "securitySchemes": security_schemes,
        },
    })
}

fn tags(subject: &Subject<'_>) -> Vec<Value> {
    let mut named: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, description) in &subject.services {
        named.entry(name).or_insert(description);
    }
    named.into_iter().map(|(name, description)| json!({"name": name, "description": description})).collect()
}

/// The paths of the document. Two paths that differ only in the names of their parameters are one to OpenAPI, so the
/// first one's names stand for both.
#[derive(Default)]
struct Paths {
    documented: Map<String, Value>,
    by_shape: BTreeMap<String, String>,
}

impl Paths {
    fn place(&mut self, path: &str) -> (String, Vec<String>) {
        let shape: Vec<&str> =
            path.split('/').map(|segment| if segment.starts_with('{') { "{}" } else { segment }).collect();
        let first = self.by_shape.entry(shape.join("/")).or_insert_with(|| path.to_owned()).clone();
        let names = first.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
        let names = names.map(ToOwned::to_owned).collect();
        (first, names)
    }

    fn add(&mut self, path: String, method: String, operation: Value) {
        let item = self.documented.entry(path).or_insert_with(|| json!({}));
        if let Some(operations) = item.as_object_mut() {
            operations.insert(method, operation);
        }
    }
}

/// One command as the document describes it.
struct Operation<'a> {
    entry: &'a CommandEntry,
    route: &'a Route,
    /// The names of the path's parameters, as the document writes them.
    names: Vec<String>,
    /// Whether no other command has its name.
    is_unique: bool,
    subject: &'a Subject<'a>,
}

impl Operation<'_> {
    fn describe(&self, schemas: &mut Schemas) -> Value {
        let address = &self.entry.address;
        let id = if self.is_unique {
            address.target().to_owned()
        } else {
            format!("{}_{}_{}", address.service(), address.version(), address.target())
        };
        let summary = if self.entry.summary.is_empty() { address.target() } else { self.entry.summary };
        let input = schemas.take_in(self.entry.input(), &format!("{}Input", address.target()));
        let body = self.request_body(&input, schemas);
        let security = match (self.route.access(), self.subject.scheme) {
            (Access::Authenticated, Some(scheme)) => json!([{scheme.name: []}]),
            _ => json!([]),
        };
        let mut operation = Map::from_iter([
            ("operationId".to_owned(), id.into()),
            ("summary".to_owned(), summary.into()),
            ("tags".to_owned(), json!([address.service()])),
            ("parameters".to_owned(), self.parameters(&input).into()),
            ("responses".to_owned(), self.responses(body.is_some(), schemas)),
            ("security".to_owned(), security),
        ]);
        operation.extend(body.map(|body| ("requestBody".to_owned(), body)));
        Value::Object(operation)
    }

    fn parameters(&self, input: &Value) -> Vec<Value> {
        let is_required =
            |name: &str| input["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
        let in_path = self.route.path_parameters().zip(&self.names).map(
            |(field, name)| json!({"name": name, "in": "path", "required": true, "schema": property(input, field)}),
        );
        let in_query = self.entry.query_parameters().map(|name| {
            json!({"name": name, "in": "query", "required": is_required(name), "schema": property(input, name)})
        });
        let mut headers = vec!["TraceId", "TraceParent"];
        if self.route.method() != purista_core::route::Method::Get {
            headers.push("IdempotencyKey");
        }
        let headers =
            headers.into_iter().map(|name| json!({"$ref": format!("#/components/parameters/{name}")}));
        in_path.chain(in_query).chain(headers).collect()
    }

    fn request_body(&self, input: &Value, schemas: &mut Schemas) -> Option<Value> {
        if !self.route.method().has_body() {
            return None;
        }
        if let Body::Text { field } = self.route.body() {
            let schema = property(input, field);
            return Some(json!({"required": true, "content": {"text/plain": {"schema": schema}}}));
        }
        let media_type = match self.route.body() {
            Body::Form => "application/x-www-form-urlencoded",
            _ => "application/json",
        };
        let (body, is_required) = without(input, self.entry.parameters)?;
        let fallback = format!("{}Input", self.entry.address.target());
        let schema = schemas.add(body, &fallback);
        Some(json!({"required": is_required, "content": {media_type: {"schema": schema}}}))
    }

    fn responses(&self, has_body: bool, schemas: &mut Schemas) -> Value {
        let mut responses = Map::new();
        let output = schemas.take_in(self.entry.output(), &format!("{}Output", self.entry.address.target()));
        if may_be_null(&output) {
            responses.insert("204".to_owned(), json!({"description": "Done.", "headers": trace_header()}));
        }
        if !self.entry.answers_nothing() {
            let schema = schemas.add(output, &format!("{}Output", self.entry.address.target()));
            let content = json!({"application/json": {"schema": schema}});
            responses.insert(
                "200".to_owned(),
                json!({"description": "Done.", "headers": trace_header(), "content": content}),
            );
        }
        for (status, _, applies) in STANDARD {
            let is_guarded = self.route.access() == Access::Authenticated;
            let is_keyed = self.route.method() != purista_core::route::Method::Get;
            let shown = match applies {
                Applies::Always => true,
                Applies::Guarded => is_guarded,
                Applies::WithBody => has_body,
                Applies::Keyed => is_keyed,
            };
            if shown {
                responses.insert(
                    status.to_string(),
                    json!({"$ref": format!("#/components/responses/Problem{status}")}),
                );
            }
        }
        let mut own: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
        for (status, meaning) in self.entry.errors {
            own.entry(*status).or_default().push(meaning);
        }
        for (status, meanings) in own {
            responses.insert(status.to_string(), problem_response(&meanings.join(" ")));
        }
        Value::Object(responses)
    }
}

/// The schema of one field.
fn property(input: &Value, name: &str) -> Value {
    input["properties"].get(name).cloned().unwrap_or_else(|| json!({}))
}

/// The object without these fields, and whether it must come at all; `None` when nothing is left of it.
fn without(input: &Value, fields: &[&str]) -> Option<(Value, bool)> {
    if fields.is_empty() {
        let must_come =
            input["required"].as_array().is_some_and(|all| !all.is_empty()) || input["type"] != "object";
        return holds_anything(input).then(|| (input.clone(), must_come));
    }
    let mut rest = input.clone();
    let object = rest.as_object_mut()?;
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        properties.retain(|name, _| !fields.contains(&name.as_str()));
    }
    let required = object.get_mut("required").and_then(Value::as_array_mut);
    let is_required = required.is_some_and(|required| {
        required.retain(|name| !fields.iter().any(|field| name == field));
        !required.is_empty()
    });
    let must_come = is_required || ["anyOf", "oneOf"].iter().any(|variants| object.contains_key(*variants));
    if let Some(title) = object.get("title").and_then(Value::as_str).map(|title| format!("{title}Body")) {
        object.insert("title".to_owned(), title.into());
    }
    holds_anything(&rest).then_some((rest, must_come))
}

/// Whether a value of this schema can hold anything: a field, or what was flattened into it (a map of any names, the fields
/// of an enum's variants).
fn holds_anything(schema: &Value) -> bool {
    if schema["type"] == "null" {
        return false;
    }
    let has_properties = schema["properties"].as_object().is_some_and(|all| !all.is_empty());
    let is_open = |name: &str| schema.get(name).is_some_and(|further| *further != Value::Bool(false));
    let is_other = schema["type"] != "object" && schema.get("properties").is_none();
    has_properties || is_other || FLATTENED.into_iter().any(is_open)
}

/// How a schema says what was flattened into an object.
const FLATTENED: [&str; 7] =
    ["additionalProperties", "unevaluatedProperties", "patternProperties", "allOf", "anyOf", "oneOf", "$ref"];

fn may_be_null(schema: &Value) -> bool {
    let is_null = |kind: &Value| kind == "null";
    is_null(&schema["type"])
        || schema["type"].as_array().is_some_and(|kinds| kinds.iter().any(is_null))
        || schema["anyOf"]
            .as_array()
            .is_some_and(|options| options.iter().any(|option| is_null(&option["type"])))
}

/// Which operations a status belongs to.
#[derive(Clone, Copy)]
enum Applies {
    Always,
    Guarded,
    WithBody,
    Keyed,
}

const STANDARD: [(u16, &str, Applies); 14] = [
    (400, "The input breaks a rule; `errors` names every field at fault.", Applies::Always),
    (401, "It is not known who asks.", Applies::Guarded),
    (408, "The body took too long.", Applies::WithBody),
    (409, "Somebody else changed the same thing at the same time. Try again.", Applies::Keyed),
    (413, "The body is too large.", Applies::WithBody),
    (414, "The URL is too long.", Applies::Always),
    (415, "The body is of another media type.", Applies::WithBody),
    (422, "The idempotency key was used before with another input.", Applies::Keyed),
    (431, "The header fields are too many or too long.", Applies::Always),
    (500, "Something went wrong; nothing of it was kept.", Applies::Always),
    (502, "Nobody serves this now, or the answer was lost.", Applies::Always),
    (503, "Too much is going on; nothing was done. Try again later.", Applies::Always),
    (504, "No answer came in time; it may have happened all the same.", Applies::Always),
    (508, "Too many commands cause one another.", Applies::Always),
];

fn standard_responses(limits: &Limits) -> Value {
    let described = STANDARD.iter().map(|(status, meaning, _)| {
        let mut response = match status {
            413 => problem_response(&format!("The body is larger than {} bytes.", limits.body_bytes)),
            _ => problem_response(meaning),
        };
        if let (503, Some(headers)) = (*status, response.get_mut("headers").and_then(Value::as_object_mut)) {
            let retry =
                json!({"description": "In how many seconds to try again.", "schema": {"type": "integer"}});
            headers.insert("retry-after".to_owned(), retry);
        }
        (format!("Problem{status}"), response)
    });
    Value::Object(described.collect())
}

fn problem_response(meaning: &str) -> Value {
    json!({
        "description": meaning,
        "headers": trace_header(),
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    })
}

fn trace_header() -> Value {
    json!({"x-trace-id": {"$ref": "#/components/headers/TraceId"}})
}

fn parameters() -> Value {
    let header = |name: &str, description: &str, schema: Value| json!({"name": name, "in": "header", "required": false, "description": description, "schema": schema});
    json!({
        "TraceId": header(
            "x-trace-id", "Names the flow; a new one when absent.",
            json!({"type": "string", "minLength": 1, "maxLength": purista_core::id::ID_BYTES_MAX}),
        ),
        "TraceParent": header("traceparent", "Continues a trace (W3C Trace Context).", json!({"type": "string"})),
        "IdempotencyKey": header(
            IDEMPOTENCY_KEY, "However often it is sent under this key, it is done once.",
            json!({"type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_BYTES_MAX, "pattern": "^[ -~]+$"}),
        ),
    })
}
