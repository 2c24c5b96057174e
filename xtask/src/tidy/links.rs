//! Links in Markdown files that lead into the repository lead to something, and rustdoc has none of them: its pages lie
//! elsewhere.

use std::path::{Component, Path, PathBuf};

use crate::finding::Finding;
use crate::source::Source;

const FENCES: [&str; 2] = ["```", "~~~"];

/// Every relative link of a document whose target does not exist.
pub(super) fn broken(root: &Path, path: &str, text: &str) -> Vec<Finding> {
    let folder = Path::new(path).parent().unwrap_or(Path::new(""));
    targets(text)
        .into_iter()
        .filter_map(|(line, target)| {
            let is_broken = match place(folder, target) {
                Place::Elsewhere => false,
                Place::AboveTheRoot => true,
                Place::File(file) => !root.join(file).exists(),
            };
            is_broken.then(|| {
                Finding::at_line(
                    path,
                    line,
                    format!("the link to `{target}` leads nowhere"),
                    "correct the link, or take it out",
                )
            })
        })
        .collect()
}

/// Every relative link of a file's rustdoc, and every Markdown file that becomes rustdoc with its relative links: rustdoc leads
/// to items, which the compiler checks, and to URLs.
pub(super) fn in_rustdoc(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut before = "";
    for (number, line) in (1..).zip(source.text.lines()) {
        let trimmed = line.trim_start();
        let is_included =
            trimmed.starts_with('#') && trimmed.contains("doc = include_str!(") && trimmed.contains(".md\"");
        if is_included && before.trim() != "#[cfg(doctest)]" {
            findings.push(Finding::at_line(
                &source.path,
                number,
                "a Markdown file becomes rustdoc, where its relative links lead nowhere",
                "write the page as `//!` with links to items, and include the file under `#[cfg(doctest)]` to compile its examples",
            ));
        }
        let doc = trimmed.strip_prefix("//!").or_else(|| trimmed.strip_prefix("///"));
        for target in doc.into_iter().flat_map(in_line) {
            if is_of_repository(target) {
                findings.push(Finding::at_line(
                    &source.path,
                    number,
                    format!("the link to `{target}` leads nowhere in rustdoc"),
                    "link an item or a URL, or name the file without a link",
                ));
            }
        }
        before = line;
    }
    findings
}

/// Whether a target in rustdoc is a file of the repository, and no item.
fn is_of_repository(target: &str) -> bool {
    let file = target.split(['#', '?']).next().unwrap_or_default();
    let is_file = [".md", ".rs", ".toml"].iter().any(|ending| file.ends_with(ending));
    matches!(place(Path::new(""), target), Place::File(_) | Place::AboveTheRoot)
        && (is_file || file.contains('/'))
}

/// What the target of a link means.
enum Place {
    /// A page of somebody else, or a part of the same document.
    Elsewhere,
    AboveTheRoot,
    /// Relative to the root of the repository.
    File(PathBuf),
}

fn place(folder: &Path, target: &str) -> Place {
    let file = target.split(['#', '?']).next().unwrap_or_default();
    let has_scheme =
        file.split_once(':').is_some_and(|(scheme, _)| scheme.chars().all(char::is_alphanumeric));
    if file.is_empty() || has_scheme || file.starts_with("//") {
        return Place::Elsewhere;
    }
    // A leading slash means the root of the repository, wherever it is shown.
    let joined = file.strip_prefix('/').map_or_else(|| folder.join(file), PathBuf::from);
    let mut clean = PathBuf::new();
    for part in joined.components() {
        match part {
            Component::ParentDir if !clean.pop() => return Place::AboveTheRoot,
            Component::Normal(name) => clean.push(name),
            _ => {}
        }
    }
    Place::File(clean)
}

/// The targets of all links outside code, with their lines.
fn targets(text: &str) -> Vec<(usize, &str)> {
    let mut fence = None;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        let marker = FENCES.into_iter().find(|fence| trimmed.starts_with(fence));
        match (fence, marker) {
            (None, Some(_)) => fence = marker,
            (Some(open), Some(close)) if open == close => fence = None,
            (None, None) => found.extend(in_line(line).into_iter().map(|target| (index + 1, target))),
            _ => {}
        }
    }
    found
}

fn in_line(line: &str) -> Vec<&str> {
    let mut found: Vec<&str> = line
        .match_indices("](")
        .filter(|(at, _)| !is_in_code(line, *at))
        .filter_map(|(at, opening)| {
            let rest = line.split_at(at + opening.len()).1;
            Some(rest.split_at(closing(rest)?).0)
        })
        .map(without_title)
        .collect();
    // `[name]: target`, on a line of its own.
    if line.starts_with('[')
        && let Some((name, target)) = line.split_once("]: ")
        && !name.contains(']')
        && !name.starts_with("[^")
    {
        found.push(without_title(target));
    }
    found
}

/// Where the link ends; brackets inside it are in pairs.
fn closing(rest: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in rest.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => return Some(at),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn without_title(target: &str) -> &str {
    let target = target.trim();
    match target.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        Some((inside, _)) => inside,
        None => target.split_whitespace().next().unwrap_or_default(),
    }
}

/// An odd number of backticks before a place means that it is inside code.
fn is_in_code(line: &str, at: usize) -> bool {
    line.split_at(at).0.matches('`').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &[&str]) {
        let findings = broken(&crate::metadata::root(), "docs/made-up.md", text);
        let findings: Vec<String> = findings.iter().map(Finding::to_string).collect();
        assert_eq!(findings.len(), expect.len(), "{findings:?}");
        for (finding, part) in findings.iter().zip(expect) {
            assert!(finding.contains(part), "{part:?} is not in {finding:?}");
        }
    }

    #[track_caller]
    fn check_rustdoc(text: &str, expect: &[&str]) {
        let source = Source::new("crates/a/src/lib.rs", text);
        let findings: Vec<String> = in_rustdoc(&source).iter().map(Finding::to_string).collect();
        assert_eq!(findings.len(), expect.len(), "{findings:?}");
        for (finding, part) in findings.iter().zip(expect) {
            assert!(finding.contains(part), "{part:?} is not in {finding:?}");
        }
    }

    #[test]
    fn rustdoc_leads_to_items_and_urls_and_to_no_file() {
        check_rustdoc(
            "//! [a](docs/a.md), [b](../Cargo.toml#x)",
            &["lib.rs:1: the link to `docs/a.md`", "`../Cargo.toml#x`"],
        );
        check_rustdoc("/// [a](crate::b::C), [d](https://example.org/e.md), [f](#part), [`G`]", &[]);
        check_rustdoc("// [a](docs/a.md)\nlet text = \"[a](docs/a.md)\";", &[]);
        let include = "doc = include_str!(\"../../../README.md\")]";
        check_rustdoc(&format!("#![{include}"), &["lib.rs:1: a Markdown file becomes rustdoc"]);
        check_rustdoc(&format!("mod a;\n#[{include}\nmod b {{}}"), &["lib.rs:2"]);
        check_rustdoc(&format!("#[cfg(doctest)]\n#[{include}\nmod b {{}}"), &[]);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_reported_with_its_line() {
        check("text\n\nsee [a](none.md)", &["docs/made-up.md:3: the link to `none.md`"]);
        check("[a](../Cargo.toml) ![b](../none.png \"title\")", &["`../none.png`"]);
        check("[a]: ../none.md#part", &["`../none.md#part`"]);
        check("[out](../../elsewhere.md)", &["`../../elsewhere.md`"]);
        check("[a](</none (1).md>)", &["`/none (1).md`"]);
    }

    #[test]
    fn links_that_lead_somewhere_are_fine() {
        check("[a](../Cargo.toml), [b](/xtask/src/main.rs#L1), [c](../xtask/)", &[]);
        check("[a]: ../Cargo.toml\n[^note]: no link", &[]);
    }

    #[test]
    fn what_leads_out_of_the_repository_is_not_followed() {
        check("[a](https://example.org/a.md) [b](mailto:a@example.org) [c](#part)", &[]);
    }

    #[test]
    fn code_holds_no_links() {
        check("`a[0](none.md)`", &[]);
        check("```md\n[a](none.md)\n```\n~~~\n[a](none.md)\n~~~", &[]);
        check("```\n~~~\n[a](none.md)\n```\n[b](none.md)", &["made-up.md:5"]);
    }
}
