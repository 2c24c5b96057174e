//! `cargo xtask tidy`: habits of this code base that no compiler checks.
//!
//! Each rule lives in the file of its kind, with an example that it refuses. A rule that cannot be checked by
//! reading the text belongs into the contributor's guide instead.

mod habits;
mod ignored;
mod links;
mod shape;

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::finding::{self, Finding, counted};
use crate::source::{self, Source};

/// Checks every Rust and Markdown file of the repository.
pub(crate) fn check(root: &Path) -> Result<()> {
    let sources = source::sources(root)?;
    let mut findings: Vec<Finding> = sources.iter().flat_map(in_source).collect();
    let documents = source::files(root, "md")?;
    for path in &documents {
        let text = std::fs::read_to_string(root.join(path)).with_context(|| format!("read {path}"))?;
        findings.extend(links::broken(root, path, &text));
    }
    let looked_at =
        format!("{} and {}", counted(sources.len(), "Rust file"), counted(documents.len(), "Markdown file"));
    finding::conclude("tidy", &looked_at, &findings)
}

fn in_source(source: &Source) -> Vec<Finding> {
    let mut findings = shape::check(source);
    findings.extend(habits::check(source));
    findings.extend(ignored::check(source));
    findings.extend(links::in_rustdoc(source));
    findings
}
