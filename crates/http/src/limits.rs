//! How much of everything one gateway takes: each limit has a name, a default and a test at it and past it.

use std::net::IpAddr;
use std::time::Duration;

use purista_core::payload::PAYLOAD_BYTES_MAX;

/// The largest body of a request, in bytes: what one message can carry.
pub const BODY_BYTES_MAX: usize = PAYLOAD_BYTES_MAX;
/// The most header fields of a request.
pub const HEADERS_MAX: usize = 64;
/// The most bytes of all header fields of a request together, four a field added for what separates them.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// The longest URL (path and query), in bytes.
pub const URL_BYTES_MAX: usize = 8 * 1024;
/// How long the head of a request may take from its first byte on; on a new connection from its start on.
pub const HEADER_TIME_MAX: Duration = Duration::from_secs(10);
/// How long the body of a request may take in all.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(30);
/// The least rate at which a body arrives, in bytes per second, once [`BODY_RATE_AFTER`] has passed.
pub const BODY_RATE_MIN: usize = 1024;
/// How long a body may take at any rate.
pub const BODY_RATE_AFTER: Duration = Duration::from_secs(5);
/// The most bytes of requests whose bodies are being read, over all connections; a peer address may use a quarter of it.
pub const BUFFERED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How many commands are under way at a time.
pub const IN_FLIGHT_MAX: usize = 512;
/// How many connections are open at a time.
pub const CONNECTIONS_MAX: usize = 1024;
/// How many connections one peer address has open at a time; a /64 network of IPv6 is one peer.
pub const CONNECTIONS_PER_PEER_MAX: usize = 64;
/// How long a connection stays open without a request.
pub const IDLE_TIME_MAX: Duration = Duration::from_secs(60);
/// How many requests one HTTP/2 connection has under way at a time.
pub const STREAMS_MAX: u32 = 100;

/// What one gateway takes, and no more. Every limit is configurable; a limit of zero is refused at the start.
///
/// ```
/// use purista_http::limits::Limits;
/// let limits = Limits::default().body_bytes(64 * 1024).in_flight(2_000);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub(crate) body_bytes: usize,
    pub(crate) headers: usize,
    pub(crate) header_bytes: usize,
    pub(crate) url_bytes: usize,
    pub(crate) header_time: Duration,
    pub(crate) body_time: Duration,
    pub(crate) body_rate: usize,
    pub(crate) body_rate_after: Duration,
    pub(crate) buffered_bytes: usize,
    pub(crate) in_flight: usize,
    pub(crate) connections: usize,
    pub(crate) connections_per_peer: usize,
    pub(crate) trusted_proxies: Vec<IpAddr>,
    pub(crate) idle_time: Duration,
    pub(crate) streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: BODY_BYTES_MAX,
            headers: HEADERS_MAX,
            header_bytes: HEADER_BYTES_MAX,
            url_bytes: URL_BYTES_MAX,
            header_time: HEADER_TIME_MAX,
            body_time: BODY_TIME_MAX,
            body_rate: BODY_RATE_MIN,
            body_rate_after: BODY_RATE_AFTER,
            buffered_bytes: BUFFERED_BYTES_MAX,
            in_flight: IN_FLIGHT_MAX,
            connections: CONNECTIONS_MAX,
            connections_per_peer: CONNECTIONS_PER_PEER_MAX,
            trusted_proxies: Vec::new(),
            idle_time: IDLE_TIME_MAX,
            streams: STREAMS_MAX,
        }
    }
}

impl Limits {
    /// The largest body, in bytes; a larger one is 413. At most [`BODY_BYTES_MAX`], since no message carries more.
    #[must_use]
    pub fn body_bytes(mut self, bytes: usize) -> Self {
        self.body_bytes = bytes;
        self
    }

    /// The most header fields; more are 431.
    #[must_use]
    pub fn headers(mut self, count: usize) -> Self {
        self.headers = count;
        self
    }

    /// The most bytes of all header fields; more are 431.
    #[must_use]
    pub fn header_bytes(mut self, bytes: usize) -> Self {
        self.header_bytes = bytes;
        self
    }

    /// The longest URL in bytes; a longer one is 414, and one that fits no buffer (8 KiB past both limits) is 431.
    #[must_use]
    pub fn url_bytes(mut self, bytes: usize) -> Self {
        self.url_bytes = bytes;
        self
    }

    /// How long a head may take; then the connection is closed.
    #[must_use]
    pub fn header_time(mut self, time: Duration) -> Self {
        self.header_time = time;
        self
    }

    /// How long a body may take in all; then it is 408.
    #[must_use]
    pub fn body_time(mut self, time: Duration) -> Self {
        self.body_time = time;
        self
    }

    /// The least rate of a body, in bytes per second, and how long it may take at any rate. A body is 408 after `after` and
    /// one second more for each `bytes_per_second` bytes that have arrived, and after [`Limits::body_time`] at the latest.
    #[must_use]
    pub fn body_rate(mut self, bytes_per_second: usize, after: Duration) -> Self {
        self.body_rate = bytes_per_second;
        self.body_rate_after = after;
        self
    }

    /// The most bytes of requests whose bodies are still arriving, over all connections; more are 503 with `retry-after`.
    /// One peer address may use a quarter of it, and a trusted proxy all of it.
    #[must_use]
    pub fn buffered_bytes(mut self, bytes: usize) -> Self {
        self.buffered_bytes = bytes;
        self
    }

    /// How many commands are under way, those included whose callers have gone; more are 503 with `retry-after`. A request
    /// whose body is still arriving is not among them.
    #[must_use]
    pub fn in_flight(mut self, count: usize) -> Self {
        self.in_flight = count;
        self
    }

    /// How many connections are open. For a further one the connection is closed that has waited longest for its peer:
    /// silent and idle ones first, then those whose bodies still arrive. While each has a request in a handler, further ones wait.
    #[must_use]
    pub fn connections(mut self, count: usize) -> Self {
        self.connections = count;
        self
    }

    /// How many connections one peer address has open; a /64 network of IPv6 is one peer. A further one takes the place of
    /// the peer's connection that has waited longest, and is closed if each has a request in a handler.
    #[must_use]
    pub fn connections_per_peer(mut self, count: usize) -> Self {
        self.connections_per_peer = count;
        self
    }

    /// The address of a reverse proxy in front of this gateway, whose connections are those of many callers:
    /// [`Limits::connections_per_peer`] does not apply to it. Add each proxy; the proxy limits its own callers.
    #[must_use]
    pub fn trusted_proxy(mut self, address: IpAddr) -> Self {
        self.trusted_proxies.push(address);
        self
    }

    /// How long a connection stays open without a request. An answer, too, must be read in this time and
    /// [`Limits::header_time`] together.
    #[must_use]
    pub fn idle_time(mut self, time: Duration) -> Self {
        self.idle_time = time;
        self
    }

    /// How many requests one HTTP/2 connection has under way; it is told to open no more.
    #[must_use]
    pub fn streams(mut self, count: u32) -> Self {
        self.streams = count;
        self
    }

    /// The most bytes of one request.
    pub(crate) fn request_bytes(&self) -> usize {
        self.body_bytes.saturating_add(self.header_bytes).saturating_add(self.url_bytes)
    }

    /// What is wrong with these limits, and the remedy.
    pub(crate) fn fault(&self) -> Option<String> {
        if self.body_bytes > BODY_BYTES_MAX {
            return Some(format!(
                "the limit body_bytes is {}, but a message carries at most {BODY_BYTES_MAX}: lower it",
                self.body_bytes
            ));
        }
        if self.buffered_bytes < self.request_bytes() {
            return Some(format!(
                "the limit buffered_bytes is {}, but one request of body, header fields and URL has up to {}: raise it",
                self.buffered_bytes,
                self.request_bytes()
            ));
        }
        let zero = [
            ("body_bytes", self.body_bytes == 0),
            ("headers", self.headers == 0),
            ("header_bytes", self.header_bytes == 0),
            ("url_bytes", self.url_bytes == 0),
            ("header_time", self.header_time.is_zero()),
            ("body_time", self.body_time.is_zero()),
            ("body_rate", self.body_rate == 0),
            ("in_flight", self.in_flight == 0),
            ("connections", self.connections == 0),
            ("connections_per_peer", self.connections_per_peer == 0),
            ("idle_time", self.idle_time.is_zero()),
            ("streams", self.streams == 0),
        ];
        let (name, _) = zero.into_iter().find(|(_, is_zero)| *is_zero)?;
        Some(format!("the limit {name} is zero, so that nothing could be served: raise it"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_serve_nothing_or_promise_too_much_are_refused() {
        assert_eq!(Limits::default().fault(), None);
        assert!(Limits::default().streams(0).fault().unwrap().contains("streams is zero"));
        assert_eq!(Limits::default().body_bytes(BODY_BYTES_MAX).fault(), None);
        assert!(Limits::default().body_bytes(BODY_BYTES_MAX + 1).fault().unwrap().contains("917504"));
        let too_few = Limits::default().buffered_bytes(BODY_BYTES_MAX);
        assert!(too_few.fault().unwrap().contains("the limit buffered_bytes is 917504"));
    }
}
