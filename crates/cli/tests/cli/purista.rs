//! Runs the binary, and says what it printed.

use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

/// What a run ended with.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

fn command(file: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_purista"));
    command.args(arguments).env("PURISTA_FILE", file).env_remove("PURISTA_STORE").env_remove("NO_COLOR");
    command.stdin(Stdio::null());
    command
}

/// Runs it to its end on a database.
pub(crate) fn run_on(url: &str, arguments: &[&str]) -> Ended {
    let mut command = command(Path::new("/no/such/file.db"), arguments);
    ended(command.env("PURISTA_STORE", url).output().unwrap())
}

/// Runs it to its end with a file and a database.
pub(crate) fn run_between(file: &Path, url: &str, arguments: &[&str]) -> Ended {
    ended(command(file, arguments).env("PURISTA_STORE", url).output().unwrap())
}

/// The lines of JSON that it prints of a database.
#[track_caller]
pub(crate) fn json_of(url: &str, arguments: &[&str]) -> Vec<serde_json::Value> {
    let ended = run_on(url, &[arguments, &["--json"]].concat());
    assert_eq!((ended.err.as_str(), ended.code), ("", 0), "{arguments:?}");
    ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs it to its end.
pub(crate) fn run(file: &Path, arguments: &[&str]) -> Ended {
    ended(command(file, arguments).output().unwrap())
}

fn ended(output: Output) -> Ended {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// It is done, with this on standard output and nothing beside it.
#[track_caller]
pub(crate) fn shows(file: &Path, arguments: &[&str], expect: &str) {
    let ended = run(file, arguments);
    assert_eq!((ended.out.as_str(), ended.err.as_str(), ended.code), (expect, "", 0), "{arguments:?}");
}

/// It is refused with this on standard error, and prints nothing else.
#[track_caller]
pub(crate) fn refuses(file: &Path, arguments: &[&str], expect: &str) {
    let ended = run(file, arguments);
    assert_eq!((ended.out.as_str(), ended.err.as_str(), ended.code), ("", expect, 1), "{arguments:?}");
}

/// The lines of JSON that it prints.
#[track_caller]
pub(crate) fn json(file: &Path, arguments: &[&str]) -> Vec<serde_json::Value> {
    let ended = run(file, &[arguments, &["--json"]].concat());
    assert_eq!((ended.err.as_str(), ended.code), ("", 0), "{arguments:?}");
    ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A run that goes on.
pub(crate) struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    err: BufReader<ChildStderr>,
}

impl Running {
    pub(crate) fn start(file: &Path, arguments: &[&str]) -> Self {
        Self::of(&mut command(file, arguments))
    }

    fn of(command: &mut Command) -> Self {
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = piped.unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let err = BufReader::new(child.stderr.take().unwrap());
        Self { child, out, err }
    }

    /// The same with a database.
    pub(crate) fn start_between(file: &Path, url: &str, arguments: &[&str]) -> Self {
        Self::of(command(file, arguments).env("PURISTA_STORE", url))
    }

    /// How much memory it has taken so far at most; none when it has ended.
    pub(crate) fn memory_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        peak.split_whitespace().next()?.parse().ok()
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The next line; it waits for one.
    pub(crate) fn line(&mut self) -> String {
        line(&mut self.out)
    }

    /// The next line on standard error.
    pub(crate) fn error_line(&mut self) -> String {
        line(&mut self.err)
    }

    /// Presses Ctrl-C.
    pub(crate) fn interrupt(&self) {
        let killed = Command::new("kill").arg("-INT").arg(self.child.id().to_string()).status().unwrap();
        assert!(killed.success());
    }

    /// Nobody reads what it prints from now on.
    pub(crate) fn stop_reading(self) -> Unread {
        Unread { child: self.child, err: self.err }
    }

    /// The exit code, and what was printed since.
    pub(crate) fn end(mut self) -> Ended {
        let (mut out, mut err) = (String::new(), String::new());
        self.out.read_to_string(&mut out).unwrap();
        self.err.read_to_string(&mut err).unwrap();
        Ended { code: self.child.wait().unwrap().code().unwrap(), out, err }
    }
}

/// A run whose output nobody reads.
pub(crate) struct Unread {
    child: Child,
    err: BufReader<ChildStderr>,
}

impl Unread {
    /// The exit code, and what it said of it.
    pub(crate) fn end(mut self) -> (i32, String) {
        let mut err = String::new();
        self.err.read_to_string(&mut err).unwrap();
        (self.child.wait().unwrap().code().unwrap(), err)
    }
}

fn line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line.trim_end_matches('\n').to_owned()
}
