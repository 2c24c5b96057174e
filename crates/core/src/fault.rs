//! One field that breaks a rule of its type.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The most faults that are listed for one input.
pub const FAULTS_MAX: usize = 64;

/// One field that breaks a rule: what is wrong, and where. The value itself is never repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What is wrong.
    pub message: String,
    /// The way to the field, from the outside in; empty for the whole.
    pub path: Vec<String>,
}

impl Fault {
    /// The faults that validation found, with paths split at dots and brackets.
    pub fn of_report(report: &garde::Report) -> Vec<Self> {
        report
            .iter()
            .take(FAULTS_MAX)
            .map(|(path, error)| Self {
                message: error.message().to_owned(),
                path: path
                    .to_string()
                    .split(['.', '[', ']'])
                    .filter(|part| !part.is_empty())
                    .map(ToOwned::to_owned)
                    .collect(),
            })
            .collect()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.join("."), self.message)
    }
}
