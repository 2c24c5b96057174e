//! What is under way for one durable subscription: pure bookkeeping, without a clock or a store of its own.
//!
//! Events of one key go one after another; a parked event holds back those behind it, which are parked too, so that the
//! window stays free for other keys.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use purista_events::position::Position;
use purista_events::recorded::Recorded;
use purista_events::store::FollowPage;
use purista_events::subscriptions::{Parked, SubscriptionRecord};
use tokio::time::Instant;

use super::due::Moment;
use super::{FINISHED_SAVED_MAX, PARKED_KEY_MAX, PARKED_MAX};

/// Something to do now.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every job is the large one, and none lives long")]
pub(crate) enum Job {
    /// Try this event for the first time.
    First(Recorded),
    /// Try a parked event again.
    Again(Parked),
    /// Park these behind one of their key.
    ParkBehind(Vec<Recorded>),
    /// Make these dead letters: they would wait behind one of their key, and too many wait already.
    GiveUp(Vec<(Recorded, Overflow)>),
}

/// Which bound of the waiting events is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overflow {
    /// [`PARKED_KEY_MAX`] events of the key wait.
    Key,
    /// [`PARKED_MAX`] events of the subscription wait.
    Subscription,
}

impl Overflow {
    /// The reason of a dead letter.
    pub(crate) fn reason(self) -> String {
        match self {
            Self::Key => format!("{PARKED_KEY_MAX} events of its key wait for another attempt already"),
            Self::Subscription => {
                format!("{PARKED_MAX} events of the subscription wait for another attempt already")
            }
        }
    }
}

/// A parked event, and when it is tried again.
#[derive(Debug)]
struct Waiting {
    parked: Parked,
    /// `None`: at once.
    at: Option<Instant>,
}

/// Progress that is being saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Saving {
    pub(crate) up_to: Position,
    /// Finished beyond it, and not in the store yet.
    pub(crate) done: Vec<Position>,
}

/// The bookkeeping of one subscription.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// Everything up to here was fetched.
    cursor: Position,
    /// Everything up to here is finished, as the store knows.
    saved_up_to: Position,
    /// Finished beyond it, as the store knows.
    saved_done: BTreeSet<Position>,
    /// Finished, not known to the store yet.
    unsaved: BTreeSet<Position>,
    /// Fetched and not finished.
    unfinished: BTreeSet<Position>,
    /// Ready to be tried.
    ready: VecDeque<Recorded>,
    /// Keys of which one event is under way, and those behind it.
    lanes: HashMap<String, VecDeque<Recorded>>,
    /// The key of each event under way.
    keys: HashMap<Position, String>,
    /// To be parked behind one of their key.
    to_park: Vec<Recorded>,
    /// To become dead letters, since too many wait.
    to_give_up: Vec<(Recorded, Overflow)>,
    parked: BTreeMap<Position, Waiting>,
    /// The parked events that hold back others but are held back by none, by the time of their next attempt.
    due: BTreeSet<(Option<Instant>, Position)>,
    /// The parked positions of each key.
    blocked: HashMap<String, BTreeSet<Position>>,
    /// Parked events that are being tried.
    trying: BTreeSet<Position>,
    /// How many parked events are tried at a time: half of all attempts, so that the others are left for new events.
    trying_max: usize,
    /// Whether the last attempt was one at a parked event.
    was_again: bool,
}

impl Ledger {
    pub(crate) fn new(record: SubscriptionRecord, in_flight: usize, now: &Moment) -> Self {
        let mut ledger = Self {
            cursor: record.progress.low,
            saved_up_to: record.progress.low,
            saved_done: record.progress.done,
            unsaved: BTreeSet::new(),
            unfinished: BTreeSet::new(),
            ready: VecDeque::new(),
            lanes: HashMap::new(),
            keys: HashMap::new(),
            to_park: Vec::new(),
            to_give_up: Vec::new(),
            parked: BTreeMap::new(),
            due: BTreeSet::new(),
            blocked: HashMap::new(),
            trying: BTreeSet::new(),
            trying_max: in_flight.div_ceil(2).max(1),
            was_again: false,
        };
        record.parked.into_iter().for_each(|parked| ledger.park(parked, now));
        ledger
    }

    pub(crate) fn cursor(&self) -> Position {
        self.cursor
    }

    /// How many events wait for another attempt.
    pub(crate) fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Whether so many events wait that one that fails for the first time becomes a dead letter.
    pub(crate) fn is_full(&self) -> bool {
        self.parked.len() >= PARKED_MAX
    }

    /// How many events are fetched and not finished.
    pub(crate) fn window(&self) -> usize {
        self.unfinished.len()
    }

    /// Whether nothing is under way, waits, or is to be saved.
    pub(crate) fn is_empty(&self) -> bool {
        self.unfinished.is_empty() && self.parked.is_empty() && self.unsaved.is_empty()
    }

    /// Takes the next page of the log.
    pub(crate) fn admit(&mut self, page: FollowPage) {
        for event in page.events {
            if event.position <= self.saved_up_to || self.saved_done.contains(&event.position) {
                continue;
            }
            self.unfinished.insert(event.position);
            let Some(key) = event.order_key() else {
                self.ready.push_back(event);
                continue;
            };
            if self.blocked.contains_key(&key) {
                self.hold_back(key, event);
            } else if let Some(lane) = self.lanes.get_mut(&key) {
                lane.push_back(event);
            } else {
                self.lanes.insert(key.clone(), VecDeque::new());
                self.keys.insert(event.position, key);
                self.ready.push_back(event);
            }
        }
        self.cursor = self.cursor.max(page.looked_up_to);
    }

    /// Parks an event behind one of its key. It blocks its key from now on, also while the store does not know yet: a later
    /// event must not overtake it.
    fn hold_back(&mut self, key: String, event: Recorded) {
        let of_key = self.blocked.get(&key).map_or(0, BTreeSet::len);
        if of_key >= PARKED_KEY_MAX {
            self.to_give_up.push((event, Overflow::Key));
        } else if self.parked.len() + self.to_park.len() >= PARKED_MAX {
            self.to_give_up.push((event, Overflow::Subscription));
        } else {
            self.blocked.entry(key).or_default().insert(event.position);
            self.to_park.push(event);
        }
    }

    /// What to do next. A parked event goes before a new one, since it is older; where both are ready they take turns.
    pub(crate) fn next_job(&mut self, now: Instant) -> Option<Job> {
        if !self.to_park.is_empty() {
            return Some(Job::ParkBehind(std::mem::take(&mut self.to_park)));
        }
        if !self.to_give_up.is_empty() {
            return Some(Job::GiveUp(std::mem::take(&mut self.to_give_up)));
        }
        if (!self.was_again || self.ready.is_empty())
            && let Some(parked) = self.take_due(now)
        {
            self.was_again = true;
            return Some(Job::Again(parked));
        }
        self.was_again = false;
        self.ready.pop_front().map(Job::First)
    }

    fn take_due(&mut self, now: Instant) -> Option<Parked> {
        let (at, position) = *self.next()?;
        if at.is_some_and(|at| at > now) {
            return None;
        }
        let parked = self.parked.get(&position)?.parked.clone();
        self.trying.insert(position);
        self.due.remove(&(at, position));
        Some(parked)
    }

    /// The parked event that is tried next, unless enough of them are being tried.
    fn next(&self) -> Option<&(Option<Instant>, Position)> {
        self.due.first().filter(|_| self.trying.len() < self.trying_max)
    }

    /// When the next parked event is tried again.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.next().and_then(|(at, _)| *at)
    }

    /// Keeps the index of due times true for one parked event.
    fn index(&mut self, position: Position) {
        let Some(Waiting { parked, at }) = self.parked.get(&position) else { return };
        let (at, is_idle) = (*at, !self.trying.contains(&position));
        let is_next = parked.key.as_ref().is_none_or(|key| {
            let first = self.blocked.get(key).and_then(BTreeSet::first);
            first == Some(&position) && !self.lanes.contains_key(key)
        });
        if is_idle && is_next {
            self.due.insert((at, position));
        } else {
            self.due.remove(&(at, position));
        }
    }

    /// The same for a key: only its first may be tried, and a new first takes the place of the one behind it.
    fn index_key(&mut self, key: &str) {
        let firsts = self.blocked.get(key).map(|positions| positions.iter().copied().take(2));
        for position in firsts.into_iter().flatten().collect::<Vec<_>>() {
            self.index(position);
        }
    }

    /// An event is finished: handled, refused, given up. `is_saved`: the store knows.
    pub(crate) fn finished(&mut self, position: Position, is_saved: bool) {
        self.trying.remove(&position);
        if let Some(Waiting { parked, at }) = self.parked.remove(&position) {
            // It was counted as finished when it was parked.
            self.due.remove(&(at, position));
            self.unblock(&parked);
            return;
        }
        self.leave_window(position, is_saved);
        self.free_lane(position);
    }

    fn leave_window(&mut self, position: Position, is_saved: bool) {
        if self.unfinished.remove(&position) {
            if is_saved {
                self.saved_done.insert(position)
            } else {
                self.unsaved.insert(position)
            };
        }
    }

    fn free_lane(&mut self, position: Position) {
        let Some(key) = self.keys.remove(&position) else { return };
        if let Some(next) = self.lanes.get_mut(&key).and_then(VecDeque::pop_front) {
            self.keys.insert(next.position, key);
            self.ready.push_back(next);
        } else {
            self.lanes.remove(&key);
            self.index_key(&key);
        }
    }

    fn unblock(&mut self, parked: &Parked) {
        let Some(key) = &parked.key else { return };
        if let Some(positions) = self.blocked.get_mut(key) {
            positions.remove(&parked.position);
            if positions.is_empty() {
                self.blocked.remove(key);
            }
        }
        self.index_key(key);
    }

    /// An event was parked until it is tried again; the store knows. Those behind it are to be parked too.
    pub(crate) fn parked_now(&mut self, parked: Parked, now: &Moment) {
        let position = parked.position;
        self.trying.remove(&position);
        self.leave_window(position, true);
        self.park(parked, now);
        if let Some(key) = self.keys.remove(&position) {
            for behind in self.lanes.remove(&key).unwrap_or_default() {
                self.hold_back(key.clone(), behind);
            }
            self.index_key(&key);
        }
    }

    /// An event was parked behind one of its key; the store knows.
    pub(crate) fn parked_behind(&mut self, parked: Parked, now: &Moment) {
        self.leave_window(parked.position, true);
        self.park(parked, now);
    }

    /// An event became a dead letter without an attempt; the store knows.
    pub(crate) fn given_up(&mut self, position: Position) {
        self.leave_window(position, true);
    }

    fn park(&mut self, parked: Parked, now: &Moment) {
        let (position, key, at) = (parked.position, parked.key.clone(), now.of_next_attempt(&parked));
        if let Some(before) = self.parked.insert(position, Waiting { parked, at }) {
            self.due.remove(&(before.at, position));
        }
        match key {
            Some(key) => {
                self.blocked.entry(key.clone()).or_default().insert(position);
                self.index_key(&key);
            }
            None => self.index(position),
        }
    }

    /// What the store has parked, somebody else's doing included.
    pub(crate) fn take_up(&mut self, parked: Vec<Parked>, now: &Moment) {
        for one in parked {
            // What is being parked right now is on its way here by itself.
            if !self.parked.contains_key(&one.position) && !self.unfinished.contains(&one.position) {
                self.park(one, now);
            }
        }
    }

    /// The watermark: everything at or below it is finished.
    fn watermark(&self) -> Position {
        self.unfinished.first().map_or(self.cursor, |first| first.previous()).max(self.saved_up_to)
    }

    /// Whether the store's watermark is behind.
    pub(crate) fn can_advance(&self) -> bool {
        self.watermark() > self.saved_up_to
    }

    /// How many positions above the watermark are finished.
    pub(crate) fn finished_ahead(&self) -> usize {
        self.saved_done.len() + self.unsaved.len()
    }

    /// Progress that the store does not know yet, if it is to be saved now. Handlers that commit finish their positions by
    /// themselves; the watermark, which replaces those positions, is saved when [`FINISHED_SAVED_MAX`] of them are stored, or
    /// when `advances` says that it is time.
    pub(crate) fn to_save(&self, advances: bool) -> Option<Saving> {
        let is_due = advances || self.saved_done.len() >= FINISHED_SAVED_MAX;
        if self.unsaved.is_empty() && !(is_due && self.can_advance()) {
            return None;
        }
        let up_to = self.watermark();
        let done = self.unsaved.iter().copied().filter(|position| *position > up_to).collect();
        Some(Saving { up_to, done })
    }

    /// The store knows this progress.
    pub(crate) fn saved(&mut self, saving: &Saving) {
        self.saved_up_to = self.saved_up_to.max(saving.up_to);
        self.saved_done.extend(&saving.done);
        let low = self.saved_up_to;
        self.unsaved.retain(|position| *position > low && !saving.done.contains(position));
        self.saved_done.retain(|position| *position > low);
    }
}

#[cfg(test)]
mod tests;
