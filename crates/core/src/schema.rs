//! What is wrong with an input: every field at fault, found off the hot path.
//!
//! Decoding stops at the first error, which is of little use to somebody who fills a form. A payload that fails to
//! decode or to validate is therefore read again against its JSON schema, so that all faults are named at once.

use std::fmt;
use std::sync::OnceLock;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{JsonType, Validator};
use serde_json::Value;

use crate::contract::Contract;
use crate::fault::{FAULTS_MAX, Fault};
use crate::length_unit::{self, ByteRule};

/// The deepest nesting of JSON that is read.
pub const JSON_DEPTH_MAX: usize = 64;

/// Reads refused inputs of one type again. The schema is compiled at the first refusal and kept.
pub struct Inspector {
    schema: fn() -> schemars::Schema,
    byte_rules: fn() -> Vec<ByteRule>,
    validator: OnceLock<Option<Validator>>,
}

impl Inspector {
    /// The inspector of a contract type.
    pub fn of<T: Contract>() -> Self {
        Self { schema: T::schema, byte_rules: length_unit::byte_rules::<T>, validator: OnceLock::new() }
    }

    /// Every field at fault. `found` are faults that validation itself named, in its own (Rust) field names; they are
    /// given when the schema sees nothing wrong, as with rules that a schema cannot say.
    pub fn inspect(&self, json: &[u8], mut found: Vec<Fault>) -> Vec<Fault> {
        let Ok(value) = serde_json::from_slice::<Value>(json) else {
            return vec![Fault { message: "not valid JSON".to_owned(), path: Vec::new() }];
        };
        let Some(validator) = self.validator() else { return found };
        let mut faults: Vec<Fault> =
            validator.iter_errors(&value).take(FAULTS_MAX).map(|e| fault_of(&e)).collect();
        // In the order of the fields and not in that of a schema's rules, so that people find theirs.
        faults.sort_by(|one, other| one.path.cmp(&other.path));
        if faults.is_empty() {
            // What the schema allows may break a rule that counts bytes where the schema counts characters.
            if !found.is_empty() {
                length_unit::name_unit(&mut found, &(self.byte_rules)());
            }
            faults = found;
        }
        if faults.is_empty() {
            faults.push(Fault { message: "not of the documented form".to_owned(), path: Vec::new() });
        }
        faults
    }

    fn validator(&self) -> Option<&Validator> {
        self.validator
            .get_or_init(|| {
                jsonschema::options()
                    .should_validate_formats(true)
                    .build((self.schema)().as_value())
                    .inspect_err(
                        |error| tracing::error!(%error, "the schema of a contract cannot be compiled"),
                    )
                    .ok()
            })
            .as_ref()
    }
}

impl fmt::Debug for Inspector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspector").finish_non_exhaustive()
    }
}

fn fault_of(error: &jsonschema::ValidationError<'_>) -> Fault {
    let mut path: Vec<String> = error
        .instance_path()
        .as_str()
        .split('/')
        .skip(1)
        .map(|part| part.replace("~1", "/").replace("~0", "~"))
        .collect();
    let message = match error.kind() {
        ValidationErrorKind::Required { property } => {
            path.push(property.as_str().unwrap_or_default().to_owned());
            "required".to_owned()
        }
        ValidationErrorKind::Format { format } if format == "date-time" => {
            "not a valid date-time, as 2026-03-01T00:00:00Z".to_owned()
        }
        ValidationErrorKind::Format { format } => format!("not a valid {format}"),
        // That a field may be left out says nothing of what is there.
        ValidationErrorKind::Type { kind: TypeKind::Multiple(types) } => {
            let types = types.remove(JsonType::Null);
            let names: Vec<_> = types.iter().map(JsonType::as_str).collect();
            format!("the value is not of type \"{}\"", names.join("\" or \""))
        }
        _ => error.masked_with("the value").to_string(),
    };
    Fault { message, path }
}

/// Whether JSON nests deeper than [`JSON_DEPTH_MAX`]. Counts brackets outside of texts; allocates nothing.
pub fn nests_too_deep(json: &[u8]) -> bool {
    // What has no more brackets than that cannot; counting them alone is many times as fast.
    json.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() > JSON_DEPTH_MAX && depth_exceeds_max(json)
}

fn depth_exceeds_max(json: &[u8]) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                if depth > JSON_DEPTH_MAX {
                    return true;
                }
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use garde::Validate;
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
    #[serde(rename_all = "camelCase")]
    struct SignUp {
        #[garde(email)]
        email: String,
        #[garde(length(min = 1, max = 80))]
        full_name: String,
    }

    fn faults(json: &str) -> Vec<String> {
        let found =
            SignUp::decode(json.as_bytes()).ok().and_then(|value| value.check().err()).unwrap_or_default();
        let mut faults: Vec<_> = Inspector::of::<SignUp>()
            .inspect(json.as_bytes(), found)
            .iter()
            .map(ToString::to_string)
            .collect();
        faults.sort();
        faults
    }

    #[test]
    fn every_field_at_fault_is_named_by_its_name_on_the_wire() {
        assert_eq!(faults(r#"{"email":"x"}"#), ["email: not a valid email", "fullName: required"]);
        assert_eq!(faults(r#"{"email":"a@b.de","fullName":""}"#).len(), 1);
        assert_eq!(faults("{"), [": not valid JSON"]);
        assert_eq!(faults("[]").len(), 1);
    }

    #[test]
    fn a_field_that_may_be_left_out_is_asked_for_in_the_words_of_one_that_may_not() {
        #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
        #[garde(allow_unvalidated)]
        struct Page {
            limit: Option<u32>,
            at: Option<jiff::Timestamp>,
        }
        let found = Inspector::of::<Page>().inspect(br#"{"limit":"x","at":"yesterday"}"#, Vec::new());
        let mut faults: Vec<_> = found.iter().map(ToString::to_string).collect();
        faults.sort();
        let expect = [
            "at: not a valid date-time, as 2026-03-01T00:00:00Z",
            "limit: the value is not of type \"integer\"",
        ];
        assert_eq!(faults, expect);
    }

    #[test]
    fn a_value_is_never_repeated_to_the_caller() {
        let told = faults(r#"{"email":"CANARY","fullName":["CANARY"]}"#).join(" ");
        assert!(!told.contains("CANARY"), "{told}");
    }

    #[test]
    fn depth_is_counted_outside_of_texts_only() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(!nests_too_deep(nested(JSON_DEPTH_MAX).as_bytes()));
        assert!(nests_too_deep(nested(JSON_DEPTH_MAX + 1).as_bytes()));
        assert!(!nests_too_deep(format!(r#""{}\"""#, "[".repeat(1_000)).as_bytes()));
    }
}
