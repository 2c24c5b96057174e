//! The second process: this program once more, which says on its output what the first one waits for, and ends with the
//! first one's end.

use std::io::Read as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// How long the other process may take to say something. Nothing of a round takes as long, unless something was lost.
const SAID_WITHIN: Duration = Duration::from_secs(60);

/// This program, started once more.
#[derive(Debug)]
pub struct Second {
    lines: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl Second {
    /// Starts it with these arguments, and waits until it is ready.
    pub async fn start(arguments: &[&str]) -> Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().context("start the second process")?;
        let output = process.stdout.take().context("its output is piped")?;
        let mut second = Self { lines: BufReader::new(output).lines(), _process: process };
        second.says("ready").await?;
        Ok(second)
    }

    /// Waits until it says this.
    pub async fn says(&mut self, word: &str) -> Result<()> {
        let line = tokio::time::timeout(SAID_WITHIN, self.lines.next_line()).await;
        match line.with_context(|| format!("the second process did not say `{word}` in time"))?? {
            Some(line) if line == word => Ok(()),
            Some(line) => bail!("the second process said `{line}` where `{word}` was to come"),
            None => bail!("the second process has ended before it said `{word}`"),
        }
    }
}

/// Says something to the first process.
pub fn say(word: &str) {
    println!("{word}");
}

/// Waits until the first process goes away.
pub async fn until_left() -> Result<()> {
    let input = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    input.await?.context("wait for the end of the first process")?;
    Ok(())
}
