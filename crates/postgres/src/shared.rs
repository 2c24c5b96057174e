//! What the handles of a store, its lanes and the watch over its horizon share.

use std::sync::Arc;

use purista_events::log_time::LogTime;
use purista_events::position::Position;
use tokio::sync::{Notify, watch};

use crate::blocked::Blocked;
use crate::codec;
use crate::forms::KnownForms;
use crate::queue::Queue;

/// Shared by everybody who works for one store.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) queue: Queue,
    pub(crate) head: watch::Sender<Position>,
    pub(crate) time: LogTime,
    pub(crate) forms: KnownForms,
    pub(crate) blocked: Blocked,
    /// Something was committed: others are told, and the horizon is looked at.
    pub(crate) written: Notify,
}

impl Shared {
    pub(crate) fn new(queue: Queue, time: LogTime, blocked: Blocked) -> Arc<Self> {
        Arc::new(Self {
            queue,
            head: watch::Sender::new(Position::START),
            time,
            forms: KnownForms::default(),
            blocked,
            written: Notify::new(),
        })
    }

    /// Learns how far the log can be followed.
    pub(crate) fn reached(&self, head: i64) {
        let head = codec::position(head);
        if head <= *self.head.borrow() {
            return;
        }
        self.head.send_if_modified(|known| {
            let is_further = head > *known;
            if is_further {
                *known = head;
            }
            is_further
        });
    }

    /// A group was committed whose last position is this.
    pub(crate) fn committed(&self, last: i64) {
        if codec::position(last) > Position::START {
            self.written.notify_one();
        }
    }
}
