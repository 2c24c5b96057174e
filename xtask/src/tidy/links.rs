//! Links in Markdown files that lead into the repository lead to something.

use std::path::{Component, Path, PathBuf};

use crate::finding::Finding;

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
