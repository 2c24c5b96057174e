//! Stands between a store and its server, and cuts a connection when the server has answered to COMMIT: the answer is lost, and
//! the commit is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What the server says when a transaction was committed.
const COMMITTED: &[u8] = b"COMMIT\0";

pub(crate) struct Proxy {
    port: u16,
    cuts: Arc<AtomicBool>,
    stop: CancellationToken,
    task: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let (cuts, stop) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let mut task = JoinSet::new();
        task.spawn(serve(listener, server, Arc::clone(&cuts), stop.clone()));
        Self { port, cuts, stop, task }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn cut_answer_of_next_commit(&self) {
        self.cuts.store(true, Ordering::SeqCst);
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.join_all().await;
    }
}

async fn serve(listener: TcpListener, server: u16, cuts: Arc<AtomicBool>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    while let Some(Ok((client, _))) = stop.run_until_cancelled(listener.accept()).await {
        let cuts = Arc::clone(&cuts);
        connections.spawn(async move {
            if let Ok(upstream) = TcpStream::connect(("127.0.0.1", server)).await {
                pass(client, upstream, &cuts).await;
            }
        });
    }
    connections.shutdown().await;
}

async fn pass(client: TcpStream, upstream: TcpStream, cuts: &AtomicBool) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = upstream.into_split();
    let asking = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
    };
    let answering = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
            let Some(answer) = buffer.get(..read) else { return };
            let is_commit = answer.windows(COMMITTED.len()).any(|window| window == COMMITTED);
            if is_commit && cuts.swap(false, Ordering::SeqCst) {
                return;
            }
            if to_client.write_all(answer).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = asking => {}
        () = answering => {}
    }
}
