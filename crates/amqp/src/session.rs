//! One connection: how it begins, when it is over, and how it ends.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicQosOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::tcp::{AMQPUriTcpExt, AsyncTcpStream, RustlsConnector, TLSConfig};
use lapin::types::{FieldTable, ShortString};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, Connection, ConnectionProperties, Consumer, Event, ExchangeKind};
use purista_core::bridge::BridgeError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::address::reply_binding;
use crate::error::rejected;

/// How long a connection, with everything that belongs to it, may take to be there.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a connection is looked at that reports nothing.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How many replies the broker hands over before the first is acknowledged.
const REPLIES_PREFETCH: u16 = 1024;

/// Where the broker is, and how to speak to it.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) uris: Vec<AMQPUri>,
    pub(crate) tls: Option<Arc<RustlsConnector>>,
    pub(crate) name: String,
    pub(crate) exchange: ShortString,
}

/// One connection, with the channels on which this process publishes, and the queue to which its replies come.
pub(crate) struct Session {
    pub(crate) connection: Connection,
    /// For everything but commands.
    pub(crate) publishing: Channel,
    /// For commands: what comes back for want of a queue, comes back here.
    pub(crate) asking: Channel,
    pub(crate) reply_queue: ShortString,
    /// Cancelled when it is of no more use.
    pub(crate) lost: CancellationToken,
    _plug: Plug,
}

/// A second hand on the connection's socket, which cuts it when it is dropped. The client's thread and tasks end with the
/// socket, and with nothing else: a connection that is given up half-way would keep them.
struct Plug(std::net::TcpStream);

impl Drop for Plug {
    fn drop(&mut self) {
        // An error says that the other side was faster.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("reply_queue", &self.reply_queue).finish_non_exhaustive()
    }
}

impl Session {
    /// Connects to the first of the peer's addresses that answers, and declares what every process needs; with the replies.
    pub(crate) async fn open(peer: &Peer) -> Result<(Self, Channel, Consumer), BridgeError> {
        let mut failed = rejected("there is no address of a broker");
        for uri in &peer.uris {
            // Boxed: what the client keeps while it connects is large.
            let opening = Box::pin(Self::open_at(uri.clone(), peer));
            match tokio::time::timeout(CONNECT_TIMEOUT, opening).await {
                Ok(Ok(opened)) => return Ok(opened),
                Ok(Err(error)) => failed = rejected("connect to the AMQP broker failed").with_source(error),
                Err(_) => failed = rejected("the AMQP broker did not answer in time"),
            }
        }
        Err(failed)
    }

    async fn open_at(uri: AMQPUri, peer: &Peer) -> lapin::Result<(Self, Channel, Consumer)> {
        let (connection, plug) = connect(uri, peer).await?;
        let publishing = connection.create_channel().await?;
        publishing.confirm_select(ConfirmSelectOptions::default()).await?;
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let (exchange, nothing) = (peer.exchange.clone(), FieldTable::default());
        publishing
            .exchange_declare(exchange.clone(), ExchangeKind::Headers, durable, nothing.clone())
            .await?;
        let asking = connection.create_channel().await?;
        asking.confirm_select(ConfirmSelectOptions::default()).await?;

        let replies = connection.create_channel().await?;
        replies.basic_qos(REPLIES_PREFETCH, BasicQosOptions::default()).await?;
        let own =
            QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        let queue = replies.queue_declare("".into(), own, nothing.clone()).await?;
        let reply_queue = queue.name().clone();
        let bound = reply_binding(reply_queue.as_str());
        replies
            .queue_bind(reply_queue.clone(), exchange, "".into(), QueueBindOptions::default(), bound)
            .await?;
        let consumer = replies
            .basic_consume(reply_queue.clone(), "".into(), BasicConsumeOptions::default(), nothing)
            .await?;
        let lost = CancellationToken::new();
        let session = Self { connection, publishing, asking, reply_queue, lost, _plug: plug };
        Ok((session, replies, consumer))
    }

    /// Whether something can be published. A channel that is gone makes the whole connection one to be made anew.
    pub(crate) fn is_usable(&self) -> bool {
        let is_usable = !self.lost.is_cancelled()
            && self.connection.status().connected()
            && self.publishing.status().connected()
            && self.asking.status().connected();
        if !is_usable {
            self.lost.cancel();
        }
        is_usable
    }

    /// Whether the broker takes nothing from this connection, as while its memory or disk is nearly full.
    pub(crate) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Says that the connection is of no more use.
    pub(crate) fn give_up(&self) {
        self.lost.cancel();
    }

    /// Waits until the connection is lost.
    pub(crate) async fn lost(&self) {
        let mut events = Box::pin(self.connection.events_listener());
        while self.is_usable() {
            tokio::select! {
                () = self.lost.cancelled() => return,
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(reason)) => {
                        tracing::warn!(reason, "the broker takes no more messages for now");
                    }
                    Some(Event::ConnectionUnblocked) => tracing::info!("the broker takes messages again"),
                    Some(_) => {}
                    None => return,
                },
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    /// Ends the connection: everything that was written before is read by the broker.
    pub(crate) async fn close(&self, until: Instant) {
        self.lost.cancel();
        let closing = self.connection.close(200, "OK".into());
        if let Ok(Err(error)) = tokio::time::timeout_at(until, closing).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "the connection had ended before");
        }
    }
}

/// Connects, and speaks to the broker only then: a client whose own attempt to connect fails leaves a task behind.
async fn connect(uri: AMQPUri, peer: &Peer) -> lapin::Result<(Connection, Plug)> {
    let runtime = lapin::runtime::default_runtime()?;
    let plain = AMQPUri { scheme: AMQPScheme::AMQP, ..uri.clone() };
    let stream = plain.connect_with_config_async(TLSConfig::default(), &runtime).await?;
    let AsyncTcpStream::Plain(socket) = &stream else {
        return Err(io::Error::other("a connection without TLS is none").into());
    };
    let plug = Plug(std::net::TcpStream::from(socket.get_ref().as_fd().try_clone_to_owned()?));
    let stream = match peer.tls.as_ref().filter(|_| uri.scheme == AMQPScheme::AMQPS) {
        Some(tls) => stream.into_rustls(tls, &uri.authority.host).await?,
        None => stream,
    };
    let once = Mutex::new(Some(stream));
    let connected = async move |_, _| {
        silence_this_thread();
        let stream = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected).into())
    };
    let properties = ConnectionProperties::default()
        .with_connection_name(peer.name.as_str().into())
        .with_client_property("product".into(), "purista".into());
    Ok((Connection::connector(uri, runtime, connected, properties).await?, plug))
}

/// The client has a thread of its own for each connection, on which it makes the connection and reads and writes frames. It
/// logs them there: credentials, and at the level of warnings the whole of each message that comes back for want of a
/// queue. We log what is of interest ourselves, without what messages hold; so on that thread nothing is logged.
fn silence_this_thread() {
    if std::thread::current().name() == Some(CLIENT_THREAD) {
        // Undone when it is dropped; the thread ends with the connection.
        std::mem::forget(tracing::dispatcher::set_default(&tracing::Dispatch::none()));
    }
}

/// What the client calls its thread.
const CLIENT_THREAD: &str = "lapin-io-loop";
