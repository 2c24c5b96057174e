//! Callers that hold on to connections and bodies, while an honest one is always served.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::Request;
use hyper::body::{Body, Frame};
use hyper_util::rt::{TokioExecutor, TokioIo};
use purista_core::error::HandlerError;
use purista_http::limits::{
    BODY_RATE_AFTER, BODY_RATE_MIN, BUFFERED_BYTES_MAX, CONNECTIONS_PER_PEER_MAX, Limits,
};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::contracts::SignUp;
use crate::requests::GOOD;
use crate::support::{Builder, Connection, Open, PATIENCE, gateway, request};

const JSON: &str = "content-type: application/json";
/// An address of this machine that is not the honest caller's.
const ATTACKER: [u8; 4] = [127, 0, 0, 2];
/// A time limit that a test can wait for, and a machine under load keeps.
const SHORT: Duration = Duration::from_millis(300);

async fn with(limits: Limits) -> Open {
    Builder::full().await.open(gateway().limits(limits)).await
}

/// A connection from this address.
async fn connect_from(address: [u8; 4], open: &Open) -> Connection {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((address, 0))).unwrap();
    Connection::on(socket.connect(open.address).await.unwrap())
}

/// A head, with this much of a body that does not end.
fn begun(body: &str) -> String {
    request("POST /api/v1/sign-up", &[JSON, "content-length: 5000"], "") + body
}

/// An honest caller, with a connection for each of its requests.
async fn is_served(open: &Open) {
    for _ in 0..10 {
        assert_eq!(open.post("/api/v1/sign-up", GOOD).await.status, 200);
        assert_eq!(open.get("/api/v1/users/7").await.status, 200);
    }
}

/// Waits until all of these were accepted: the honest caller stands behind them in the queue of the system.
async fn accepted(open: &Open) {
    assert_eq!(open.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn bodies_that_arrive_slowly_keep_no_command_from_running() {
    let open = with(Limits::default().in_flight(4).body_time(PATIENCE).body_rate(1, PATIENCE)).await;
    let mut slow = Vec::new();
    for _ in 0..32 {
        let mut connection = open.connect().await;
        connection.send(&begun(r#"{"email":"#)).await;
        slow.push(connection);
    }
    accepted(&open).await;
    is_served(&open).await;
}

/// A body that begins and never ends.
struct Endless(Option<Bytes>);

impl Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        // Nothing wakes it: no further part comes.
        self.0.take().map_or(Poll::Pending, |bytes| Poll::Ready(Some(Ok(Frame::data(bytes)))))
    }
}

#[tokio::test]
async fn bodies_that_arrive_slowly_on_a_few_connections_of_http2_keep_no_command_from_running() {
    let open = with(Limits::default().in_flight(8).body_time(PATIENCE).body_rate(1, PATIENCE)).await;
    let mut tasks = JoinSet::new();
    let mut senders = Vec::new();
    for _ in 0..2 {
        let stream = TokioIo::new(TcpStream::connect(open.address).await.unwrap());
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tasks.spawn(async move { drop(connection.await) });
        for _ in 0..60 {
            let begun = Request::post("http://test/api/v1/sign-up")
                .header("content-type", "application/json")
                .body(Endless(Some(Bytes::from_static(b"{\"email\":"))))
                .unwrap();
            tasks.spawn({
                let answering = sender.send_request(begun);
                async move { drop(answering.await) }
            });
        }
        sender.ready().await.unwrap();
        senders.push(sender);
    }
    accepted(&open).await;
    is_served(&open).await;
}

#[tokio::test]
async fn silent_connections_give_way_to_new_ones() {
    let limits = Limits::default().connections(8).header_time(PATIENCE).idle_time(PATIENCE);
    let open = with(limits).await;
    let mut silent = Vec::new();
    for number in 0..30 {
        let mut connection = open.connect().await;
        // Some have begun a head, and some idle after an answer.
        match number % 3 {
            0 => connection.send("GET /api/v1/users/7 HTTP/1.1\r\nx-").await,
            1 => connection.send(&request("GET /healthz", &[], "")).await,
            _ => {}
        }
        silent.push(connection);
    }
    is_served(&open).await;
    // The first ones went long ago.
    silent[0].ended().await;
}

#[tokio::test]
async fn connections_with_bodies_that_arrive_slowly_give_way_to_new_ones() {
    let limits = Limits::default().connections(8).body_time(PATIENCE).body_rate(1, PATIENCE);
    let open = with(limits).await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut connection = open.connect().await;
        connection.try_send(&begun("{")).await;
        slow.push(connection);
    }
    is_served(&open).await;
}

#[tokio::test]
async fn a_peer_has_as_many_connections_as_allowed_and_others_and_trusted_proxies_are_served() {
    assert_eq!(CONNECTIONS_PER_PEER_MAX, 64);
    let proxy = [127, 0, 0, 3];
    let (begun, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (tell, wait) = (Arc::clone(&begun), Arc::clone(&go));
    let work = Arc::new(move |_: SignUp, _| {
        let (tell, wait) = (Arc::clone(&tell), Arc::clone(&wait));
        let waiting: futures_util::future::BoxFuture<'static, _> = Box::pin(async move {
            tell.add_permits(1);
            wait.acquire().await.unwrap().forget();
            Err(HandlerError::not_found("let go"))
        });
        waiting
    });
    let limits = Limits::default().connections_per_peer(2).trusted_proxy(IpAddr::from(proxy));
    let open = Builder::new().command_of::<SignUp>(work).await.open(gateway().limits(limits)).await;
    let post = request("POST /api/v1/sign-up", &[JSON], GOOD);
    let mut busy = Vec::new();
    for address in [ATTACKER, ATTACKER, proxy, proxy, proxy] {
        let mut connection = connect_from(address, &open).await;
        connection.send(&post).await;
        begun.acquire().await.unwrap().forget();
        busy.push(connection);
    }
    assert_eq!(connect_from(ATTACKER, &open).await.ended().await, "");
    assert_eq!(open.get("/healthz").await.status, 200);
    go.add_permits(busy.len());
    for connection in &mut busy {
        connection.reply().await.problem(404);
    }
    // Both idle now, one of its connections gives way to a new one of its own.
    let mut third = connect_from(ATTACKER, &open).await;
    third.send(&request("GET /healthz", &[], "")).await;
    assert_eq!(third.reply().await.status, 200);
    let [first, second, ..] = &mut busy[..] else { panic!("five were opened") };
    tokio::select! {
        ended = first.ended() => assert_eq!(ended, ""),
        ended = second.ended() => assert_eq!(ended, ""),
    }
}

#[tokio::test]
async fn a_body_below_the_least_rate_is_408_and_one_above_it_is_read() {
    assert_eq!((BODY_RATE_MIN, BODY_RATE_AFTER), (1024, Duration::from_secs(5)));
    let open = with(Limits::default().body_time(2 * PATIENCE).body_rate(1_000, SHORT)).await;
    let mut slow = open.connect().await;
    slow.send(&begun(&GOOD[..9])).await;
    slow.reply().await.problem(408);
    // These bytes are worth far more time than the test needs.
    let blank = " ".repeat(60_000);
    let length = format!("content-length: {}", blank.len() + GOOD.len());
    let mut steady = open.connect().await;
    steady.send(&request("POST /api/v1/sign-up", &[JSON, &length], "")).await;
    steady.send(&blank).await;
    tokio::time::sleep(2 * SHORT).await; // real time: a pause longer than a body may take at any rate
    steady.send(GOOD).await;
    assert_eq!(steady.reply().await.status, 200);
}

#[tokio::test]
async fn the_bytes_of_bodies_that_are_being_read_are_bounded_and_a_peer_has_its_share() {
    assert_eq!(BUFFERED_BYTES_MAX, 64 * 1024 * 1024);
    let limits = Limits::default().body_bytes(8_000).header_bytes(500).url_bytes(500).buffered_bytes(40_000);
    let open = with(limits.body_time(PATIENCE).body_rate(1, PATIENCE)).await;
    let mut held = Vec::new();
    let mut refused = None;
    for _ in 0..4 {
        let mut connection = connect_from(ATTACKER, &open).await;
        connection.send(&begun(&" ".repeat(4_000))).await;
        held.push(connection);
    }
    // A peer has a quarter: two of them fit, and the others are refused.
    for connection in held {
        let mut connection = connection;
        if let Ok(reply) = tokio::time::timeout(SHORT, connection.reply()).await {
            // real time: those that fit are not answered
            refused = Some(reply);
        }
    }
    let refused = refused.expect("all bodies were buffered");
    assert_eq!(refused.header("retry-after"), Some("1"));
    refused.problem(503);
    is_served(&open).await;
}
