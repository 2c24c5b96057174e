//! Checks the input of a command where nobody serves it: at a door, before anything goes over a bridge.

use std::fmt;

use crate::contract::Command;
use crate::fault::Fault;
use crate::parameter::Parameters;
use crate::payload::Payload;
use crate::schema::Inspector;

/// Knows the form and the rules of one command's input, and names every field at fault in the words in which the service
/// itself would: who is refused here learns the same as there, and nobody is asked in vain.
///
/// What a service transforms before it checks is not known here.
pub struct Checker {
    parameters: Parameters,
    inspector: Inspector,
    check: fn(&[u8]) -> Result<(), Vec<Fault>>,
}

impl Checker {
    /// The checker of a contract.
    pub fn of<C: Command>() -> Self {
        let check = |json: &[u8]| match C::decode(json) {
            Ok(input) => input.check(),
            // The schema knows more than the first error of decoding.
            Err(_) => Err(Vec::new()),
        };
        Self { parameters: Parameters::of::<C>(), inspector: Inspector::of::<C>(), check }
    }

    /// Checks payload and parameters of one command. The error is every field at fault, at least one; none repeats a value.
    pub fn check(&self, payload: &Payload, parameter: Option<&[u8]>) -> Result<(), Vec<Fault>> {
        let payload = payload.bytes().ok().flatten();
        let payload: &[u8] = payload.as_deref().unwrap_or(b"null");
        let joined = parameter.map(|parameter| self.parameters.join(payload, parameter)).transpose();
        let Ok(joined) = joined else { return Err(self.inspector.inspect(payload, Vec::new())) };
        let json: &[u8] = joined.as_deref().unwrap_or(payload);
        (self.check)(json).map_err(|found| self.inspector.inspect(json, found))
    }
}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker").field("parameters", &self.parameters).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use garde::Validate;
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::address::ServiceId;

    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
    #[serde(rename_all = "camelCase")]
    struct Rename {
        #[garde(range(min = 1))]
        user_id: u32,
        #[garde(length(min = 1, max = 8), custom(no_x))]
        new_name: String,
    }
    impl Command for Rename {
        const SERVICE: ServiceId = ServiceId::new("User", "1");
        const NAME: &'static str = "rename";
        const PARAMETERS: &'static [&'static str] = &["userId"];
        type Output = ();
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "garde calls its rules so")]
    fn no_x(name: &str, (): &()) -> garde::Result {
        if name.contains('X') { Err(garde::Error::new("has an X")) } else { Ok(()) }
    }

    #[track_caller]
    fn check(payload: &'static str, parameter: Option<&str>, expect: &[&str]) {
        let payload = Payload::encoded(payload.as_bytes().into());
        let checked = Checker::of::<Rename>().check(&payload, parameter.map(str::as_bytes));
        let mut faults: Vec<_> = checked.err().unwrap_or_default().iter().map(ToString::to_string).collect();
        faults.sort();
        assert_eq!(faults, expect);
    }

    #[test]
    fn payload_and_parameters_are_checked_together_and_every_fault_is_named() {
        check(r#"{"newName":"Ada"}"#, Some(r#"{"userId":"7"}"#), &[]);
        check(r#"{"newName":"Ada","userId":7}"#, None, &[]);
        check(r#"{"newName":"Ada"}"#, None, &["userId: required"]);
        check(
            "{}",
            Some(r#"{"userId":"x"}"#),
            &["newName: required", "userId: the value is not of type \"integer\""],
        );
        check(r#"{"newName":"CANARYX"}"#, Some(r#"{"userId":"7"}"#), &["new_name: has an X"]);
        check("{", Some(r#"{"userId":"7"}"#), &[": not valid JSON"]);
        check("{", None, &[": not valid JSON"]);
    }
}
