//! One connection: served until it ends, is idle too long, sends a head too slowly, is evicted, or the gateway stops.
//!
//! hyper has one time-out for heads, which also runs while a connection waits for its next request; a head in 10 s and a
//! pause of 60 s between requests cannot both be said with it. So the bytes that come in are watched here, and one timer
//! a connection looks now and then; a request costs two looks at the clock and no timer.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::pulse::{Look, Pulse};
use crate::service::Desk;

/// How long connections are still accepted and read when the gateway stops: what a peer had sent before may lie in the
/// kernel, and a connection that is idle as far as we know would be closed over it.
pub(crate) const LAST_CALL: Duration = Duration::from_millis(20);

/// How long a connection that has to close for another one may still write its last answer.
pub(crate) const EVICTION_TIME: Duration = Duration::from_secs(1);

/// Runs hyper's tasks (HTTP/2 has one a request) under the tracker of the house.
#[derive(Debug, Clone)]
pub(crate) struct Tracked(pub(crate) TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve(stream: TcpStream, protocol: Arc<Builder<Tracked>>, desk: Desk) {
    let pulse = Arc::clone(&desk.pulse);
    let site = Arc::clone(&desk.site);
    let limits = &site.limits;
    let watched = Watched { stream, pulse: Arc::clone(&pulse) };
    let mut connection = pin!(protocol.serve_connection(TokioIo::new(watched), desk));
    let mut next_look = pin!(tokio::time::sleep(limits.header_time.min(limits.idle_time)));
    let mut last_call = pin!(tokio::time::sleep(LAST_CALL));
    let mut evicted = pin!(pulse.evicted.notified());
    let (mut is_stopping, mut is_shut, mut is_evicted) = (false, false, false);
    // Accepted at the last call: its first answer may come before the stop is looked for below.
    pulse.is_stopping.store(site.house.stop.is_cancelled(), Ordering::Relaxed);
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended early");
                }
                return;
            }
            () = site.house.stop.cancelled(), if !is_stopping => {
                is_stopping = true;
                pulse.is_stopping.store(true, Ordering::Relaxed);
                last_call.as_mut().reset(Instant::now() + LAST_CALL);
            }
            () = last_call.as_mut(), if is_stopping && !is_shut => {
                is_shut = true;
                connection.as_mut().graceful_shutdown();
            }
            () = evicted.as_mut(), if !is_evicted => {
                is_evicted = true;
                tracing::debug!("a connection is closed to admit another one");
                // A head or a body that is still arriving has no answer to wait for.
                if pulse.waiting().is_some() && !pulse.is_between_requests() {
                    return;
                }
                connection.as_mut().graceful_shutdown();
                next_look.as_mut().reset(Instant::now() + EVICTION_TIME);
            }
            () = next_look.as_mut() => match pulse.look(limits) {
                _ if pulse.is_leaving() => return,
                Look::Again(after) => next_look.as_mut().reset(Instant::now() + after),
                Look::Slow => return,
                Look::Idle if pulse.is_closing.swap(true, Ordering::Relaxed) => return,
                Look::Idle => {
                    // Its last answer may still be on its way to a slow reader.
                    connection.as_mut().graceful_shutdown();
                    next_look.as_mut().reset(Instant::now() + limits.header_time);
                }
            },
        }
    }
}

/// A stream that tells the pulse of what comes in.
struct Watched {
    stream: TcpStream,
    pulse: Arc<Pulse>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Some(came) = buffer.filled().get(before..).filter(|came| !came.is_empty()) {
            self.pulse.bytes_came(came);
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
