//! How far a piece of work is: a bar on a terminal, lines elsewhere. It is told beside the output.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::screen::{duration, number};

/// How often it says something where lines stay.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How wide the bar is.
const BAR: usize = 30;

/// The line on which it is told.
pub(crate) struct Line {
    is_terminal: bool,
    said: Option<(Instant, String)>,
}

impl Line {
    pub(crate) fn new() -> Self {
        Self { is_terminal: std::io::stderr().is_terminal(), said: None }
    }

    /// So many of so many, of which `taken` came since the work began.
    pub(crate) fn share(&self, done: u64, of: u64, (taken, since): (u64, Duration)) -> String {
        let share = far(done, of);
        let counted = format!("{share:>3} %  {} of {}", number(done), number(of));
        let bar = if self.is_terminal { bar(share) } else { String::new() };
        format!("{bar}{counted}{}", rate(taken, of - done.min(of), since))
    }

    /// Tells it. What comes often is told now and then where lines stay.
    pub(crate) fn show(&mut self, line: &str, is_often: bool) {
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
    pub(crate) fn end(&self) {
        if self.is_terminal && self.said.is_some() {
            eprintln!();
        }
    }
}

/// How many of a hundred.
pub(crate) fn far(position: u64, head: u64) -> usize {
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
