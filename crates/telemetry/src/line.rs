//! One event as one line, whatever it holds.
//!
//! Values come from outside too: a name in a request, a text of a peer. A control character among them could begin a line
//! that looks like one of ours, or steer the terminal of whoever reads; so each is written as its escape.

use std::error::Error;
use std::fmt::{self, Write as _};

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Level, Metadata};

/// The longest line, in bytes; what is beyond is cut off.
pub(crate) const LINE_BYTES_MAX: usize = 16 * 1024;

const RESET: &str = "\x1b[0m";
const DIM: &str = "\x1b[2m";

/// What an event says.
#[derive(Debug, Default)]
pub(crate) struct LineFields {
    pub(crate) trace_id: Option<String>,
    message: String,
    others: Map<String, Value>,
}

impl LineFields {
    fn keep(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("trace_id", Value::String(text)) => self.trace_id = Some(text),
            (name, value) => drop(self.others.insert(name.trim_start_matches("r#").to_owned(), value)),
        }
    }
}

impl Visit for LineFields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.keep(field, json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.keep(field, json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.keep(field, json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.keep(field, json!(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.keep(field, json!(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.keep(field, json!(purista_core::error::chain(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.keep(field, json!(format!("{value:?}")));
    }
}

/// One event, ready to be written.
pub(crate) struct Line<'e> {
    /// The time of day, to the microsecond, in UTC.
    pub(crate) time: String,
    pub(crate) metadata: &'e Metadata<'static>,
    pub(crate) fields: LineFields,
}

impl Line<'_> {
    /// For people: `time LEVEL trace-id where: what key=value`.
    pub(crate) fn text(&self, colours: bool) -> String {
        let paint = |colour: &'static str| if colours { colour } else { "" };
        let (dim, reset) = (paint(DIM), paint(RESET));
        let (level, colour) = level(*self.metadata.level());
        let mut line = format!("{dim}{}{reset} {}{level}{reset} ", self.time, paint(colour));
        if let Some(trace_id) = &self.fields.trace_id {
            line.push_str(dim);
            escape_into(&mut line, trace_id);
            line.push_str(reset);
            line.push(' ');
        }
        let _ = write!(line, "{dim}{}:{reset} ", self.metadata.target());
        escape_into(&mut line, &self.fields.message);
        for (name, value) in &self.fields.others {
            let _ = write!(line, " {dim}{name}={reset}");
            match value {
                Value::String(text) if is_plain(text) => escape_into(&mut line, text),
                // JSON's own escapes leave C1 controls and separators of lines as they are.
                value => escape_into(&mut line, &value.to_string()),
            }
        }
        ended(line, reset)
    }

    /// For machines: one JSON object.
    pub(crate) fn json(&self) -> String {
        let mut whole = self.object(&self.fields.message, &self.fields.others);
        if whole.len() >= LINE_BYTES_MAX {
            // A part of an object is none, so the fields go as a whole and the message is cut.
            let cut = start_of(&self.fields.message, LINE_BYTES_MAX / 8);
            whole = self.object(cut, &Map::from_iter([("is_cut".to_owned(), json!(true))]));
        }
        // JSON itself leaves some controls and separators of lines as they are; all of them stand within strings.
        let mut line = String::with_capacity(whole.len() + 1);
        for c in whole.chars() {
            if breaks_or_steers(c) {
                let _ = write!(line, "\\u{:04x}", u32::from(c));
            } else {
                line.push(c);
            }
        }
        line.push('\n');
        line
    }

    fn object(&self, message: &str, fields: &Map<String, Value>) -> String {
        let mut object = Map::new();
        object.insert("time".to_owned(), json!(self.time));
        object.insert("level".to_owned(), json!(level(*self.metadata.level()).0.trim_start()));
        if let Some(trace_id) = &self.fields.trace_id {
            object.insert("trace_id".to_owned(), json!(trace_id));
        }
        object.insert("target".to_owned(), json!(self.metadata.target()));
        object.insert("message".to_owned(), json!(message));
        if !fields.is_empty() {
            object.insert("fields".to_owned(), Value::Object(fields.clone()));
        }
        Value::Object(object).to_string()
    }
}

/// The name, as wide as the others, and the colour.
fn level(level: Level) -> (&'static str, &'static str) {
    match level {
        Level::ERROR => ("ERROR", "\x1b[31m"),
        Level::WARN => (" WARN", "\x1b[33m"),
        Level::INFO => (" INFO", "\x1b[32m"),
        Level::DEBUG => ("DEBUG", "\x1b[34m"),
        Level::TRACE => ("TRACE", "\x1b[35m"),
    }
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '=' | '\\'))
}

fn breaks_or_steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Adds a text in which nothing ends a line or steers a terminal.
fn escape_into(line: &mut String, text: &str) {
    for c in text.chars() {
        if breaks_or_steers(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
}

fn ended(mut line: String, reset: &str) -> String {
    if line.len() >= LINE_BYTES_MAX {
        line.truncate(start_of(&line, LINE_BYTES_MAX - 16).len());
        line.push('\u{2026}');
        line.push_str(reset);
    }
    line.push('\n');
    line
}

/// As much of the beginning as fits.
fn start_of(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or(text)
}
