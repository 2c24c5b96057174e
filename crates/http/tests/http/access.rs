//! Who gets in, and that it is decided before anything else of the request is looked at.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::{BoxFuture, ready};
use purista_http::authenticator::{
    AuthenticationError, Authenticator, Identity, RequestHead, SecurityScheme,
};
use purista_http::gateway::Gateway;
use serde_json::json;

use crate::requests::GOOD;
use crate::support::{Builder, KEY, gateway, request};

#[tokio::test]
async fn a_route_that_is_not_public_needs_a_known_caller() {
    let open = Builder::full().await.open(gateway()).await;
    for headers in
        [&[][..], &["x-api-key: wrong-0123456789"], &[KEY, KEY], &["authorization: Bearer 0123456789abcdef"]]
    {
        let reply = open.ask("DELETE /api/v1/users/7", headers, "").await;
        assert_eq!(reply.header("www-authenticate"), Some("ApiKey header=\"x-api-key\""));
        reply.problem(401);
    }
    assert_eq!(open.ask("DELETE /api/v1/users/7", &[KEY], "").await.status, 204);
}

#[tokio::test]
async fn headers_and_bodies_never_name_principal_or_tenant() {
    let open = Builder::full().await.open(gateway()).await;
    let claims =
        ["content-type: application/json", "x-principal-id: root", "x-tenant-id: other", "principalId: root"];
    let seen = open.ask("POST /api/v1/sign-up?tenantId=other", &claims, GOOD).await.seen();
    assert_eq!((seen.principal, seen.tenant), (None, None));
}

#[tokio::test]
async fn a_caller_is_refused_before_the_body_is_read() {
    let open = Builder::full().await.open(gateway()).await;
    let mut connection = open.connect().await;
    // The body never comes: an answer shows that nobody waited for it.
    connection
        .send(&request(
            "PATCH /api/v1/users/7",
            &["content-type: text/nonsense", "content-length: 500000"],
            "",
        ))
        .await;
    connection.reply().await.problem(401);
}

/// Counts how often it is asked.
struct Counting {
    asked: Arc<AtomicUsize>,
    verdict: fn() -> Result<Identity, AuthenticationError>,
}
impl Authenticator for Counting {
    fn authenticate<'a>(
        &'a self,
        head: &'a RequestHead,
    ) -> BoxFuture<'a, Result<Identity, AuthenticationError>> {
        assert_eq!((head.method(), head.path(), head.query()), ("DELETE", "/api/v1/users/7", Some("a=b")));
        assert!(head.peer().ip().is_loopback());
        self.asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(ready((self.verdict)()))
    }
    fn scheme(&self) -> SecurityScheme {
        SecurityScheme::other("own", "Own realm=\"x\"", json!({"type": "http", "scheme": "own"}))
    }
}

fn counting(verdict: fn() -> Result<Identity, AuthenticationError>) -> (Gateway, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let authenticator = Counting { asked: Arc::clone(&asked), verdict };
    (Gateway::listen("127.0.0.1:0").authenticator(authenticator), asked)
}

#[tokio::test]
async fn public_routes_pages_and_health_ask_nobody() {
    let (gateway, asked) = counting(|| Ok(Identity::of("p")));
    let open = Builder::full().await.open(gateway.page("/", "text/plain", "x")).await;
    assert_eq!(open.post("/api/v1/sign-up", GOOD).await.status, 200);
    for path in ["/", "/healthz", "/readyz", "/api/openapi.json"] {
        assert_eq!(open.get(path).await.status, 200);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    assert_eq!(open.ask("DELETE /api/v1/users/7?a=b", &[], "").await.status, 204);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn why_a_caller_was_refused_stays_inside() {
    let (gateway, _) = counting(|| Err(AuthenticationError::refused("CANARY")));
    let open = Builder::full().await.open(gateway).await;
    let reply = open.ask("DELETE /api/v1/users/7?a=b", &[], "").await;
    assert!(!String::from_utf8_lossy(&reply.body).contains("CANARY"));
    assert_eq!(reply.header("www-authenticate"), Some("Own realm=\"x\""));
    reply.problem(401);
}

#[tokio::test]
async fn an_authenticator_that_cannot_tell_lets_nobody_in() {
    let (gateway, _) = counting(|| Err(AuthenticationError::Unavailable("no keys".to_owned())));
    let open = Builder::full().await.open(gateway).await;
    open.ask("DELETE /api/v1/users/7?a=b", &[], "").await.problem(503);
    let (gateway, _) = counting(|| panic!("a bug"));
    let open = Builder::full().await.open(gateway).await;
    open.ask("DELETE /api/v1/users/7?a=b", &[], "").await.problem(500);
}
