//! Runs the workspace's tests: the one test command, and the soak tests.

use std::io::{BufRead as _, BufReader, PipeReader};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::metadata::Workspace;
use crate::tally::{Expect, Tally};
use crate::{process, programs, python};

/// Soak tests are told by their names, because cargo cannot select by the reason of an `#[ignore]`.
const SOAK_PREFIX: &str = "soak_";
/// Everything that holds tests: libraries and programs are among cargo's `--tests`, benches are not. Cargo would
/// refuse `--lib` for a single package without one.
const WITH_TESTS: [&str; 2] = ["--no-fail-fast", "--tests"];
/// The package of the benchmarks, and the feature that its programs need: a test runs each of them for one short round.
/// Turned on in the same build as everything else, so that nothing is compiled twice.
const BENCHES: &str = "purista-benches";
const BENCHES_FEATURE: &str = "purista-benches/compare";
/// Lines of output in flight between the tests and the terminal.
const LINES_MAX: usize = 1024;
/// How long output may come in after cargo ended, before the rest is given up.
const DRAIN: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(200);

/// The one test command: installs what is missing, then runs everything but the soak tests.
pub(crate) fn test(root: &Path, packages: &[String]) -> Result<()> {
    let run = Run::prepare(root, packages)?;
    let features = run.features();
    run.build_examples(features)?;
    let mut tally = Tally::default();
    let all = ["--include-ignored", "--skip", SOAK_PREFIX];
    let mut succeeded = run.cargo_test(&[&WITH_TESTS, features].concat(), &all, &mut tally)?;
    if tally.is_empty() {
        bail!("the tests did not start");
    }
    if run.has_libraries() {
        succeeded &= run.cargo_test(&[&["--no-fail-fast", "--doc"], features].concat(), &[], &mut tally)?;
    }
    conclude(&tally, Expect::EachBinaryRuns, succeeded)
}

/// The soak tests, optimised and one after the other, because they measure.
pub(crate) fn soak(root: &Path, packages: &[String]) -> Result<()> {
    let run = Run::prepare(root, packages)?;
    run.build_examples(&["--release"])?;
    let mut tally = Tally::default();
    let succeeded = run.cargo_test(
        &["--no-fail-fast", "--release", "--tests"],
        &["--ignored", SOAK_PREFIX, "--nocapture", "--test-threads=1"],
        &mut tally,
    )?;
    conclude(&tally, Expect::AnyBinaryRuns, succeeded)
}

fn conclude(tally: &Tally, expect: Expect, succeeded: bool) -> Result<()> {
    println!("\n{tally}");
    tally.verdict(expect)?;
    if !succeeded {
        bail!("cargo test failed although no test did: see above");
    }
    Ok(())
}

/// The tests of some packages, with everything there that they need.
struct Run<'a> {
    root: &'a Path,
    workspace: Workspace,
    packages: &'a [String],
    python: std::path::PathBuf,
    nats_server: std::path::PathBuf,
}

impl<'a> Run<'a> {
    fn prepare(root: &'a Path, packages: &'a [String]) -> Result<Self> {
        let workspace = Workspace::load(root)?;
        programs::provide(root, &programs::OF_THE_TESTS)?;
        let python = python::provide(root, &workspace.target_directory)?;
        let nats_server = python::nats_server(&python)?;
        Ok(Self { root, workspace, packages, python, nats_server })
    }

    fn has_libraries(&self) -> bool {
        self.workspace.packages.iter().any(|package| {
            package.has_library() && (self.packages.is_empty() || self.packages.contains(&package.name))
        })
    }

    /// The features that tests need, of the packages that were selected.
    fn features(&self) -> &'static [&'static str] {
        let has_benches = self.packages.is_empty() || self.packages.iter().any(|name| name == BENCHES);
        if has_benches { &["--features", BENCHES_FEATURE] } else { &[] }
    }

    /// Builds the programs that some tests run and kill. `--tests` does not, and `cargo test --examples` would build them
    /// as tests.
    fn build_examples(&self, options: &[&str]) -> Result<()> {
        let mut command = process::cargo(self.root);
        command.arg("build");
        self.select(&mut command);
        process::run(command.arg("--examples").args(options))
    }

    fn select(&self, command: &mut Command) {
        if self.packages.is_empty() {
            command.arg("--workspace");
        }
        for package in self.packages {
            command.args(["--package", package]);
        }
    }

    /// Runs `cargo test` with these options of cargo and of the test binaries; whether it succeeded.
    fn cargo_test(&self, options: &[&str], of_tests: &[&str], tally: &mut Tally) -> Result<bool> {
        let mut command = process::cargo(self.root);
        command.arg("test");
        self.select(&mut command);
        command.args(options);
        if !of_tests.is_empty() {
            command.arg("--").args(of_tests);
        }
        command.env("PATH", programs::search_path()).env(python::VARIABLE, &self.python);
        command.env(python::NATS_SERVER, &self.nats_server);
        // The output is read, so it has to look the same for everybody.
        command
            .env("CARGO_TERM_COLOR", "never")
            .env("CARGO_TERM_VERBOSE", "false")
            .env_remove("CARGO_TERM_QUIET");
        println!("$ {}", process::line(&command));
        run_reading(command, |line| {
            println!("{line}");
            tally.read(line);
        })
    }
}

/// Runs a command and hands on each line that it prints; whether it succeeded.
///
/// Both outputs go into one pipe, so that cargo's line about a binary comes before what the binary prints.
fn run_reading(mut command: Command, mut read: impl FnMut(&str)) -> Result<bool> {
    let line = process::line(&command);
    let (reader, writer) = std::io::pipe().context("open a pipe")?;
    command.stdout(writer.try_clone().context("open a pipe")?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("start `{line}`"))?;
    // The command holds the writing ends; the pipe ends only after they are closed.
    drop(command);
    let lines = lines_of(reader);
    let mut ended_at = None;
    loop {
        match lines.recv_timeout(POLL) {
            Ok(line) => read(&line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                if ended_at.is_none() && child.try_wait().context("wait for the tests")?.is_some() {
                    ended_at = Some(Instant::now());
                }
                // A server that a test left behind holds the pipe open, perhaps for ever.
                if ended_at.is_some_and(|at| at.elapsed() > DRAIN) {
                    println!(
                        "warning: a program that a test started is still running and holds its output open"
                    );
                    break;
                }
            }
        }
    }
    Ok(child.wait().with_context(|| format!("wait for `{line}`"))?.success())
}

/// Reads on a thread of its own, so that waiting for a line can end.
fn lines_of(reader: PipeReader) -> Receiver<String> {
    let (sender, lines) = sync_channel(LINES_MAX);
    std::thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
            if sender.send(text).is_err() {
                break;
            }
            line.clear();
        }
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(script: &str) -> (bool, Vec<String>) {
        let mut command = process::program("sh", Path::new("."));
        command.args(["-c", script]);
        let mut lines = Vec::new();
        let succeeded = run_reading(command, |line| lines.push(line.to_owned())).unwrap();
        (succeeded, lines)
    }

    #[test]
    fn both_outputs_are_read_in_the_order_they_were_written() {
        assert_eq!(
            read("echo one; echo two >&2; echo three"),
            (true, vec!["one".into(), "two".into(), "three".into()])
        );
    }

    #[test]
    fn a_failure_is_told_after_all_output() {
        assert_eq!(read("printf last; exit 4"), (false, vec!["last".into()]));
    }

    #[test]
    fn output_that_is_no_utf_8_does_not_stop_the_reading() {
        let (succeeded, lines) = read(r"printf '\377\nnext\n'");
        assert!(succeeded);
        assert_eq!(lines.last().map(String::as_str), Some("next"));
    }

    #[test]
    fn a_program_left_behind_does_not_hold_up_the_run() {
        let started = Instant::now();
        let (succeeded, lines) = read("sleep 60 & echo $!");
        assert!(succeeded);
        assert!(started.elapsed() < Duration::from_secs(30));
        let left_behind = lines.first().unwrap();
        process::run(process::program("kill", Path::new(".")).arg(left_behind)).unwrap();
    }
}
