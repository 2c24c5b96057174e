//! Habits inside a file: nothing left undone, no task without an owner, no test that sleeps.

use crate::finding::Finding;
use crate::source::Source;

/// Words in code or comments that mean that something is missing.
const MARKERS: [&str; 2] = ["TODO", "FIXME"];
const UNDONE: [&str; 2] = ["todo!(", "unimplemented!("];
const SPAWNS: [&str; 2] = ["tokio::spawn(", "tokio::task::spawn("];
const SLEEPS: [&str; 2] = ["sleep(Duration", "sleep(std::time::Duration"];
/// The comment at the end of a line that has to wait for real time to pass, followed by the reason.
const REAL_TIME: &str = "// real time: ";
/// A suite for adapters is test code although it stands in a library.
const SUITE: &str = "crates/conformance/src/";

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let tests_start_after =
        if source.is_test_file() || source.path.starts_with(SUITE) { 0 } else { source.lines_before_tests() };
    let lines = source.text.lines().zip(source.code.lines()).zip(source.without_literals.lines());
    for (index, ((text, code), without_literals)) in lines.enumerate() {
        let number = index + 1;
        let mut report = |what: String, remedy: &str| {
            findings.push(Finding::at_line(&source.path, number, what, remedy));
        };
        if let Some(marker) = undone(source, code, without_literals) {
            report(
                format!("`{marker}` marks something undone"),
                "do it, or open an issue and leave the code whole",
            );
        }
        if let Some(spawn) = contained(code, &SPAWNS) {
            report(
                format!("`{spawn}` starts a task that nobody awaits at shutdown"),
                "spawn it on the TaskTracker of its owner",
            );
        }
        if index >= tests_start_after
            && let Some(sleep) = contained(code, &SLEEPS)
            && !is_explained(text)
        {
            report(
                format!("`{sleep}` makes a test wait for time to pass"),
                "wait for the event itself; if real time has to pass, end the line with `// real time: ` and the reason",
            );
        }
    }
    findings
}

/// Compile-fail cases of `tests/ui` show what users write, unfinished bodies included.
fn undone(source: &Source, code: &str, without_literals: &str) -> Option<&'static str> {
    if source.path.contains("tests/ui/") {
        return None;
    }
    contained(code, &UNDONE).or_else(|| MARKERS.into_iter().find(|marker| has_word(without_literals, marker)))
}

fn contained(code: &str, patterns: &[&'static str]) -> Option<&'static str> {
    patterns.iter().copied().find(|pattern| code.contains(pattern))
}

fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let (before, rest) = text.split_at(at);
        !before.ends_with(is_part) && !rest.split_at(word.len()).1.starts_with(is_part)
    })
}

fn is_explained(line: &str) -> bool {
    line.split_once(REAL_TIME).is_some_and(|(_, reason)| !reason.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, text: &str, expect: &[&str]) {
        let findings: Vec<String> =
            super::check(&Source::new(path, text)).iter().map(Finding::to_string).collect();
        assert_eq!(findings.len(), expect.len(), "{findings:?}");
        for (finding, part) in findings.iter().zip(expect) {
            assert!(finding.contains(part), "{part:?} is not in {finding:?}");
        }
    }

    #[test]
    fn undone_work_is_refused() {
        check("a.rs", "fn f() {\n    todo!()\n}", &["a.rs:2: `todo!(`"]);
        check("a.rs", "unimplemented!(\"later\")", &["`unimplemented!(`"]);
        check("a.rs", "// TODO: later", &["`TODO`"]);
        check("a.rs", "a(); /* FIXME */", &["`FIXME`"]);
    }

    #[test]
    fn words_that_only_look_undone_are_fine() {
        check("a.rs", "struct TODO_LIST; let a = \"TODO\"; // todo list, AUTODOC", &[]);
        check("crates/core/tests/ui/a.rs", "todo!() // TODO", &[]);
    }

    #[test]
    fn a_task_without_an_owner_is_refused() {
        check("a.rs", "tokio::spawn(async {});", &["`tokio::spawn(`"]);
        check("tests/a.rs", "tokio::task::spawn(async {});", &["`tokio::task::spawn(`"]);
        check("a.rs", "tracker.spawn(async {}); // not tokio::spawn()", &[]);
    }

    #[test]
    fn a_test_that_sleeps_is_refused() {
        let sleep = "sleep(Duration::from_millis(5)).await;";
        check("crates/core/src/a/tests.rs", sleep, &["waits"].map(|_| "wait for time to pass"));
        check("crates/core/tests/a.rs", "sleep(std::time::Duration::MAX);", &["wait for time to pass"]);
        check("crates/conformance/src/bridge.rs", sleep, &["wait for time to pass"]);
        let inline = format!("{sleep}\n#[cfg(test)]\nmod tests {{\n    {sleep}\n}}");
        check("crates/core/src/a.rs", &inline, &["a.rs:4:"]);
    }

    #[test]
    fn a_sleep_with_its_reason_is_fine() {
        let path = "crates/core/tests/a.rs";
        check(path, "sleep(Duration::MAX).await; // real time: the broker's clock is not ours", &[]);
        check(path, "sleep(Duration::MAX).await; // real time: ", &["wait for time to pass"]);
        check("crates/core/src/a.rs", "sleep(Duration::MAX).await;", &[]);
    }
}
