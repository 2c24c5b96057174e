//! What browsers are told about pages of other origins.

use purista_http::cors::Cors;

use crate::requests::GOOD;
use crate::support::{Builder, Open, Reply, gateway};

const PREFLIGHT: &str = "access-control-request-method: POST";

async fn open(cors: Option<Cors>) -> Open {
    let gateway = match cors {
        Some(cors) => gateway().cors(cors),
        None => gateway(),
    };
    Builder::full().await.open(gateway).await
}

fn allowed(reply: &Reply) -> (Option<&str>, Option<&str>) {
    (reply.header("access-control-allow-origin"), reply.header("access-control-allow-credentials"))
}

async fn from(open: &Open, origin: &str) -> Reply {
    let headers = ["content-type: application/json", &format!("origin: {origin}")];
    open.ask("POST /api/v1/sign-up", &headers, GOOD).await
}

#[tokio::test]
async fn without_cors_nobody_is_let_in() {
    let open = open(None).await;
    assert_eq!(allowed(&from(&open, "https://app.example").await), (None, None));
    open.ask("OPTIONS /api/v1/sign-up", &["origin: https://app.example", PREFLIGHT], "").await.problem(405);
}

#[tokio::test]
async fn only_a_named_origin_is_let_in() {
    let open = open(Some(Cors::new().origin("https://app.example").credentials())).await;
    let reply = from(&open, "https://app.example").await;
    assert_eq!((reply.status, allowed(&reply)), (200, (Some("https://app.example"), Some("true"))));
    assert_eq!(reply.header("vary"), Some("origin"));
    for other in ["https://app.example.evil", "http://app.example", "null", "https://APP.example"] {
        let reply = from(&open, other).await;
        assert_eq!((allowed(&reply), reply.header("vary")), ((None, None), Some("origin")), "{other}");
    }
}

#[tokio::test]
async fn a_browser_that_asks_beforehand_is_told_without_being_known() {
    let open = open(Some(Cors::new().origin("https://app.example"))).await;
    let ask = async |path: &str, origin: &str| {
        open.ask(&format!("OPTIONS {path}"), &[&format!("origin: {origin}"), PREFLIGHT], "").await
    };
    let reply = ask("/api/v1/users/7", "https://app.example").await;
    assert_eq!((reply.status, allowed(&reply)), (204, (Some("https://app.example"), None)));
    assert_eq!(reply.header("access-control-allow-methods"), Some("GET, HEAD, PATCH, DELETE"));
    assert!(reply.header("access-control-allow-headers").unwrap().contains("idempotency-key"));
    assert_eq!(allowed(&ask("/api/v1/users/7", "https://evil.example").await), (None, None));
    ask("/nowhere", "https://app.example").await.problem(404);
}

#[tokio::test]
async fn any_origin_never_comes_with_credentials() {
    let open = open(Some(Cors::new().any_origin().credentials())).await;
    assert_eq!(allowed(&from(&open, "https://evil.example").await), (Some("*"), None));
}
