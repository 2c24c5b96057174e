//! HTTP/2 without TLS, as proxies speak it to the programs behind them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::poll_fn;
use hyper::Request;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use purista_core::error::HandlerError;
use purista_http::limits::Limits;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::contracts::SignUp;
use crate::requests::GOOD;
use crate::support::{Builder, Open, PATIENCE, gateway};

/// A body that is there at once.
struct Whole(Option<Bytes>);
impl Body for Whole {
    type Data = Bytes;
    type Error = std::convert::Infallible;
    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }
    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// A connection, which the set drives.
async fn connect(open: &Open, tasks: &mut JoinSet<()>) -> SendRequest<Whole> {
    let stream = TokioIo::new(TcpStream::connect(open.address).await.unwrap());
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tasks.spawn(async move {
        let _ = connection.await;
    });
    sender
}

fn post(json: &str) -> Request<Whole> {
    Request::post("http://test/api/v1/sign-up")
        .header("content-type", "application/json")
        .body(Whole(Some(Bytes::copy_from_slice(json.as_bytes()))))
        .unwrap()
}

fn get(path: &str) -> Request<Whole> {
    Request::get(format!("http://test{path}")).body(Whole(None)).unwrap()
}

async fn read(mut body: Incoming) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(frame) = poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await {
        whole.extend_from_slice(&frame.unwrap().into_data().unwrap_or_default());
    }
    whole
}

#[tokio::test]
async fn requests_of_http2_are_served_alike() {
    let open = Builder::full().await.open(gateway()).await;
    let mut tasks = JoinSet::new();
    let mut sender = connect(&open, &mut tasks).await;
    let reply = sender.send_request(post(GOOD)).await.unwrap();
    assert_eq!(reply.status(), 200);
    assert!(String::from_utf8(read(reply.into_body()).await).unwrap().contains("u1"));
    assert_eq!(sender.send_request(post("[]")).await.unwrap().status(), 400);
    assert_eq!(sender.send_request(get("/nowhere")).await.unwrap().status(), 404);
    let head = Request::head("http://test/api/v1/users/7").body(Whole(None)).unwrap();
    let reply = sender.send_request(head).await.unwrap();
    assert_eq!((reply.status().as_u16(), reply.headers().contains_key("content-length")), (200, true));
    assert!(read(reply.into_body()).await.is_empty());
    let too_long = format!("/api/v1/users/7?x={}", "y".repeat(8 * 1024));
    assert_eq!(sender.send_request(get(&too_long)).await.unwrap().status(), 414);
    let mut heavy = get("/api/v1/users/7");
    heavy.headers_mut().insert("x-heavy", "v".repeat(16 * 1024).parse().unwrap());
    assert_eq!(sender.send_request(heavy).await.unwrap().status(), 431);
    let large = format!("{}{GOOD}", " ".repeat(896 * 1024));
    assert_eq!(sender.send_request(post(&large)).await.unwrap().status(), 413);
    assert_eq!(sender.send_request(post(GOOD)).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_connection_has_as_many_requests_under_way_as_allowed_and_the_rest_wait() {
    let (gate, begun) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (wait, tell) = (Arc::clone(&gate), Arc::clone(&begun));
    let work = Arc::new(move |_: SignUp, _| {
        let (wait, tell) = (Arc::clone(&wait), Arc::clone(&tell));
        let working: futures_util::future::BoxFuture<'static, _> = Box::pin(async move {
            tell.add_permits(1);
            wait.acquire().await.unwrap().forget();
            Err(HandlerError::not_found("let go"))
        });
        working
    });
    let limits = Limits::default().streams(3);
    let open = Builder::new().command_of::<SignUp>(work).await.open(gateway().limits(limits)).await;
    let mut tasks = JoinSet::new();
    let mut sender = connect(&open, &mut tasks).await;
    // The peer learns how many it may open with the first answer.
    assert_eq!(sender.send_request(get("/readyz")).await.unwrap().status(), 200);
    let mut replies = JoinSet::new();
    for _ in 0..4 {
        replies.spawn(sender.send_request(post(GOOD)));
    }
    begun.acquire_many(3).await.unwrap().forget();
    let fourth = tokio::time::timeout(Duration::from_millis(200), begun.acquire()).await; // real time: that it does not begin
    assert!(fourth.is_err());
    gate.add_permits(1);
    begun.acquire().await.unwrap().forget();
    gate.add_permits(3);
    while let Some(reply) = replies.join_next().await {
        assert_eq!(reply.unwrap().unwrap().status(), 404);
    }
}

#[tokio::test]
async fn a_connection_of_http2_outlives_the_time_for_a_head_and_is_closed_when_idle() {
    let short = Duration::from_millis(200);
    let limits = Limits::default().header_time(short).idle_time(12 * short);
    let open = Builder::full().await.open(gateway().limits(limits)).await;
    let mut tasks = JoinSet::new();
    let mut sender = connect(&open, &mut tasks).await;
    tokio::time::sleep(2 * short).await; // real time: a pause that is longer than a head may take
    assert_eq!(sender.send_request(get("/readyz")).await.unwrap().status(), 200);
    tokio::time::timeout(PATIENCE, tasks.join_next()).await.unwrap();
}

#[tokio::test]
async fn a_gateway_that_stops_answers_what_it_has_and_says_goodbye() {
    let open = Builder::full().await.open(gateway()).await;
    let mut tasks = JoinSet::new();
    let mut sender = connect(&open, &mut tasks).await;
    assert_eq!(sender.send_request(post(GOOD)).await.unwrap().status(), 200);
    open.house.stop.cancel();
    tokio::time::timeout(PATIENCE, open.closed).await.unwrap();
    tokio::time::timeout(PATIENCE, tasks.join_next()).await.unwrap();
    open.house.tasks.close();
    tokio::time::timeout(PATIENCE, open.house.tasks.wait()).await.unwrap();
}
