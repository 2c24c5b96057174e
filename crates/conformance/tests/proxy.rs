//! The proxy does to connections what it says, and leaves nothing behind.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is a failed test")]

use std::io::ErrorKind;
use std::time::Duration;

use futures_util::FutureExt as _;
use purista_conformance::proxy::Proxy;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

const PATIENCE: Duration = Duration::from_secs(10);

/// Sends back whatever it is sent, behind a proxy.
struct Echo {
    proxy: Proxy,
    _stop: DropGuard,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let serving = {
            let (stop, tasks) = (stop.clone(), tasks.clone());
            async move {
                while let Some(Ok((mut client, _))) = stop.run_until_cancelled(listener.accept()).await {
                    tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
                        let (mut from, mut to) = client.split();
                        // An error is the end of the connection that a test asked for.
                        let _ = tokio::io::copy(&mut from, &mut to).await;
                    }));
                }
            }
        };
        tasks.spawn(serving);
        Self { proxy: Proxy::start(port).await, _stop: stop.drop_guard() }
    }

    async fn client(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.proxy.port())).await.unwrap()
    }

    /// A client that has been answered.
    async fn talking(&self) -> TcpStream {
        let mut client = self.client().await;
        assert_eq!(ask(&mut client, "hello").await, "hello");
        client
    }
}

async fn ask(client: &mut TcpStream, what: &str) -> String {
    client.write_all(what.as_bytes()).await.unwrap();
    let mut answer = vec![0; what.len()];
    tokio::time::timeout(PATIENCE, client.read_exact(&mut answer)).await.expect("it answers").unwrap();
    String::from_utf8(answer).unwrap()
}

/// Reads what is left; how it ended.
async fn rest(client: &mut TcpStream) -> Result<Vec<u8>, ErrorKind> {
    let mut rest = Vec::new();
    let reading = tokio::time::timeout(PATIENCE, client.read_to_end(&mut rest));
    reading.await.expect("it ends").map(|_| rest).map_err(|error| error.kind())
}

async fn until_none_is_open(proxy: &Proxy) {
    let none = async {
        while proxy.open() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, none).await.expect("connections end");
}

#[tokio::test]
async fn what_nobody_disturbs_passes_and_is_counted() {
    let echo = Echo::start().await;
    let mut client = echo.talking().await;
    let large = "x".repeat(1 << 20);
    let (mut from, mut to) = client.split();
    let mut answer = vec![0; large.len()];
    let (written, read) = tokio::join!(to.write_all(large.as_bytes()), from.read_exact(&mut answer));
    assert!(written.is_ok() && read.is_ok() && answer == large.as_bytes());
    let _other = echo.talking().await;
    assert_eq!((echo.proxy.connects(), echo.proxy.open()), (2, 2));
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await.unwrap(), b"", "the end of one side reaches the other");
    while echo.proxy.open() > 1 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_cut_ends_and_a_reset_says_so() {
    let echo = Echo::start().await;
    let (mut first, mut second) = (echo.talking().await, echo.talking().await);
    echo.proxy.cut();
    assert_eq!(rest(&mut first).await.unwrap(), b"");
    assert_eq!(rest(&mut second).await.unwrap(), b"");
    until_none_is_open(&echo.proxy).await;
    let mut third = echo.talking().await;
    echo.proxy.reset();
    assert_eq!(rest(&mut third).await.unwrap_err(), ErrorKind::ConnectionReset);
    echo.talking().await;
}

#[tokio::test]
async fn a_half_closed_connection_says_nothing_more_and_still_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap().port()).await;
    let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    proxy.half_close();
    assert_eq!(rest(&mut client).await.unwrap(), b"");
    client.write_all(b"still here").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut server).await.unwrap(), b"still here");
}

#[tokio::test]
async fn silence_holds_everything_back_until_it_is_over() {
    let echo = Echo::start().await;
    let mut client = echo.talking().await;
    echo.proxy.silence(true);
    client.write_all(b"more").await.unwrap();
    let mut answer = [0; 4];
    let mut reading = Box::pin(client.read_exact(&mut answer));
    let waited = tokio::time::timeout(Duration::from_millis(200), &mut reading).await; // real time: nothing comes
    assert!(waited.is_err());
    let mut new = echo.client().await;
    assert!(new.read(&mut [0]).now_or_never().is_none(), "a new connection is made, and silent too");
    echo.proxy.silence(false);
    tokio::time::timeout(PATIENCE, reading).await.expect("it comes").unwrap();
    assert_eq!(answer, *b"more");
    assert_eq!(ask(&mut new, "hello").await, "hello");
}

#[tokio::test]
async fn delay_and_throttle_take_their_time_and_lose_nothing() {
    let echo = Echo::start().await;
    let mut client = echo.talking().await;
    echo.proxy.delay(Duration::from_millis(50));
    let began = Instant::now();
    assert_eq!(ask(&mut client, "slow").await, "slow");
    assert!(began.elapsed() >= Duration::from_millis(100), "{:?}", began.elapsed());
    echo.proxy.delay(Duration::ZERO);
    echo.proxy.throttle(Some(40_000));
    let began = Instant::now();
    // The bound is kept behind each chunk, so that the last one goes at once.
    for _ in 0..3 {
        assert_eq!(ask(&mut client, &"x".repeat(4_000)).await.len(), 4_000);
    }
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_cut_after_some_bytes_lets_exactly_them_pass() {
    let echo = Echo::start().await;
    echo.proxy.cut_after(Some(7));
    let mut client = echo.client().await;
    client.write_all(b"hello").await.unwrap();
    // Five there, two back.
    assert_eq!(rest(&mut client).await.unwrap_or_default(), b"he");
    echo.proxy.cut_after(None);
    echo.talking().await;
}

#[tokio::test]
async fn an_answer_that_nobody_is_to_hear_is_cut_once() {
    let echo = Echo::start().await;
    let mut client = echo.talking().await;
    echo.proxy.cut_before_answer(b"COMMIT");
    assert_eq!(ask(&mut client, "begin").await, "begin");
    client.write_all(b"COMMIT").await.unwrap();
    assert_eq!(rest(&mut client).await.unwrap_or_default(), b"");
    assert_eq!(ask(&mut echo.client().await, "COMMIT").await, "COMMIT");
}

#[tokio::test]
async fn who_is_refused_is_reset_and_counted() {
    let echo = Echo::start().await;
    echo.proxy.refuse(true);
    for refused in 1..=3 {
        let client = TcpStream::connect(("127.0.0.1", echo.proxy.port())).await;
        if let Ok(mut client) = client {
            assert_eq!(rest(&mut client).await.unwrap_err(), ErrorKind::ConnectionReset);
        }
        assert_eq!((echo.proxy.connects(), echo.proxy.open()), (refused, 0));
    }
    echo.proxy.refuse(false);
    echo.talking().await;
}

#[tokio::test]
async fn without_a_server_a_connection_is_reset() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let proxy = Proxy::start(port).await;
    let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    assert_eq!(rest(&mut client).await.unwrap_err(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_stopped_proxy_leaves_no_task_behind_whatever_it_holds_back() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let before = tasks();
    let proxy = Proxy::start(listener.local_addr().unwrap().port()).await;
    proxy.silence(true);
    let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    client.write_all(b"held back").await.unwrap();
    let _server = listener.accept().await.unwrap();
    assert!(tasks() > before);
    tokio::time::timeout(PATIENCE, proxy.stop()).await.expect("it ends");
    assert_eq!(tasks(), before);
    assert!(rest(&mut client).await.unwrap_or_default().is_empty());
}
