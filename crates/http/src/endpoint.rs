//! One command as HTTP knows it; what could never be served is refused here, before the gateway opens.

use hyper::Method;
use purista_core::address::{Address, AddressParts};
use purista_core::catalogue::CommandEntry;
use purista_core::checker::Checker;
use purista_core::payload::Payload;
use purista_core::route::{self, Access, Route};
use serde_json::Value;

use crate::form::Form;

/// What doors call themselves in messages; PURISTA's gateway is a service, too.
const SENDER: (&str, &str) = ("HttpGateway", "1");

/// A command with everything that its requests need, worked out once.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: Address,
    pub(crate) sender: Address,
    pub(crate) method: Method,
    /// With the names of its parameters in braces.
    pub(crate) path: String,
    pub(crate) path_names: Vec<&'static str>,
    pub(crate) query_names: Vec<&'static str>,
    pub(crate) body: BodyForm,
    /// What is sent when a request has no body.
    pub(crate) nothing: Payload,
    pub(crate) is_public: bool,
    /// Checks the input here, when no service of this process does.
    pub(crate) checker: Option<Checker>,
}

/// What the body of its requests is.
#[derive(Debug)]
pub(crate) enum BodyForm {
    /// There is none; one that comes is not read.
    None,
    Json,
    Form(Form),
    Text(&'static str),
}

impl Endpoint {
    /// The endpoint of a command, `None` when it has no route. An error says what to change.
    pub(crate) fn of(entry: &CommandEntry, has_authenticator: bool) -> Result<Option<Self>, String> {
        let Some(route) = entry.route else { return Ok(None) };
        let schema = entry.input();
        let path = path_of(entry, &route);
        let refuse = |what: String| format!("{} ({} {path}): {what}", entry.address, route.method().as_str());
        check_access(&route, has_authenticator).map_err(refuse)?;
        check_path(&route).map_err(refuse)?;
        check_parameters(entry, &route, &schema).map_err(refuse)?;
        let body = body_form(entry, &route, &schema).map_err(refuse)?;
        let sender = AddressParts {
            service: SENDER.0.into(),
            version: SENDER.1.into(),
            target: format!("$$endpoint:{}:{path}", route.method().as_str().to_ascii_lowercase()).into(),
        };
        let is_unit = schema.get("type").is_some_and(|kind| kind == "null");
        Ok(Some(Self {
            address: entry.address.clone(),
            sender: sender.into(),
            method: method_of(route.method()),
            path_names: route.path_parameters().collect(),
            query_names: entry.query_parameters().collect(),
            body,
            nothing: if is_unit {
                Payload::empty()
            } else {
                Payload::encoded(bytes::Bytes::from_static(b"{}"))
            },
            is_public: route.access() == Access::Public,
            checker: None,
            path,
        }))
    }
}

/// Where HTTP finds a command.
pub(crate) fn path_of(entry: &CommandEntry, route: &Route) -> String {
    format!("/api/v{}/{}", entry.address.version(), route.path())
}

fn method_of(method: route::Method) -> Method {
    match method {
        route::Method::Get => Method::GET,
        route::Method::Post => Method::POST,
        route::Method::Put => Method::PUT,
        route::Method::Patch => Method::PATCH,
        route::Method::Delete => Method::DELETE,
    }
}

fn check_access(route: &Route, has_authenticator: bool) -> Result<(), String> {
    if route.access() == Access::Authenticated && !has_authenticator {
        return Err("it needs an authenticator and the gateway has none: \
             give it one with `Gateway::authenticator`, or open the route to anybody with `Route::public`"
            .to_owned());
    }
    Ok(())
}

fn check_path(route: &Route) -> Result<(), String> {
    let is_literal = |segment: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        !segment.is_empty() && segment.bytes().all(is_plain) && !matches!(segment, "." | "..")
    };
    let is_parameter = |segment: &str| {
        let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        name.is_some_and(|name| !name.is_empty() && !name.contains(['{', '}']))
    };
    for segment in route.path().split('/') {
        if !is_literal(segment) && !is_parameter(segment) {
            return Err(format!(
                "`{segment}` is no segment of a path: write letters, digits, `-`, `.`, `_` and `~`, or one name in braces, \
                 and no slash before the first or behind the last"
            ));
        }
    }
    let names: Vec<_> = route.path_parameters().collect();
    match names
        .iter()
        .enumerate()
        .find(|(index, name)| names.iter().take(*index).any(|before| before == *name))
    {
        Some((_, name)) => Err(format!("the path names {{{name}}} twice: give each its own name")),
        None => Ok(()),
    }
}

fn check_parameters(entry: &CommandEntry, route: &Route, schema: &Value) -> Result<(), String> {
    if let Some(name) = route.path_parameters().find(|name| !entry.parameters.contains(name)) {
        return Err(format!("the path names {{{name}}}, which is not among PARAMETERS: add it there"));
    }
    if let Some(name) = entry.parameters.iter().find(|name| !has_field(schema, name)) {
        return Err(format!(
            "PARAMETERS names `{name}`, but the input has no such field: write it as JSON does, see `rename_all`"
        ));
    }
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let lost = required.into_iter().find(|name| !entry.parameters.contains(name));
    if let Some(name) = lost.filter(|_| !route.method().has_body()) {
        return Err(format!(
            "the field `{name}` is required but could never come, since {} has no body: add it to PARAMETERS",
            route.method().as_str()
        ));
    }
    Ok(())
}

fn body_form(entry: &CommandEntry, route: &Route, schema: &Value) -> Result<BodyForm, String> {
    if !route.method().has_body() {
        return Ok(BodyForm::None);
    }
    match route.body() {
        route::Body::Json => Ok(BodyForm::Json),
        route::Body::Form => Ok(BodyForm::Form(Form::of(schema))),
        route::Body::Text { field } if !has_field(schema, field) || entry.parameters.contains(&field) => {
            Err(format!(
                "the body becomes the field `{field}`, but the input has no such field besides PARAMETERS"
            ))
        }
        route::Body::Text { field } => Ok(BodyForm::Text(field)),
        other => Err(format!("this gateway cannot read a body of the form {other:?}")),
    }
}

fn has_field(schema: &Value, name: &str) -> bool {
    schema["properties"].get(name).is_some()
}
