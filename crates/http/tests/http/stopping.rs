//! How a gateway ends: what was read is answered, what waits is closed, nothing is left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use purista_core::error::HandlerError;
use purista_http::limits::Limits;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::contracts::SignUp;
use crate::requests::GOOD;
use crate::support::{Builder, Connection, Open, PATIENCE, gateway, request};

const JSON: &str = "content-type: application/json";

struct Slow {
    open: Open,
    begun: Arc<Notify>,
    go: Arc<Notify>,
    ended: Arc<AtomicBool>,
}

/// A house whose command waits until it is let go, and remembers that it came to its end.
async fn slow() -> Slow {
    let (begun, go, ended) =
        (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let (tell, wait, end) = (Arc::clone(&begun), Arc::clone(&go), Arc::clone(&ended));
    let work = Arc::new(move |_: SignUp, _| {
        let (tell, wait, end) = (Arc::clone(&tell), Arc::clone(&wait), Arc::clone(&end));
        let working: futures_util::future::BoxFuture<'static, _> = Box::pin(async move {
            tell.notify_one();
            wait.notified().await;
            end.store(true, Ordering::SeqCst);
            Err(HandlerError::not_found("let go"))
        });
        working
    });
    let open = Builder::new().command_of::<SignUp>(work).await.open(gateway()).await;
    Slow { open, begun, go, ended }
}

#[tokio::test]
async fn a_request_that_was_read_is_answered_and_idle_connections_are_closed() {
    let Slow { open, begun, go, .. } = slow().await;
    let (mut idle, mut fresh, mut busy) = (open.connect().await, open.connect().await, open.connect().await);
    idle.send(&request("GET /readyz", &[], "")).await;
    assert_eq!(idle.reply().await.status, 200);
    busy.send(&request("POST /api/v1/sign-up", &[JSON], GOOD)).await;
    begun.notified().await;
    open.house.stop.cancel();
    assert_eq!(idle.ended().await, "");
    assert_eq!(fresh.ended().await, "");
    let mut closed = open.closed;
    assert!(futures_util::poll!(&mut closed).is_pending());
    go.notify_one();
    let reply = busy.reply().await;
    assert_eq!(reply.header("connection"), Some("close"));
    reply.problem(404);
    assert_eq!(busy.ended().await, "");
    tokio::time::timeout(PATIENCE, closed).await.unwrap();
    assert!(TcpStream::connect(open.address).await.is_err());
    open.house.tasks.close();
    tokio::time::timeout(PATIENCE, open.house.tasks.wait()).await.unwrap();
}

#[tokio::test]
async fn what_waits_in_the_queue_of_the_system_when_the_gateway_stops_is_answered_too() {
    let open = Builder::full().await.open(gateway()).await;
    assert_eq!(open.get("/readyz").await.status, 200);
    let alive = request("GET /healthz", &[], "");
    let mut waiting: Vec<_> = (0..8).map(|_| Connection::that_said(&alive, open.address)).collect();
    open.house.stop.cancel();
    for connection in &mut waiting {
        let reply = connection.reply().await;
        assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
        assert_eq!(connection.ended().await, "");
    }
    tokio::time::timeout(PATIENCE, open.closed).await.unwrap();
}

#[tokio::test]
async fn a_gateway_that_stops_is_not_ready() {
    let open = Builder::full().await.open(gateway()).await;
    let mut begun = open.connect().await;
    begun.send("GET /readyz HTTP/1.1\r\n").await;
    // By the time that others were answered, the half of a head has been read.
    for _ in 0..3 {
        assert_eq!(open.get("/readyz").await.status, 200);
    }
    open.house.stop.cancel();
    begun.send("host: a\r\n\r\n").await;
    let reply = begun.reply().await;
    assert_eq!((reply.status, reply.json()["ready"].as_bool()), (503, Some(false)));
    tokio::time::timeout(PATIENCE, open.closed).await.unwrap();
}

#[tokio::test]
async fn a_handler_whose_caller_went_away_runs_to_its_end_before_the_gateway_is_closed() {
    let Slow { open, begun, go, ended } = slow().await;
    let mut gone = open.connect().await;
    gone.send(&request("POST /api/v1/sign-up", &[JSON], GOOD)).await;
    begun.notified().await;
    drop(gone);
    open.house.stop.cancel();
    let mut closed = open.closed;
    assert!(futures_util::poll!(&mut closed).is_pending());
    assert!(!ended.load(Ordering::SeqCst));
    go.notify_one();
    tokio::time::timeout(PATIENCE, closed).await.unwrap();
    assert!(ended.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_connection_that_is_waited_for_in_vain_does_not_hold_up_the_end() {
    let limits = Limits::default().connections(1);
    let open = Builder::full().await.open(gateway().limits(limits)).await;
    let mut first = open.connect().await;
    first.send(&request("GET /readyz", &[], "")).await;
    assert_eq!(first.reply().await.status, 200);
    let _waiting = open.connect().await;
    open.house.stop.cancel();
    tokio::time::timeout(PATIENCE, open.closed).await.unwrap();
}
