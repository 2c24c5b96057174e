//! One thing that a check found wrong: where, what, and what to do about it.

use std::fmt;

use anyhow::{Result, bail};

/// A broken rule at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    path: String,
    line: Option<usize>,
    what: String,
    remedy: String,
}

impl Finding {
    /// Something wrong with a file as a whole.
    pub(crate) fn in_file(path: &str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: None, what: what.into(), remedy: remedy.into() }
    }

    /// Something wrong at a line, counted from one.
    pub(crate) fn at_line(
        path: &str,
        line: usize,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { path: path.to_owned(), line: Some(line), what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}. Remedy: {}", self.what, self.remedy)
    }
}

/// Prints every finding; fails if there is one.
pub(crate) fn conclude(check: &str, looked_at: &str, findings: &[Finding]) -> Result<()> {
    for finding in findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{check} found {} in {looked_at}", counted(findings.len(), "broken rule"));
    }
    println!("{check}: {looked_at}, nothing to report");
    Ok(())
}

/// `1 file`, `2 files`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_where_what_and_the_remedy() {
        assert_eq!(Finding::at_line("a.rs", 3, "x", "y").to_string(), "a.rs:3: x. Remedy: y");
        assert_eq!(Finding::in_file("a.rs", "x", "y").to_string(), "a.rs: x. Remedy: y");
    }

    #[test]
    fn one_finding_fails_the_check() {
        assert!(conclude("tidy", "no file", &[]).is_ok());
        let error = conclude("tidy", "1 file", &[Finding::in_file("a.rs", "x", "y")]).unwrap_err();
        assert_eq!(error.to_string(), "tidy found 1 broken rule in 1 file");
    }
}
