//! What a connection is doing, as far as its time-outs care: heads, requests, pauses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::limits::Limits;

/// How a connection begins that speaks HTTP/2 from the start.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2";

/// What a connection is doing, as far as its time-outs care.
#[derive(Debug)]
pub(crate) struct Pulse {
    began: Instant,
    /// Requests that are being answered.
    busy: AtomicUsize,
    /// Requests among them whose bodies are still arriving.
    reading: AtomicUsize,
    /// When the first of them began, in milliseconds since the connection began.
    reading_since_ms: AtomicU64,
    /// When the last change was, in milliseconds since it began.
    changed_ms: AtomicU64,
    /// Whether a part of a head has come.
    in_head: AtomicBool,
    /// Whether nothing has come yet.
    is_new: AtomicBool,
    /// Whether it speaks HTTP/2, where bytes come in for many reasons.
    is_http2: AtomicBool,
    pub(crate) is_closing: AtomicBool,
    /// Whether the gateway stops: what is answered from now on is the last answer of its connection.
    pub(crate) is_stopping: AtomicBool,
    is_evicted: AtomicBool,
    /// Notified once, when the connection has to close for another one.
    pub(crate) evicted: Notify,
}

/// A connection that waits for its peer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) time: Duration,
    /// Whether requests are open, all with bodies that still arrive.
    pub(crate) is_for_body: bool,
}

/// What a look at a connection found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// All is well; look again after this time.
    Again(Duration),
    /// A head takes too long.
    Slow,
    /// Nothing has come for too long.
    Idle,
}

impl Pulse {
    /// The pulse of a new connection: its first head is awaited from now on.
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            busy: AtomicUsize::new(0),
            reading: AtomicUsize::new(0),
            reading_since_ms: AtomicU64::new(0),
            changed_ms: AtomicU64::new(0),
            in_head: AtomicBool::new(true),
            is_new: AtomicBool::new(true),
            is_http2: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            is_evicted: AtomicBool::new(false),
            evicted: Notify::new(),
        }
    }

    /// The body of a request does not come at once; it is being read until what this returns is dropped.
    pub(crate) fn reading(self: &Arc<Self>) -> Reading {
        if self.reading.fetch_add(1, Ordering::Relaxed) == 0 {
            self.reading_since_ms.store(self.now_ms(), Ordering::Relaxed);
        }
        Reading(Arc::clone(self))
    }

    /// How long the connection has waited for its peer; `None` while a request is in a handler.
    pub(crate) fn waiting(&self) -> Option<Waiting> {
        let reading = self.reading.load(Ordering::Relaxed);
        if self.busy.load(Ordering::Relaxed) > reading {
            return None;
        }
        let is_for_body = reading > 0;
        let since = if is_for_body { &self.reading_since_ms } else { &self.changed_ms };
        let since = Duration::from_millis(since.load(Ordering::Relaxed));
        Some(Waiting { time: self.began.elapsed().saturating_sub(since), is_for_body })
    }

    /// Tells the connection to close for another one.
    pub(crate) fn evict(&self) {
        if !self.is_evicted.swap(true, Ordering::Relaxed) {
            self.evicted.notify_one();
        }
    }

    /// Whether the connection was told to close for another one, and no request keeps it from closing.
    pub(crate) fn is_leaving(&self) -> bool {
        self.is_evicted.load(Ordering::Relaxed) && self.waiting().is_some()
    }

    /// Whether the connection waits between two requests, with nothing of the next one here.
    pub(crate) fn is_between_requests(&self) -> bool {
        self.busy.load(Ordering::Relaxed) == 0 && !self.in_head.load(Ordering::Relaxed)
    }

    /// A request has come; it is being answered until what this returns is dropped.
    pub(crate) fn request(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        self.in_head.store(false, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    pub(crate) fn bytes_came(&self, bytes: &[u8]) {
        if self.busy.load(Ordering::Relaxed) > 0 || self.is_http2.load(Ordering::Relaxed) {
            return;
        }
        let is_beginning = self.is_new.swap(false, Ordering::Relaxed);
        if is_beginning && bytes.starts_with(HTTP2_PREFACE) {
            self.is_http2.store(true, Ordering::Relaxed);
            self.in_head.store(false, Ordering::Relaxed);
            self.change();
        } else if !self.in_head.swap(true, Ordering::Relaxed) {
            self.change();
        }
    }

    fn change(&self) {
        self.changed_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Looks at least as often as a head may take, so that a head which begins between two looks is never noticed late.
    pub(crate) fn look(&self, limits: &Limits) -> Look {
        let often = limits.header_time.min(limits.idle_time);
        if self.busy.load(Ordering::Relaxed) > 0 {
            return Look::Again(often);
        }
        let changed = Duration::from_millis(self.changed_ms.load(Ordering::Relaxed));
        let since = self.began.elapsed().saturating_sub(changed);
        let in_head = self.in_head.load(Ordering::Relaxed);
        let time_max = if in_head { limits.header_time } else { limits.idle_time };
        match time_max.checked_sub(since) {
            Some(left) if !left.is_zero() => Look::Again(left.min(often)),
            _ if in_head => Look::Slow,
            _ => Look::Idle,
        }
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Pulse>);

impl Busy {
    /// Whether the answer must say that the connection ends with it. HTTP/2 says so in a frame of its own.
    pub(crate) fn is_last(&self) -> bool {
        self.0.is_stopping.load(Ordering::Relaxed) && !self.0.is_http2.load(Ordering::Relaxed)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.change();
        self.0.in_head.store(false, Ordering::Relaxed);
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request whose body is still arriving.
#[derive(Debug)]
pub(crate) struct Reading(Arc<Pulse>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.reading.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> Limits {
        Limits::default().header_time(10 * SECOND).idle_time(60 * SECOND)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_is_slow_after_the_time_for_a_head() {
        let pulse = Pulse::new();
        tokio::time::advance(9 * SECOND).await;
        assert_eq!(pulse.look(&limits()), Look::Again(SECOND));
        tokio::time::advance(SECOND).await;
        assert_eq!(pulse.look(&limits()), Look::Slow);
    }

    #[tokio::test(start_paused = true)]
    async fn between_requests_a_connection_may_wait_longer_but_not_within_a_head() {
        let pulse = Arc::new(Pulse::new());
        pulse.bytes_came(b"GET");
        let busy = pulse.request();
        tokio::time::advance(100 * SECOND).await;
        assert_eq!(pulse.look(&limits()), Look::Again(10 * SECOND));
        drop(busy);
        tokio::time::advance(59 * SECOND).await;
        assert_eq!(pulse.look(&limits()), Look::Again(SECOND));
        pulse.bytes_came(b"G");
        tokio::time::advance(9 * SECOND).await;
        pulse.bytes_came(b"E");
        assert_eq!(pulse.look(&limits()), Look::Again(SECOND));
        tokio::time::advance(SECOND).await;
        assert_eq!(pulse.look(&limits()), Look::Slow);
    }

    #[tokio::test(start_paused = true)]
    async fn http2_without_a_request_is_idle_however_much_comes_in() {
        let pulse = Pulse::new();
        pulse.bytes_came(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        tokio::time::advance(59 * SECOND).await;
        pulse.bytes_came(b"ping");
        assert_eq!(pulse.look(&limits()), Look::Again(SECOND));
        tokio::time::advance(SECOND).await;
        assert_eq!(pulse.look(&limits()), Look::Idle);
    }
}
