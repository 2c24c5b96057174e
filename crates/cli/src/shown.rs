//! How an event is shown: as a row, as a paragraph, as JSON.

use std::fmt::Write as _;
use std::io;

use purista_core::event::Tags;
use purista_core::message::Party;
use purista_events::recorded::Recorded;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::indented;
use crate::screen::{Screen, on_one_line, or_dash, plain, time};
use crate::table::{Column, Table, pairs};

/// An event as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown<'e> {
    position: u64,
    id: String,
    #[serde(rename = "type")]
    name: &'e str,
    version: u32,
    tags: Vec<Value>,
    stream_version: Option<u64>,
    recorded_at: String,
    tenant_id: Option<&'e str>,
    principal_id: Option<&'e str>,
    sender: Value,
    trace_id: String,
    correlation_id: Option<String>,
    causation_id: Option<String>,
    hops: u8,
    /// As it is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'e RawValue>,
    /// The same, where it is no JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_text: Option<String>,
}

impl<'e> Shown<'e> {
    pub(crate) fn of(event: &'e Recorded, with_body: bool) -> Self {
        let cause = &event.cause;
        let body: Option<&RawValue> = if with_body { serde_json::from_slice(&event.body).ok() } else { None };
        let body_text = (with_body && body.is_none()).then(|| text_of(&event.body));
        Self {
            position: event.position.number(),
            id: event.id.to_string(),
            name: &event.name,
            version: event.version,
            tags: event.tags.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect(),
            stream_version: event.stream_version,
            recorded_at: event.recorded_at.to_string(),
            tenant_id: event.tenant_id.as_deref(),
            principal_id: cause.principal_id.as_deref(),
            sender: sender_json(&cause.sender),
            trace_id: cause.trace_id.to_string(),
            correlation_id: cause.correlation_id.as_ref().map(ToString::to_string),
            causation_id: cause.causation_id.as_ref().map(ToString::to_string),
            hops: cause.hops,
            body,
            body_text,
        }
    }
}

fn sender_json(sender: &Party) -> Value {
    let address = &sender.address;
    json!({
        "service": address.service(),
        "version": address.version(),
        "target": address.target(),
        "instance": sender.instance.as_ref().map(ToString::to_string),
    })
}

/// `User.1.signUp`.
fn sender(sender: &Party) -> String {
    let address = &sender.address;
    format!("{}.{}.{}", address.service(), address.version(), address.target())
}

fn tags(tags: &Tags) -> String {
    let tags: Vec<String> = tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if tags.is_empty() { "-".to_owned() } else { tags.join(" ") }
}

fn text_of(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

/// A table of events, with their bodies as the last column if they are wanted.
pub(crate) fn table(with_body: bool) -> Table {
    let mut columns = vec![
        Column::Right("POSITION"),
        Column::Left("RECORDED AT"),
        Column::Left("TYPE"),
        Column::Left("TENANT"),
        Column::Left("PRINCIPAL"),
        Column::Left("TAGS"),
    ];
    if with_body {
        columns.push(Column::Left("BODY"));
    }
    Table::new(columns)
}

/// A row of [`table`].
pub(crate) fn row(event: &Recorded, with_body: bool) -> Vec<String> {
    let mut row = vec![
        event.position.to_string(),
        time(event.recorded_at),
        format!("{} v{}", event.name, event.version),
        or_dash(event.tenant_id.as_deref()),
        or_dash(event.cause.principal_id.as_deref()),
        tags(&event.tags),
    ];
    if with_body {
        row.push(text_of(&event.body));
    }
    row
}

/// All of an event, for people.
pub(crate) fn print(screen: &mut Screen, event: &Recorded) -> io::Result<()> {
    let cause = &event.cause;
    let optional = |id: Option<&purista_core::id::Id>| or_dash(id.map(ToString::to_string).as_deref());
    let stream = event.tags.first().zip(event.stream_version);
    let of_instance =
        cause.sender.instance.as_ref().map(|id| format!(" (instance {id})")).unwrap_or_default();
    pairs(
        screen,
        &[
            ("position", event.position.to_string()),
            ("id", event.id.to_string()),
            ("type", format!("{} v{}", event.name, event.version)),
            ("tags", tags(&event.tags)),
            (
                "stream",
                stream.map_or("-".to_owned(), |((name, value), version)| {
                    format!("{name}={value}, version {version}")
                }),
            ),
            ("recorded at", time(event.recorded_at)),
            ("tenant", or_dash(event.tenant_id.as_deref())),
            ("principal", or_dash(cause.principal_id.as_deref())),
            ("sender", format!("{}{of_instance}", sender(&cause.sender))),
            ("trace", cause.trace_id.to_string()),
            ("correlation", optional(cause.correlation_id.as_ref())),
            ("caused by", optional(cause.causation_id.as_ref())),
            ("hops", cause.hops.to_string()),
        ],
    )?;
    screen.line("body")?;
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&event.body).is_ok();
    let text = text_of(&event.body);
    let pretty = if is_json { indented::json(&text) } else { text };
    pretty.lines().try_for_each(|line| screen.line(&format!("  {}", plain(line))))
}

/// Who, when, why and what of an event, for people.
pub(crate) fn print_audit(screen: &mut Screen, event: &Recorded, with_body: bool) -> io::Result<()> {
    let cause = &event.cause;
    screen.heading(&on_one_line(&format!(
        "{}  {}  {} v{}  {}",
        event.position,
        time(event.recorded_at),
        event.name,
        event.version,
        tags(&event.tags)
    )))?;
    let mut why = format!("{}, trace {}", sender(&cause.sender), cause.trace_id);
    if let Some(correlation) = &cause.correlation_id {
        let _ = write!(why, ", correlation {correlation}");
    }
    if let Some(causation) = &cause.causation_id {
        let _ = write!(why, ", caused by {causation}");
    }
    let who = match (cause.principal_id.as_deref(), event.tenant_id.as_deref()) {
        (None, None) => "nobody is named".to_owned(),
        (Some(principal), None) => principal.to_owned(),
        (None, Some(tenant)) => format!("nobody is named, of tenant {tenant}"),
        (Some(principal), Some(tenant)) => format!("{principal}, of tenant {tenant}"),
    };
    screen.line(&format!("  who   {}", on_one_line(&who)))?;
    screen.line(&format!("  why   {}", on_one_line(&why)))?;
    if with_body {
        screen.line(&format!("  what  {}", on_one_line(&text_of(&event.body))))?;
    }
    Ok(())
}
