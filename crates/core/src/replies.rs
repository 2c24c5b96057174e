//! The table of calls that wait for a reply, for carriers that bring replies as messages of their own.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::bridge::{BridgeError, BridgeErrorKind};
use crate::id::Id;
use crate::message::Message;

/// How many calls may wait at a time, unless the adapter says otherwise.
pub const REPLIES_PENDING_MAX: usize = 65_536;

/// What a call ended with.
type Ended = Result<Message, BridgeError>;

/// Pairs replies with the calls that wait for them, by correlation id. Bounded; an entry lives exactly as long as its call.
#[derive(Clone)]
pub struct Replies {
    pending: Arc<Mutex<HashMap<Id, oneshot::Sender<Ended>>>>,
    pending_max: usize,
    unclaimed: Arc<AtomicU64>,
}

impl Replies {
    /// A table for at most `pending_max` calls.
    pub fn new(pending_max: usize) -> Self {
        Self { pending: Arc::default(), pending_max, unclaimed: Arc::default() }
    }

    /// Announces a call, before it is sent: its reply may be faster than the sender.
    pub fn expect(&self, correlation_id: Id) -> Result<PendingReply, BridgeError> {
        let mut pending = self.lock();
        if pending.len() >= self.pending_max {
            return Err(BridgeError::new(BridgeErrorKind::Rejected, "too many calls wait for a reply"));
        }
        let Entry::Vacant(place) = pending.entry(correlation_id.clone()) else {
            return Err(BridgeError::new(
                BridgeErrorKind::Rejected,
                "a call with this correlation id is under way",
            ));
        };
        let (sender, receiver) = oneshot::channel();
        place.insert(sender);
        drop(pending);
        Ok(PendingReply { replies: self.clone(), correlation_id, receiver, has_left: false })
    }

    /// Hands a reply to its call. `false` when nobody waits, which is counted: it came after the deadline, twice, or was
    /// forged.
    pub fn complete(&self, reply: Message) -> bool {
        let waiting = reply.correlation_id.as_ref().and_then(|id| self.lock().remove(id));
        let is_claimed = waiting.is_some_and(|call| call.send(Ok(reply)).is_ok());
        if !is_claimed {
            self.unclaimed.fetch_add(1, Ordering::Relaxed);
        }
        is_claimed
    }

    /// How many replies came for which nobody waited.
    pub fn unclaimed(&self) -> u64 {
        self.unclaimed.load(Ordering::Relaxed)
    }

    /// Ends one call without a reply, as when the carrier says that nobody serves it. `false` when nobody waits.
    pub fn refuse(&self, correlation_id: &Id, error: BridgeError) -> bool {
        let waiting = self.lock().remove(correlation_id);
        waiting.is_some_and(|call| call.send(Err(error)).is_ok())
    }

    /// Ends every call as `Unknown`, as when the connection was lost.
    pub fn abandon(&self) {
        self.lock().clear();
    }

    /// How many calls wait.
    pub fn pending(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Id, oneshot::Sender<Ended>>> {
        // Nothing in here can panic half-way, so a poisoned table is whole.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Replies {
    fn default() -> Self {
        Self::new(REPLIES_PENDING_MAX)
    }
}

impl fmt::Debug for Replies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replies").field("pending", &self.pending()).finish_non_exhaustive()
    }
}

/// One call that waits; dropping it takes it out of the table.
#[derive(Debug)]
pub struct PendingReply {
    replies: Replies,
    correlation_id: Id,
    receiver: oneshot::Receiver<Ended>,
    /// Whoever ended it has taken it out of the table.
    has_left: bool,
}

impl PendingReply {
    /// Waits for the reply until `deadline`. Cancel safe: a dropped call leaves the table.
    pub async fn until(mut self, deadline: Instant) -> Result<Message, BridgeError> {
        let waited = tokio::time::timeout_at(deadline, &mut self.receiver).await;
        self.has_left = waited.is_ok();
        match waited {
            Ok(Ok(ended)) => ended,
            Ok(Err(_)) => Err(BridgeError::new(
                BridgeErrorKind::Unknown,
                "the connection was lost before the reply came",
            )),
            Err(_) => Err(BridgeError::new(BridgeErrorKind::Timeout, "no reply came before the deadline")),
        }
    }
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        if !self.has_left {
            self.replies.lock().remove(&self.correlation_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::address::{Address, ServiceId};
    use crate::message::{MessageType, Party};

    fn reply(correlation: u128) -> Message {
        let sender = Party::anywhere(Address::of(ServiceId::new("User", "1"), "signUp"));
        let mut reply = Message::new(
            Id::from_random(9),
            MessageType::CommandSuccessResponse,
            0,
            sender,
            Id::from_random(8),
        );
        reply.correlation_id = Some(Id::from_random(correlation));
        reply
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn a_reply_finds_its_call_once_and_the_table_is_empty_after() {
        let replies = Replies::default();
        let call = replies.expect(Id::from_random(1)).unwrap();
        assert!(!replies.complete(reply(2)), "a forged reply finds nobody");
        assert!(replies.complete(reply(1)));
        assert!(!replies.complete(reply(1)), "a second one neither");
        assert_eq!(replies.unclaimed(), 2);
        assert!(call.until(later()).await.is_ok());
        assert_eq!(replies.pending(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_at_its_deadline_or_with_the_connection() {
        let replies = Replies::default();
        let late = replies.expect(Id::from_random(1)).unwrap().until(later()).await.unwrap_err();
        assert_eq!(late.kind(), BridgeErrorKind::Timeout);
        let call = replies.expect(Id::from_random(2)).unwrap();
        replies.abandon();
        assert_eq!(call.until(later()).await.unwrap_err().kind(), BridgeErrorKind::Unknown);
        assert_eq!(replies.pending(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_call_ends_with_its_error_and_others_wait_on() {
        let replies = Replies::default();
        let (call, other) =
            (replies.expect(Id::from_random(1)).unwrap(), replies.expect(Id::from_random(2)).unwrap());
        let unserved = || BridgeError::new(BridgeErrorKind::Unroutable, "nobody serves it");
        assert!(replies.refuse(&Id::from_random(1), unserved()));
        assert!(!replies.refuse(&Id::from_random(1), unserved()), "once");
        assert_eq!(call.until(later()).await.unwrap_err().kind(), BridgeErrorKind::Unroutable);
        assert!(replies.complete(reply(2)));
        assert!(other.until(later()).await.is_ok());
    }

    #[test]
    fn the_table_is_bounded_and_a_dropped_call_leaves_it() {
        let replies = Replies::new(1);
        let call = replies.expect(Id::from_random(1)).unwrap();
        assert_eq!(replies.expect(Id::from_random(2)).unwrap_err().kind(), BridgeErrorKind::Rejected);
        drop(call);
        assert!(replies.expect(Id::from_random(2)).is_ok());
    }
}
