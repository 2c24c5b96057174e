//! kill -9 of the broker under load, for 3 s and for a minute: the service comes back by itself, every question ends, and
//! everybody who was told of an account gets the mail.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use tokio::time::Instant;

use crate::apart::{Apart, Broker, Folders, Kind};
use crate::http;
use crate::{PATIENCE, beside_others, mails, within};

/// How often somebody signs up, and so how often an event is sent.
const EVERY: Duration = Duration::from_millis(50);
/// How long a command may take, and how much later its caller has to know.
const COMMAND_TIME: Duration = Duration::from_secs(30);
const ANSWER_TIME_MAX: Duration = COMMAND_TIME.saturating_add(Duration::from_secs(5));
/// How old an answer may be when this process sees it.
const ON_ITS_WAY: Duration = Duration::from_secs(1);
/// Until when after the broker's return somebody must have been served.
const RESUMED_WITHIN: Duration = Duration::from_secs(10);
/// What a caller may be told who was not served: each says whether it may have happened.
const TYPED: [u16; 3] = [UNSERVED, 503, 504];
/// Nobody serves it, or the answer was lost with the connection.
const UNSERVED: u16 = 502;

/// How long everything runs before the broker is killed, how long it is away, how long it has to be back.
#[derive(Clone, Copy)]
struct Times {
    before: Duration,
    away: Duration,
    after: Duration,
}

const SHORT: Times =
    Times { before: Duration::from_secs(3), away: Duration::from_secs(3), after: Duration::from_secs(12) };
const LONG: Times =
    Times { before: Duration::from_secs(30), away: Duration::from_secs(60), after: Duration::from_secs(60) };

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn an_outage_of_nats_loses_no_mail() {
    outage(Kind::Nats, SHORT, &[]).await;
}

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn an_outage_of_nats_loses_no_mail_of_processes_without_a_store() {
    outage(Kind::Nats, SHORT, &["--no-store"]).await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ: cargo xtask test"]
async fn an_outage_of_rabbitmq_loses_no_mail() {
    outage(Kind::RabbitMq, SHORT, &[]).await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ: cargo xtask test"]
async fn an_outage_of_rabbitmq_loses_no_mail_of_processes_without_a_store() {
    outage(Kind::RabbitMq, SHORT, &["--no-store"]).await;
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn an_outage_of_mosquitto_loses_no_mail() {
    outage(Kind::Mosquitto, SHORT, &[]).await;
}

#[tokio::test]
#[ignore = "soak: a minute without NATS: cargo xtask soak"]
async fn soak_a_minute_without_nats_loses_no_mail() {
    outage(Kind::Nats, LONG, &[]).await;
}

#[tokio::test]
#[ignore = "soak: a minute without RabbitMQ: cargo xtask soak"]
async fn soak_a_minute_without_rabbitmq_loses_no_mail() {
    outage(Kind::RabbitMq, LONG, &[]).await;
}

#[tokio::test]
#[ignore = "soak: a minute without mosquitto: cargo xtask soak"]
async fn soak_a_minute_without_mosquitto_loses_no_mail() {
    outage(Kind::Mosquitto, LONG, &[]).await;
}

async fn outage(kind: Kind, times: Times, store: &[&str]) {
    let _cores = beside_others().await;
    let (mut broker, folders) = (Broker::start(kind).await, Folders::new());
    let apart = Apart::start(&broker, &folders, store).await;
    let place = apart.http.place.clone();
    let length = times.before + times.away + times.after;

    let undisturbed = sign_ups(&place, "undisturbed", length).await;
    let lose = async {
        tokio::time::sleep(times.before).await; // real time: a crash comes when it comes
        broker.kill();
        let lost = Instant::now();
        tokio::time::sleep(times.away / 2).await;
        assert_eq!(ready(&place).await, 503, "nothing should be sent to a process that reaches nobody");
        tokio::time::sleep_until(lost + times.away).await;
        broker.restart().await;
        Gap { lost, back: Instant::now() }
    };
    let (asked, gap) = tokio::join!(sign_ups(&place, "disturbed", length), lose);

    for one in undisturbed.iter().chain(&asked) {
        assert!(one.status == 200 || TYPED.contains(&one.status), "{one:?}");
    }
    let (all, some) = (acknowledged(&undisturbed), acknowledged(&asked));
    let resumed = some.iter().filter_map(|one| one.ended.checked_duration_since(gap.back)).min();
    let count = |status| asked.iter().filter(|one| one.status == status).count();
    let mut report = Report {
        kind,
        asked: asked.len(),
        undisturbed: all.len(),
        acknowledged: some.len(),
        refused: TYPED.map(count),
        resumed,
        mails: 0,
        attempts: 0,
    };
    assert!(resumed.is_some_and(|resumed| resumed <= RESUMED_WITHIN), "{report:?}");
    assert!(2 * some.len() >= all.len(), "{report:?}");
    let while_away = some.iter().find(|one| gap.lost + ON_ITS_WAY < one.ended && one.ended < gap.back);
    assert!(while_away.is_none(), "the broker was away, and there is no other way: {while_away:?}");
    let had_time = |one: &&Told| one.took + RESUMED_WITHIN < COMMAND_TIME;
    let told_too_early = |one: &&Told| one.status == UNSERVED && one.ended > gap.back && had_time(one);
    let unserved = asked.iter().find(told_too_early);
    assert!(unserved.is_none(), "who serves had only to come back: {unserved:?} {report:?}");
    assert_eq!(ready(&place).await, 200);

    let to: Vec<&str> = all.iter().chain(&some).map(|one| one.email.as_str()).collect();
    let written = within(PATIENCE, "every mail", mails::until_written(&folders.email, &to)).await;
    report.mails = written.len();
    report.attempts = apart.email.log().matches("the welcome mail is on its way").count();
    println!("{report:?}");
    apart.stop().await;
}

/// When the broker was killed, and when it took connections again.
struct Gap {
    lost: Instant,
    back: Instant,
}

/// What somebody was told.
#[derive(Debug)]
struct Told {
    email: String,
    status: u16,
    took: Duration,
    ended: Instant,
}

/// What a run has shown.
#[derive(Debug)]
#[expect(dead_code, reason = "it is printed")]
struct Report {
    kind: Kind,
    asked: usize,
    undisturbed: usize,
    acknowledged: usize,
    /// How many were told 502, 503 and 504.
    refused: [usize; 3],
    /// How long after the broker's return somebody was served.
    resumed: Option<Duration>,
    /// Files; a mail that is written again has the name that it had.
    mails: usize,
    attempts: usize,
}

fn acknowledged(told: &[Told]) -> Vec<&Told> {
    told.iter().filter(|one| one.status == 200).collect()
}

/// Signs people up at a steady rate, each with an address of their own, however long the others wait.
async fn sign_ups(place: &str, name: &str, length: Duration) -> Vec<Told> {
    let begins = Instant::now();
    let count = u32::try_from(length.as_millis() / EVERY.as_millis()).unwrap();
    join_all((0..count).map(async |nth| {
        let asked = begins + EVERY * nth;
        tokio::time::sleep_until(asked).await; // real time: people do not wait for each other
        let email = format!("{name}{nth}@example.com");
        let request = http::sign_up(&email, "Ada", None);
        let answer =
            within(ANSWER_TIME_MAX, "an answer of any kind", http::ask(place, &request)).await.unwrap();
        if answer.status != 200 {
            assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
            assert!(matches!(answer.json()["detail"], Value::String(_)), "{answer:?}");
        }
        let ended = Instant::now();
        Told { email, status: answer.status, took: ended - asked, ended }
    }))
    .await
}

/// What a probe is told.
async fn ready(place: &str) -> u16 {
    let probe = http::request("GET", "/readyz", &[], b"");
    within(PATIENCE, "an answer to a probe", http::ask(place, &probe)).await.unwrap().status
}
