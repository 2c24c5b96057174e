//! What the handles of a store, its lanes and the watch over its horizon share.

use std::sync::Arc;

use purista_core::clock::Clock;
use purista_events::position::Position;
use tokio::sync::{Notify, watch};
use tokio_postgres::Row;

use crate::codec;
use crate::forms::KnownForms;
use crate::queue::Queue;
use crate::time::LogTime;

/// Shared by everybody who works for one store.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) queue: Queue,
    pub(crate) head: watch::Sender<Position>,
    pub(crate) time: LogTime,
    pub(crate) forms: KnownForms,
    /// Something was committed: others are told, and the horizon is looked at.
    pub(crate) written: Notify,
}

impl Shared {
    pub(crate) fn new(queue: Queue, clock: Clock, latest: i64) -> Arc<Self> {
        Arc::new(Self {
            queue,
            head: watch::Sender::new(Position::START),
            time: LogTime::new(clock, latest),
            forms: KnownForms::default(),
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

    /// A group was committed whose last position is this; `head` is what the look behind the commit found.
    pub(crate) fn committed(&self, last: i64, head: Option<&[Row]>) {
        let head = head.and_then(|rows| rows.first()).and_then(|row| row.try_get::<_, i64>(0).ok());
        if let Some(head) = head {
            self.reached(head);
        }
        // Also where the head is there already: other processes follow as well.
        if codec::position(last) > Position::START {
            self.written.notify_one();
        }
    }
}
