//! Stands between a client and its server, and spoils what passes: delays, silence, cuts.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> std::io::Result<()> {
//! use purista_conformance::proxy::Proxy;
//! use tokio::net::{TcpListener, TcpStream};
//!
//! let server = TcpListener::bind("127.0.0.1:0").await?;
//! let proxy = Proxy::start(server.local_addr()?.port()).await;
//! let _client = TcpStream::connect(("127.0.0.1", proxy.port())).await?;
//! let _arrived = server.accept().await?;
//! proxy.cut();
//! proxy.stop().await;
//! # Ok(())
//! # }
//! ```

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How many connections pass at a time; more wait until they are accepted.
const CONNECTIONS_MAX: usize = 256;
/// How many bytes are read before they are passed on. So much of each direction waits in the proxy at most.
const CHUNK_BYTES: usize = 16 << 10;

/// One proxy on a free port of this machine. What it does to connections holds for those that are there and for those that
/// come; dropping it cuts them all.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Shared {
    faults: watch::Sender<Faults>,
    /// What becomes of all connections that are there when it changes.
    ending: watch::Sender<Ending>,
    /// The answer of the server that is not passed on.
    forbidden: Mutex<Option<Vec<u8>>>,
    connects: AtomicUsize,
    open: AtomicUsize,
    stop: CancellationToken,
}

/// What is done to everything that passes.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    delay: Duration,
    bytes_per_second: Option<u32>,
    is_silent: bool,
    refuses: bool,
    cut_after: Option<u64>,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Cut,
    Reset,
    /// Only from the server to the client.
    HalfClosed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    ToServer,
    ToClient,
}

impl Proxy {
    /// Passes everything on to this port of this machine. Nothing is disturbed yet.
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared {
            faults: watch::channel(Faults::default()).0,
            ending: watch::channel(Ending::Cut).0,
            forbidden: Mutex::default(),
            connects: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            stop: CancellationToken::new(),
        });
        let tasks = TaskTracker::new();
        tasks.spawn(accept(listener, server, Arc::clone(&shared), tasks.clone()));
        Self { port, shared, tasks }
    }

    /// Where clients find it.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections were made so far, those that it refused among them.
    pub fn connects(&self) -> usize {
        self.shared.connects.load(Ordering::SeqCst)
    }

    /// How many connections are there now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Holds everything back for this time, in both directions. At most 16 KiB are on their way at a time.
    pub fn delay(&self, by: Duration) {
        self.shared.faults.send_modify(|faults| faults.delay = by);
    }

    /// Passes on no more than this in a second, in each direction of each connection; `None` sets no bound.
    pub fn throttle(&self, bytes_per_second: Option<u32>) {
        self.shared.faults.send_modify(|faults| faults.bytes_per_second = bytes_per_second);
    }

    /// Passes nothing on and says nothing, as when a machine is gone or a cable is pulled: connections stay, and new ones are
    /// made. What is held back is passed on when it is over.
    pub fn silence(&self, is_silent: bool) {
        self.shared.faults.send_modify(|faults| faults.is_silent = is_silent);
    }

    /// Ends each new connection as soon as it is made, as when nobody is there.
    pub fn refuse(&self, refuses: bool) {
        self.shared.faults.send_modify(|faults| faults.refuses = refuses);
    }

    /// Cuts each connection when it has carried so many bytes in both directions together; `None` spares them.
    pub fn cut_after(&self, bytes: Option<u64>) {
        self.shared.faults.send_modify(|faults| faults.cut_after = bytes);
    }

    /// Cuts the connection on which the server next sends something with these bytes, before they are passed on: the server
    /// has answered, and nobody hears it.
    pub fn cut_before_answer(&self, with: &[u8]) {
        *self.shared.forbidden.lock().unwrap_or_else(PoisonError::into_inner) = Some(with.to_vec());
    }

    /// Ends all connections, on both sides.
    pub fn cut(&self) {
        self.shared.ending.send_replace(Ending::Cut);
    }

    /// Ends all connections with a reset towards the client, as when the server's machine does not know them any more.
    pub fn reset(&self) {
        self.shared.ending.send_replace(Ending::Reset);
    }

    /// Ends all connections towards the client, and still takes what it sends.
    pub fn half_close(&self) {
        self.shared.ending.send_replace(Ending::HalfClosed);
    }

    /// Cuts everything and waits until nothing of it is left.
    pub async fn stop(self) {
        self.shared.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

async fn accept(listener: TcpListener, server: u16, shared: Arc<Shared>, tasks: TaskTracker) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let accepting = async {
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            // An error belongs to the one connection that was about to come.
            let Ok((client, _)) = listener.accept().await else { continue };
            shared.connects.fetch_add(1, Ordering::SeqCst);
            if shared.faults.borrow().refuses {
                reset(&client);
                continue;
            }
            // From here on it is one of those that are cut.
            let (endings, shared) = (shared.ending.subscribe(), Arc::clone(&shared));
            tasks.spawn(async move {
                let _place = place;
                let counted = Counted::new(&shared);
                let passing = pass(client, server, endings, &shared);
                // A stopped proxy lets go of both ends.
                let _ = shared.stop.run_until_cancelled(passing).await;
                drop(counted);
            });
        }
    };
    let _ = shared.stop.run_until_cancelled(accepting).await;
}

/// One of the open connections.
struct Counted<'s>(&'s Shared);

impl<'s> Counted<'s> {
    fn new(shared: &'s Shared) -> Self {
        shared.open.fetch_add(1, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

fn reset(client: &TcpStream) {
    // An error says that it is gone already.
    let _ = client.set_zero_linger();
}

async fn pass(mut client: TcpStream, server: u16, endings: watch::Receiver<Ending>, shared: &Shared) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await else {
        // Nobody is there, and the client learns it as it would without a proxy.
        return reset(&client);
    };
    let carried = AtomicU64::new(0);
    let ended = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::try_join!(
            pipe(Way::ToServer, from_client, to_server, endings.clone(), shared, &carried),
            pipe(Way::ToClient, from_server, to_client, endings, shared, &carried),
        )
    };
    if ended == Err(Ending::Reset) {
        reset(&client);
    }
}

/// Carries one direction until it is closed. An error ends the whole connection.
async fn pipe(
    way: Way,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut endings: watch::Receiver<Ending>,
    shared: &Shared,
    carried: &AtomicU64,
) -> Result<(), Ending> {
    let ending = async {
        loop {
            // The proxy outlives its connections.
            if endings.changed().await.is_err() {
                return Ending::Cut;
            }
            let ending = *endings.borrow_and_update();
            if ending != Ending::HalfClosed || way == Way::ToClient {
                return ending;
            }
        }
    };
    let ended = tokio::select! {
        ended = carry(way, &mut from, &mut to, shared, carried) => ended,
        ending = ending => Err(ending),
    };
    match ended {
        Ok(()) | Err(Ending::HalfClosed) => to.shutdown().await.map_err(|_| Ending::Cut),
        Err(ending) => Err(ending),
    }
}

async fn carry(
    way: Way,
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    shared: &Shared,
    carried: &AtomicU64,
) -> Result<(), Ending> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut faults = shared.faults.subscribe();
    loop {
        let read = from.read(&mut buffer).await.map_err(|_| Ending::Cut)?;
        if read == 0 {
            return Ok(());
        }
        let mut chunk = buffer.get(..read).unwrap_or_default();
        let delay = faults.borrow().delay;
        tokio::time::sleep(delay).await;
        let now = *faults.wait_for(|faults| !faults.is_silent).await.map_err(|_| Ending::Cut)?;
        if way == Way::ToClient && shared.is_forbidden(chunk) {
            return Err(Ending::Cut);
        }
        let before = carried.fetch_add(read as u64, Ordering::SeqCst);
        let left = now.cut_after.map(|bytes| bytes.saturating_sub(before));
        let is_last = left.is_some_and(|left| left <= read as u64);
        if let Some(left) = left.filter(|_| is_last) {
            chunk = chunk.get(..usize::try_from(left).unwrap_or(read)).unwrap_or_default();
        }
        to.write_all(chunk).await.map_err(|_| Ending::Cut)?;
        if is_last {
            return Err(Ending::Cut);
        }
        if let Some(rate) = now.bytes_per_second {
            // A chunk has fewer bytes than fit.
            let bytes = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            tokio::time::sleep(Duration::from_secs(1) * bytes / rate.max(1)).await; // real time: that is the bound
        }
    }
}

impl Shared {
    /// Whether this answer is the one that nobody is to hear. It is looked for in what comes at once.
    fn is_forbidden(&self, answer: &[u8]) -> bool {
        let mut forbidden = self.forbidden.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = forbidden
            .as_ref()
            .is_some_and(|bytes| answer.windows(bytes.len().max(1)).any(|window| window == bytes.as_slice()));
        if is_it {
            *forbidden = None;
        }
        is_it
    }
}
