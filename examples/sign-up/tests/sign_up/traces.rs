//! One sign-up is one trace, from HTTP to the mail: in one process, in three, and when the mail fails at first.

use std::collections::BTreeSet;

use purista_servers::otlp::{OtlpReceiver, Span};

use crate::apart::{Apart, Broker, Folders, Kind};
use crate::http::request;
use crate::server::{Folder, Server};
use crate::smtp_server::{SmtpServer, free_port};
use crate::{beside_others, mails, soon};

/// What the browser's own trace says.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const BROWSER: &str = "b7ad6b7169203331";
/// What stands in the input, and in no span.
const CANARY: &str = "canary-7c1f";
/// What opens the collector, and stands in no log.
const KEY: &str = "Bearer collector-key";

const REQUEST: &str = "POST /api/v1/sign-up";
const INVOKE: &str = "purista.command.invoke";
const COMMAND: &str = "userSignUp";
const EMIT: &str = "purista.emitEvent";
const COMMIT: &str = "purista.eventStore.commit";
const PUBLISH: &str = "purista.emit.MessageToBridge";
const MAIL: &str = "sendWelcomeEmail";

/// The folder of a program that sends its traces to this receiver as this service.
fn folder(receiver: &OtlpReceiver, service: &str) -> Folder {
    Folder::new().with_environment(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.url()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20collector-key"),
        ("OTEL_SERVICE_NAME", service),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
    ])
}

/// A browser's request, with its trace.
async fn sign_up(server: &Server) {
    let traceparent = format!("00-{TRACE}-{BROWSER}-01");
    let headers =
        [("content-type", "application/json"), ("traceparent", &*traceparent), ("tracestate", "vendor=1")];
    let body = format!(r#"{{"email":"{CANARY}@example.com","name":"{CANARY}"}}"#);
    server.ask(&request("POST", "/api/v1/sign-up", &headers, body.as_bytes())).await.user_id();
}

#[track_caller]
fn one<'s>(spans: &'s [Span], name: &str) -> &'s Span {
    let named: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    let [span] = named.as_slice() else { panic!("{} of {name}: {spans:#?}", named.len()) };
    span
}

/// The names from a span up to the one whose parent is elsewhere.
fn way<'s>(spans: &'s [Span], span: &'s Span) -> Vec<&'s str> {
    let parent = spans.iter().find(|other| Some(&other.id) == span.parent.as_ref());
    let mut way = vec![&*span.name];
    way.extend(parent.map(|parent| self::way(spans, parent)).unwrap_or_default());
    way
}

fn has(name: &'static str) -> impl Fn(&[Span]) -> bool {
    move |spans| spans.iter().any(|span| span.name == name && span.status == "unset")
}

/// Whether the way of a sign-up has arrived from everybody. The programs have ended then, but nobody says whose spans come first.
fn are_all(spans: &[Span]) -> bool {
    [REQUEST, INVOKE, COMMAND, EMIT, PUBLISH, MAIL].into_iter().all(|name| has(name)(spans))
}

#[track_caller]
fn check_one_trace(spans: &[Span]) {
    let traces: BTreeSet<_> = spans.iter().map(|span| &*span.trace).collect();
    assert_eq!(traces, [TRACE].into(), "{spans:#?}");
    let request = one(spans, REQUEST);
    assert_eq!((request.parent.as_deref(), &*request.kind), (Some(BROWSER), "server"));
    assert_eq!(request.attributes["http.response.status_code"], 200);
    assert_eq!(request.text("http.route"), "/api/v1/sign-up");
    let ids: BTreeSet<_> = spans.iter().map(|span| &*span.id).collect();
    assert_eq!(ids.len(), spans.len(), "every span has an id of its own");
    for span in spans {
        assert!(span.begun_ns <= span.ended_ns, "{span:#?}");
        assert_eq!(span.authorization.as_deref(), Some(KEY));
        assert_eq!(span.state, "vendor=1", "{span:#?}");
        let parent = span.parent.as_deref();
        assert!(parent == Some(BROWSER) || parent.is_some_and(|id| ids.contains(id)), "{span:#?}");
        assert!(!format!("{span:?}").contains(CANARY), "no input in a span: {span:#?}");
    }
}

#[tokio::test]
#[ignore = "needs python3 with opentelemetry-proto: cargo xtask test"]
async fn a_sign_up_in_one_process_is_one_trace() {
    let _cores = beside_others().await;
    let mut receiver = OtlpReceiver::start().await;
    let folder = folder(&receiver, "all");
    let server = Server::start_with(&folder, &[]).await;
    sign_up(&server).await;
    let email = format!("{CANARY}@example.com");
    soon("the mail", mails::until_written(&folder, &[&email])).await;
    receiver.until("the mail", has(MAIL)).await;
    let log = server.log();
    server.stop().await;
    let spans = receiver.until("all of them", |spans| are_all(spans) && has(COMMIT)(spans)).await;
    check_one_trace(spans);
    let command = [COMMAND, INVOKE, REQUEST];
    assert_eq!(way(spans, one(spans, COMMIT)), [&[COMMIT], &command[..]].concat());
    assert_eq!(way(spans, one(spans, PUBLISH)), [&[PUBLISH, EMIT], &command[..]].concat());
    assert_eq!(way(spans, one(spans, MAIL)), [&[MAIL, EMIT], &command[..]].concat(), "from the log");
    assert_eq!(one(spans, COMMAND).kind, "consumer");
    assert_eq!(one(spans, COMMAND).text("messaging.system"), "in-process");
    assert_eq!(one(spans, MAIL).attributes["purista.attempt"], 1);
    assert_eq!(spans.len(), 7, "nothing else is worth a span: {spans:#?}");
    assert!(!log.contains("collector-key"), "{log}");
}

#[tokio::test]
#[ignore = "needs nats-server, python3 with opentelemetry-proto: cargo xtask test"]
async fn a_sign_up_through_three_processes_over_nats_is_one_trace() {
    one_trace(Kind::Nats, "nats").await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ, python3 with opentelemetry-proto: cargo xtask test"]
async fn a_sign_up_through_three_processes_over_rabbitmq_is_one_trace() {
    one_trace(Kind::RabbitMq, "amqp").await;
}

#[tokio::test]
#[ignore = "needs mosquitto, python3 with opentelemetry-proto: cargo xtask test"]
async fn a_sign_up_through_three_processes_over_mqtt_is_one_trace() {
    one_trace(Kind::Mosquitto, "mqtt").await;
}

fn folders(receiver: &OtlpReceiver) -> Folders {
    Folders {
        http: folder(receiver, "http"),
        user: folder(receiver, "user"),
        email: folder(receiver, "email"),
    }
}

/// With a store, where the relay carries the event, and without one, where the command's own process sends it.
async fn one_trace(kind: Kind, system: &str) {
    let _cores = beside_others().await;
    let broker = Broker::start(kind).await;
    for store in [&[][..], &["--no-store"]] {
        let mut receiver = OtlpReceiver::start().await;
        let folders = folders(&receiver);
        let apart = Apart::start(&broker, &folders, store).await;
        sign_up(&apart.http).await;
        receiver.until("the mail", has(MAIL)).await;
        apart.stop().await;
        let spans = receiver.until("all of them", are_all).await;
        check_one_trace(spans);
        let services: Vec<_> =
            [REQUEST, INVOKE, COMMAND, MAIL].iter().map(|name| one(spans, name).service()).collect();
        assert_eq!(services, ["http", "http", "user", "email"]);
        assert_eq!(one(spans, MAIL).text("messaging.system"), system);
        assert_eq!(way(spans, one(spans, MAIL)), [MAIL, PUBLISH, EMIT, COMMAND, INVOKE, REQUEST]);
    }
}

#[tokio::test]
#[ignore = "needs nats-server, python3 with aiosmtpd and opentelemetry-proto: cargo xtask test"]
async fn a_mail_that_fails_at_first_is_told_of_with_each_attempt_in_the_one_trace() {
    let _cores = beside_others().await;
    let (broker, mut receiver) = (Broker::start(Kind::Nats).await, OtlpReceiver::start().await);
    let (folders, port) = (folders(&receiver), free_port());
    let url = format!("smtp://127.0.0.1:{port}");
    let apart = Apart::start(&broker, &folders, &["--smtp", &url]).await;
    sign_up(&apart.http).await;
    let has_failed = |spans: &[Span]| spans.iter().any(|span| span.name == MAIL && span.status == "error");
    receiver.until("a mail that failed", has_failed).await;
    let mut smtp = SmtpServer::start(port).await;
    smtp.next().await;
    receiver.until("the mail", has(MAIL)).await;
    apart.stop().await;
    let spans = receiver.until("all of them", are_all).await;
    check_one_trace(spans);
    let mails: Vec<_> = spans.iter().filter(|span| span.name == MAIL).collect();
    for (mail, attempt) in mails.iter().zip(1..) {
        assert_eq!(way(spans, mail), [MAIL, PUBLISH, EMIT, COMMAND, INVOKE, REQUEST]);
        assert_eq!(mail.attributes["purista.attempt"], attempt);
        let is_last = usize::try_from(attempt).unwrap() == mails.len();
        assert_eq!(mail.status == "unset", is_last, "{mail:#?}");
        assert_eq!(mail.text("error.type"), if is_last { "" } else { "500" });
        assert_eq!((&*mail.message, mail.events), ("", 0), "the text is the log's");
    }
    assert!(mails.len() >= 2, "{mails:#?}");
}
