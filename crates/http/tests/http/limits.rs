//! Every limit at its value and past it.

use std::sync::Arc;
use std::time::Duration;

use purista_core::error::HandlerError;
use purista_http::limits::{
    BODY_BYTES_MAX, CONNECTIONS_MAX, HEADER_BYTES_MAX, HEADERS_MAX, IN_FLIGHT_MAX, Limits, STREAMS_MAX,
    URL_BYTES_MAX,
};
use tokio::sync::Notify;

use crate::contracts::SignUp;
use crate::requests::GOOD;
use crate::support::{Builder, Open, PATIENCE, Reply, gateway, request};

const JSON: &str = "content-type: application/json";
/// A time limit that a test can wait for, and a machine under load keeps.
const SHORT: Duration = Duration::from_millis(300);

async fn with(limits: Limits) -> Open {
    Builder::full().await.open(gateway().limits(limits)).await
}

/// A body of exactly this many bytes.
fn body_of(bytes: usize) -> String {
    let rest = r#"{"email":"a@b.de","name":"Ann"}"#;
    format!("{}{rest}", " ".repeat(bytes - rest.len()))
}

async fn chunked(open: &Open, body: &str) -> Reply {
    let mut connection = open.connect().await;
    connection.send(&request("POST /api/v1/sign-up", &[JSON, "transfer-encoding: chunked"], "")).await;
    for part in body.as_bytes().chunks(60_000) {
        let part = std::str::from_utf8(part).unwrap();
        // Past the limit nobody may read on.
        if !connection.try_send(&format!("{:x}\r\n{part}\r\n", part.len())).await {
            break;
        }
    }
    connection.try_send("0\r\n\r\n").await;
    connection.reply().await
}

#[tokio::test]
async fn a_body_of_896_kib_is_read_and_one_byte_more_is_413() {
    assert_eq!(BODY_BYTES_MAX, 896 * 1024);
    let open = with(Limits::default()).await;
    let (fits, too_large) = (body_of(BODY_BYTES_MAX), body_of(BODY_BYTES_MAX + 1));
    assert_eq!(open.post("/api/v1/sign-up", &fits).await.status, 200);
    assert_eq!(chunked(&open, &fits).await.status, 200);
    open.post("/api/v1/sign-up", &too_large).await.problem(413);
    chunked(&open, &too_large).await.problem(413);
}

#[tokio::test]
async fn a_body_that_only_claims_to_be_too_large_is_413_before_it_comes() {
    let open = with(Limits::default().body_bytes(100)).await;
    let mut connection = open.connect().await;
    connection.send(&request("POST /api/v1/sign-up", &[JSON, "content-length: 99999999999"], "")).await;
    connection.reply().await.problem(413);
    let mut connection = open.connect().await;
    connection
        .send(&request("POST /api/v1/sign-up", &[JSON, "expect: 100-continue", "content-length: 101"], ""))
        .await;
    connection.reply().await.problem(413);
}

#[tokio::test]
async fn header_fields_are_read_up_to_64_and_more_are_431() {
    let open = with(Limits::default()).await;
    for (count, status) in [(HEADERS_MAX, 200), (HEADERS_MAX + 1, 431), (90, 431)] {
        let fields: Vec<String> = (1..count).map(|index| format!("x-{index}: 1")).collect();
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let reply = open.ask("GET /api/v1/users/7", &fields, "").await;
        assert_eq!(reply.status, status, "{count}");
        if status == 431 {
            reply.problem(431);
        }
    }
    // Past what hyper holds it answers by itself, without a body.
    let many: Vec<String> = (0..101).map(|index| format!("x-{index}: 1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(open.ask("GET /api/v1/users/7", &many, "").await.status, 431);
}

#[tokio::test]
async fn more_header_fields_can_be_allowed() {
    let open = with(Limits::default().headers(150)).await;
    for (count, status) in [(150, 200), (151, 431)] {
        let fields: Vec<String> = (1..count).map(|index| format!("x-{index}: 1")).collect();
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        assert_eq!(open.ask("GET /api/v1/users/7", &fields, "").await.status, status, "{count}");
    }
}

#[tokio::test]
async fn header_fields_are_read_up_to_16_kib_and_more_are_431() {
    assert_eq!(HEADER_BYTES_MAX, 16 * 1024);
    let open = with(Limits::default()).await;
    // Each field counts its name, its value and four bytes between; `host: test` is 12.
    let fits = HEADER_BYTES_MAX - 12 - 5;
    assert_eq!(open.ask("GET /api/v1/users/7", &[&format!("x: {}", "v".repeat(fits))], "").await.status, 200);
    open.ask("GET /api/v1/users/7", &[&format!("x: {}", "v".repeat(fits + 1))], "").await.problem(431);
    let mut connection = open.connect().await;
    connection
        .try_send(&request("GET /api/v1/users/7", &[&format!("x: {}", "v".repeat(1024 * 1024))], ""))
        .await;
    // A head that fits no buffer is answered by hyper, or cut off while it still comes.
    let mut told = [0; 12];
    if tokio::io::AsyncReadExt::read_exact(&mut connection.stream, &mut told).await.is_ok() {
        assert_eq!(&told, b"HTTP/1.1 431");
    }
    assert_eq!(open.get("/api/v1/users/7").await.status, 200);
}

#[tokio::test]
async fn a_url_is_read_up_to_8_kib_and_a_longer_one_is_414() {
    assert_eq!(URL_BYTES_MAX, 8 * 1024);
    let open = with(Limits::default()).await;
    let url = |bytes: usize| format!("/api/v1/users/7?x={}", "y".repeat(bytes - "/api/v1/users/7?x=".len()));
    assert_eq!(open.get(&url(URL_BYTES_MAX)).await.status, 200);
    open.get(&url(URL_BYTES_MAX + 1)).await.problem(414);
    open.get(&url(2 * URL_BYTES_MAX)).await.problem(414);
}

#[tokio::test]
async fn a_connection_without_a_whole_head_is_closed_in_time() {
    let open = with(Limits::default().header_time(SHORT).idle_time(PATIENCE)).await;
    let (mut silent, mut slow) = (open.connect().await, open.connect().await);
    slow.send("GET /api/v1/users/7 HTTP/1.1\r\nhost: a\r\nx-slow: ").await;
    assert_eq!(silent.ended().await, "");
    assert_eq!(slow.ended().await, "");
    let mut second = open.connect().await;
    second.send(&request("GET /api/v1/users/7", &[], "")).await;
    assert_eq!(second.reply().await.status, 200);
    second.send("GET /api/v1/users/7 HTTP/1.1\r\n").await;
    assert_eq!(second.ended().await, "");
}

#[tokio::test]
async fn a_head_that_takes_long_is_served_while_it_is_in_time() {
    let open = with(Limits::default().header_time(10 * SHORT).idle_time(PATIENCE)).await;
    let mut connection = open.connect().await;
    connection.send("GET /api/v1/users/7 HTTP/1.1\r\n").await;
    tokio::time::sleep(SHORT).await; // real time: the time between two parts of a head is what is tested
    connection.send("host: a\r\n\r\n").await;
    assert_eq!(connection.reply().await.status, 200);
}

#[tokio::test]
async fn a_connection_waits_for_its_next_request_up_to_the_idle_time_only() {
    let idle = 10 * SHORT;
    let open = with(Limits::default().header_time(SHORT).idle_time(idle)).await;
    let mut connection = open.connect().await;
    connection.send(&request("GET /api/v1/users/7", &[], "")).await;
    assert_eq!(connection.reply().await.status, 200);
    tokio::time::sleep(2 * SHORT).await; // real time: a pause between requests that is longer than a head may take
    connection.send(&request("GET /api/v1/users/7", &[], "")).await;
    assert_eq!(connection.reply().await.status, 200);
    let answered = tokio::time::Instant::now();
    assert_eq!(connection.ended().await, "");
    assert!(answered.elapsed() + SHORT >= idle, "{:?}", answered.elapsed());
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_408() {
    let open = with(Limits::default().body_time(SHORT)).await;
    let mut connection = open.connect().await;
    connection.send(&request("POST /api/v1/sign-up", &[JSON, "content-length: 100"], "")).await;
    connection.send("{\"email\"").await;
    connection.reply().await.problem(408);
    connection.ended().await;
}

#[tokio::test]
async fn a_body_that_comes_in_parts_is_read_while_it_is_in_time() {
    let open = with(Limits::default()).await;
    let mut connection = open.connect().await;
    connection
        .send(&request("POST /api/v1/sign-up", &[JSON, &format!("content-length: {}", GOOD.len())], ""))
        .await;
    connection.send(&GOOD[..9]).await;
    connection.send(&GOOD[9..]).await;
    assert_eq!(connection.reply().await.status, 200);
}

/// A house whose command waits until it is let go.
async fn waiting(limits: Limits) -> (Open, Arc<Notify>, Arc<Notify>) {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&begun), Arc::clone(&go));
    let work = Arc::new(move |_: SignUp, _| {
        let (tell, wait) = (Arc::clone(&tell), Arc::clone(&wait));
        let waiting: futures_util::future::BoxFuture<'static, _> = Box::pin(async move {
            tell.notify_one();
            wait.notified().await;
            Err(HandlerError::not_found("let go"))
        });
        waiting
    });
    let open = Builder::new().command_of::<SignUp>(work).await.open(gateway().limits(limits)).await;
    (open, begun, go)
}

#[tokio::test]
async fn a_request_too_many_is_503_until_another_has_ended() {
    assert_eq!(IN_FLIGHT_MAX, 512);
    let (open, begun, go) = waiting(Limits::default().in_flight(2)).await;
    let post = request("POST /api/v1/sign-up", &[JSON], GOOD);
    let (mut first, mut second) = (open.connect().await, open.connect().await);
    for connection in [&mut first, &mut second] {
        connection.send(&post).await;
        begun.notified().await;
    }
    let reply = open.post("/api/v1/sign-up", GOOD).await;
    assert_eq!(reply.header("retry-after"), Some("1"));
    reply.problem(503);
    // Probes are no work: a busy host lives.
    assert_eq!(open.get("/healthz").await.status, 200);
    go.notify_one();
    first.reply().await.problem(404);
    let mut third = open.connect().await;
    third.send(&post).await;
    begun.notified().await;
    go.notify_waiters();
    second.reply().await.problem(404);
    third.reply().await.problem(404);
}

#[tokio::test]
async fn a_caller_that_goes_away_keeps_its_place_until_the_handler_has_ended() {
    let (open, begun, go) = waiting(Limits::default().in_flight(1)).await;
    let mut gone = open.connect().await;
    gone.send(&request("POST /api/v1/sign-up", &[JSON], GOOD)).await;
    begun.notified().await;
    drop(gone);
    // The gateway learns of it whenever it looks: the place stays taken before and after.
    for _ in 0..20 {
        open.post("/api/v1/sign-up", GOOD).await.problem(503);
    }
    go.notify_one();
    // The place comes back once the handler has ended.
    let mut connection = loop {
        let mut connection = open.connect().await;
        connection.send(&request("POST /api/v1/sign-up", &[JSON], GOOD)).await;
        tokio::select! {
            () = begun.notified() => break connection,
            refused = connection.reply() => { refused.problem(503); }
        }
    };
    go.notify_one();
    connection.reply().await.problem(404);
}

#[tokio::test]
async fn a_connection_too_many_waits_while_every_other_has_a_request_in_its_handler() {
    assert_eq!((CONNECTIONS_MAX, STREAMS_MAX), (1024, 100));
    let (open, begun, go) = waiting(Limits::default().connections(2)).await;
    let (mut first, mut second) = (open.connect().await, open.connect().await);
    for connection in [&mut first, &mut second] {
        connection.send(&request("POST /api/v1/sign-up", &[JSON], GOOD)).await;
        begun.notified().await;
    }
    let mut third = open.connect().await;
    third.send(&request("GET /healthz", &[], "")).await;
    let early = tokio::time::timeout(SHORT, third.reply()).await; // real time: that nothing comes is what is tested
    assert!(early.is_err());
    go.notify_one();
    first.reply().await.problem(404);
    // The first one idles now, and gives way.
    assert_eq!(third.reply().await.status, 200);
    assert_eq!(first.ended().await, "");
    go.notify_one();
    second.reply().await.problem(404);
}
