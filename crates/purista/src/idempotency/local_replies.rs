//! Replies under idempotency keys on a host without a store: a bounded map in memory, with the time to live of a store's.
//!
//! A key then works within this process and ends with it. Where the map is full, the oldest replies go first: their keys do
//! their work a second time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use purista_events::batch::{RECEIPTS_KEPT_DAYS, StoredReply};
use tokio::time::Instant;

use super::Scope;

/// How many replies a host without a store keeps.
pub(crate) const LOCAL_REPLIES_MAX: usize = 100_000;

/// How many bytes these replies have together, keys included.
pub(crate) const LOCAL_REPLIES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long each is kept, as long as a store keeps it.
pub(crate) const LOCAL_REPLY_TIME: Duration = Duration::from_hours(RECEIPTS_KEPT_DAYS.unsigned_abs() * 24);

/// The replies of this process.
pub(super) struct LocalReplies {
    kept: Mutex<Kept>,
    replies_max: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct Kept {
    replies: HashMap<Scope, StoredReply>,
    /// From the oldest.
    order: VecDeque<(Instant, Scope)>,
    bytes: usize,
}

impl Default for LocalReplies {
    fn default() -> Self {
        Self::bounded(LOCAL_REPLIES_MAX, LOCAL_REPLIES_BYTES_MAX)
    }
}

impl LocalReplies {
    fn bounded(replies_max: usize, bytes_max: usize) -> Self {
        Self { kept: Mutex::default(), replies_max, bytes_max }
    }

    /// The reply under a key, if it is still kept.
    pub(super) fn get(&self, scope: &Scope) -> Option<StoredReply> {
        let mut kept = self.lock();
        kept.expire();
        kept.replies.get(scope).cloned()
    }

    /// Keeps a reply; the oldest go where there is no room.
    pub(super) fn keep(&self, scope: &Scope, reply: StoredReply) {
        let mut kept = self.lock();
        kept.expire();
        if kept.replies.contains_key(scope) {
            return;
        }
        kept.bytes += size(scope, &reply);
        kept.order.push_back((Instant::now(), scope.clone()));
        kept.replies.insert(scope.clone(), reply);
        let mut evicted = 0_usize;
        while kept.replies.len() > self.replies_max || kept.bytes > self.bytes_max {
            let Some((_, oldest)) = kept.order.pop_front() else { break };
            kept.remove(&oldest);
            evicted += 1;
        }
        drop(kept);
        if evicted > 0 {
            tracing::debug!(evicted, "replies under idempotency keys were evicted: no room, and no store");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing in here runs code of others.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn expire(&mut self) {
        let now = Instant::now();
        while let Some((_, expired)) =
            self.order.pop_front_if(|(since, _)| now.duration_since(*since) >= LOCAL_REPLY_TIME)
        {
            self.remove(&expired);
        }
    }

    fn remove(&mut self, scope: &Scope) {
        if let Some(reply) = self.replies.remove(scope) {
            self.bytes = self.bytes.saturating_sub(size(scope, &reply));
        }
    }
}

/// What an entry takes, about; the scope is there twice.
fn size((tenant, key): &Scope, reply: &StoredReply) -> usize {
    let scope = tenant.as_deref().map_or(0, str::len) + key.scope.len() + key.key.len();
    let body = reply.body.as_ref().map_or(0, bytes::Bytes::len);
    scope + body + 2 * size_of::<Scope>() + size_of::<StoredReply>()
}

#[cfg(test)]
mod tests {
    use purista_events::batch::ReplyKey;
    use purista_events::fingerprint::Fingerprint;

    use super::*;

    fn scope(nth: usize) -> Scope {
        (None, ReplyKey { scope: "s".into(), key: format!("{nth:03}").into() })
    }

    fn reply(nth: usize, bytes: usize) -> StoredReply {
        let key = scope(nth).1;
        StoredReply {
            key,
            fingerprint: Fingerprint([0; 16]),
            body: Some(vec![0; bytes].into()),
            event_name: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_map_evicts_its_oldest_by_count_and_by_bytes() {
        let by_count = LocalReplies::bounded(3, usize::MAX);
        (0..3).for_each(|nth| by_count.keep(&scope(nth), reply(nth, 1)));
        assert!((0..3).all(|nth| by_count.get(&scope(nth)).is_some()), "what fits is kept");
        by_count.keep(&scope(3), reply(3, 1));
        assert!(by_count.get(&scope(0)).is_none() && (1..4).all(|nth| by_count.get(&scope(nth)).is_some()));

        let one = size(&scope(0), &reply(0, 1_000));
        let by_bytes = LocalReplies::bounded(usize::MAX, 3 * one);
        (0..3).for_each(|nth| by_bytes.keep(&scope(nth), reply(nth, 1_000)));
        assert!((0..3).all(|nth| by_bytes.get(&scope(nth)).is_some()));
        by_bytes.keep(&scope(3), reply(3, 1_001));
        assert!((0..2).all(|nth| by_bytes.get(&scope(nth)).is_none()), "a byte more takes the room of two");
        assert!((2..4).all(|nth| by_bytes.get(&scope(nth)).is_some()));
        assert!(by_bytes.lock().bytes <= 3 * one && by_bytes.lock().order.len() == 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reply_is_kept_for_its_time_and_not_longer() {
        let replies = LocalReplies::default();
        replies.keep(&scope(0), reply(0, 1));
        tokio::time::advance(LOCAL_REPLY_TIME.saturating_sub(Duration::from_secs(1))).await;
        assert!(replies.get(&scope(0)).is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(replies.get(&scope(0)).is_none());
        let kept = replies.lock();
        assert!(kept.bytes == 0 && kept.order.is_empty() && kept.replies.is_empty());
    }
}
