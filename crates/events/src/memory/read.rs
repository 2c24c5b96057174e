//! Reads of the memory engine: each looks through everything, so that what it finds is plain to see.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use purista_core::id::Id;
use purista_core::store::Versioned;
use purista_core::text::Text;

use crate::batch::{ReplyKey, StoredReply};
use crate::form::{Counted, Form};
use crate::memory::log::Log;
use crate::position::Position;
use crate::query::Query;
use crate::recorded::Recorded;
use crate::snapshot::{Snapshot, SnapshotGroup, SnapshotKey};
use crate::store::{Direction, FollowPage};
use crate::subscriptions::{DeadLetter, SubscriptionId, SubscriptionRecord};

impl Log {
    /// The events after a position.
    pub(super) fn after(&self, from: Position) -> &[Recorded] {
        self.events.get(index(from)..).unwrap_or_default()
    }

    /// The events before a position.
    fn before(&self, from: Position) -> &[Recorded] {
        self.events.get(..index(from.previous())).unwrap_or(&self.events)
    }

    pub(super) fn page(
        &self,
        query: &Query,
        from: Position,
        direction: Direction,
        limit: usize,
    ) -> Vec<Recorded> {
        let selected = |event: &&Recorded| query.selects(event);
        match direction {
            Direction::Forwards => self.after(from).iter().filter(selected).take(limit).cloned().collect(),
            Direction::Backwards => {
                self.before(from).iter().rev().filter(selected).take(limit).cloned().collect()
            }
        }
    }

    pub(super) fn follow(&self, query: &Query, from: Position, limit: usize) -> FollowPage {
        let events = self.page(query, from, Direction::Forwards, limit);
        let looked_up_to = match events.last() {
            // The page is full: what comes after its last event was not looked at.
            Some(last) if events.len() == limit => last.position,
            None if limit == 0 => from,
            _ => from.max(self.head()),
        };
        FollowPage { events, looked_up_to, is_caught_up: looked_up_to >= self.head() }
    }

    pub(super) fn position_at(&self, time: Timestamp) -> Position {
        let recorded = self.events.partition_point(|event| event.recorded_at <= time);
        self.events.get(..recorded).and_then(<[_]>::last).map_or(Position::START, |event| event.position)
    }

    pub(super) fn recorded_at(&self, position: Position) -> Option<Timestamp> {
        let event = self.after(position.previous()).first().filter(|event| event.position == position)?;
        Some(event.recorded_at)
    }

    pub(super) fn count(&self, query: &Query, after: Position, up_to: Position, at_most: u64) -> Counted {
        let selected = self.after(after).iter().take_while(|event| event.position <= up_to);
        let found = selected.filter(|event| query.selects(event)).count();
        Counted::up_to(u64::try_from(found).unwrap_or(u64::MAX), at_most)
    }

    pub(super) fn forms(&self) -> Vec<Form> {
        let mut forms: BTreeMap<(Text, u32), Form> = BTreeMap::new();
        for Recorded { name, version, position, .. } in &self.events {
            let form = forms.entry((name.clone(), *version)).or_insert_with(|| Form {
                name: name.clone(),
                version: *version,
                count: Some(0),
                oldest: *position,
                newest: *position,
            });
            form.count = form.count.map(|count| count + 1);
            form.newest = *position;
        }
        forms.into_values().collect()
    }

    pub(super) fn snapshots(&self) -> Vec<SnapshotGroup> {
        let mut groups: BTreeMap<(Text, u32), SnapshotGroup> = BTreeMap::new();
        for Snapshot { key: SnapshotKey { name, version, .. }, taken_at, .. } in self.snapshots.values() {
            let group = groups.entry((name.clone(), *version)).or_insert_with(|| SnapshotGroup {
                name: name.clone(),
                version: *version,
                count: 0,
                newest: *taken_at,
            });
            group.count += 1;
            group.newest = group.newest.max(*taken_at);
        }
        groups.into_values().collect()
    }

    pub(super) fn state(&self, tenant: Option<&str>, keys: &[String]) -> BTreeMap<String, Versioned> {
        let tenant: Option<Arc<str>> = tenant.map(Arc::from);
        let found = keys.iter().filter_map(|key| {
            let entry = self.state.get(&(tenant.clone(), key.clone()))?;
            let value = entry.value_at(self.time)?.clone();
            Some((key.clone(), Versioned { value, version: entry.version }))
        });
        found.collect()
    }

    pub(super) fn reply(&self, tenant: Option<&str>, key: &ReplyKey) -> Option<StoredReply> {
        self.replies.get(&(tenant.map(Arc::from), key.clone())).cloned()
    }

    pub(super) fn subscription(&self, id: &SubscriptionId) -> Option<SubscriptionRecord> {
        self.subscriptions.get(id).map(|kept| SubscriptionRecord {
            progress: kept.progress.clone().unwrap_or_default(),
            parked: kept.parked.values().cloned().collect(),
            pause: kept.pause.clone(),
        })
    }

    pub(super) fn subscriptions(&self) -> Vec<SubscriptionId> {
        let registered = self.subscriptions.keys();
        let fed_by_a_bridge = self.consumed.iter().map(|(subscription, _)| subscription);
        let given_up = self.dead_letters.iter().map(|letter| &letter.subscription);
        let all: BTreeSet<_> = registered.chain(fed_by_a_bridge).chain(given_up).collect();
        all.into_iter().cloned().collect()
    }

    pub(super) fn is_consumed(&self, subscription: &SubscriptionId, message: &Id) -> bool {
        self.consumed.contains(&(subscription.clone(), message.clone()))
    }

    pub(super) fn dead_letters(
        &self,
        subscription: Option<&SubscriptionId>,
        limit: usize,
    ) -> Vec<DeadLetter> {
        let wanted = |letter: &&DeadLetter| {
            subscription.is_none_or(|subscription| letter.subscription == *subscription)
        };
        self.dead_letters.iter().filter(wanted).take(limit).cloned().collect()
    }
}

/// Where the events after a position begin.
fn index(position: Position) -> usize {
    usize::try_from(position.number()).unwrap_or(usize::MAX)
}
