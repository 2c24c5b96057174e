//! Counts what test binaries report, so that a green run which tested nothing is seen for what it is.

use std::fmt;

use anyhow::{Result, bail};

use crate::finding::counted;

/// What one test binary, or the doc-tests of one crate, reported.
#[derive(Debug, Default)]
struct Unit {
    name: String,
    passed: usize,
    failed: usize,
    skipped: usize,
    has_result: bool,
    failures: Vec<String>,
}

/// What a whole run of `cargo test` reported.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    units: Vec<Unit>,
}

/// Whether a binary in which every test was skipped is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Each binary that holds tests runs one, unless its name says that it holds soak tests.
    EachBinaryRuns,
    /// Most binaries hold no test of the kind that runs.
    AnyBinaryRuns,
}

impl Tally {
    /// Reads one line of what cargo and the test binaries print.
    pub(crate) fn read(&mut self, line: &str) {
        if let Some(name) = started(line) {
            self.units.push(Unit { name, ..Unit::default() });
            return;
        }
        let Some(unit) = self.units.last_mut() else { return };
        if let Some([passed, failed, skipped]) = result(line) {
            // The doc-tests of one crate may report in two parts.
            unit.passed += passed;
            unit.failed += failed;
            unit.skipped += skipped;
            unit.has_result = true;
        } else if let Some(test) =
            line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            unit.failures.push(test.to_owned());
        }
    }

    /// Whether no test binary was started, as when the code does not compile.
    pub(crate) fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// Fails if a test failed, if a binary broke off, or if tests that should have run did not.
    pub(crate) fn verdict(&self, expect: Expect) -> Result<()> {
        let broken: Vec<&str> =
            self.units.iter().filter(|unit| !unit.has_result).map(|unit| unit.name.as_str()).collect();
        let idle: Vec<&str> = self
            .units
            .iter()
            .filter(|unit| expect == Expect::EachBinaryRuns && unit.is_idle())
            .map(|unit| unit.name.as_str())
            .collect();
        let failed = self.sum(|unit| unit.failed);
        if failed > 0 {
            bail!("{}", counted(failed, "failed test"));
        }
        if !broken.is_empty() {
            bail!(
                "no result came from {}: it crashed, or has no test harness to count with",
                broken.join(", ")
            );
        }
        if !idle.is_empty() {
            bail!(
                "{} holds tests but ran none of them. Remedy: make them run; soak tests alone belong into a file named soak….rs",
                idle.join(", ")
            );
        }
        if self.sum(|unit| unit.passed) == 0 {
            bail!("no test ran");
        }
        Ok(())
    }

    fn sum(&self, count: impl Fn(&Unit) -> usize) -> usize {
        self.units.iter().map(count).sum()
    }
}

impl fmt::Display for Tally {
    /// A line for each binary that holds tests, the failed tests, and a closing line with the sums.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut without_tests = 0;
        for unit in &self.units {
            if unit.has_result && unit.passed + unit.failed + unit.skipped == 0 {
                without_tests += 1;
                continue;
            }
            write!(f, "{:>6} passed {:>4} failed {:>4} skipped", unit.passed, unit.failed, unit.skipped)?;
            writeln!(f, "   {}{}", unit.name, if unit.has_result { "" } else { "   (no result)" })?;
        }
        if without_tests > 0 {
            writeln!(f, "       {} without a test", counted(without_tests, "target"))?;
        }
        for unit in &self.units {
            for failure in &unit.failures {
                writeln!(f, "FAILED {failure}   in {}", unit.name)?;
            }
        }
        let (passed, failed) = (self.sum(|unit| unit.passed), self.sum(|unit| unit.failed));
        write!(f, "tests: {passed} passed, {failed} failed, {} skipped", self.sum(|unit| unit.skipped))
    }
}

impl Unit {
    fn is_idle(&self) -> bool {
        let holds_soak_tests = self.name.split(['/', ' ']).any(|part| part.starts_with("soak"));
        self.passed + self.failed == 0 && self.skipped > 0 && !holds_soak_tests
    }
}

/// The name in cargo's line about the binary that it starts now.
fn started(line: &str) -> Option<String> {
    if let Some(library) = line.strip_prefix("   Doc-tests ") {
        return Some(format!("{library}: doc-tests"));
    }
    // Cargo aligns its verbs to the twelfth column; a test's own output rarely does.
    let (source, binary) = line.strip_prefix("     Running ")?.strip_suffix(')')?.rsplit_once(" (")?;
    let binary = binary.rsplit('/').next().unwrap_or(binary);
    let target = binary.rsplit_once('-').map_or(binary, |(target, _hash)| target);
    Some(format!("{target}: {}", source.trim_start_matches("unittests ")))
}

/// Passed, failed and skipped of a test binary's last line.
fn result(line: &str) -> Option<[usize; 3]> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut sums = [0; 3];
    let [passed, failed, skipped] = &mut sums;
    for count in counts.split("; ") {
        let (number, what) = count.split_once(' ')?;
        let slot = match what {
            "passed" => &mut *passed,
            "failed" => &mut *failed,
            "ignored" | "filtered out" => &mut *skipped,
            _ => continue,
        };
        *slot += number.parse::<usize>().ok()?;
    }
    Some(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINARY: &str = "     Running unittests src/lib.rs (target/debug/deps/purista_core-0a1b2c)";
    const SOAK: &str = "     Running tests/soak.rs (target/debug/deps/soak-0a1b2c)";
    const DOC: &str = "   Doc-tests purista_core";
    const FIVE: &str =
        "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.01s";
    const NONE: &str =
        "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.00s";
    const EMPTY: &str =
        "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
    const ONE_FAILED: &str =
        "test result: FAILED. 4 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s";

    fn tally(lines: &[&str]) -> Tally {
        let mut tally = Tally::default();
        for line in lines {
            tally.read(line);
        }
        tally
    }

    fn check(lines: &[&str], expect: Expect, error: Option<&str>) {
        let verdict = tally(lines).verdict(expect).map_err(|error| error.to_string());
        match error {
            None => assert_eq!(verdict, Ok(())),
            Some(part) => assert!(verdict.unwrap_err().contains(part)),
        }
    }

    #[test]
    fn what_ran_is_counted_and_what_did_not_is_an_error() {
        use Expect::{AnyBinaryRuns, EachBinaryRuns};
        check(&[BINARY, FIVE, DOC, EMPTY], EachBinaryRuns, None);
        check(&[BINARY, FIVE, SOAK, NONE], EachBinaryRuns, None);
        check(&[BINARY, NONE, DOC, FIVE], EachBinaryRuns, Some("purista_core: src/lib.rs holds tests"));
        check(&[BINARY, NONE, DOC, FIVE], AnyBinaryRuns, None);
        check(&[BINARY, ONE_FAILED], EachBinaryRuns, Some("1 failed test"));
        check(&[BINARY, FIVE, SOAK], EachBinaryRuns, Some("no result came from soak: tests/soak.rs"));
        check(&[BINARY, EMPTY], EachBinaryRuns, Some("no test ran"));
        check(&[], AnyBinaryRuns, Some("no test ran"));
    }

    #[test]
    fn the_summary_names_the_failed_test_and_closes_with_the_sums() {
        let lines = [BINARY, "test bridge::it_closes ... FAILED", ONE_FAILED, DOC, FIVE, EMPTY, SOAK, EMPTY];
        let summary = tally(&lines).to_string();
        assert!(summary.contains("FAILED bridge::it_closes   in purista_core: src/lib.rs\n"));
        assert!(summary.contains("1 target without a test\n"));
        assert!(summary.ends_with("\ntests: 9 passed, 1 failed, 2 skipped"));
    }

    #[test]
    fn the_parts_of_one_crates_doc_tests_are_added() {
        let summary = tally(&[DOC, FIVE, FIVE]).to_string();
        assert!(summary.contains("10 passed    0 failed    4 skipped   purista_core: doc-tests"));
    }

    #[test]
    fn a_tests_own_output_is_not_counted() {
        assert_eq!(started("Running late (again)"), None);
        assert_eq!(result("test result: unknown"), None);
        assert_eq!(result("the test result: ok. 1 passed; 0 failed"), None);
    }
}
