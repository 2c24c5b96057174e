//! `cargo xtask instructions`: how many instructions one validated command in the process takes.
//!
//! Times vary with the machine and its load; instruction counts hardly do. Two runs of different length are
//! counted, and their difference cancels the cost of starting up.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value};

use crate::metadata::Workspace;
use crate::{process, programs};

const PACKAGE: &str = "purista-benches";
const PROGRAM: &str = "count_command";
/// Where the figure is stored that later ones are compared with.
const STORED: &str = "benches/instructions.json";
const KEY: &str = "command";
/// No change of the stored figure goes beyond this.
const ABSOLUTE_MAX: u64 = 4_000;
/// How far a figure may rise above the stored one before somebody has to say that it may.
const RISE_PERCENT_MAX: u64 = 5;
const FEW_COMMANDS: u64 = 2_000;
const MANY_COMMANDS: u64 = 12_000;

/// Counts, and fails if the figure is too high; or, when blessing, stores it.
pub(crate) fn gate(root: &Path, bless: bool) -> Result<()> {
    let program = build(root)?;
    programs::provide(root, &[programs::VALGRIND])?;
    let few = count(root, &program, FEW_COMMANDS)?;
    let many = count(root, &program, MANY_COMMANDS)?;
    let figure = per_command(few, many)?;
    let file = root.join(STORED);
    let text = match std::fs::read_to_string(&file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "{}".to_owned(),
        other => other.with_context(|| format!("read {STORED}"))?,
    };
    if !bless {
        println!("{}", judged(figure, stored(&text)?)?);
        return Ok(());
    }
    if figure > ABSOLUTE_MAX {
        bail!("{figure} instructions a command cannot be blessed: the limit is {ABSOLUTE_MAX}");
    }
    std::fs::write(&file, blessed(&text, figure)?).with_context(|| format!("write {STORED}"))?;
    println!("instructions: {figure} a command, stored in {STORED}");
    Ok(())
}

fn build(root: &Path) -> Result<PathBuf> {
    let workspace = Workspace::load(root)?;
    let has_program =
        workspace.packages.iter().any(|package| package.name == PACKAGE && package.has_program(PROGRAM));
    let arguments = ["build", "--release", "-p", PACKAGE, "--bin", PROGRAM];
    if !has_program {
        bail!(
            "package {PACKAGE} has no program {PROGRAM}: `cargo {}` has nothing to build. \
             Remedy: add a program of this name that takes a number and runs as many validated commands in the process",
            arguments.join(" ")
        );
    }
    // Asked of cargo: the folder differs where a target is configured.
    let mut command = process::cargo(root);
    command.args(arguments).args(["--message-format", "json-render-diagnostics"]);
    println!("$ {}", process::line(&command));
    executable(&process::output(&mut command)?).context("cargo did not say where it put the program")
}

/// The path of the program in cargo's messages.
fn executable(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message.pointer("/target/name").and_then(Value::as_str) == Some(PROGRAM))
        .find_map(|message| message.get("executable")?.as_str().map(PathBuf::from))
}

/// The instructions of one run of so many commands.
fn count(root: &Path, program: &Path, commands: u64) -> Result<u64> {
    let mut command = process::program("valgrind", root);
    command.env("PATH", programs::search_path());
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .arg(commands.to_string());
    let line = process::line(&command);
    println!("$ {line}");
    let output = command.output().with_context(|| format!("start `{line}`"))?;
    let report = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("`{line}` failed: {}\n{report}", output.status);
    }
    collected(&report).with_context(|| format!("`{line}` reported no count:\n{report}"))
}

/// The number in callgrind's line `==1== Collected : 123`.
fn collected(report: &str) -> Option<u64> {
    let (_, number) = report.lines().rev().find_map(|line| line.split_once("Collected : "))?;
    number.split_whitespace().next()?.parse().ok()
}

fn per_command(few: u64, many: u64) -> Result<u64> {
    let difference = many.checked_sub(few).filter(|&difference| difference > 0).with_context(|| {
        format!("{MANY_COMMANDS} commands took {many} instructions and {FEW_COMMANDS} took {few}: {PROGRAM} does not run as many as it is told")
    })?;
    Ok(difference / (MANY_COMMANDS - FEW_COMMANDS))
}

fn stored(text: &str) -> Result<Option<u64>> {
    let figures: Map<String, Value> = serde_json::from_str(text).with_context(|| format!("read {STORED}"))?;
    Ok(figures.get(KEY).and_then(Value::as_u64))
}

fn blessed(text: &str, figure: u64) -> Result<String> {
    let mut figures: Map<String, Value> =
        serde_json::from_str(text).with_context(|| format!("read {STORED}"))?;
    figures.insert(KEY.to_owned(), figure.into());
    Ok(format!("{}\n", serde_json::to_string_pretty(&figures)?))
}

/// What is to be said of a figure; an error if it is too high.
fn judged(figure: u64, stored: Option<u64>) -> Result<String> {
    let Some(stored) = stored else {
        bail!(
            "a command takes {figure} instructions, and {STORED} holds no figure to compare with. \
             Remedy: `cargo xtask instructions --bless`, and commit the file"
        );
    };
    let limit = (stored + stored * RISE_PERCENT_MAX / 100).min(ABSOLUTE_MAX);
    if figure > limit {
        bail!(
            "a command takes {figure} instructions, the limit is {limit} ({RISE_PERCENT_MAX} % above the stored {stored}, at most {ABSOLUTE_MAX}). \
             Remedy: find what was added to the path of a command; if it is worth its price, \
             `cargo xtask instructions --bless` and give the reason in the commit"
        );
    }
    let hint = if figure * 100 < stored * (100 - RISE_PERCENT_MAX) {
        "; it became cheaper: keep the gain with `cargo xtask instructions --bless`"
    } else {
        ""
    };
    Ok(format!("instructions: {figure} a command, limit {limit}, stored {stored}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_a_small_rise_above_the_stored_figure_and_never_more_than_the_absolute_one() {
        assert_eq!(
            judged(3_150, Some(3_000)).unwrap(),
            "instructions: 3150 a command, limit 3150, stored 3000"
        );
        assert!(judged(3_151, Some(3_000)).is_err());
        assert!(judged(4_000, Some(3_900)).is_ok());
        let error = judged(4_001, Some(3_900)).unwrap_err().to_string();
        for part in ["4001", "limit is 4000", "stored 3900", "--bless"] {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
        assert!(judged(2_000, Some(3_000)).unwrap().contains("became cheaper"));
    }

    #[test]
    fn without_a_stored_figure_the_gate_is_shut() {
        assert!(judged(10, None).unwrap_err().to_string().contains("--bless"));
    }

    #[test]
    fn starting_up_is_cancelled_out() {
        assert_eq!(per_command(1_000_000, 36_000_000).unwrap(), 3_500);
        assert!(per_command(5, 5).is_err());
        assert!(per_command(6, 5).is_err());
    }

    #[test]
    fn the_count_is_read_from_callgrinds_report() {
        let report = "==7== Callgrind\n==7== Events    : Ir\n==7== Collected : 123456\n==7== \n";
        assert_eq!(collected(report), Some(123_456));
        assert_eq!(collected("==7== error"), None);
    }

    #[test]
    fn blessing_keeps_the_other_figures() {
        let text = blessed(r#"{"command": 1, "other": 2}"#, 3).unwrap();
        assert_eq!(stored(&text).unwrap(), Some(3));
        assert!(text.contains("\"other\": 2"));
        assert_eq!(stored("{}").unwrap(), None);
        assert!(stored("[]").is_err());
    }

    #[test]
    fn the_program_is_found_in_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"purista"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"count_command"},"executable":"/t/release/count_command"}"#;
        assert_eq!(executable(messages), Some(PathBuf::from("/t/release/count_command")));
        assert_eq!(executable("{}"), None);
    }
}
