//! `cargo xtask ci`: everything that must hold before a change lands, step by step, in a fresh clone too.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::{floors, instructions, process, programs, readme, tidy};

/// What the whole run may take on two cores; a longer one passes with a warning.
const BUDGET: Duration = Duration::from_mins(45);
/// When a step is taken for hung and killed, counted from the start of the run, so that CI ends by naming it.
const LIMIT: Duration = Duration::from_mins(80);
/// What `timeout` exits with after it ended a program.
const TIMED_OUT: i32 = 124;

type Check<'a> = dyn FnOnce(&Clock) -> Result<()> + 'a;

/// One thing that must hold.
struct Step<'a> {
    name: &'static str,
    check: Box<Check<'a>>,
}

impl<'a> Step<'a> {
    fn new(name: &'static str, check: impl FnOnce(&Clock) -> Result<()> + 'a) -> Self {
        Self { name, check: Box::new(check) }
    }
}

/// How much time is left.
struct Clock {
    started: Instant,
    /// Whether nobody is there to end a hung step. For somebody at a terminal `timeout` is in the way: what it
    /// starts no longer hears of Ctrl-C.
    is_unattended: bool,
}

/// Runs every step; the first that fails ends the run and is named.
pub(crate) fn run(root: &Path) -> Result<()> {
    let cargo = move |arguments: &'static [&'static str],
                      variables: &'static [(&'static str, &'static str)]| {
        move |clock: &Clock| {
            let mut command = process::cargo(root);
            command.args(arguments).envs(variables.iter().copied());
            clock.run(&command, root)
        }
    };
    let steps = vec![
        Step::new("test", |clock: &Clock| {
            let mut command = process::program("sh", root);
            command.arg("-c").arg(readme::test_command(root)?);
            clock.run(&command, root)
        }),
        Step::new("format", cargo(&["fmt", "--all", "--check"], &[])),
        Step::new(
            "clippy",
            cargo(&["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"], &[]),
        ),
        Step::new("doc", cargo(&["doc", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "-Dwarnings")])),
        Step::new("floors", |_: &Clock| floors::check(root)),
        Step::new("tidy", |_: &Clock| tidy::check(root)),
        Step::new("instructions", |_: &Clock| instructions::gate(root, false)),
    ];
    let is_unattended = std::env::var_os("CI").is_some();
    run_steps(steps, &Clock { started: Instant::now(), is_unattended })
}

fn run_steps(steps: Vec<Step<'_>>, clock: &Clock) -> Result<()> {
    let count = steps.len();
    let mut done: Vec<(&str, Duration)> = Vec::new();
    for Step { name, check } in steps {
        println!("\n== {name} ({} of {count})", done.len() + 1);
        let started = Instant::now();
        let result = check(clock);
        let took = started.elapsed();
        if let Err(error) = result {
            summarise(&done, Some((name, took)));
            return Err(error.context(format!("ci step `{name}` failed")));
        }
        println!("== {name} passed in {}", shown(took));
        done.push((name, took));
    }
    summarise(&done, None);
    if clock.started.elapsed() > BUDGET {
        println!("warning: this run took longer than its budget of {}", shown(BUDGET));
    }
    // The last line says in words that count for machines, too, that something was checked.
    println!("ci: {count} passed, 0 failed");
    Ok(())
}

fn summarise(done: &[(&str, Duration)], failed: Option<(&str, Duration)>) {
    println!("\n== summary");
    for (name, took) in done {
        println!("passed  {name:<14}{:>9}", shown(*took));
    }
    if let Some((name, took)) = failed {
        println!("FAILED  {name:<14}{:>9}", shown(took));
    }
    println!(
        "total   {:<14}{:>9}",
        "",
        shown(done.iter().map(|(_, took)| *took).chain(failed.map(|(_, took)| took)).sum())
    );
}

fn shown(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds >= 60 {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

impl Clock {
    /// Runs a command, and ends it with everything that it started when the time is over.
    fn run(&self, command: &Command, root: &Path) -> Result<()> {
        let variables = || command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let line = variables()
            .map(|(name, value)| format!("{}={}", name.display(), value.display()))
            .chain([process::line(command)])
            .collect::<Vec<_>>()
            .join(" ");
        let left = LIMIT.saturating_sub(self.started.elapsed()).as_secs().max(1);
        let mut limited = match programs::find("timeout") {
            Some(timeout) if self.is_unattended => {
                let mut limited = process::program(timeout, root);
                limited.args(["--kill-after=20", &left.to_string()]).arg(command.get_program());
                limited
            }
            // Systems without GNU's tools lack it; there a hung step hangs.
            _ => process::program(command.get_program(), root),
        };
        limited.args(command.get_args());
        limited.envs(variables());
        println!("$ {line}");
        let status = limited.status().with_context(|| format!("start `{line}`"))?;
        match status.code() {
            Some(0) => Ok(()),
            Some(TIMED_OUT) => bail!("`{line}` was ended because ci had run for {}", shown(LIMIT)),
            _ => bail!("`{line}` failed: {status}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(age: Duration) -> Clock {
        Clock { started: Instant::now().checked_sub(age).unwrap(), is_unattended: true }
    }

    #[test]
    fn the_first_failing_step_ends_the_run_and_is_named() {
        let ran = std::cell::RefCell::new(Vec::new());
        let step = |name: &'static str, passes: bool| {
            let ran = &ran;
            Step::new(name, move |_: &Clock| {
                ran.borrow_mut().push(name);
                if passes { Ok(()) } else { bail!("no good") }
            })
        };
        let steps = vec![step("one", true), step("two", false), step("three", true)];
        let error = run_steps(steps, &clock(Duration::ZERO)).unwrap_err();
        assert_eq!(format!("{error:#}"), "ci step `two` failed: no good");
        assert_eq!(*ran.borrow(), ["one", "two"]);
    }

    #[test]
    fn all_steps_passed_is_success() {
        assert!(run_steps(vec![Step::new("one", |_: &Clock| Ok(()))], &clock(Duration::ZERO)).is_ok());
    }

    #[test]
    fn a_hung_step_is_ended_when_the_time_is_over() {
        let root = Path::new(".");
        let mut command = process::program("sh", root);
        command.args(["-c", "sleep 300"]);
        let error = clock(LIMIT).run(&command, root).unwrap_err();
        assert_eq!(error.to_string(), "`sh -c 'sleep 300'` was ended because ci had run for 80 min 00 s");
    }

    #[test]
    fn a_steps_variables_and_failure_come_through() {
        let root = Path::new(".");
        let mut command = process::program("sh", root);
        command.args(["-c", "test \"$A\" = b && exit 7"]).env("A", "b");
        let error = clock(Duration::ZERO).run(&command, root).unwrap_err();
        assert!(error.to_string().ends_with("failed: exit status: 7"), "{error}");
    }
}
