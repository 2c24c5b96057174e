//! Starts other programs: always without standard input, always saying which command it was.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};

/// Variables that `cargo run` sets for this program. Build scripts that watch them (ring's does) would run
/// again under a nested cargo, and everything above them would be compiled again.
const OF_THE_OUTER_CARGO: [&str; 5] = [
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_PATH",
    "CARGO_CRATE_NAME",
    "CARGO_BIN_NAME",
    "CARGO_PRIMARY_PACKAGE",
];

/// A program to be run in `directory`.
pub(crate) fn program(name: impl AsRef<OsStr>, directory: &Path) -> Command {
    let mut command = Command::new(name);
    command.current_dir(directory).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let known = name.to_str().is_some_and(is_of_the_outer_cargo);
        if known {
            command.env_remove(name);
        }
    }
    command
}

/// The cargo that runs this program, to be run in `directory`.
pub(crate) fn cargo(directory: &Path) -> Command {
    program(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), directory)
}

/// Says the command, runs it with the terminal's output, and fails if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = line(command);
    println!("$ {line}");
    let status = command.status().with_context(|| format!("start `{line}`"))?;
    succeed(&line, status)
}

/// Runs the command and gives what it printed to its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = line(command);
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("start `{line}`"))?;
    succeed(&line, output.status)?;
    String::from_utf8(output.stdout).with_context(|| format!("read the output of `{line}`"))
}

/// Whether the command can be started and succeeds, in silence.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// The command as it would be typed.
pub(crate) fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = match program.file_name() {
        // The full path of a toolchain's cargo says nothing to the reader and cannot be typed elsewhere.
        Some(name) if name == "cargo" => name,
        _ => program.as_os_str(),
    };
    std::iter::once(program)
        .chain(command.get_args())
        .map(|word| quoted(&word.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ")
}

fn succeed(line: &str, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

fn is_of_the_outer_cargo(name: &str) -> bool {
    name.starts_with("CARGO_PKG_") || OF_THE_OUTER_CARGO.contains(&name)
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_named_with_its_arguments() {
        let error = run(program("sh", Path::new(".")).args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "`sh -c 'exit 3'` failed: exit status: 3");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = output(&mut program("no-such-program", Path::new("."))).unwrap_err();
        assert_eq!(error.to_string(), "start `no-such-program`");
    }

    #[test]
    fn a_program_reads_no_standard_input() {
        assert_eq!(output(&mut program("cat", Path::new("."))).unwrap(), "");
    }

    #[test]
    fn cargo_is_shown_as_it_is_typed() {
        let mut command = Command::new("/some/toolchain/bin/cargo");
        command.args(["test", "it's"]);
        assert_eq!(line(&command), r"cargo test 'it'\''s'");
    }

    #[test]
    fn the_outer_cargos_variables_are_not_handed_on() {
        assert!(is_of_the_outer_cargo("CARGO_PKG_NAME"));
        assert!(is_of_the_outer_cargo("CARGO_MANIFEST_DIR"));
        assert!(!is_of_the_outer_cargo("CARGO_TARGET_DIR"));
        assert!(!is_of_the_outer_cargo("CARGO_HOME"));
    }
}
