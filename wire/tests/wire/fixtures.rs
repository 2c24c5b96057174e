//! The messages that PURISTA 2.0.5 sends, one a line: written from captures of it on real brokers, generic names in them.
//!
//! What differs from run to run stands there by kind and number, as `<id:1>`: the same number is the same value in all
//! messages of a step, another number another value. What stands under `s01-recorded` is put together from other steps: the
//! sign-up as it would look if its handler emitted the event, which is how a log gives it out.

use std::fmt::Write as _;

use serde_json::Value;

/// The messages of all steps, in the order in which they were sent.
pub(crate) struct Fixtures(Vec<(String, Value)>);

impl Fixtures {
    pub(crate) fn parse(lines: &str) -> Self {
        let line = |line: &str| {
            let mut message: Value = serde_json::from_str(line).unwrap();
            let step = message.as_object_mut().unwrap().remove("step").unwrap();
            (step.as_str().unwrap().to_owned(), message)
        };
        Self(lines.lines().map(line).collect())
    }

    /// The messages of one step.
    pub(crate) fn of(&self, step: &str) -> Vec<Value> {
        let messages: Vec<_> =
            self.0.iter().filter(|(of, _)| of == step).map(|(_, message)| message.clone()).collect();
        assert!(!messages.is_empty(), "there is no step {step}");
        messages
    }
}

/// A message with real values where the fixture has kinds: as a peer would send it. The number in `seed` makes ids differ
/// from those of other calls.
pub(crate) fn filled(message: &Value, seed: u32) -> Value {
    match message {
        Value::String(text) => filled_text(text, seed),
        Value::Array(items) => items.iter().map(|item| filled(item, seed)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), filled(value, seed))).collect()
        }
        other => other.clone(),
    }
}

fn filled_text(text: &str, seed: u32) -> Value {
    let kind = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
    let Some((kind, number)) = kind.map(|kind| kind.split_once(':').unwrap_or((kind, "0"))) else {
        return text.into();
    };
    let number: u64 = number.parse().unwrap();
    let parent = format!("00-{:032x}-{:016x}-01", u64::from(seed) + 1, number + 1);
    match kind {
        "id" => {
            let mut id = String::new();
            write!(id, "{seed:08x}{number:024x}").unwrap();
            id.into()
        }
        "ms" => 1_795_288_901_613_u64.into(),
        "traceparent" => parent.into(),
        "otp" => format!(r#"{{"traceparent":"{parent}"}}"#).into(),
        _ => text.into(),
    }
}
