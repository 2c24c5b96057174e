//! Inside a crate, names come from the module that defines them.
//!
//! An import through the root's re-exports hides who depends on whom: every module would lean on `lib.rs`,
//! and moving a module would no longer show in the imports of its users.

use crate::finding::Finding;
use crate::source::Source;

const REMEDY: &str = "import from the module that defines it, as in `crate::message::Message`";

/// Every import of a type, constant or everything from the root of the crate itself.
pub(crate) fn from_the_crate_root(sources: &[Source]) -> Vec<Finding> {
    sources.iter().filter(|source| is_of_a_crate(source)).flat_map(in_source).collect()
}

/// A program of its own under `tests/` has another root, which re-exports nothing.
fn is_of_a_crate(source: &Source) -> bool {
    let mut parts = source.path.split('/');
    parts.next() == Some("crates") && parts.nth(1) == Some("src")
}

fn in_source(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (offset, _) in source.code.match_indices("use ") {
        let (before, from) = source.code.split_at(offset);
        let is_word = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let tree = from.split(';').next().unwrap_or_default();
        let Some(path) =
            tree.strip_prefix("use ").map(str::trim_start).and_then(|tree| tree.strip_prefix("crate::"))
        else {
            continue;
        };
        if !is_word {
            continue;
        }
        for (at, name) in first_names(path) {
            if name == "*" || name.starts_with(char::is_uppercase) {
                let position = offset + (tree.len() - path.len()) + at;
                let what = format!("`{name}` is imported from the crate root");
                findings.push(Finding::at_line(&source.path, source.line_of(position), what, REMEDY));
            }
        }
    }
    findings
}

/// The first name of each path in a tree of imports, with its place: `a` and `B` of `{a::{C, D}, B}`.
fn first_names(tree: &str) -> Vec<(usize, &str)> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == '*';
    let depth_of_paths = usize::from(tree.trim_start().starts_with('{'));
    let (mut depth, mut is_at_start, mut names) = (0_usize, true, Vec::new());
    for (at, c) in tree.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' => is_at_start = true,
            c if is_name(c) && is_at_start && depth == depth_of_paths => {
                let rest = tree.split_at(at).1;
                names.push((at, rest.split(|c| !is_name(c)).next().unwrap_or(rest)));
                is_at_start = false;
            }
            _ => {}
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<String> {
        let findings = from_the_crate_root(&[Source::new(path, text)]);
        findings
            .iter()
            .map(|finding| finding.to_string().split(" is imported").next().unwrap_or_default().to_owned())
            .collect()
    }

    #[track_caller]
    fn check(text: &str, expect: &[&str]) {
        assert_eq!(lines("crates/core/src/a.rs", text), expect);
    }

    #[test]
    fn a_type_from_the_root_is_reported_with_its_line() {
        check("use crate::Message;", &["crates/core/src/a.rs:1: `Message`"]);
        check("\n\npub use crate::Message as M;", &["crates/core/src/a.rs:3: `Message`"]);
        check("use crate::*;", &["crates/core/src/a.rs:1: `*`"]);
        check(
            "use crate::{\n    Message,\n    trace::{Span, Trace},\n    LIMIT,\n};",
            &["crates/core/src/a.rs:2: `Message`", "crates/core/src/a.rs:4: `LIMIT`"],
        );
    }

    #[test]
    fn imports_from_modules_are_fine() {
        check("use crate::message::Message;", &[]);
        check("use crate::{message::{Message, Part}, trace::Trace};", &[]);
        check("use crate::message;\nuse super::Message;", &[]);
    }

    #[test]
    fn macros_comments_and_expressions_are_no_imports() {
        check("use $crate::Message;", &[]);
        check("// use crate::Message;", &[]);
        check("let a = \"use crate::Message;\";", &[]);
        check("let a = crate::Message::new();", &[]);
        check("because crate::Message;", &[]);
    }

    #[test]
    fn only_the_sources_of_crates_are_looked_at() {
        assert!(lines("crates/core/tests/a.rs", "use crate::Message;").is_empty());
        assert!(lines("examples/sign-up/src/a.rs", "use crate::Message;").is_empty());
        assert!(!lines("crates/core/src/a/b.rs", "use crate::Message;").is_empty());
    }
}
