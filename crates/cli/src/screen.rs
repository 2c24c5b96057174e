//! Where everything is printed: lines for people, or JSON for programs.

use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write};

use jiff::Timestamp;
use serde::Serialize;

/// What goes to standard output.
pub(crate) struct Screen {
    out: BufWriter<Stdout>,
    is_json: bool,
    is_coloured: bool,
}

impl Screen {
    /// Colours are for terminals whose owner did not say `NO_COLOR`.
    pub(crate) fn new(is_json: bool) -> Self {
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let is_coloured = !is_json && io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb;
        Self { out: BufWriter::new(io::stdout()), is_json, is_coloured }
    }

    /// Whether a program reads it.
    pub(crate) fn is_json(&self) -> bool {
        self.is_json
    }

    /// A line for people.
    pub(crate) fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{line}")
    }

    /// A line for people that stands out.
    pub(crate) fn heading(&mut self, line: &str) -> io::Result<()> {
        let line = if self.is_coloured { format!("\u{1b}[1m{line}\u{1b}[0m") } else { line.to_owned() };
        self.line(&line)
    }

    /// One value on one line, for programs.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.out, value).map_err(io::Error::from)?;
        writeln!(self.out)?;
        Ok(())
    }

    /// A part of a document that is written piece by piece.
    pub(crate) fn raw(&mut self, part: &str) -> io::Result<()> {
        write!(self.out, "{part}")
    }

    /// Says what was done: to people as this sentence, to programs as this value.
    pub(crate) fn say(&mut self, sentence: &str, value: &impl Serialize) -> anyhow::Result<()> {
        if self.is_json { self.json(value) } else { Ok(self.line(&plain(sentence))?) }
    }

    /// Shows what is there so far.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A remark beside the output, for people.
pub(crate) fn remark(text: &str) {
    eprintln!("{}", plain(text));
}

/// The text without anything that a terminal would act on: what is stored may come from strangers.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' { plain.extend(c.escape_default()) } else { plain.push(c) }
    }
    plain
}

/// The same on one line.
pub(crate) fn on_one_line(text: &str) -> String {
    plain(text).replace('\n', "\\n")
}

/// A time with milliseconds.
pub(crate) fn time(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// What is not there.
pub(crate) fn or_dash(text: Option<&str>) -> String {
    text.map_or_else(|| "-".to_owned(), on_one_line)
}

/// A number with its thousands apart.
pub(crate) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut apart = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            apart.push(',');
        }
        apart.push(digit);
    }
    apart
}

/// `1 event`, `2 events`.
pub(crate) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(count), if count == 1 { one } else { many })
}

/// Roughly how long.
pub(crate) fn duration(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_does_not_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\u{9b}2J\nc\t"), "a\\u{1b}[2Jb\\u{9b}2J\nc\\t");
        assert_eq!(on_one_line("a\nb"), "a\\nb");
    }

    #[test]
    fn numbers_are_read_in_thousands() {
        for (count, expect) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(count), expect);
        }
        assert_eq!(counted(1, "event", "events"), "1 event");
    }

    #[test]
    fn times_are_told_roughly() {
        for (ms, expect) in [(0, "0 ms"), (1_500, "1 s"), (61_000, "1 min 1 s"), (3_660_000, "1 h 1 min")] {
            assert_eq!(duration(std::time::Duration::from_millis(ms)), expect);
        }
        assert_eq!(duration(std::time::Duration::from_secs(90_000)), "1 d 1 h");
    }
}
