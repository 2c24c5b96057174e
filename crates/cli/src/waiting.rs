//! Waits until a program has made a read model anew, and shows how far it is.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use purista_events::position::Position;
use purista_events::read_models::{BuildRecord, ReadModels as _};
use purista_events::store::EventStore as _;
use purista_sqlite::store::SqliteStore;
use serde_json::json;

use crate::opening;
use crate::screen::{Screen, duration, number, plain, remark};

/// How often it looks.
const LOOK: Duration = Duration::from_millis(200);

/// How often it says something where lines stay.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How wide the bar is.
const BAR: usize = 30;

/// What is waited for: that readers see a build after this one.
pub(crate) struct Awaited {
    pub(crate) name: String,
    pub(crate) version: u32,
    pub(crate) after: u32,
}

/// Where it is.
enum Seen {
    /// No program has begun.
    Nothing { is_running: bool },
    /// It is being made, or stands before an event.
    Making { position: Position, head: Position, pause: Option<String> },
    /// The program ended before it was done.
    Left { position: Position, head: Position },
    /// Readers see it.
    Done { position: Position },
}

/// Waits until it is done, or for Ctrl-C.
pub(crate) async fn watch(file: &Path, awaited: Awaited, screen: &mut Screen) -> anyhow::Result<()> {
    let mut progress = Progress::new();
    let mut ended = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let seen = tokio::select! {
            biased;
            ended = &mut ended => {
                progress.end();
                remark("the wait is ended; what was asked for stays asked for");
                return Ok(ended?);
            }
            seen = look(file, &awaited) => seen?,
        };
        if let Seen::Done { position } = seen {
            progress.end();
            let Awaited { name, version, .. } = awaited;
            let sentence =
                format!("{name} {version} is made anew: readers see it, up to position {position}");
            return screen
                .say(&sentence, &json!({ "projection": name, "version": version, "doneUpTo": position }));
        }
        progress.tell(&seen, &awaited);
        tokio::select! {
            ended = &mut ended => {
                progress.end();
                remark("the wait is ended; what was asked for stays asked for");
                return Ok(ended?);
            }
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn look(file: &Path, awaited: &Awaited) -> anyhow::Result<Seen> {
    // Opened anew each time: in between a program may begin to own it.
    let is_running = SqliteStore::owner(file)?.is_some();
    let store = opening::read(file)?;
    let builds = store.builds().await?;
    let head = *store.head().borrow();
    store.close().await?;
    let is_awaited = |record: &&BuildRecord| {
        let build = &record.build;
        *build.name == *awaited.name && build.version == awaited.version && build.generation > awaited.after
    };
    Ok(match builds.iter().rfind(is_awaited) {
        None => Seen::Nothing { is_running },
        Some(record) if record.is_current => Seen::Done { position: record.position },
        Some(BuildRecord { position, .. }) if !is_running => Seen::Left { position: *position, head },
        Some(BuildRecord { position, pause, .. }) => {
            let pause = pause.as_ref().map(|pause| format!("paused before {}: {}", pause.at, pause.reason));
            Seen::Making { position: *position, head, pause }
        }
    })
}

/// A bar on a terminal, lines elsewhere.
struct Progress {
    is_terminal: bool,
    began: Option<(Instant, Position)>,
    said: Option<(Instant, String)>,
}

impl Progress {
    fn new() -> Self {
        Self { is_terminal: std::io::stderr().is_terminal(), began: None, said: None }
    }

    fn tell(&mut self, seen: &Seen, awaited: &Awaited) {
        let Awaited { name, version, .. } = awaited;
        let text = match seen {
            Seen::Nothing { is_running: false } => {
                "waiting for its program to start; Ctrl-C ends the wait".to_owned()
            }
            Seen::Nothing { is_running: true } => {
                "a program has the file open and has not begun; does it run this version?".to_owned()
            }
            Seen::Making { pause: Some(pause), .. } => pause.clone(),
            Seen::Making { position, head, pause: None } => {
                let (since, first) = *self.began.get_or_insert((Instant::now(), *position));
                let (position, head) = (position.number(), head.number());
                let share = far(position, head);
                let taken = position.saturating_sub(first.number());
                let of = format!("{share:>3} %  {} of {}", number(position), number(head));
                format!(
                    "{}{of}{}",
                    if self.is_terminal { bar(share) } else { String::new() },
                    rate(taken, head - position.min(head), since.elapsed())
                )
            }
            Seen::Left { position, head } => {
                // What it does later is counted anew.
                self.began = None;
                let share = far(position.number(), head.number());
                format!(
                    "its program ended at {share} %, and goes on when it starts next; Ctrl-C ends the wait"
                )
            }
            Seen::Done { .. } => return,
        };
        self.show(&plain(&format!("{name} {version}: {text}")), matches!(seen, Seen::Making { .. }));
    }

    fn show(&mut self, line: &str, is_often: bool) {
        let mut out = std::io::stderr().lock();
        if self.is_terminal {
            if self.said.as_ref().is_some_and(|(_, said)| said == line) {
                return;
            }
            // The rest of a longer line before it is wiped.
            let _ = write!(out, "\r{line}\u{1b}[K").and_then(|()| out.flush());
            self.said = Some((Instant::now(), line.to_owned()));
            return;
        }
        let is_due = match &self.said {
            None => true,
            Some((at, said)) => said != line && (!is_often || at.elapsed() >= LINE_EVERY),
        };
        if is_due {
            let _ = writeln!(out, "{line}");
            self.said = Some((Instant::now(), line.to_owned()));
        }
    }

    /// Leaves the line.
    fn end(&self) {
        if self.is_terminal && self.said.is_some() {
            eprintln!();
        }
    }
}

/// How many of a hundred.
fn far(position: u64, head: u64) -> usize {
    let share = u128::from(position.min(head)) * 100 / u128::from(head.max(1));
    usize::try_from(share).unwrap_or(100)
}

fn bar(share: usize) -> String {
    let full = share.min(100) * BAR / 100;
    format!("[{}{}] ", "#".repeat(full), ".".repeat(BAR - full))
}

fn rate(taken: u64, left: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    if taken == 0 || seconds < 0.5 {
        return String::new();
    }
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let (taken, left) = (taken as f64, left as f64);
    let per_second = taken / seconds;
    let time_left = Duration::try_from_secs_f64(left / per_second).unwrap_or_default();
    format!(", {per_second:.0} a second, {} left", duration(time_left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_as_long_as_the_share() {
        assert_eq!(bar(0), format!("[{}] ", ".".repeat(BAR)));
        assert_eq!(bar(50), format!("[{}{}] ", "#".repeat(15), ".".repeat(15)));
        assert_eq!(bar(far(7, 7)), format!("[{}] ", "#".repeat(BAR)));
        assert_eq!(far(0, 0), 0);
        assert_eq!(far(u64::MAX, u64::MAX), 100);
    }

    #[test]
    fn a_rate_says_when_it_is_done() {
        assert_eq!(rate(0, 10, Duration::from_secs(3)), "");
        assert_eq!(rate(3_000, 10_000, Duration::from_secs(3)), ", 1000 a second, 10 s left");
    }
}
