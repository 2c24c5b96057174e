//! What the memory engine keeps, and for how long.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use purista_core::id::Id;
use serde_json::Value;

use crate::batch::{RECEIPTS_KEPT_DAYS, Receipt, ReplyKey, StoredReply};
use crate::memory::tables::Tables;
use crate::position::Position;
use crate::read_models::{Build, BuildPause};
use crate::recorded::Recorded;
use crate::snapshot::{Snapshot, SnapshotKey};
use crate::subscriptions::{DeadLetter, Parked, Pause, Progress, SubscriptionId};

/// Part of every key that two tenants might share.
pub(super) type Tenant = Option<Arc<str>>;

/// Everything that is kept.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// The event at position p is the one at index p - 1.
    pub(super) events: Vec<Recorded>,
    /// How many events a stream has, by tenant and by name and value of its tag.
    pub(super) streams: HashMap<(Tenant, String, String), u64>,
    pub(super) state: HashMap<(Tenant, String), Entry>,
    pub(super) receipts: HashMap<Id, Receipt>,
    pub(super) replies: HashMap<(Tenant, ReplyKey), StoredReply>,
    pub(super) consumed: HashSet<(SubscriptionId, Id)>,
    pub(super) subscriptions: BTreeMap<SubscriptionId, Kept>,
    pub(super) dead_letters: Vec<DeadLetter>,
    /// Read models, by their builds.
    pub(super) builds: BTreeMap<Build, Built>,
    pub(super) snapshots: HashMap<SnapshotKey, Snapshot>,
    /// What is forgotten after its days, oldest first.
    pub(super) expiring: VecDeque<(Timestamp, Expiring)>,
    /// The time of the log. It never runs back, whatever the clock does.
    pub(super) time: Timestamp,
}

/// A key of state. It stays when its value is gone, so that no version of a key ever comes again: a writer that read
/// the value before must not take a later one for it.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    pub(super) value: Option<Value>,
    pub(super) version: u64,
    pub(super) expires_at: Option<Timestamp>,
}

/// What is kept for one subscription. Without progress it was never registered.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) progress: Option<Progress>,
    pub(super) parked: BTreeMap<Position, Parked>,
    pub(super) pause: Option<Pause>,
}

/// What is kept for some days.
#[derive(Debug)]
pub(super) enum Expiring {
    Receipt(Id),
    Reply(Tenant, ReplyKey),
    Consumed(SubscriptionId, Id),
}

impl Log {
    /// The position of the last event.
    pub(super) fn head(&self) -> Position {
        self.events.last().map_or(Position::START, |event| event.position)
    }

    /// Moves the time of the log on, and forgets what was kept long enough.
    pub(super) fn let_time_pass(&mut self, now: Timestamp) {
        self.time = self.time.max(now);
        let kept_for = SignedDuration::from_hours(RECEIPTS_KEPT_DAYS * 24);
        while let Some((_, expired)) =
            self.expiring.pop_front_if(|(since, _)| self.time.duration_since(*since) >= kept_for)
        {
            match expired {
                Expiring::Receipt(id) => drop(self.receipts.remove(&id)),
                Expiring::Reply(tenant, key) => drop(self.replies.remove(&(tenant, key))),
                Expiring::Consumed(subscription, message) => {
                    self.consumed.remove(&(subscription, message));
                }
            }
        }
    }
}

impl Entry {
    /// The value, unless it was removed or its time is over.
    pub(super) fn value_at(&self, time: Timestamp) -> Option<&Value> {
        self.value.as_ref().filter(|_| self.expires_at.is_none_or(|end| time < end))
    }
}

impl Kept {
    pub(super) fn is_empty(&self) -> bool {
        self.progress.is_none() && self.parked.is_empty() && self.pause.is_none()
    }
}

/// A build with its rows.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) position: Position,
    pub(super) is_current: bool,
    pub(super) pause: Option<BuildPause>,
    pub(super) tables: Tables,
}
