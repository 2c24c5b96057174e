//! What has arrived for one subscription and is not consumed yet.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
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
    /// The bytes of a message that is larger than the bridge accepts; `raw` is without them.
    pub(crate) oversize: Option<usize>,
}

impl Arrival {
    /// What the broker sent over a connection. The body of a message with more than `bytes_max` bytes is dropped here, before
    /// it waits in a queue: its sender is told of its size, and needs no more.
    pub(crate) fn new(mut raw: Publish, line: &Arc<Line>, bytes_max: usize) -> Self {
        let oversize = Some(raw.payload.len()).filter(|bytes| *bytes > bytes_max);
        if oversize.is_some() {
            raw.payload = Bytes::new();
        }
        Self { raw: Arc::new(raw), line: Arc::clone(line), oversize }
    }
}

/// A bounded queue in the order of arrival, with one reader.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    count_max: usize,
    changed: Notify,
    /// Told when nothing waits any more and something was refused.
    owed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    arrivals: VecDeque<Arrival>,
    bytes: usize,
    is_closed: bool,
    /// Whether one was refused since the queue was forgotten. All behind it are, too, or they would overtake it.
    is_owed: bool,
}

impl Queue {
    pub(crate) fn new(count_max: usize) -> Arc<Self> {
        Arc::new(Self {
            waiting: Mutex::default(),
            count_max: count_max.max(1),
            changed: Notify::new(),
            owed: Notify::new(),
        })
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

    /// Takes an arrival that comes again when it is refused; `false` from the first that has no place until the queue is
    /// forgotten.
    pub(crate) fn offer_in_order(&self, arrival: Arrival) -> bool {
        if self.lock().is_owed {
            return false;
        }
        let is_taken = self.offer(arrival);
        if !is_taken {
            self.lock().is_owed = true;
        }
        is_taken
    }

    /// Waits until all that was taken has been read and something was refused before.
    pub(crate) async fn owing(&self) {
        loop {
            let owed = self.owed.notified();
            {
                let waiting = self.lock();
                if waiting.is_owed && waiting.arrivals.is_empty() {
                    return;
                }
            }
            owed.await;
        }
    }

    /// The next one; `None` when the queue is closed and empty. Cancel safe.
    pub(crate) async fn next(&self) -> Option<Arrival> {
        loop {
            let changed = self.changed.notified();
            {
                let mut waiting = self.lock();
                if let Some(arrival) = waiting.arrivals.pop_front() {
                    waiting.bytes = waiting.bytes.saturating_sub(arrival.raw.payload.len());
                    if waiting.is_owed && waiting.arrivals.is_empty() {
                        self.owed.notify_one();
                    }
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
        waiting.is_owed = false;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in here can panic half-way, so a poisoned queue is whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use rumqttc::{AsyncClient, MqttOptions, QoS};
    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn arrivals() -> impl Iterator<Item = Arrival> {
        let (client, _) = AsyncClient::builder(MqttOptions::new("c", "localhost")).build();
        let (lost, unsubscribed) = (CancellationToken::new(), watch::channel(0).0);
        let line = Arc::new(Line {
            number: 1,
            client,
            packet_bytes_max: 1,
            refused: Arc::default(),
            lost,
            unsubscribed,
        });
        (0_u8..).map(move |n| {
            let raw = Publish::new("t", QoS::AtLeastOnce, vec![n], None);
            Arrival::new(raw, &line, 1)
        })
    }

    async fn next(queue: &Queue) -> u8 {
        queue.next().await.unwrap().raw.payload[0]
    }

    #[tokio::test]
    async fn nothing_overtakes_what_was_refused_and_comes_again() {
        let (queue, mut arrivals) = (Queue::new(2), arrivals());
        let offered: Vec<bool> = arrivals.by_ref().take(3).map(|one| queue.offer_in_order(one)).collect();
        assert_eq!(offered, [true, true, false]);
        assert_eq!(next(&queue).await, 0);
        assert!(!queue.offer_in_order(arrivals.next().unwrap()), "there is a place, and 2 was refused");
        assert!(queue.owing().now_or_never().is_none(), "1 has not been read");
        assert_eq!(next(&queue).await, 1);
        assert!(queue.owing().now_or_never().is_some());
        queue.forget();
        assert!(queue.owing().now_or_never().is_none(), "it is on its way again");
        assert!(queue.offer_in_order(arrivals.next().unwrap()));
    }
}
