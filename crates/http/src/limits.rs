//! How much of everything one gateway takes: each limit has a name, a default and a test at it and past it.

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
/// How many commands are under way at a time.
pub const IN_FLIGHT_MAX: usize = 512;
/// How many connections are open at a time.
pub const CONNECTIONS_MAX: usize = 1024;
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
    pub(crate) in_flight: usize,
    pub(crate) connections: usize,
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
            in_flight: IN_FLIGHT_MAX,
            connections: CONNECTIONS_MAX,
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

    /// How many commands are under way, those included whose callers have gone; more are 503 with `retry-after`.
    #[must_use]
    pub fn in_flight(mut self, count: usize) -> Self {
        self.in_flight = count;
        self
    }

    /// How many connections are open; further ones wait until one is closed.
    #[must_use]
    pub fn connections(mut self, count: usize) -> Self {
        self.connections = count;
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

    /// What is wrong with these limits, and the remedy.
    pub(crate) fn fault(&self) -> Option<String> {
        if self.body_bytes > BODY_BYTES_MAX {
            return Some(format!(
                "the limit body_bytes is {}, but a message carries at most {BODY_BYTES_MAX}: lower it",
                self.body_bytes
            ));
        }
        let zero = [
            ("body_bytes", self.body_bytes == 0),
            ("headers", self.headers == 0),
            ("header_bytes", self.header_bytes == 0),
            ("url_bytes", self.url_bytes == 0),
            ("header_time", self.header_time.is_zero()),
            ("body_time", self.body_time.is_zero()),
            ("in_flight", self.in_flight == 0),
            ("connections", self.connections == 0),
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
    }
}
