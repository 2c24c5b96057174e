//! A watch over the writer: what it is busy with, how long commits wait, and an end to their wait.
//!
//! The code of a projection runs on the writer's thread and cannot be ended from outside. While it runs, nothing of the commits
//! behind it has begun. So a thread of its own answers each of them at its deadline with "did not happen", and health names what
//! holds the writer.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use purista_events::store::{StoreError, StoreErrorKind};

use crate::queue::{Order, QUEUE_WAIT, Shared};

/// How often the watch looks.
const LOOKS_EVERY: Duration = Duration::from_millis(100);

/// How long before its deadline a commit is answered, so that its caller still hears of it.
const ANSWERED_BEFORE: Duration = Duration::from_millis(250);

/// What waits for the writer. It is taken in order.
#[derive(Clone)]
pub(crate) struct Inbox(Arc<Mutex<Waiting>>);

struct Waiting {
    orders: Receiver<Order>,
    /// What the watch has looked at. It comes before what lies in the channel.
    looked_at: VecDeque<Order>,
}

impl Inbox {
    pub(crate) fn new(orders: Receiver<Order>) -> Self {
        Self(Arc::new(Mutex::new(Waiting { orders, looked_at: VecDeque::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next order. The lock is held meanwhile: the watch looks only while the writer works.
    pub(crate) fn recv(&self) -> Result<Order, TryRecvError> {
        let mut waiting = self.lock();
        match waiting.looked_at.pop_front() {
            Some(order) => Ok(order),
            None => waiting.orders.recv().map_err(|_| TryRecvError::Disconnected),
        }
    }

    /// The same, for so long at most; then it is empty.
    pub(crate) fn recv_timeout(&self, time: Duration) -> Result<Order, TryRecvError> {
        let mut waiting = self.lock();
        match waiting.looked_at.pop_front() {
            Some(order) => Ok(order),
            None => waiting.orders.recv_timeout(time).map_err(|error| match error {
                RecvTimeoutError::Timeout => TryRecvError::Empty,
                RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
            }),
        }
    }

    /// The next order, if there is one.
    pub(crate) fn try_recv(&self) -> Result<Order, TryRecvError> {
        let mut waiting = self.lock();
        waiting.looked_at.pop_front().map_or_else(|| waiting.orders.try_recv(), Ok)
    }

    /// Answers the commits whose deadline is near, and says since when the oldest of the others waits.
    fn look(&self, held_by: &str, held_for: Duration) -> Option<Instant> {
        let mut waiting = self.lock();
        while let Ok(order) = waiting.orders.try_recv() {
            waiting.looked_at.push_back(order);
        }
        let now = Instant::now();
        let mut left = VecDeque::with_capacity(waiting.looked_at.len());
        let mut oldest: Option<Instant> = None;
        for order in waiting.looked_at.drain(..) {
            match order {
                Order::Commit(job) if job.is_due(now + ANSWERED_BEFORE) => {
                    let what = format!(
                        "commit of {} did not happen: its deadline came while {held_by} held the writer for {} s",
                        job.batch.id,
                        held_for.as_secs()
                    );
                    let _ = job.answer.send(Err(StoreError::new(StoreErrorKind::Overloaded, what)));
                }
                Order::Commit(job) => {
                    oldest = Some(oldest.map_or(job.queued_at, |oldest| oldest.min(job.queued_at)));
                    left.push_back(Order::Commit(job));
                }
                order => left.push_back(order),
            }
        }
        waiting.looked_at = left;
        oldest
    }
}

impl crate::queue::Job {
    /// Whether its caller waits no longer than until then.
    fn is_due(&self, then: Instant) -> bool {
        let until = self.batch.deadline.map(tokio::time::Instant::into_std);
        until.unwrap_or(self.queued_at + QUEUE_WAIT) <= then
    }
}

/// Watches until the writer ends.
pub(crate) fn start(shared: Arc<Shared>, inbox: Inbox) -> io::Result<()> {
    let watch = move || {
        while !*shared.ended.borrow() {
            std::thread::sleep(LOOKS_EVERY);
            if let Some((with, since)) = shared.busy.held() {
                let oldest = inbox.look(&with, since);
                shared.busy.set_oldest(oldest);
            }
        }
    };
    std::thread::Builder::new().name("purista-watch".to_owned()).spawn(watch).map(drop)
}
