//! The parts of batches that duties commit, from a small set of names.

use std::sync::Arc;

use purista_core::address::{Address, ServiceId};
use purista_core::clock::Clock;
use purista_core::event::Tags;
use purista_core::id::Id;
use purista_core::message::Party;
use purista_core::store::{Expect, StateChange};
use purista_core::text::Text;
use purista_events::batch::{Append, Batch, Condition, ReplyKey, StoredReply};
use purista_events::fingerprint::Fingerprint;
use purista_events::memory::clock::TestClock;
use purista_events::position::Position;
use purista_events::recorded::{Cause, NewEvent};
use purista_events::subscriptions::{
    DeadLetter, DeadLetterSource, Failure, Parked, ParkedChange, Pause, ProgressChange, SubscriptionId,
};
use serde_json::{Value, json};

pub(super) type Tenant = Option<Arc<str>>;

/// The tenants that a store is looked through for.
pub(super) fn tenants() -> [Tenant; 3] {
    [None, Some("north".into()), Some("south".into())]
}

/// The keys of state that a store is looked through for.
pub(super) fn keys() -> Vec<String> {
    ["alpha", "beta", "gamma", "delta"].map(str::to_owned).to_vec()
}

/// The keys of replies that a store is looked through for.
pub(super) fn reply_keys() -> [ReplyKey; 4] {
    [1, 2, 3, 4].map(reply_key)
}

/// The subscriptions that a store is looked through for.
pub(super) fn subscriptions() -> [SubscriptionId; 3] {
    ["Email.1.welcome", "Search.1.index", "Audit.1.write"].map(SubscriptionId::new)
}

/// The first of them.
pub(super) fn subscription() -> SubscriptionId {
    let [first, ..] = subscriptions();
    first
}

/// The messages of a bridge that a store is looked through for.
pub(super) fn messages() -> [Id; 4] {
    [1, 2, 3, 4].map(message)
}

/// The message of a peer with this number.
pub(super) fn message(number: u64) -> Id {
    Id::parse(&format!("message-{number}")).expect("it is short and printable")
}

/// The key of a reply with this number.
pub(super) fn reply_key(number: u64) -> ReplyKey {
    ReplyKey { scope: "ada@User.1.signUp".into(), key: format!("key-{number}").into() }
}

/// A new id.
pub(super) fn id() -> Id {
    Clock::system().id()
}

/// A place in a log.
pub(super) fn at(number: u64) -> Position {
    Position::new(number)
}

/// An event with these tags.
pub(super) fn event(name: &str, tags: &[(&str, &str)]) -> NewEvent {
    let tags = tags.iter().fold(Tags::new(), |tags, (name, value)| tags.with((*name).to_owned(), value));
    let cause = Cause {
        sender: Party::anywhere(Address::of(ServiceId::new("User", "1"), "signUp")),
        principal_id: None,
        trace_id: id(),
        trace: None,
        correlation_id: None,
        causation_id: None,
        hops: 0,
    };
    NewEvent { id: id(), name: Text::from(name), version: 1, tags, body: r#"{"is":true}"#.into(), cause }
}

/// As many events of one stream.
pub(super) fn events(count: usize, name: &str, tags: &[(&str, &str)]) -> Vec<NewEvent> {
    (0..count).map(|_| event(name, tags)).collect()
}

/// An event whose body has exactly as many bytes.
pub(super) fn event_of_bytes(bytes: usize) -> NewEvent {
    let body = format!("\"{}\"", "x".repeat(bytes.saturating_sub(2)));
    NewEvent { body: body.into(), ..event("grew", &[("file", "1")]) }
}

/// An empty batch of no tenant.
pub(super) fn batch() -> Batch {
    Batch::new(id(), None)
}

/// An empty batch of a tenant.
pub(super) fn batch_of(tenant: &str) -> Batch {
    Batch::new(id(), Some(tenant.into()))
}

/// A batch of no tenant with these events, under no condition.
pub(super) fn appends(events: Vec<NewEvent>) -> Batch {
    Batch { appends: vec![always(events)], ..batch() }
}

/// Events under no condition.
pub(super) fn always(events: Vec<NewEvent>) -> Append {
    Append { events, condition: Condition::Always }
}

/// The condition that a stream has as many events.
pub(super) fn stream(name: &str, value: &str, version: u64) -> Condition {
    Condition::Stream { name: name.to_owned(), value: value.to_owned(), version }
}

/// A write of state.
pub(super) fn set(key: &str, value: Value) -> StateChange {
    StateChange { key: key.to_owned(), expect: Expect::Any, value: Some(value), time_to_live: None }
}

/// A write of state, if it is so.
pub(super) fn set_if(expect: Expect, key: &str, value: Value) -> StateChange {
    StateChange { expect, ..set(key, value) }
}

/// A removal of state.
pub(super) fn remove(key: &str) -> StateChange {
    StateChange { value: None, ..set(key, Value::Null) }
}

/// The reply under the key with this number.
pub(super) fn reply(number: u64) -> StoredReply {
    StoredReply {
        key: reply_key(number),
        fingerprint: Fingerprint(u128::from(number).to_be_bytes()),
        body: Some(format!("{{\"userId\":{number}}}").into()),
        event_name: Some("newUserRegistered".into()),
    }
}

/// This position is finished.
pub(super) fn done(subscription: &SubscriptionId, number: u64) -> ProgressChange {
    ProgressChange { subscription: subscription.clone(), up_to: None, done: Some(at(number)) }
}

/// Everything up to this position is finished.
pub(super) fn up_to(subscription: &SubscriptionId, number: u64) -> ProgressChange {
    ProgressChange { subscription: subscription.clone(), up_to: Some(at(number)), done: None }
}

/// As many failures, newest last.
pub(super) fn failures(clock: &TestClock, count: u32) -> Vec<Failure> {
    let failure = |attempt| {
        let reason = format!("attempt {attempt}: größer als \"nie\" ✗\nat the second line");
        Failure { at: clock.time(), attempt, reason }
    };
    (1..=count).map(failure).collect()
}

/// An event that waits.
pub(super) fn parked(clock: &TestClock, subscription: &SubscriptionId, number: u64) -> Parked {
    Parked {
        subscription: subscription.clone(),
        position: at(number),
        attempts: 2,
        key: Some(format!("\u{0}user\u{0}{number}")),
        due: Some(clock.time()),
        history: failures(clock, 2),
    }
}

/// A stop.
pub(super) fn pause(clock: &TestClock) -> Pause {
    Pause { since: clock.time(), reason: "the mail server said 421".to_owned() }
}

/// A message that was given up.
pub(super) fn dead_letter(clock: &TestClock, subscription: &SubscriptionId, number: u64) -> DeadLetter {
    DeadLetter {
        id: id(),
        subscription: subscription.clone(),
        source: DeadLetterSource::Event(at(number)),
        at: clock.time(),
        reason: "five attempts failed".to_owned(),
        attempts: 5,
        trace_id: id(),
        history: failures(clock, 5),
    }
}

/// A batch with something of every kind, each under this number, of 1 to 4.
pub(super) fn everything(clock: &TestClock, number: u64) -> Batch {
    let subscription = subscription();
    let value = number.to_string();
    let key = keys().into_iter().cycle().nth(usize::try_from(number).unwrap_or(0)).unwrap_or_default();
    Batch {
        appends: vec![
            Append {
                events: events(2, "ordered", &[("order", &value), ("customer", "ada")]),
                condition: stream("order", &value, 0),
            },
            always(vec![event("counted", &[])]),
        ],
        state: vec![set(&key, json!({ "number": number }))],
        reply: Some(reply(number)),
        consumed: Some((subscription.clone(), message(number))),
        progress: vec![done(&subscription, number)],
        parked: vec![ParkedChange::Keep(parked(clock, &subscription, 100 + number))],
        pauses: vec![(subscription.clone(), Some(pause(clock)))],
        dead_letters: vec![dead_letter(clock, &subscription, 200 + number)],
        ..batch()
    }
}
