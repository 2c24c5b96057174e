//! What has arrived for one subscription and is not consumed yet.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rumqttc::Publish;
use tokio::sync::Notify;

use crate::line::Line;

/// How many bytes wait at most for one subscription, in messages of whatever size.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// A publication, and the connection that brought it.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) raw: Arc<Publish>,
    pub(crate) line: Arc<Line>,
}

/// A bounded queue in the order of arrival, with one reader.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    count_max: usize,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    arrivals: VecDeque<Arrival>,
    bytes: usize,
    is_closed: bool,
}

impl Queue {
    pub(crate) fn new(count_max: usize) -> Arc<Self> {
        Arc::new(Self { waiting: Mutex::default(), count_max: count_max.max(1), changed: Notify::new() })
    }

    /// Takes an arrival; `false` when there is no place. Of a closed queue it is gone, which nobody need hear of.
    pub(crate) fn offer(&self, arrival: Arrival) -> bool {
        let mut waiting = self.lock();
        if waiting.is_closed {
            return true;
        }
        let bytes = waiting.bytes.saturating_add(arrival.raw.payload.len());
        if waiting.arrivals.len() >= self.count_max || bytes > WAITING_BYTES_MAX {
            return false;
        }
        waiting.bytes = bytes;
        waiting.arrivals.push_back(arrival);
        drop(waiting);
        self.changed.notify_one();
        true
    }

    /// The next one; `None` when the queue is closed and empty. Cancel safe.
    pub(crate) async fn next(&self) -> Option<Arrival> {
        loop {
            let changed = self.changed.notified();
            {
                let mut waiting = self.lock();
                if let Some(arrival) = waiting.arrivals.pop_front() {
                    waiting.bytes = waiting.bytes.saturating_sub(arrival.raw.payload.len());
                    return Some(arrival);
                }
                if waiting.is_closed {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Takes no more; what waits is still read.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// Forgets what waits: the broker has it, and brings it again.
    pub(crate) fn forget(&self) {
        let mut waiting = self.lock();
        waiting.arrivals.clear();
        waiting.bytes = 0;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in here can panic half-way, so a poisoned queue is whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
