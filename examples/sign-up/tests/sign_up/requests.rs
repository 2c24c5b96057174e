//! What the API answers, to good requests and to all kinds of bad ones.

use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{SIGN_UP, get, post, request};
use crate::server::{Folder, Server, program};
use crate::{beside_others, mails, soon, within};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn a_sign_up_is_answered_and_mailed_within_a_second() {
    let _cores = beside_others().await;
    let folder = Folder::new();
    let server = Server::start(&folder).await;
    let answer = server.sign_up("ada@example.com", "Ada").await;
    let user_id = answer.user_id();
    assert_eq!(answer.json(), json!({ "userId": user_id, "email": "ada@example.com", "name": "Ada" }));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let trace_id = answer.header("x-trace-id").unwrap().to_owned();

    let written = mails::until_written(&folder, &["ada@example.com"]);
    let mails = within(Duration::from_secs(1), "the mail", written).await;
    let [mail] = &mails[..] else { panic!("one mail, not {mails:?}") };
    assert_eq!(mail.header("to"), "Ada <ada@example.com>");
    assert_eq!(mail.header("from"), "Sign-up <sign-up@localhost>");
    assert!(mail.body.contains("Welcome, Ada!") && mail.body.contains(&user_id), "{mail:?}");
    let [file] = &std::fs::read_dir(folder.mails()).unwrap().collect::<Vec<_>>()[..] else { panic!() };
    let name = file.as_ref().unwrap().file_name().into_string().unwrap();
    let id = name.strip_suffix(".eml").unwrap();
    assert_eq!(mail.header("message-id"), format!("<{id}@localhost>"), "a second delivery is the same file");
    server.stop().await;
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    let told = log.lines().find(|line| line.contains("the welcome mail is on its way")).unwrap();
    assert!(told.contains(&trace_id) && told.contains(&user_id), "{log}");
}

#[tokio::test]
async fn a_taken_address_is_409_in_any_case() {
    let _cores = beside_others().await;
    let folder = Folder::new();
    let server = Server::start(&folder).await;
    server.sign_up("ada@example.com", "Ada").await.user_id();
    for email in ["ada@example.com", "Ada@Example.COM"] {
        let answer = server.sign_up(email, "Eve").await;
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let problem = answer.json();
        assert_eq!((answer.status, &problem["detail"]), (409, &json!("this e-mail address is taken")));
        assert_eq!(problem["traceId"], answer.header("x-trace-id").unwrap());
    }
    server.stop().await;
}

#[tokio::test]
async fn a_name_cannot_put_anything_into_a_mail_or_a_log() {
    let _cores = beside_others().await;
    let folder = Folder::new();
    let server = Server::start(&folder).await;
    let name = "Eve\r\nBcc: all@example.com\r\n\r\nERROR \u{1b}[31m <x@y.z>, \"";
    server.sign_up("eve@example.com", name).await.user_id();
    let mails = soon("the mail", mails::until_written(&folder, &["eve@example.com"])).await;
    assert_eq!((mails.len(), mails[0].header("bcc")), (1, ""));
    assert!(!mails[0].body.contains("\nBcc:"), "{mails:?}");
    server.stop().await;
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.lines().all(|line| line.contains('Z')) && !log.contains('\u{1b}'), "{log}");
}

#[tokio::test]
async fn every_field_at_fault_is_named() {
    let _cores = beside_others().await;
    let folder = Folder::new();
    let server = Server::start(&folder).await;
    for (body, expect) in [
        (json!({ "email": "x" }), vec!["email", "name"]),
        (json!({ "email": "x", "name": "" }), vec!["email", "name"]),
        (json!({ "email": "a..b@example.com", "name": "Ada" }), vec!["email"]),
        (json!({ "email": "ada@example.com", "name": "A".repeat(81) }), vec!["name"]),
        (json!({ "email": 7, "name": "Ada" }), vec!["email"]),
        (json!({}), vec!["email", "name"]),
    ] {
        let answer = server.ask(&post(body.to_string().as_bytes())).await;
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{body}");
        let problem = answer.json();
        let faults = problem["errors"].as_array().unwrap_or_else(|| panic!("{body}: {problem}"));
        let mut paths: Vec<&str> = faults.iter().map(|fault| fault["path"][0].as_str().unwrap()).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!((answer.status, paths), (400, expect), "{body}");
        assert!(faults.iter().all(|fault| fault["message"].as_str().is_some_and(|text| !text.is_empty())));
    }
    assert!(mails::all(&folder).is_empty());
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_sign_up_is_refused_and_the_next_request_works() {
    let _cores = beside_others().await;
    let folder = Folder::new();
    let server = Server::start(&folder).await;
    let good = br#"{"email":"ada@example.com","name":"Ada"}"#;
    let deep = "[".repeat(100_000);
    let large = format!(r#"{{"email":"ada@example.com","name":"{}"}}"#, "A".repeat(1024 * 1024));
    for (what, request, status) in [
        ("broken JSON", post(br#"{"email":"#), 400),
        ("an array", post(b"[]"), 400),
        ("100,000 brackets", post(deep.as_bytes()), 400),
        ("no UTF-8", post(b"{\"email\":\"\xff\"}"), 400),
        ("a null", post(b"null"), 400),
        ("nothing", post(b""), 400),
        ("a text", request("POST", SIGN_UP, &[("content-type", "text/plain")], good), 415),
        ("no media type", request("POST", SIGN_UP, &[], good), 415),
        ("a large body", post(large.as_bytes()), 413),
        ("a GET", get(SIGN_UP), 405),
        ("a DELETE", request("DELETE", SIGN_UP, &[], b""), 405),
        ("an unknown route", get("/api/v1/sign-off"), 404),
        ("an unknown version", request("POST", "/api/v2/sign-up", &[JSON], good), 404),
        ("an unknown page", get("/../etc/passwd"), 404),
    ] {
        let answer = server.ask(&request).await;
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}");
        assert_eq!(answer.json()["status"], status, "{what}");
        assert!(answer.header("x-trace-id").is_some(), "{what}");
        assert_eq!(
            answer.header("allow").map(|allow| allow.contains("POST")),
            (status == 405).then_some(true)
        );
    }
    server.sign_up("ada@example.com", "Ada").await.user_id();
    server.stop().await;
}

#[tokio::test]
async fn the_page_the_description_and_the_health_are_served() {
    let _cores = beside_others().await;
    let folder = Folder::new();
    let server = Server::start(&folder).await;
    for (path, media_type, part) in [
        ("/", "text/html; charset=utf-8", "<form id=\"form\""),
        ("/sign-up.js", "text/javascript; charset=utf-8", "idempotency-key"),
        ("/sign-up.css", "text/css; charset=utf-8", "light-dark("),
        ("/api/openapi.json", "application/json", "\"/api/v1/sign-up\""),
    ] {
        let answer = server.ask(&get(path)).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(media_type)), "{path}");
        assert!(String::from_utf8(answer.body).unwrap().contains(part), "{path}");
    }
    let document = server.ask(&get("/api/openapi.json")).await.json();
    let operation = &document["paths"][SIGN_UP]["post"];
    assert!(operation["responses"]["200"].is_object(), "{operation}");
    assert_eq!(server.ask(&get("/healthz")).await.status, 200);
    assert_eq!(server.ask(&get("/readyz")).await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn the_log_is_json_by_option() {
    let _cores = beside_others().await;
    let folder = Folder::new();
    let output =
        program(&folder, &["--listen", "nowhere"]).env("PURISTA_LOG_FORMAT", "json").output().await.unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<Value> = log.lines().map_while(|line| serde_json::from_str(line).ok()).collect();
    assert!(!lines.is_empty() && lines.iter().all(|line| line["level"].is_string()), "{log}");
}
