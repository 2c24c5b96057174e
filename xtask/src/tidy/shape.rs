//! The shape of the house: how long files are, how they are called, and that they say what they are for.

use crate::finding::Finding;
use crate::source::Source;

/// A file is one idea; past this it is two.
const LINES_MAX: usize = 500;
/// Tests are lists, and a list may be longer.
const TEST_LINES_MAX: usize = 900;
/// Rooms that collect whatever found no place of its own.
const BANNED_NAMES: [&str; 13] = [
    "helper", "util", "utils", "common", "base", "impl", "data", "info", "wrapper", "manager", "types",
    "prelude", "helpers",
];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    [length(source), description(source), module_file(source), name(source)].into_iter().flatten().collect()
}

fn length(source: &Source) -> Option<Finding> {
    let (lines, limit, kind) = if source.is_test_file() {
        (source.text.lines().count(), TEST_LINES_MAX, "lines of tests")
    } else {
        (source.lines_before_tests(), LINES_MAX, "lines without its tests")
    };
    (lines > limit).then(|| {
        Finding::in_file(
            &source.path,
            format!("the file has {lines} {kind}, the limit is {limit}"),
            "split it where a second idea begins",
        )
    })
}

fn description(source: &Source) -> Option<Finding> {
    let parts: Vec<&str> = source.path.split('/').collect();
    let is_looked_at = matches!(parts.as_slice(), ["crates", _, "src", ..] | ["xtask", "src", ..]);
    // A crate's description may be its README.
    let is_described = source.text.starts_with("//!") || source.text.starts_with("#![doc");
    (is_looked_at && !is_described).then(|| {
        Finding::in_file(
            &source.path,
            "the file does not say what it is for",
            "start it with a `//!` sentence: what it is, and why",
        )
    })
}

fn module_file(source: &Source) -> Option<Finding> {
    source.path.ends_with("/mod.rs").then(|| {
        Finding::in_file(
            &source.path,
            "a file named mod.rs says nothing in a list of open files",
            "name it after its module, as in `bridge.rs` beside `bridge/`; for tests that share code, `tests/NAME/main.rs`",
        )
    })
}

fn name(source: &Source) -> Option<Finding> {
    let without_ending = source.path.strip_suffix(".rs").unwrap_or(&source.path);
    // Only what stands for a module: folders above the sources are not named by us alone.
    let modules = without_ending.split("/src/").last().unwrap_or(without_ending);
    let banned = modules.split('/').find(|part| BANNED_NAMES.contains(part))?;
    Some(Finding::in_file(
        &source.path,
        format!("`{banned}` names no idea"),
        "name the file after the one thing in it",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, text: &str, expect: Option<&str>) {
        let findings: Vec<String> =
            super::check(&Source::new(path, text)).iter().map(Finding::to_string).collect();
        match expect {
            None => assert!(findings.is_empty(), "{findings:?}"),
            Some(part) => assert!(findings.len() == 1 && findings[0].contains(part), "{findings:?}"),
        }
    }

    fn lines(count: usize) -> String {
        format!("//! What.\n{}", "a();\n".repeat(count - 1))
    }

    #[test]
    fn a_file_over_500_lines_is_refused() {
        check("crates/core/src/a.rs", &lines(500), None);
        check("crates/core/src/a.rs", &lines(501), Some("has 501 lines without its tests, the limit is 500"));
        check("examples/sign-up/src/a.rs", &lines(501), Some("the limit is 500"));
    }

    #[test]
    fn tests_do_not_count_but_have_a_limit_of_their_own() {
        let inline = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", lines(500), lines(600));
        check("crates/core/src/a.rs", &inline, None);
        check("crates/core/src/a/tests.rs", &lines(900), None);
        check("crates/core/src/a/tests.rs", &lines(901), Some("the limit is 900"));
        check("crates/core/tests/a.rs", &lines(901), Some("the limit is 900"));
    }

    #[test]
    fn a_file_says_what_it_is_for() {
        check("crates/core/src/a.rs", "use a;\n", Some("does not say what it is for"));
        check("crates/core/src/a/b.rs", "", Some("does not say what it is for"));
        check("crates/purista/src/lib.rs", "#![doc = include_str!(\"../README.md\")]\n", None);
        check("crates/core/tests/ui/a.rs", "fn main() {}\n", None);
    }

    #[test]
    fn files_are_not_called_mod() {
        check("crates/core/src/a/mod.rs", "//! What.", Some("mod.rs says nothing"));
        check("crates/core/tests/a/mod.rs", "//! What.", Some("mod.rs says nothing"));
    }

    #[test]
    fn rooms_for_everything_are_refused() {
        check("crates/core/src/utils.rs", "//! What.", Some("`utils` names no idea"));
        check("crates/core/src/common/clock.rs", "//! What.", Some("`common` names no idea"));
        check("crates/core/tests/helper.rs", "", Some("`helper` names no idea"));
        check("crates/core/src/database.rs", "//! What.", None);
    }
}
