//! Random histories, of few names so that they collide often.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;
use purista_core::store::{Expect, StateChange};
use purista_core::text::Text;
use purista_events::batch::{Append, Batch, Condition};
use purista_events::memory::clock::TestClock;
use purista_events::position::Position;
use purista_events::query::{Query, QueryItem};
use purista_events::subscriptions::{Parked, ParkedChange, ProgressChange};
use serde_json::json;
use std::time::Duration;

use super::super::given;

/// What happens next.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Commit(Box<Draft>),
    /// The clock moves on by so many seconds.
    Wait(u64),
    Reopen,
}

/// A batch, before both sides give it their tokens and versions. Numbers choose from the names in `given`.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    /// Takes the id of the batch so many before it.
    pub(super) repeats: Option<usize>,
    tenant: usize,
    pub(super) appends: Vec<DraftAppend>,
    pub(super) state: Vec<DraftChange>,
    reply: Option<u64>,
    consumed: Option<(usize, u64)>,
    progress: Vec<(usize, Option<u64>, Option<u64>)>,
    parked: Vec<(usize, u64, bool)>,
    pauses: Vec<(usize, bool)>,
    dead_letters: Vec<(usize, u64)>,
    /// Forgets the dead letter so many before, of those that both sides took.
    pub(super) forgets: Option<usize>,
    has_empty_key: bool,
}

#[derive(Debug, Clone)]
pub(super) struct DraftAppend {
    events: Vec<(&'static str, Vec<(&'static str, &'static str)>)>,
    pub(super) condition: DraftCondition,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum DraftCondition {
    Always,
    Stream {
        value: &'static str,
        version: u64,
    },
    /// Since the begin of the commit so many before this one.
    Unless {
        query: usize,
        age: usize,
    },
}

#[derive(Debug, Clone)]
pub(super) struct DraftChange {
    key: usize,
    pub(super) expect: DraftExpect,
    value: Option<u32>,
    seconds_to_live: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum DraftExpect {
    Any,
    Absent,
    /// The version of so many writes before.
    Version {
        age: usize,
    },
}

/// The queries that conditions name and that are compared.
pub(super) fn queries() -> Vec<Query> {
    let moved_by_ada = QueryItem {
        types: vec![Text::known("moved")],
        tags: vec![(Text::known("user"), Text::known("ada"))],
    };
    vec![
        Query::all(),
        Query::tag("user", "ada"),
        Query::types([Text::known("met"), Text::known("slept")]),
        Query::tag("meeting", "1").or(moved_by_ada).of_tenant(Some("north".into())),
    ]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => draft().prop_map(|draft| Step::Commit(Box::new(draft))),
        1 => prop_oneof![1..120_u64, Just(4 * 24 * 60 * 60)].prop_map(Step::Wait),
        1 => Just(Step::Reopen),
    ]
}

fn draft() -> impl Strategy<Value = Draft> {
    let consumed = option::weighted(0.15, (0..2_usize, 1..=4_u64));
    let progress =
        vec((0..2_usize, option::weighted(0.4, 0..12_u64), option::weighted(0.8, 1..40_u64)), 0..3);
    let parked = vec((0..2_usize, 1..8_u64, any::<bool>()), 0..3);
    let beside = (
        option::weighted(0.2, 1..=4_u64),
        consumed,
        progress,
        parked,
        vec((0..2_usize, any::<bool>()), 0..2),
        vec((0..2_usize, 1..8_u64), 0..2),
        option::weighted(0.15, 0..4_usize),
    );
    let has_empty_key = proptest::bool::weighted(0.02);
    let repeats = option::weighted(0.1, 0..4_usize);
    let own = (repeats, 0..3_usize, vec(append(), 0..3), vec(change(), 0..4), has_empty_key);
    (own, beside).prop_map(|((repeats, tenant, appends, state, has_empty_key), beside)| {
        let (reply, consumed, progress, parked, pauses, dead_letters, forgets) = beside;
        Draft {
            repeats,
            tenant,
            appends,
            state,
            reply,
            consumed,
            progress,
            parked,
            pauses,
            dead_letters,
            forgets,
            has_empty_key,
        }
    })
}

fn append() -> impl Strategy<Value = DraftAppend> {
    let tag = select(vec![("user", "ada"), ("user", "bob"), ("meeting", "1")]);
    let event = (select(vec!["moved", "slept", "met"]), vec(tag, 0..3));
    let condition = prop_oneof![
        6 => Just(DraftCondition::Always),
        2 => (select(vec!["ada", "bob"]), 0..5_u64)
            .prop_map(|(value, version)| DraftCondition::Stream { value, version }),
        2 => (0..queries().len(), 0..4_usize).prop_map(|(query, age)| DraftCondition::Unless { query, age }),
    ];
    (vec(event, 0..4), condition).prop_map(|(events, condition)| DraftAppend { events, condition })
}

fn change() -> impl Strategy<Value = DraftChange> {
    let expect = prop_oneof![
        4 => Just(DraftExpect::Any),
        1 => Just(DraftExpect::Absent),
        2 => (0..3_usize).prop_map(|age| DraftExpect::Version { age }),
    ];
    let value = option::weighted(0.75, any::<u32>());
    (0..4_usize, expect, value, option::weighted(0.3, 1..120_u64))
        .prop_map(|(key, expect, value, seconds_to_live)| DraftChange { key, expect, value, seconds_to_live })
}

fn nth<T>(names: impl IntoIterator<Item = T>, number: usize) -> T {
    names.into_iter().nth(number).expect("the number is of a name")
}

impl Draft {
    /// The batch, with the conditions and expectations that mean the same on both sides.
    pub(super) fn batch(&self, clock: &TestClock) -> Batch {
        let subscription = |number| nth(given::subscriptions(), number);
        let progress = self.progress.iter().map(|(of, up_to, done)| ProgressChange {
            subscription: subscription(*of),
            up_to: up_to.map(Position::new),
            done: done.map(Position::new),
        });
        let parked = self.parked.iter().map(|(of, position, is_kept)| {
            let parked = given::parked(clock, &subscription(*of), *position);
            let attempts = u32::try_from(self.state.len()).unwrap_or(0);
            match is_kept {
                true => ParkedChange::Keep(Parked { attempts, ..parked }),
                false => ParkedChange::Forget(parked.subscription, parked.position),
            }
        });
        let pauses = self.pauses.iter();
        let dead_letters = self.dead_letters.iter();
        let mut state: Vec<StateChange> = self.state.iter().map(DraftChange::change).collect();
        state.extend(self.has_empty_key.then(|| given::set("", json!(0))));
        Batch {
            appends: self.appends.iter().map(DraftAppend::append).collect(),
            state,
            reply: self.reply.map(given::reply),
            consumed: self.consumed.map(|(of, message)| (subscription(of), given::message(message))),
            progress: progress.collect(),
            parked: parked.collect(),
            pauses: pauses.map(|(of, is)| (subscription(*of), is.then(|| given::pause(clock)))).collect(),
            dead_letters: dead_letters
                .map(|(of, place)| given::dead_letter(clock, &subscription(*of), *place))
                .collect(),
            ..Batch::new(given::id(), nth(given::tenants(), self.tenant))
        }
    }
}

impl DraftAppend {
    fn append(&self) -> Append {
        let events = self.events.iter().map(|(name, tags)| given::event(name, tags)).collect();
        let condition = match self.condition {
            DraftCondition::Stream { value, version } => given::stream("user", value, version),
            DraftCondition::Always | DraftCondition::Unless { .. } => Condition::Always,
        };
        Append { events, condition }
    }
}

impl DraftChange {
    fn change(&self) -> StateChange {
        StateChange {
            key: nth(given::keys(), self.key),
            expect: match self.expect {
                DraftExpect::Absent => Expect::Absent,
                DraftExpect::Any | DraftExpect::Version { .. } => Expect::Any,
            },
            value: self.value.map(|value| json!(value)),
            time_to_live: self.seconds_to_live.map(Duration::from_secs),
        }
    }
}
