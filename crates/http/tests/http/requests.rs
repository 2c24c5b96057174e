//! What becomes of proper requests, and of improper ones.

use serde_json::{Value, json};

use crate::support::{Builder, gateway};

const GOOD: &str = r#"{"email":"a@b.de","name":"Ann"}"#;

#[tokio::test]
async fn a_post_becomes_a_command_and_its_output_the_answer() {
    let open = Builder::full().await.open(gateway()).await;
    let reply = open.post("/api/v1/sign-up", GOOD).await;
    assert_eq!(reply.json()["userId"], "u1");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    let seen = reply.seen();
    assert_eq!(seen.input, GOOD);
    assert_eq!(seen.sender, "HttpGateway.1.$$endpoint:post:/api/v1/sign-up");
    assert_eq!(Some(&*seen.trace_id), reply.header("x-trace-id"));
    assert_eq!(seen.trace_id.len(), 32);
    assert_eq!((seen.principal, seen.tenant, seen.idempotency_key), (None, None, None));
}

#[tokio::test]
async fn every_field_at_fault_is_named() {
    let open = Builder::full().await.open(gateway()).await;
    let problem = open.post("/api/v1/sign-up", r#"{"email":"CANARY","name":""}"#).await.problem(400);
    let paths: Vec<&Value> =
        problem["errors"].as_array().unwrap().iter().map(|fault| &fault["path"]).collect();
    assert_eq!(paths.len(), 2, "{problem}");
    assert!(paths.contains(&&json!(["email"])) && paths.contains(&&json!(["name"])));
    assert!(!problem.to_string().contains("CANARY"));
}
