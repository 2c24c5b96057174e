//! The accept loop: as many connections as the limits allow, in all and per peer address, and a pause when the system
//! has no more to give.

use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper_util::rt::TokioTimer;
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::connection::{self, LAST_CALL, Tracked};
use crate::connections::{Admitted, Connections, Refused};
use crate::limits::Limits;
use crate::pulse::Pulse;
use crate::service::Desk;
use crate::site::Site;

/// How long accepting pauses after the system had no file descriptor or memory left: trying again at once would only
/// burn what others need to give something back.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a new connection waits until it looks again for one to evict.
const NEXT_EVICTION: Duration = Duration::from_millis(20);
/// The shortest time between two warnings of a peer with too many connections.
const WARNING_PAUSE: Duration = Duration::from_secs(60);
/// What an HTTP/2 peer is asked for a sign of life, and how long it has to give one.
const HTTP2_PING: Duration = Duration::from_secs(20);
/// The smallest buffer that hyper takes.
const BUFFER_BYTES_MIN: usize = 8 * 1024;
/// How many header fields hyper reads without a heap allocation a request.
const HEADERS_IN_PLACE: usize = 100;

/// Serves connections on `tasks` of the house until it stops; what it returns ends when the last answer was given.
pub(crate) fn start(listener: TcpListener, site: Arc<Site>) -> BoxFuture<'static, ()> {
    let connections = Arc::new(Connections::new(&site.limits));
    let protocol = Arc::new(protocol(&site.limits, Tracked(site.house.tasks.clone())));
    let tasks = site.house.tasks.clone();
    let accepting = tasks.spawn(accept(listener, protocol, Arc::clone(&connections), Arc::clone(&site)));
    Box::pin(async move {
        // Only its end matters: it stops when the house does.
        let _ = accepting.await;
        connections.all_closed().await;
        all_back(&site.in_flight, site.limits.in_flight).await;
    })
}

/// Waits until every permit was given back.
async fn all_back(permits: &Semaphore, count: usize) {
    for _ in 0..count {
        if let Ok(permit) = permits.acquire().await {
            permit.forget();
        }
    }
}

async fn accept(
    listener: TcpListener,
    protocol: Arc<Builder<Tracked>>,
    connections: Arc<Connections>,
    site: Arc<Site>,
) {
    // Who had connected before the gateway stops may still lie in the system's queue, with a request sent.
    let mut last_call = pin!(async {
        site.house.stop.cancelled().await;
        tokio::time::sleep(LAST_CALL).await;
    });
    let mut warning = Warning::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = last_call.as_mut() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let pulse = Arc::new(Pulse::new());
                // One connection at most waits here for room; the next ones wait in the system's queue and cost nothing.
                let admitted = match admit(&connections, peer.ip(), &pulse, last_call.as_mut()).await {
                    Admission::Open(admitted) => admitted,
                    Admission::Refused => {
                        warning.about(peer.ip(), &site);
                        continue;
                    }
                    Admission::Stopped => return,
                };
                // An answer is one write; to hold it back for more would only delay it.
                let _ = stream.set_nodelay(true);
                let buffered = Arc::clone(&admitted.buffered);
                let desk = Desk { site: Arc::clone(&site), pulse, peer, buffered };
                let protocol = Arc::clone(&protocol);
                site.house.tasks.spawn(async move {
                    connection::serve(stream, protocol, desk).await;
                    drop(admitted);
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted");
                // The oldest that waits for its peer gives its file descriptor back.
                connections.evict_one();
                tokio::select! {
                    () = last_call.as_mut() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
    }
}

enum Admission {
    Open(Admitted),
    /// The peer has too many connections.
    Refused,
    /// The gateway stopped first.
    Stopped,
}

/// Registers a connection, and waits for room while all connections are taken.
async fn admit(
    connections: &Arc<Connections>,
    peer: IpAddr,
    pulse: &Arc<Pulse>,
    mut last_call: Pin<&mut impl Future<Output = ()>>,
) -> Admission {
    loop {
        match connections.admit(peer, pulse) {
            Ok(admitted) => return Admission::Open(admitted),
            Err(Refused::TooManyOfPeer) => return Admission::Refused,
            Err(Refused::Full) => {}
        }
        tokio::select! {
            biased;
            () = last_call.as_mut() => return Admission::Stopped,
            () = connections.one_closed() => {}
            // None may have waited for its peer at the first look.
            () = tokio::time::sleep(NEXT_EVICTION) => {}
        }
    }
}

/// Warns of peers with too many connections, at most once in [`WARNING_PAUSE`]: a log line for each would be an attack, too.
#[derive(Default)]
struct Warning {
    last: Option<Instant>,
}

impl Warning {
    fn about(&mut self, peer: IpAddr, site: &Site) {
        if self.last.is_some_and(|last| last.elapsed() < WARNING_PAUSE) {
            return;
        }
        self.last = Some(Instant::now());
        let limit = site.limits.connections_per_peer;
        tracing::warn!(
            %peer,
            limit,
            "connection closed: too many from one address; add a reverse proxy with `Limits::trusted_proxy`"
        );
    }
}

/// Whether an error of accept concerns the one connection that is gone, and not the next.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn protocol(limits: &Limits, tasks: Tracked) -> Builder<Tracked> {
    let mut builder = Builder::new(tasks);
    // hyper's own limits are wider than ours, so that a request past ours gets an answer that says so.
    let head_bytes_max = limits.header_bytes + limits.url_bytes + BUFFER_BYTES_MIN;
    let list_bytes_max = u32::try_from(head_bytes_max + 32 * limits.headers).unwrap_or(u32::MAX);
    builder
        .http1()
        // The pulse of the connection does both jobs of this time-out, see `connection`.
        .header_read_timeout(None)
        .max_buf_size(head_bytes_max)
        .timer(TokioTimer::new());
    if limits.headers >= HEADERS_IN_PLACE {
        builder.http1().max_headers(limits.headers + 1);
    }
    builder
        .http2()
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(list_bytes_max)
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING)
        .timer(TokioTimer::new());
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_error_of_one_connection_is_passed_over_at_once() {
        let of_system = |code| is_of_one_connection(&io::Error::from_raw_os_error(code));
        let (too_many_files, too_many_in_all, no_memory, aborted) = (24, 23, 12, 103);
        assert!(of_system(aborted));
        assert!(!of_system(too_many_files) && !of_system(too_many_in_all) && !of_system(no_memory));
    }
}
