//! A message of ours beside one of PURISTA's: every field of both, and every difference a rule or a mistake.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use crate::deviations::{DEVIATIONS, Deviation};

/// Compares the messages of one run, and remembers which deviations they made use of.
pub(crate) struct Comparison {
    carrier: &'static str,
    used: BTreeSet<usize>,
    problems: Vec<String>,
}

/// The values that stand for `<kind:number>` in the messages of one step.
#[derive(Default)]
pub(crate) struct Bound(HashMap<String, Value>);

impl Comparison {
    pub(crate) fn on(carrier: &'static str) -> Self {
        Self { carrier, used: BTreeSet::new(), problems: Vec::new() }
    }

    /// Compares the messages of one step, in order.
    pub(crate) fn step(&mut self, step: &str, theirs: &[Value], ours: &[Value]) {
        let mut bound = Bound::default();
        for (number, (theirs, ours)) in theirs.iter().zip(ours).enumerate() {
            let place = format!("{step}, message {}", number + 1);
            self.message(&place, step, theirs, ours, &mut bound);
        }
        if theirs.len() != ours.len() {
            let told: Vec<_> = ours.iter().map(Value::to_string).collect();
            self.problems.push(format!(
                "{step}: {} messages, not {}:\n    {}",
                ours.len(),
                theirs.len(),
                told.join("\n    ")
            ));
        }
    }

    fn message(&mut self, place: &str, step: &str, theirs: &Value, ours: &Value, bound: &mut Bound) {
        let of_whom = theirs;
        if let (Some(header), Some(otp)) = (trace_of_header(ours), trace_of_body(ours))
            && header != otp
        {
            self.problems.push(format!("{place}: the header tells of another trace than the body"));
        }
        let (theirs, ours) = (fields(theirs), fields(ours));
        let paths: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
        for path in paths {
            let (theirs, ours) = (theirs.get(path), ours.get(path));
            if let (Some(theirs), Some(ours)) = (theirs, ours)
                && bound.agree(theirs, ours)
            {
                continue;
            }
            let rule = DEVIATIONS.iter().position(|rule: &Deviation| {
                rule.concerns(self.carrier, step, of_whom, path) && rule.allows(theirs, ours)
            });
            if let Some(rule) = rule {
                self.used.insert(rule);
            } else {
                let show = |side: Option<&Value>| side.map_or("nothing".to_owned(), Value::to_string);
                self.problems.push(format!(
                    "{place}: `{path}` is {}, PURISTA has {}",
                    show(ours),
                    show(theirs)
                ));
            }
        }
    }

    /// Ends the test when something differs that no rule names, or when a rule speaks of no message.
    pub(crate) fn conclude(mut self) {
        for (number, rule) in DEVIATIONS.iter().enumerate() {
            if rule.carriers.contains(&self.carrier) && !self.used.contains(&number) {
                self.problems.push(format!("no message makes use of the deviation {rule:?}"));
            }
        }
        self.conclude_in_part();
    }

    /// The same for a run of some steps only, where not every rule has its turn.
    pub(crate) fn conclude_in_part(self) {
        assert!(self.problems.is_empty(), "on {}:\n{}", self.carrier, self.problems.join("\n"));
    }
}

impl Bound {
    /// Whether our value is PURISTA's, or of the kind that PURISTA's is, and the same wherever it bears this number.
    fn agree(&mut self, theirs: &Value, ours: &Value) -> bool {
        let Some(kind) = theirs.as_str().and_then(|text| text.strip_prefix('<')?.strip_suffix('>')) else {
            return theirs == ours;
        };
        if !is_of_kind(kind.split(':').next().unwrap_or(kind), ours) {
            return false;
        }
        let Some((family, _)) = kind.split_once(':') else { return true };
        if let Some(before) = self.0.get(kind) {
            return before == ours;
        }
        // Times may be equal by chance, names may not.
        let is_taken = self
            .0
            .iter()
            .any(|(other, value)| family != "ms" && other.split(':').next() == Some(family) && value == ours);
        self.0.insert(kind.to_owned(), ours.clone());
        !is_taken
    }
}

/// Whether a value is what a fixture says by kind alone.
pub(crate) fn is_of_kind(kind: &str, value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    match kind {
        "id" => text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')),
        "ms" => value.as_u64().is_some_and(|ms| (1_700_000_000_000..10_000_000_000_000).contains(&ms)),
        "otp" => serde_json::from_str::<Value>(text)
            .is_ok_and(|otp| otp.get("traceparent").is_some_and(|parent| is_of_kind("traceparent", parent))),
        "traceparent" => {
            let parts: Vec<_> = text.split('-').collect();
            let hex =
                |part: &str, length| part.len() == length && part.bytes().all(|b| b.is_ascii_hexdigit());
            matches!(parts[..], ["00", trace, span, flags]
                if hex(trace, 32) && hex(span, 16) && hex(flags, 2))
        }
        "text" => !text.is_empty(),
        "true" => *value == true,
        "inbox" => text.starts_with("_INBOX."),
        "queue" => text.starts_with("amq.gen-"),
        "count" => value.as_u64().is_some(),
        "schema" => value.is_object() || value.is_string() || value.is_number() || value.is_boolean(),
        _ => false,
    }
}

/// The id of the technical trace in a message's headers.
fn trace_of_header(message: &Value) -> Option<String> {
    message["headers"]["traceparent"].as_str()?.split('-').nth(1).map(str::to_owned)
}

/// The id of the technical trace in a message's body.
pub(crate) fn trace_of_body(message: &Value) -> Option<String> {
    let otp: Value = serde_json::from_str(message["body"]["otp"].as_str()?).ok()?;
    otp["traceparent"].as_str()?.split('-').nth(1).map(str::to_owned)
}

/// Every field of a message by its path; an empty object or list is a field as well. Subjects and topics are taken apart.
fn fields(message: &Value) -> BTreeMap<String, Value> {
    let mut fields = BTreeMap::new();
    flatten(message, String::new(), &mut fields);
    for (name, separator) in [("subject", '.'), ("topic", '/')] {
        let Some(text) = fields.get(name).and_then(Value::as_str).map(str::to_owned) else { continue };
        let mut parts: Vec<_> = text.split(separator).collect();
        if parts.len() == 12 {
            // PURISTA's path of a topic swallows the empty target of who speaks for a whole service.
            parts.insert(7, "");
        }
        if parts.len() == 13 {
            fields.remove(name);
            fields.extend(
                parts.iter().enumerate().map(|(at, part)| (format!("{name}.{at}"), Value::from(*part))),
            );
        }
    }
    fields
}

fn flatten(value: &Value, path: String, into: &mut BTreeMap<String, Value>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                flatten(value, below(name), into);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (at, value) in items.iter().enumerate() {
                flatten(value, below(&at.to_string()), into);
            }
        }
        // No headers are no fields.
        _ if path == "headers" => {}
        _ => {
            into.insert(path, value.clone());
        }
    }
}

#[test]
fn a_difference_that_no_rule_names_is_told() {
    let theirs = serde_json::json!({"body": {"id": "<id:1>", "a": 1, "gone": true}});
    let id = "0af7651916cd43dd8448eb211c80319c";
    let ours = serde_json::json!({"body": {"id": id, "a": "1", "more": {}}});
    let mut comparison = Comparison::on("nats");
    comparison.step("s99", std::slice::from_ref(&theirs), &[ours]);
    assert_eq!(
        comparison.problems,
        [
            "s99, message 1: `body.a` is \"1\", PURISTA has 1",
            "s99, message 1: `body.gone` is nothing, PURISTA has true",
            "s99, message 1: `body.more` is {}, PURISTA has nothing",
        ]
    );
    comparison.problems.clear();
    comparison.step("s99", &[theirs], &[]);
    assert!(comparison.problems[0].contains("0 messages, not 1"));
}

#[test]
fn one_number_is_one_value_and_another_is_another() {
    let (one, other) = (Value::from("0af7651916cd43dd8448eb211c80319c"), Value::from("1".repeat(32)));
    let mut bound = Bound::default();
    assert!(bound.agree(&"<id:1>".into(), &one));
    assert!(bound.agree(&"<id:1>".into(), &one));
    assert!(!bound.agree(&"<id:1>".into(), &other));
    assert!(!bound.agree(&"<id:2>".into(), &one));
    assert!(bound.agree(&"<id:3>".into(), &other));
    assert!(!bound.agree(&"<id:4>".into(), &"no id".into()));
}
