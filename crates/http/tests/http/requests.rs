//! What becomes of proper requests, and of bodies that are none.

use purista_http::gateway::Gateway;
use serde_json::{Value, json};

use crate::support::{Builder, KEY, Open, PATIENCE, gateway, request};

pub(crate) const GOOD: &str = r#"{"email":"a@b.de","name":"Ann"}"#;
const JSON: &str = "content-type: application/json";

async fn open() -> Open {
    Builder::full().await.open(gateway()).await
}

#[tokio::test]
async fn a_post_becomes_a_command_and_its_output_the_answer() {
    let open = open().await;
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
    let open = open().await;
    let problem = open.post("/api/v1/sign-up", r#"{"email":"CANARY","name":""}"#).await.problem(400);
    let paths: Vec<&Value> =
        problem["errors"].as_array().unwrap().iter().map(|fault| &fault["path"]).collect();
    assert_eq!(paths.len(), 2, "{problem}");
    assert!(paths.contains(&&json!(["email"])) && paths.contains(&&json!(["name"])));
    assert!(!problem.to_string().contains("CANARY"));
}

#[tokio::test]
async fn a_body_that_is_no_object_of_the_contract_is_400() {
    let open = open().await;
    let deep = format!(r#"{{"email":{}1{}}}"#, "[".repeat(64), "]".repeat(64));
    let mut bad = vec![
        "{",
        "[]",
        "1",
        "null",
        "\"x\"",
        "{]",
        r#"{"email":NaN}"#,
        r#"{"email":1e999}"#,
        "{}{}",
        r#"{"email":"\ud800"}"#,
        r#"{"email":"a@b.de","email":"a@b.de","name":"x"}"#,
        r#"{"email":"a@b.de","name":123456789012345678901234567890}"#,
        "{\"email\":\"a\u{0}b\",\"name\":\"x\"}",
        &deep,
        "nonsense",
        "  ",
    ];
    let (arrays, objects) = ("[".repeat(100_000), r#"{"a":"#.repeat(100_000));
    bad.extend([arrays.as_str(), objects.as_str()]);
    for json in bad {
        let problem = open.post("/api/v1/sign-up", json).await.problem(400);
        assert!(problem["errors"][0]["path"].is_array(), "{json:.40} {problem}");
    }
    let mut connection = open.connect().await;
    connection.send("POST /api/v1/sign-up HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\n").await;
    tokio::io::AsyncWriteExt::write_all(&mut connection.stream, b"{\"\xff\"").await.unwrap();
    connection.reply().await.problem(400);
}

#[tokio::test]
async fn a_post_without_a_body_is_an_empty_object() {
    let open = open().await;
    let problem = open.ask("POST /api/v1/sign-up", &[], "").await.problem(400);
    assert_eq!(problem["errors"].as_array().unwrap().len(), 2, "{problem}");
    open.ask("POST /api/v1/sign-up", &[JSON, "content-length: 0"], "").await.problem(400);
}

#[tokio::test]
async fn a_body_of_another_kind_is_415() {
    let open = open().await;
    for headers in [
        &[][..],
        &["content-type: text/plain"],
        &["content-type: application/jsonp"],
        &["content-type: application/json; charset=utf-16"],
        &["content-type: application/x-www-form-urlencoded"],
        &["content-type: multipart/form-data; boundary=x"],
        &[JSON, JSON],
        &[JSON, "content-encoding: gzip"],
    ] {
        open.ask("POST /api/v1/sign-up", headers, GOOD).await.problem(415);
    }
    for good in
        ["content-type: application/json; charset=utf-8", "Content-Type: APPLICATION/JSON;charset=\"UTF-8\""]
    {
        assert_eq!(open.ask("POST /api/v1/sign-up", &[good], GOOD).await.status, 200, "{good}");
    }
    open.post("/api/v1/subscriptions", GOOD).await.problem(415);
}

#[tokio::test]
async fn a_chunked_body_is_read_to_its_end() {
    let open = open().await;
    let mut connection = open.connect().await;
    connection.send(&request("POST /api/v1/sign-up", &[JSON, "transfer-encoding: chunked"], "")).await;
    for part in [&GOOD[..5], &GOOD[5..]] {
        connection.send(&format!("{:x}\r\n{part}\r\n", part.len())).await;
    }
    connection.send("0\r\n\r\n").await;
    assert_eq!(connection.reply().await.seen().input, GOOD);
}

#[tokio::test]
async fn values_of_path_and_query_become_fields() {
    let open = open().await;
    let seen = open.get("/api/v1/users/a%2Fb%20c?page=2&tags=x&tags=y+z&unknown=1").await.seen();
    assert_eq!(seen.input, r#"{"userId":"a/b c","page":2,"tags":["x","y z"]}"#);
    assert_eq!(open.get("/api/v1/users/7?tags=x").await.seen().input, r#"{"userId":"7","tags":["x"]}"#);
    assert_eq!(open.get("/api/v1/users/7?userId=8").await.seen().input, r#"{"userId":"7","tags":[]}"#);
    let problem = open.get("/api/v1/users/7?page=x").await.problem(400);
    assert_eq!(problem["errors"][0]["path"], json!(["page"]));
    for bad in ["/api/v1/users/%", "/api/v1/users/%ff", "/api/v1/users/7?page=%2"] {
        open.get(bad).await.problem(400);
    }
}

#[tokio::test]
async fn a_body_cannot_contradict_the_path() {
    let open = open().await;
    let body = r#"{"userId":"evil","name":"n","principalId":"root","tenantId":"other"}"#;
    let seen = open.ask("PATCH /api/v1/users/7", &[JSON, KEY], body).await.seen();
    assert_eq!(seen.input, r#"{"userId":"7","name":"n"}"#);
    assert_eq!((seen.principal.as_deref(), seen.tenant.as_deref()), (Some("billing"), Some("acme")));
}

#[tokio::test]
async fn forms_and_texts_become_fields() {
    let open = open().await;
    let form = ["content-type: application/x-www-form-urlencoded"];
    let seen = open.ask("POST /api/v1/subscriptions", &form, "email=a%40b.de&age=7&weekly=on").await.seen();
    assert_eq!(seen.input, r#"{"email":"a@b.de","age":7,"weekly":true}"#);
    let problem = open.ask("POST /api/v1/subscriptions", &form, "email=a&age=old").await.problem(400);
    assert_eq!(problem["errors"][0]["path"], json!(["age"]));
    open.ask("POST /api/v1/subscriptions", &form, "email=%zz").await.problem(400);
    let seen = open
        .ask("PUT /api/v1/users/7/note", &["content-type: text/plain; charset=utf-8"], "a \"b\"\nä")
        .await
        .seen();
    assert_eq!(seen.input, r#"{"userId":"7","note":"a \"b\"\nä"}"#);
}

#[tokio::test]
async fn a_command_that_answers_nothing_is_204() {
    let open = open().await;
    let reply = open.ask("DELETE /api/v1/users/7", &[KEY], "").await;
    assert_eq!((reply.status, reply.body.len()), (204, 0));
    assert!(reply.header("x-trace-id").is_some() && reply.header("content-type").is_none());
}

#[tokio::test]
async fn a_head_is_a_get_without_its_body() {
    let open = open().await;
    let mut connection = open.connect().await;
    connection.send(&request("HEAD /api/v1/users/7", &[], "")).await;
    let reply = connection.reply_to("HEAD").await;
    assert_eq!(reply.status, 200);
    assert!(reply.header("content-length").unwrap().parse::<usize>().unwrap() > 10);
    connection.send(&request("GET /api/v1/users/7", &[], "")).await;
    assert_eq!(connection.reply().await.status, 200);
}

#[tokio::test]
async fn a_flow_and_a_trace_go_on() {
    let open = open().await;
    let parent = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let reply = open.ask("GET /api/v1/users/7", &[parent, "x-trace-id: order 17"], "").await;
    assert_eq!(reply.header("x-trace-id"), Some("order 17"));
    let seen = reply.seen();
    assert_eq!(seen.trace_id, "order 17");
    assert_eq!(seen.trace.as_deref(), parent.strip_prefix("traceparent: "));
    let seen = open.ask("GET /api/v1/users/7", &[parent], "").await.seen();
    assert_eq!(seen.trace_id, "0af7651916cd43dd8448eb211c80319c");
    let long = format!("x-trace-id: {}", "x".repeat(129));
    let seen = open.ask("GET /api/v1/users/7", &[&long, "traceparent: nonsense"], "").await.seen();
    assert_eq!((seen.trace_id.len(), seen.trace), (32, None));
}

#[tokio::test]
async fn an_idempotency_key_of_1_to_255_printable_characters_goes_on() {
    let open = open().await;
    let ask = async |key: &str| {
        open.ask("POST /api/v1/sign-up", &[JSON, &format!("idempotency-key: {key}")], GOOD).await
    };
    for good in ["1", "order 17", &"k".repeat(255)] {
        assert_eq!(ask(good).await.seen().idempotency_key.as_deref(), Some(good));
    }
    for bad in ["", &"k".repeat(256), "ä", "a\tb"] {
        ask(bad).await.problem(400);
    }
    open.ask("POST /api/v1/sign-up", &[JSON, "idempotency-key: a", "idempotency-key: b"], GOOD)
        .await
        .problem(400);
}

#[tokio::test]
async fn on_get_and_head_an_idempotency_key_means_nothing() {
    let open = open().await;
    for key in ["k", "", &"k".repeat(256)] {
        let key = format!("idempotency-key: {key}");
        let seen = open.ask("GET /api/v1/users/7", &[&key], "").await.seen();
        assert_eq!(seen.idempotency_key, None);
        let mut connection = open.connect().await;
        connection.send(&request("HEAD /api/v1/users/7", &[&key], "")).await;
        assert_eq!(connection.reply_to("HEAD").await.status, 200);
    }
}

#[tokio::test]
async fn what_is_not_served_says_so() {
    let open = open().await;
    for nowhere in [
        "/",
        "/api/v1",
        "/api/v2/sign-up",
        "/api/v1/sign-up/",
        "/api/v1/users/",
        "//api/v1/sign-up",
        "/api/v1/../healthz",
    ] {
        open.get(nowhere).await.problem(404);
    }
    let reply = open.get("/api/v1/sign-up").await;
    assert_eq!(reply.header("allow"), Some("POST"));
    reply.problem(405);
    let reply = open.post("/api/v1/users/7", "{}").await;
    assert_eq!(reply.header("allow"), Some("GET, HEAD, PATCH, DELETE"));
    reply.problem(405);
    open.ask("OPTIONS /api/v1/sign-up", &[], "").await.problem(405);
    open.ask("TRACE /api/v1/sign-up", &[], "").await.problem(405);
    open.ask("OPTIONS *", &[], "").await.problem(404);
}

#[tokio::test]
async fn a_page_is_served_with_a_policy() {
    let gateway =
        gateway().page("/", "text/html", "<p>ä").page("/app.js", "text/javascript; charset=utf-8", "1");
    let open = Builder::full().await.open(gateway).await;
    let reply = open.get("/?x=1").await;
    assert_eq!((reply.status, reply.body.as_slice()), (200, "<p>ä".as_bytes()));
    assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(reply.header("content-security-policy").unwrap().starts_with("default-src 'self';"));
    assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(open.get("/app.js").await.header("content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(open.post("/", "{}").await.header("allow"), Some("GET, HEAD"));
}

#[tokio::test]
async fn one_connection_serves_many_requests_in_turn() {
    let open = open().await;
    let mut connection = open.connect().await;
    let one = request("POST /api/v1/sign-up", &[JSON], GOOD);
    connection.send(&one.repeat(3)).await;
    for _ in 0..3 {
        assert_eq!(connection.reply().await.status, 200);
    }
}

#[tokio::test]
async fn shapes_that_smuggle_a_second_request_are_refused_and_the_connection_closed() {
    let open = open().await;
    let hidden = "GET /api/v1/users/7 HTTP/1.1\r\nhost: a\r\n\r\n";
    for head in [
        "content-length: 5\r\ncontent-length: 6",
        "content-length: +5",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: xchunked",
        " folded: yes",
        "bad name: x",
    ] {
        let mut connection = open.connect().await;
        connection.send(&format!("POST /api/v1/sign-up HTTP/1.1\r\nhost: a\r\n{head}\r\n\r\n{hidden}")).await;
        let told = connection.ended().await;
        assert!(told.starts_with("HTTP/1.1 400"), "{head}: {told}");
        assert_eq!(told.matches("HTTP/1.1").count(), 1, "{head}: {told}");
    }
    // Both lengths at once: the chunks count (RFC 9112, 6.3), and nothing of them is taken for a request.
    let mut connection = open.connect().await;
    connection.send("POST /api/v1/sign-up HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n").await;
    connection.send(hidden).await;
    let told = connection.ended().await;
    assert!(told.matches("HTTP/1.1").count() <= 1, "{told}");
}

#[tokio::test]
async fn a_gateway_in_a_process_of_its_own_serves_the_contracts_it_is_given() {
    let builder = Builder::new()
        .command::<crate::contracts::RemoveUser>(|_, _| Ok(()))
        .await
        .command::<crate::contracts::SignUp>(|_, _| Err(purista_core::error::HandlerError::conflict("taken")))
        .await;
    let stop = tokio_util::sync::CancellationToken::new();
    let gateway = Gateway::new(builder.client()).command::<crate::contracts::SignUp>();
    let door = gateway.serve("127.0.0.1:0", stop.clone()).await.unwrap();
    let mut connection = crate::support::Connection::to(door.place.strip_prefix("http://").unwrap()).await;
    connection.send(&request("POST /api/v1/sign-up", &[JSON], GOOD)).await;
    connection.reply().await.problem(409);
    connection.send(&request("DELETE /api/v1/users/7", &[KEY], "")).await;
    connection.reply().await.problem(404);
    connection.send(&request("GET /readyz", &[], "")).await;
    assert_eq!(connection.reply().await.status, 200);
    stop.cancel();
    tokio::time::timeout(PATIENCE, door.closed).await.unwrap();
}
