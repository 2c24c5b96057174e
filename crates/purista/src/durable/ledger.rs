//! What is under way for one durable subscription: pure bookkeeping, without a clock or a store of its own.
//!
//! Events of one key go one after another; a parked event holds back those behind it, which are parked too, so that the
//! window stays free for other keys.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use jiff::Timestamp;
use purista_events::position::Position;
use purista_events::recorded::Recorded;
use purista_events::store::FollowPage;
use purista_events::subscriptions::{Parked, SubscriptionRecord};

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
    parked: BTreeMap<Position, Parked>,
    /// The parked positions of each key.
    blocked: HashMap<String, BTreeSet<Position>>,
    /// Parked events that are being tried.
    trying: BTreeSet<Position>,
}

impl Ledger {
    pub(crate) fn new(record: SubscriptionRecord) -> Self {
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
            parked: BTreeMap::new(),
            blocked: HashMap::new(),
            trying: BTreeSet::new(),
        };
        record.parked.into_iter().for_each(|parked| ledger.park(parked));
        ledger
    }

    pub(crate) fn cursor(&self) -> Position {
        self.cursor
    }

    pub(crate) fn parked(&self) -> usize {
        self.parked.len()
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
        self.blocked.entry(key).or_default().insert(event.position);
        self.to_park.push(event);
    }

    /// What to do next. A parked event goes before new ones: it is older.
    pub(crate) fn next_job(&mut self, now: Timestamp) -> Option<Job> {
        if !self.to_park.is_empty() {
            return Some(Job::ParkBehind(std::mem::take(&mut self.to_park)));
        }
        if let Some(parked) = self.due(now).cloned() {
            self.trying.insert(parked.position);
            return Some(Job::Again(parked));
        }
        self.ready.pop_front().map(Job::First)
    }

    fn due(&self, now: Timestamp) -> Option<&Parked> {
        self.waiting().find(|parked| parked.due.is_none_or(|due| due <= now))
    }

    /// When the next parked event is tried again.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.waiting().filter_map(|parked| parked.due).min()
    }

    /// Parked events that hold back others but are held back by none.
    fn waiting(&self) -> impl Iterator<Item = &Parked> {
        let is_free = |parked: &Parked| parked.key.as_ref().is_none_or(|key| !self.lanes.contains_key(key));
        let is_idle = move |parked: &Parked| !self.trying.contains(&parked.position) && is_free(parked);
        self.parked.values().filter(move |parked| is_idle(parked) && self.is_first(parked))
    }

    fn is_first(&self, parked: &Parked) -> bool {
        let Some(key) = &parked.key else { return true };
        let first = self.blocked.get(key).and_then(|positions| positions.first());
        first.is_none_or(|first| *first == parked.position)
    }

    /// An event is finished: handled, refused, given up. `is_saved`: the store knows.
    pub(crate) fn finished(&mut self, position: Position, is_saved: bool) {
        self.trying.remove(&position);
        if let Some(parked) = self.parked.remove(&position) {
            // It was counted as finished when it was parked.
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
    }

    /// An event was parked until it is tried again; the store knows. Those behind it are to be parked too.
    pub(crate) fn parked_now(&mut self, parked: Parked) {
        let position = parked.position;
        self.trying.remove(&position);
        self.leave_window(position, true);
        if let Some(key) = self.keys.remove(&position) {
            for behind in self.lanes.remove(&key).unwrap_or_default() {
                self.hold_back(key.clone(), behind);
            }
        }
        self.park(parked);
    }

    /// An event was parked behind one of its key; the store knows.
    pub(crate) fn parked_behind(&mut self, parked: Parked) {
        self.leave_window(parked.position, true);
        self.park(parked);
    }

    fn park(&mut self, parked: Parked) {
        if let Some(key) = &parked.key {
            self.blocked.entry(key.clone()).or_default().insert(parked.position);
        }
        self.parked.insert(parked.position, parked);
    }

    /// What the store has parked, somebody else's doing included.
    pub(crate) fn take_up(&mut self, parked: Vec<Parked>) {
        for one in parked {
            // What is being parked right now is on its way here by itself.
            if !self.parked.contains_key(&one.position) && !self.unfinished.contains(&one.position) {
                self.park(one);
            }
        }
    }

    /// Progress that the store does not know yet.
    pub(crate) fn to_save(&self) -> Option<Saving> {
        if self.unsaved.is_empty() {
            return None;
        }
        let up_to = self.unfinished.first().map_or(self.cursor, |first| first.previous());
        let done = self.unsaved.iter().copied().filter(|position| *position > up_to).collect();
        Some(Saving { up_to: up_to.max(self.saved_up_to), done })
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
