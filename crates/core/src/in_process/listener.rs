//! One who listens: a bounded queue, and the pump that empties it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::address::Address;
use crate::bridge::{Consumer, Delivery, Outcome};
use crate::message::Message;
use crate::pump::{self, Control, Pulled, Settle};
use crate::subscription::Subscription;

/// How many messages wait for one subscription; a publisher then waits, until its message's deadline.
pub const QUEUE_MAX: usize = 1024;

/// The sending end of one subscription's queue.
pub(super) struct Listener {
    address: Address,
    queue: mpsc::Sender<Arc<Message>>,
    pump: Arc<Control>,
}

impl Listener {
    pub(super) fn name(&self) -> &Address {
        &self.address
    }

    /// What empties the queue.
    pub(super) fn pump(&self) -> &Arc<Control> {
        &self.pump
    }

    /// Puts a message into the queue, waiting for a place until `deadline`.
    pub(super) async fn offer(&self, message: Arc<Message>, deadline: Instant) -> Result<(), ()> {
        match self.queue.try_send(message) {
            // A closed queue was stopped between the look at the table and now: nobody listens there any more.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(message)) => {
                match tokio::time::timeout_at(deadline, self.queue.send(message)).await {
                    Ok(Ok(())) => Ok(()),
                    _ => Err(()),
                }
            }
        }
    }
}

/// Starts the pump of one subscription.
pub(super) fn start(
    subscription: &Subscription,
    consumer: Arc<dyn Consumer>,
    tasks: &TaskTracker,
) -> Arc<Listener> {
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    let returned = Arc::new(Returned::default());
    let pump = pump::start(Queue { receiver, returned }, consumer, subscription.in_flight, tasks);
    Arc::new(Listener { address: subscription.address.clone(), queue: sender, pump })
}

/// Messages that come back for another attempt; at most as many as are in flight.
#[derive(Default)]
struct Returned {
    /// Whether there are any, so that a look for one seldom takes the lock.
    are_there: AtomicBool,
    waiting: Mutex<VecDeque<(Arc<Message>, u32)>>,
}

impl Returned {
    fn push(&self, message: Arc<Message>, attempt: u32) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push_back((message, attempt));
        self.are_there.store(true, Ordering::Release);
    }

    fn pop(&self) -> Option<(Arc<Message>, u32)> {
        if !self.are_there.load(Ordering::Acquire) {
            return None;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let first = waiting.pop_front();
        self.are_there.store(!waiting.is_empty(), Ordering::Release);
        first
    }
}

struct Queue {
    receiver: mpsc::Receiver<Arc<Message>>,
    returned: Arc<Returned>,
}

impl Queue {
    fn pulled(&self, message: Arc<Message>, attempt: u32) -> Pulled<Back> {
        let delivery = Delivery { message: Arc::clone(&message).into(), attempt };
        Pulled { delivery, settle: Back { message, attempt, returned: Arc::clone(&self.returned) } }
    }
}

impl Stream for Queue {
    type Item = Pulled<Back>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Pulled<Back>>> {
        if let Some((message, attempt)) = self.returned.pop() {
            return Poll::Ready(Some(self.pulled(message, attempt)));
        }
        // What comes back arrives through a settlement, which the pump itself runs and after which it pulls again, so the
        // queue alone needs to wake it.
        match self.receiver.poll_recv(cx) {
            Poll::Ready(Some(message)) => Poll::Ready(Some(self.pulled(message, 1))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Brings a message back into its queue when it is to be tried again.
pub(super) struct Back {
    message: Arc<Message>,
    attempt: u32,
    returned: Arc<Returned>,
}

impl Settle for Back {
    fn nothing_to_tell(&self, outcome: &Outcome) -> bool {
        matches!(outcome, Outcome::Ack | Outcome::Drop)
    }

    async fn settle(self, outcome: Outcome) {
        match outcome {
            Outcome::Retry { after } => {
                tokio::time::sleep(after).await;
                self.returned.push(self.message, self.attempt.saturating_add(1));
            }
            Outcome::DeadLetter { reason } => {
                tracing::error!(
                    %reason, message_id = %self.message.id, trace_id = %self.message.trace_id, attempt = self.attempt,
                    "a message is lost: the in-process bridge keeps no dead letters, a store does"
                );
            }
            Outcome::Ack | Outcome::Drop | Outcome::Reply(_) | Outcome::Pause { .. } => {}
        }
    }
}
