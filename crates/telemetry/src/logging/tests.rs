//! What lines look like, whatever is in them, and what happens when nobody reads them.

use std::io::{Read as _, Write};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::*;
use crate::line::LINE_BYTES_MAX;
use crate::outlet::LINES_MAX;

/// Keeps what is written.
#[derive(Clone, Default)]
pub(crate) struct Kept(pub(crate) Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logging(format: Format) -> Logging {
    let logging =
        Logging { filter: EnvFilter::default(), format, colours: false, logs_client_details: false };
    logging.filter(FILTER_DEFAULT).unwrap()
}

/// What is logged by `work`.
fn logged(logging: Logging, work: impl FnOnce()) -> String {
    let kept = Kept::default();
    let (logs, subscriber) = into_writer(logging, kept.clone()).unwrap();
    tracing::subscriber::with_default(subscriber, work);
    drop(logs);
    let bytes = kept.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[track_caller]
fn check_text(work: impl FnOnce(), expect: &str) {
    let text = logged(logging(Format::Text), work);
    let (time, rest) = text.split_once(' ').unwrap();
    assert!(time.ends_with('Z') && time.len() == "2026-01-01T00:00:00.000000Z".len(), "{time}");
    assert_eq!(rest, format!("{expect}\n"));
}

#[test]
fn a_line_says_level_place_and_what_with_its_fields() {
    check_text(
        || tracing::warn!(target: "here", user_id = 7, name = "Ada L", plain = "x", "signed up"),
        r#" WARN here: signed up name="Ada L" plain=x user_id=7"#,
    );
}

#[test]
fn the_trace_id_comes_from_the_event_or_from_the_nearest_span_that_has_one() {
    let spanned = |work: fn()| {
        move || {
            let flow = "0af7651916cd43dd8448eb211c80319c";
            tracing::info_span!("purista.command.received", trace_id = %flow).in_scope(|| {
                tracing::info_span!("functionExecution").in_scope(work);
            });
        }
    };
    check_text(
        spanned(|| tracing::info!(target: "here", "x")),
        " INFO 0af7651916cd43dd8448eb211c80319c here: x",
    );
    check_text(spanned(|| tracing::info!(target: "here", trace_id = "abc", "x")), " INFO abc here: x");
}

#[test]
fn a_control_character_never_breaks_a_line_or_steers_a_terminal() {
    let evil = "a\nERROR forged\r\u{1b}[2J\u{9b}31m\u{2028}";
    check_text(
        || tracing::info!(target: "here", trace_id = evil, value = evil, "{evil}"),
        concat!(
            r" INFO a\nERROR forged\r\u{1b}[2J\u{9b}31m\u{2028} here: ",
            r"a\nERROR forged\r\u{1b}[2J\u{9b}31m\u{2028} ",
            r#"value="a\nERROR forged\r\u001b[2J\u{9b}31m\u{2028}""#,
        ),
    );
    let json = logged(logging(Format::Json), || tracing::info!(value = evil, "{evil}"));
    assert_eq!(json.trim_end_matches('\n').matches(|c: char| c.is_control() || c == '\u{2028}').count(), 0);
    let line: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&line["message"], &line["fields"]["value"]), (&evil.into(), &evil.into()));
}

#[test]
fn a_json_line_holds_the_same_as_an_object() {
    let json = logged(logging(Format::Json), || {
        let error = io::Error::other("no room");
        let error: &(dyn std::error::Error + 'static) = &error;
        tracing::error!(target: "here", trace_id = "abc", error, left = 0, "the disk is full");
    });
    let mut line: Value = serde_json::from_str(&json).unwrap();
    assert!(line["time"].take().as_str().unwrap().ends_with('Z'));
    let expect = serde_json::json!({
        "time": null, "level": "ERROR", "trace_id": "abc", "target": "here", "message": "the disk is full",
        "fields": { "error": "no room", "left": 0 },
    });
    assert_eq!(line, expect);
}

#[test]
fn colours_are_for_terminals() {
    let plain = logged(logging(Format::Text), || tracing::info!("x"));
    assert!(!plain.contains('\u{1b}'));
    let coloured = logged(logging(Format::Text).colours(true), || tracing::info!("x"));
    assert!(coloured.contains("\u{1b}[32m INFO\u{1b}[0m"), "{coloured:?}");
}

#[test]
fn the_filter_decides_what_is_logged() {
    let work = || {
        tracing::debug!(target: "purista", "seen");
        tracing::debug!(target: "other", "not seen");
        tracing::info!(target: "other", "seen too");
    };
    let filtered = logged(logging(Format::Text).filter("info,purista=debug").unwrap(), work);
    assert!(filtered.contains(": seen\n") && filtered.contains("seen too") && !filtered.contains("not seen"));
    let error = logging(Format::Text).filter("info,=,").unwrap_err().to_string();
    assert_eq!(error, "`info,=,` is no filter of logs: write RUST_LOG as `info` or `info,purista=debug`");
}

#[test]
fn a_panic_is_one_line() {
    let _logs = init(logging(Format::Text)).unwrap();
    let text = logged(logging(Format::Text), || {
        let panicked = std::panic::catch_unwind(|| panic!("a\nb"));
        assert!(panicked.is_err());
    });
    assert!(text.contains(r"ERROR purista_telemetry::logging: a thread panicked: a\nb "), "{text}");
    assert_eq!(text.lines().count(), 1);
    assert_eq!(init(logging(Format::Text)).unwrap_err().to_string(), "logs are set up twice");
}

#[test]
fn a_line_has_a_bound() {
    let long = "ä".repeat(LINE_BYTES_MAX);
    let text = logged(logging(Format::Text), || tracing::info!("{long}"));
    assert!(text.len() <= LINE_BYTES_MAX && text.ends_with("\u{2026}\n"), "{}", text.len());
    let json = logged(logging(Format::Json), || tracing::info!(long, "{long}"));
    assert!(json.len() <= LINE_BYTES_MAX, "{}", json.len());
    let line: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(line["fields"]["is_cut"], true);
}

#[test]
fn a_blocked_pipe_stops_nobody_and_what_is_lost_is_counted_and_said() {
    let (mut reader, writer) = io::pipe().unwrap();
    let (logs, subscriber) = into_writer(logging(Format::Text), writer).unwrap();
    let sent = 4 * LINES_MAX;
    tracing::subscriber::with_default(subscriber, || {
        for n in 0..sent {
            tracing::info!("line {n}");
        }
    });
    let lost = logs.lost();
    assert!(lost > 0, "nobody read, so the pipe and the queue are full");
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    drop(logs);
    let text = reading.join().unwrap().unwrap();
    let written = text.lines().filter(|line| line.contains(": line ")).count();
    assert_eq!(written, sent - usize::try_from(lost).unwrap());
    assert!(text.contains(&format!("{lost} lines of the log were lost here")), "{lost}");
}

#[test]
fn what_client_libraries_log_below_info_is_left_out_whatever_the_filter_says() {
    let canary = "CANARY-of-a-payload";
    let work = || {
        tracing::trace!(target: "async_nats::connection", canary, "sending");
        tracing::debug!(target: "tokio_postgres::prepare", canary, "executing");
        tracing::debug!(target: "h2::codec", canary, "received");
        tracing::info!(target: "async_nats", "event: connected");
        tracing::trace!(target: "my_program", "mine");
    };
    let all = |details: bool| logging(Format::Text).filter("trace").unwrap().client_details(details);
    let text = logged(all(false), work);
    assert!(!text.contains(canary), "{text}");
    assert!(text.contains("event: connected") && text.contains("mine"), "{text}");
    assert_eq!(logged(all(true), work).matches(canary).count(), 3);
}
