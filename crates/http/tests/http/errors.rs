//! What callers learn when it does not work.

use std::sync::Arc;

use purista_core::error::HandlerError;
use purista_core::health::Condition;
use serde_json::json;

use crate::contracts::SignUp;
use crate::requests::GOOD;
use crate::support::{Builder, Open, gateway};

async fn failing(error: impl Fn() -> HandlerError + Send + Sync + 'static) -> Open {
    Builder::new().command::<SignUp>(move |_, _| Err(error())).await.open(gateway()).await
}

#[tokio::test]
async fn a_handled_error_is_told_with_its_text_and_details() {
    let open = failing(|| HandlerError::conflict("the e-mail is taken").with_data(json!({"hint": 1}))).await;
    let problem = open.post("/api/v1/sign-up", GOOD).await.problem(409);
    assert_eq!(problem["title"], "Conflict");
    assert_eq!(problem["detail"], "the e-mail is taken");
    assert_eq!(problem["data"], json!({"hint": 1}));
    assert!(problem.get("errors").is_none());
}

#[tokio::test]
async fn any_other_error_tells_nothing_but_the_trace_id() {
    let open = failing(|| HandlerError::failed("CANARY: password of the database")).await;
    let reply = open.post("/api/v1/sign-up", GOOD).await;
    assert!(!String::from_utf8_lossy(&reply.body).contains("CANARY"));
    let problem = reply.problem(500);
    assert!(problem.get("data").is_none() && problem.get("errors").is_none());
}

#[tokio::test]
async fn a_panic_is_500_and_the_next_request_is_served() {
    let open = Builder::new()
        .command_of::<SignUp>(Arc::new(|input, _| {
            Box::pin(async move {
                if input.name == "Ann" { panic!("CANARY") } else { Err(HandlerError::not_found("x")) }
            })
        }))
        .await
        .open(gateway())
        .await;
    let reply = open.post("/api/v1/sign-up", GOOD).await;
    assert!(!String::from_utf8_lossy(&reply.body).contains("CANARY"));
    reply.problem(500);
    open.post("/api/v1/sign-up", &GOOD.replace("Ann", "Bob")).await.problem(404);
    assert_eq!(open.house.client.free_places(), 1024);
}

#[tokio::test]
async fn a_command_that_nobody_serves_is_502() {
    let open = Builder::new().unserved::<SignUp>().open(gateway()).await;
    open.post("/api/v1/sign-up", GOOD).await.problem(502);
}

#[tokio::test]
async fn a_carrier_that_takes_nothing_is_503_with_a_time_to_come_again() {
    let open = Builder::full().await.open(gateway()).await;
    open.house.client.bridge().close().await.unwrap();
    let reply = open.post("/api/v1/sign-up", GOOD).await;
    assert_eq!(reply.header("retry-after"), Some("1"));
    reply.problem(503);
    // What no carrier could put into a message is the caller's fault, whoever notices.
    open.post("/api/v1/sign-up", "{\"a\"").await.problem(400);
}

#[tokio::test]
async fn health_tells_of_every_part_and_readiness_of_the_whole() {
    let open = Builder::full().await.open(gateway()).await;
    let reply = open.get("/healthz").await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.json(),
        json!({"status": "up", "ready": true, "parts": [{"name": "bridge", "status": "up"}]})
    );
    open.report.lock().unwrap().is_ready = false;
    assert_eq!((open.get("/healthz").await.status, open.get("/readyz").await.status), (200, 503));
    assert_eq!(open.get("/readyz").await.header("retry-after"), Some("1"));
    {
        let mut report = open.report.lock().unwrap();
        report.is_ready = true;
        report.parts[0].condition = Condition::Degraded;
        report.parts[0].detail = Some("reconnecting".to_owned());
    }
    assert_eq!((open.get("/healthz").await.status, open.get("/readyz").await.status), (200, 200));
    open.report.lock().unwrap().parts[0].condition = Condition::Down;
    let reply = open.get("/healthz").await;
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    assert_eq!(
        reply.json()["parts"][0],
        json!({"name": "bridge", "status": "down", "detail": "reconnecting"})
    );
}
