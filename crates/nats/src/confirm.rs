//! Knows when the server has read what was written.
//!
//! Core NATS acknowledges nothing, and a flush of the client says only that the socket took the bytes. So a message to our
//! own inbox is written behind: the server reads a connection in order, and when the echo is back over the same
//! connection, it has read everything before. One echo serves all who wait at its time.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use purista_core::bridge::{BridgeError, BridgeErrorKind};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::inbox::Inbox;
use crate::link::{Link, closed};

/// How many may wait for the next echo; more wait for a place.
const WAITING_MAX: usize = 1024;
/// After which time a missing echo is asked for again: it may have been among what a full queue dropped.
const ECHO_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks whether the server has read what was written.
#[derive(Debug, Clone)]
pub(crate) struct Confirm(mpsc::Sender<oneshot::Sender<()>>);

impl Confirm {
    /// The asking end, and the task that answers until `stop`.
    pub(crate) fn new(
        link: Link,
        inbox: Inbox,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let echoing = echo(link, inbox, receiver);
        let task = async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = echoing => {}
            }
        };
        (Self(sender), task)
    }

    /// Waits until the server has read everything that was written before the call, over the connection that was the
    /// `connects`-th. `Unknown` when there was another since, `Timeout` at the deadline.
    pub(crate) async fn read_by_server(
        &self,
        link: &Link,
        connects: u64,
        deadline: Instant,
    ) -> Result<(), BridgeError> {
        let (sender, receiver) = oneshot::channel();
        let echoed = async {
            self.0.send(sender).await.map_err(|_| closed())?;
            let lost =
                || BridgeError::new(BridgeErrorKind::Unknown, "the connection to NATS was lost meanwhile");
            match receiver.await {
                Ok(()) if link.connects() == connects => Ok(()),
                _ => Err(lost()),
            }
        };
        match tokio::time::timeout_at(deadline, echoed).await {
            Ok(known) => known,
            Err(_) => Err(BridgeError::new(
                BridgeErrorKind::Timeout,
                "the NATS server did not answer before the deadline",
            )),
        }
    }
}

async fn echo(link: Link, inbox: Inbox, mut receiver: mpsc::Receiver<oneshot::Sender<()>>) {
    let mut echoed = inbox.echoed();
    let mut last = 0_u64;
    let mut waiting: Vec<oneshot::Sender<()>> = Vec::with_capacity(WAITING_MAX);
    while receiver.recv_many(&mut waiting, WAITING_MAX).await > 0 {
        let first = last.saturating_add(1);
        // Any echo that was sent after these began to wait will do.
        while !waiting.is_empty() {
            last = last.saturating_add(1);
            let until = Instant::now() + ECHO_TIMEOUT;
            let asked =
                link.write(inbox.echo_to(last).into(), None, HeaderMap::new(), Bytes::new(), until).await;
            if asked.is_err() {
                // Dropped without an answer: what they wrote may have been read.
                waiting.clear();
                break;
            }
            tokio::select! {
                biased;
                back = tokio::time::timeout_at(until, echoed.wait_for(|number| *number >= first)) => {
                    if matches!(back, Ok(Ok(_))) {
                        for one in waiting.drain(..) {
                            // Who no longer waits need not know.
                            let _ = one.send(());
                        }
                    } else if link.watch.closing.is_cancelled() {
                        waiting.clear();
                    } else {
                        waiting.retain(|one| !one.is_closed());
                    }
                }
                () = link.watch.lost() => waiting.clear(),
            }
        }
    }
}
