//! Every program that measures runs one short round: it ends in time, succeeds and prints figures.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::process::{Output, Stdio};
use std::time::Duration;

use purista_servers::postgres::Postgres;
use tokio::process::Command;

/// The longest time that a smoke run may take; a build without optimization on a busy machine takes up to 30 s.
const LIMIT: Duration = Duration::from_mins(3);

/// The programs, each with a test of its own below.
const PROGRAMS: [&str; 10] = [
    "bridges",
    "count_command",
    "decide",
    "durable",
    "fan_out",
    "http",
    "in_process",
    "load",
    "postgres",
    "replay",
];

async fn ended(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    // real time: a program that hangs is a failed test
    let output = tokio::time::timeout(LIMIT, command.output()).await;
    output.unwrap_or_else(|_| panic!("{program} did not end within {LIMIT:?}")).unwrap()
}

/// Runs it, and looks for each of these lines of its report.
async fn reports(program: &str, arguments: &[&str], lines: &[&str]) {
    let output = ended(program, arguments).await;
    let (report, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} failed: {}\n{report}{errors}", output.status);
    for line in lines {
        assert!(report.contains(line), "{program} does not report `{line}`:\n{report}{errors}");
    }
    for word in ["NaN", "inf"] {
        let is_there = report.split(|c: char| !c.is_alphanumeric()).any(|found| found == word);
        assert!(!is_there, "{program} reports {word}:\n{report}");
    }
}

#[test]
fn every_program_has_a_smoke_test() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin");
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    found.sort();
    assert_eq!(found, PROGRAMS);
}

#[tokio::test]
async fn in_process_runs_a_short_round() {
    let lines = ["A validated command in the process: median", "purista, typed", "The same, encoded: median"];
    reports(env!("CARGO_BIN_EXE_in_process"), &["--smoke"], &lines).await;
}

#[tokio::test]
async fn fan_out_runs_a_short_round() {
    let lines = ["were encoded 0 times", "An event for 100 subscriptions in the process: median"];
    reports(env!("CARGO_BIN_EXE_fan_out"), &["--smoke"], &lines).await;
}

#[tokio::test]
async fn load_runs_a_short_round() {
    let lines = ["A view of 100 events on SQLite, read by one: median", "with a snapshot, beside without:"];
    reports(env!("CARGO_BIN_EXE_load"), &["--smoke"], &lines).await;
}

#[tokio::test]
async fn replay_runs_a_short_round() {
    let lines = ["purista, replayed and folded, a second", "serde_json, decoded, a second"];
    reports(env!("CARGO_BIN_EXE_replay"), &["--smoke"], &lines).await;
}

#[tokio::test]
async fn decide_runs_a_short_round_and_writes_the_same_rows_by_hand() {
    let lines =
        ["purista, decided and answered, a second", "raw rusqlite, same rows, checks, grouping", "ratio"];
    reports(env!("CARGO_BIN_EXE_decide"), &["--smoke"], &lines).await;
}

#[tokio::test]
#[ignore = "needs strace: cargo xtask test"]
async fn durable_runs_a_short_round_and_writes_the_same_rows_by_hand() {
    let lines = [
        "purista, answered and heard, a second",
        "raw rusqlite, same rows and grouping, a second",
        "sign-ups under strace:",
    ];
    reports(env!("CARGO_BIN_EXE_durable"), &["--smoke"], &lines).await;
}

#[tokio::test]
#[ignore = "needs wrk: cargo xtask test"]
async fn http_runs_a_short_round() {
    reports(env!("CARGO_BIN_EXE_http"), &["--smoke"], &["purista-http", "bare axum", "ratio"]).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn postgres_runs_a_short_round_and_writes_the_same_rows_by_hand() {
    let server = Postgres::start();
    let lines =
        ["purista, a second", "by hand, same rows, check and grouping", "ratio to nobody following", "COPY"];
    reports(env!("CARGO_BIN_EXE_postgres"), &["--smoke", "--server", &server.url()], &lines).await;
}

#[tokio::test]
#[ignore = "needs nats-server, rabbitmq-server and mosquitto: cargo xtask test"]
async fn bridges_runs_a_short_round_on_every_broker() {
    let titles = ["NATS: an event for 3", "AMQP: an event for 3", "MQTT: an event for 3"];
    reports(env!("CARGO_BIN_EXE_bridges"), &["--smoke"], &titles).await;
}

#[tokio::test]
async fn count_command_runs_as_many_commands_as_it_is_given() {
    reports(env!("CARGO_BIN_EXE_count_command"), &["20"], &[]).await;
    let output = ended(env!("CARGO_BIN_EXE_count_command"), &["many"]).await;
    assert!(!output.status.success(), "a count that is no number is accepted");
}
