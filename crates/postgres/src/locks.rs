//! Which locks a group of batches takes, so that two who decide on the same go one after the other.
//!
//! Everybody who writes holds, until his commit: the whole log, shared; the types and tags of his events, shared; their streams,
//! exclusively; and what his conditions look at, exclusively. So a condition that held is not made untrue by somebody whose
//! events cannot be seen yet. The keys are hashes: two names of one hash wait for each other now and then, and nothing else.

use std::collections::BTreeMap;

use purista_events::batch::{Batch, Condition};
use purista_events::query::{Query, QueryItem, TenantScope};

use crate::codec;

/// The most locks of one transaction: the server has room for some thousands of all transactions together. Who needs more
/// takes the whole log instead.
const LOCKS_MAX: usize = 512;

/// What is locked. The order is that in which locks are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Log = 1,
    Type,
    Tag,
    State,
    Subscription,
}

/// The locks of one transaction, by key; `true` is exclusive.
#[derive(Debug)]
pub(crate) struct Locks {
    schema: u64,
    taken: BTreeMap<i64, bool>,
}

impl Locks {
    /// None yet, of the log in this schema.
    pub(crate) fn new(schema: &str) -> Self {
        let schema = hash(FNV_START, schema.as_bytes());
        let mut locks = Self { schema, taken: BTreeMap::new() };
        locks.take(Kind::Log, &[], false);
        locks
    }

    /// The lock under which numbers and times are given.
    pub(crate) fn guard(schema: &str) -> i64 {
        as_key(hash(hash(FNV_START, schema.as_bytes()), b"\0time"))
    }

    /// Keys and whether each is exclusive, in the order in which they are taken.
    pub(crate) fn columns(&self) -> (Vec<i64>, Vec<bool>) {
        if self.taken.len() <= LOCKS_MAX {
            return self.taken.iter().unzip();
        }
        (vec![self.key(Kind::Log, &[])], vec![true])
    }

    /// What a batch needs.
    pub(crate) fn add(&mut self, batch: &Batch) {
        let tenant = codec::tenant_key(batch.tenant.as_deref());
        for append in &batch.appends {
            for event in &append.events {
                self.take(Kind::Type, &[&event.name], false);
                for (index, (name, value)) in event.tags.iter().enumerate() {
                    self.take(Kind::Tag, &[&tenant, name, value], index == 0);
                }
            }
            match &append.condition {
                Condition::Stream { name, value, .. } => self.take(Kind::Tag, &[&tenant, name, value], true),
                Condition::Unless(query, _) => self.query(query),
                _ => {}
            }
        }
        for change in &batch.state {
            self.take(Kind::State, &[&tenant, &change.key], true);
        }
        let subscriptions = batch.progress.iter().map(|change| &change.subscription);
        let subscriptions = subscriptions.chain(batch.consumed.iter().map(|(subscription, _)| subscription));
        let subscriptions = subscriptions.chain(batch.pauses.iter().map(|(subscription, _)| subscription));
        let parked = batch.parked.iter().map(|change| match change {
            purista_events::subscriptions::ParkedChange::Keep(parked) => &parked.subscription,
            purista_events::subscriptions::ParkedChange::Forget(subscription, _) => subscription,
        });
        for subscription in subscriptions.chain(parked) {
            self.take(Kind::Subscription, &[subscription.as_str()], true);
        }
        for letter in &batch.forgotten_dead_letters {
            self.take(Kind::Subscription, &["", &letter.text()], true);
        }
    }

    fn query(&mut self, query: &Query) {
        let TenantScope::Only(tenant) = &query.tenants else { return self.take(Kind::Log, &[], true) };
        let tenant = codec::tenant_key(tenant.as_deref());
        if query.items.is_empty() {
            self.take(Kind::Log, &[], true);
        }
        for QueryItem { types, tags } in &query.items {
            // One tag is enough: whoever writes an event that is selected holds all of its tags.
            match tags.first() {
                Some((name, value)) => self.take(Kind::Tag, &[&tenant, name, value], true),
                None if types.is_empty() => self.take(Kind::Log, &[], true),
                None => types.iter().for_each(|name| self.take(Kind::Type, &[name], true)),
            }
        }
    }

    fn take(&mut self, kind: Kind, parts: &[&str], is_exclusive: bool) {
        *self.taken.entry(self.key(kind, parts)).or_default() |= is_exclusive;
    }

    fn key(&self, kind: Kind, parts: &[&str]) -> i64 {
        let start = hash(self.schema, &[0, kind as u8]);
        let key = parts.iter().fold(start, |key, part| hash(hash(key, part.as_bytes()), &[0]));
        as_key(key)
    }
}

/// FNV-1a: the same on every machine and in every version, since processes of different builds meet at these locks.
const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

fn hash(from: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(from, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn as_key(hash: u64) -> i64 {
    i64::from_ne_bytes(hash.to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use purista_core::id::Id;
    use purista_events::batch::Append;
    use purista_events::position::{Position, ReadToken};

    use super::*;

    fn locks(condition: Condition) -> BTreeMap<i64, bool> {
        let mut locks = Locks::new("purista");
        let batch = Batch::new(Id::from_random(1), None);
        locks.add(&Batch { appends: vec![Append { events: Vec::new(), condition }], ..batch });
        locks.taken
    }

    fn unless(query: Query) -> BTreeMap<i64, bool> {
        locks(Condition::Unless(query, ReadToken::seen_up_to(Position::START)))
    }

    #[test]
    fn keys_stay_what_they_are() {
        // Two versions of a program meet at these locks: other keys would let both through.
        assert_eq!(
            locks(Condition::Always).into_keys().collect::<Vec<_>>(),
            [Locks::new("purista").key(Kind::Log, &[])]
        );
        assert_eq!(hash(FNV_START, b"purista"), 0xa6ed_a3fe_af53_84db);
    }

    #[test]
    fn a_condition_locks_what_it_looks_at() {
        let of_stream = locks(Condition::Stream { name: "user".into(), value: "ada".into(), version: 0 });
        assert_eq!(unless(Query::tag("user", "ada").of_tenant(None)), of_stream, "a stream is a tag");
        assert_eq!(of_stream.values().filter(|is_exclusive| **is_exclusive).count(), 1);
        for whole in [Query::all(), Query::all().of_tenant(None), Query::tag("user", "ada")] {
            assert_eq!(unless(whole).into_values().collect::<Vec<_>>(), [true]);
        }
    }
}
