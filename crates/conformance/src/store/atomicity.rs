//! Duties of a commit: all of it or nothing, within its deadline and its bounds.

use std::sync::Arc;
use std::time::Duration;

use purista_core::bounds::{PRINCIPAL_BYTES_MAX, SCOPE_BYTES_MAX, TAG_BYTES_MAX, TENANT_BYTES_MAX};
use purista_core::event::TAGS_MAX;
use purista_core::payload::EVENT_BYTES_MAX;
use purista_core::store::{Expect, KEY_BYTES_MAX, STATE_BYTES_MAX, STORED_KEY_BYTES_MAX};
use purista_events::batch::Condition::Unless;
use purista_events::batch::{
    Append, BATCH_BYTES_MAX, Batch, EVENTS_MAX, REPLY_BYTES_MAX, ReplyKey, StoredReply,
};
use purista_events::position::ReadToken;
use purista_events::query::Query;
use purista_events::recorded::NewEvent;
use purista_events::store::StoreErrorKind::{
    self, AlreadyDone, Conflict, DeadlinePassed, Invalid, KeyTaken, StateConflict,
};
use purista_events::subscriptions::{DeadLetter, HISTORY_MAX, Parked, ParkedChange};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::given::{self, Tenant, always, event, events, set, set_if, stream};
use super::stage::Stage;

/// A batch with something of every kind commits all of it, and the receipt says what became of it.
pub async fn a_batch_commits_all_its_parts(stage: &mut Stage) {
    let batch = given::everything(&stage.clock, 1);
    let receipt = stage.commit(batch.clone()).await;
    let contents = stage.contents().await;

    let recorded: Vec<_> = contents.events.iter().map(|event| (event.position, &event.id)).collect();
    let sent = batch.appends.iter().flat_map(|append| &append.events).map(|event| &event.id);
    assert_eq!(recorded, receipt.positions.iter().copied().zip(sent).collect::<Vec<_>>());
    assert_eq!(receipt.positions.last(), Some(&receipt.position));
    assert_eq!((receipt.id, receipt.is_repeated), (batch.id, false));
    assert!(contents.events.iter().all(|event| event.recorded_at == receipt.recorded_at));
    assert_eq!(receipt.state_versions, [1]);
    assert_eq!(
        contents.state.values().map(|state| &state.value).collect::<Vec<_>>(),
        [&json!({"number": 1})]
    );
    assert_eq!(contents.replies.into_values().collect::<Vec<_>>(), [given::reply(1)]);
    assert_eq!(contents.subscriptions, [given::subscription()]);
    let record = contents.records.into_values().next().expect("the subscription has a record");
    assert_eq!(record.progress.done.into_iter().collect::<Vec<_>>(), [given::at(1)]);
    assert_eq!(record.parked, [given::parked(&stage.clock, &given::subscription(), 101)]);
    assert_eq!(record.pause, Some(given::pause(&stage.clock)));
    assert_eq!(
        contents.consumed.into_iter().collect::<Vec<_>>(),
        [(given::subscription(), given::message(1))]
    );
    assert_eq!(contents.dead_letters, batch.dead_letters);
}

/// Whichever part of a batch fails, nothing of the others is written; without that part they are.
pub async fn a_batch_that_fails_leaves_nothing_of_its_parts(stage: &mut Stage) {
    let (_, token) = stage.view(&Query::all()).await;
    stage.commit(given::everything(&stage.clock, 1)).await;
    for (kind, spoil) in spoilers(&token) {
        let mut batch = given::everything(&stage.clock, 2);
        spoil(&mut batch);
        stage.refuse(batch, kind).await;
    }
    stage.commit(given::everything(&stage.clock, 2)).await;
    let contents = stage.contents().await;
    assert_eq!((contents.events.len(), contents.replies.len(), contents.consumed.len()), (6, 2, 2));
}

/// A batch that was refused is not remembered: under the same id it is committed once nothing stands against it.
pub async fn a_refused_batch_is_not_remembered(stage: &mut Stage) {
    let (_, token) = stage.view(&Query::all()).await;
    stage.commit(given::everything(&stage.clock, 1)).await;
    for (kind, spoil) in spoilers(&token) {
        let batch = given::appends(vec![event("tried", &[])]);
        let mut spoiled = batch.clone();
        spoil(&mut spoiled);
        stage.refuse(spoiled, kind).await;
        assert!(!stage.commit(batch).await.is_repeated, "{kind:?}");
    }
}

type Spoiler = (StoreErrorKind, Box<dyn Fn(&mut Batch) + Send + Sync>);

/// What makes a batch fail, after `everything(1)` was committed.
fn spoilers(before: &ReadToken) -> Vec<Spoiler> {
    fn spoiler(kind: StoreErrorKind, spoil: impl Fn(&mut Batch) + Send + Sync + 'static) -> Spoiler {
        (kind, Box::new(spoil))
    }
    let unless = Unless(Query::tag("order", "1"), before.clone());
    let guard = Append { events: Vec::new(), condition: unless.clone() };
    vec![
        spoiler(Conflict, |batch| {
            let events = vec![event("late", &[("order", "1")])];
            batch.appends.push(Append { events, condition: stream("order", "1", 1) });
        }),
        spoiler(Conflict, move |batch| {
            batch.appends.insert(0, Append { events: vec![event("late", &[])], condition: unless.clone() });
        }),
        spoiler(Conflict, move |batch| batch.appends.push(guard.clone())),
        spoiler(StateConflict, |batch| batch.state.push(set_if(Expect::Absent, "beta", json!(0)))),
        spoiler(StateConflict, |batch| batch.state.push(set_if(Expect::Version(99), "beta", json!(0)))),
        spoiler(StateConflict, |batch| batch.state.insert(0, set_if(Expect::Version(1), "delta", json!(0)))),
        spoiler(KeyTaken, |batch| batch.reply = Some(given::reply(1))),
        spoiler(AlreadyDone, |batch| batch.consumed = Some((given::subscription(), given::message(1)))),
        spoiler(AlreadyDone, |batch| batch.progress.push(given::done(&given::subscription(), 1))),
        spoiler(DeadlinePassed, |batch| batch.deadline = Some(Instant::now())),
        spoiler(Invalid, |batch| batch.state.push(set("", json!(0)))),
    ]
}

/// Of batches that come at the same time each has its own end: those that fail take nothing with them, and those that
/// succeed bring nothing of the others.
pub async fn each_of_many_batches_has_its_own_end(stage: &mut Stage) {
    let mut commits = JoinSet::new();
    for number in 0..64_u64 {
        let condition = stream("number", "none", number % 2);
        let events = vec![event("counted", &[("number", &number.to_string())])];
        let change = set(&format!("number-{number}"), json!(number));
        let batch =
            Batch { appends: vec![Append { events, condition }], state: vec![change], ..given::batch() };
        let store = Arc::clone(&stage.store);
        commits.spawn(async move { (number, store.commit(batch).await.map_err(|error| error.kind())) });
    }
    for (number, end) in commits.join_all().await {
        match number % 2 {
            0 => assert_eq!(end.expect("its condition holds").positions.len(), 1),
            _ => assert_eq!(end, Err(Conflict)),
        }
    }
    let mut recorded: Vec<u64> = Vec::new();
    for event in stage.events().await {
        let (_, value) = event.tags.first().expect("it has a tag");
        recorded.push(value.parse().expect("it is a number"));
    }
    recorded.sort_unstable();
    assert_eq!(recorded, (0..64).step_by(2).collect::<Vec<_>>());
    let keys: Vec<String> = (0..64).map(|number| format!("number-{number}")).collect();
    let values = stage.store.state(None, &keys).await.expect("state is read");
    assert!(values.values().all(|found| found.value.as_u64().is_some_and(|number| number % 2 == 0)));
    assert_eq!(values.len(), 32);
}

/// A batch whose deadline has passed is refused and writes nothing; one whose deadline is to come is committed.
pub async fn a_passed_deadline_refuses_the_batch(stage: &mut Stage) {
    let passed = Some(Instant::now());
    stage.refuse(Batch { deadline: passed, ..given::everything(&stage.clock, 1) }, DeadlinePassed).await;
    let to_come = Some(Instant::now() + Duration::from_secs(600));
    stage.commit(Batch { deadline: to_come, ..given::everything(&stage.clock, 1) }).await;
}

/// What is as large as its bound is taken; one more is refused, the refusal names the bound, and nothing is written.
pub async fn bounds_hold(stage: &mut Stage) {
    for (bound, batch) in bounded(stage) {
        stage.commit(batch(bound)).await;
        let said = stage.refuse(batch(bound + 1), Invalid).await;
        assert!(said.contains(&bound.to_string()), "{said:?} does not name the bound {bound}");
    }
    let empty_key =
        StoredReply { key: ReplyKey { key: "".into(), ..given::reply_key(4) }, ..given::reply(4) };
    stage.refuse(Batch { reply: Some(empty_key), ..given::batch() }, Invalid).await;
}

/// Names and keys of the longest size are stored and found, also those that an index cannot shorten; longer ones are rejected, and the
/// error names the field. The bounds are the same in every engine.
pub async fn names_have_a_bound(stage: &mut Stage) {
    let tenant: Tenant = Some(unlike(TENANT_BYTES_MAX, 1).into());
    let of_tenant = || Batch::new(given::id(), tenant.clone());
    let tag = |bytes: usize| event("tagged", &[("tag", &unlike(bytes - 3, 2))]);
    let reply = |scope: usize, key: usize| StoredReply {
        key: ReplyKey { scope: unlike(scope, 3).into(), key: unlike(key, 4).into() },
        ..given::reply(1)
    };
    let asked_by = |bytes: usize| {
        let mut new = event("moved", &[]);
        new.cause.principal_id = Some(unlike(bytes, 5).into());
        new
    };
    let key = |bytes: usize| set(&unlike(bytes, 6), true.into());
    let longest = Batch {
        appends: vec![always(vec![tag(TAG_BYTES_MAX), asked_by(PRINCIPAL_BYTES_MAX)])],
        state: vec![key(STORED_KEY_BYTES_MAX)],
        reply: Some(reply(SCOPE_BYTES_MAX, KEY_BYTES_MAX)),
        ..of_tenant()
    };
    stage.commit(longest).await;
    let query = Query::tag("tag", unlike(TAG_BYTES_MAX - 3, 2)).of_tenant(tenant.as_deref().map(Into::into));
    assert_eq!(stage.view(&query).await.0.len(), 1, "an event is found by its longest tag");
    let keys = [unlike(STORED_KEY_BYTES_MAX, 6)];
    let values = stage.store.state(tenant.as_deref(), &keys).await.expect("state is read");
    assert_eq!(values.len(), 1, "state is found by its longest key");
    let found = stage.reply(tenant.as_deref(), &reply(SCOPE_BYTES_MAX, KEY_BYTES_MAX).key).await;
    assert!(found.is_some(), "a reply is found by its longest key");

    let too_long = [
        ("tenant", Batch::new(given::id(), Some(unlike(TENANT_BYTES_MAX + 1, 1).into()))),
        ("tag `tag`", given::appends(vec![tag(TAG_BYTES_MAX + 1)])),
        ("tag `tag`", given::appends(vec![tag(4_000)])),
        ("principal", given::appends(vec![asked_by(PRINCIPAL_BYTES_MAX + 1)])),
        ("state key", Batch { state: vec![key(STORED_KEY_BYTES_MAX + 1)], ..given::batch() }),
        ("principal", Batch { reply: Some(reply(SCOPE_BYTES_MAX + 1, 1)), ..given::batch() }),
        ("idempotency key", Batch { reply: Some(reply(1, KEY_BYTES_MAX + 1)), ..given::batch() }),
    ];
    for (field, batch) in too_long {
        let batch = Batch { state: [batch.state, vec![set("alpha", true.into())]].concat(), ..batch };
        let said = stage.refuse(batch, Invalid).await;
        assert!(said.contains(field), "{said:?} does not name {field}");
    }
}

/// So many bytes that nothing can be left out of. Every eighth is a control character, which some engines write as two.
fn unlike(bytes: usize, seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let byte = u8::try_from(state >> 57).unwrap_or(0);
        if byte % 8 == 0 { char::from(byte / 8 % 2) } else { char::from(b'!' + byte % 94) }
    };
    (0..bytes).map(|_| next()).collect()
}

/// A value of state as large as its bound is taken, a byte more is refused with the bound's name, and nothing is written.
pub async fn a_value_of_state_has_a_bound(stage: &mut Stage) {
    let batch = |bytes: usize| Batch { state: vec![set("large", text_of_bytes(bytes))], ..given::batch() };
    stage.commit(batch(STATE_BYTES_MAX)).await;
    let said = stage.refuse(batch(STATE_BYTES_MAX + 1), Invalid).await;
    assert!(said.contains(&STATE_BYTES_MAX.to_string()), "{said:?} does not name the bound");
}

/// A reply as large as its bound is kept under its key, one that is a byte larger is refused with the bound's name.
pub async fn a_stored_reply_has_a_bound(stage: &mut Stage) {
    let batch = |bytes: usize| {
        let body = Some(text_of_bytes(bytes).to_string().into());
        Batch { reply: Some(StoredReply { body, ..given::reply(4) }), ..given::batch() }
    };
    let said = stage.refuse(batch(REPLY_BYTES_MAX + 1), Invalid).await;
    assert!(said.contains(&REPLY_BYTES_MAX.to_string()), "{said:?} does not name the bound");
    stage.commit(batch(REPLY_BYTES_MAX)).await;
}

type Sized = Box<dyn Fn(usize) -> Batch + Send + Sync>;

/// Every bound, with a batch of any size to try it.
fn bounded(stage: &Stage) -> Vec<(usize, Sized)> {
    let clock = stage.clock.clone();
    let history = move |count| given::failures(&clock, u32::try_from(count).unwrap_or(u32::MAX));
    let parked = {
        let (clock, history) = (stage.clock.clone(), history.clone());
        move |count| Parked { history: history(count), ..given::parked(&clock, &given::subscription(), 7) }
    };
    let given_up = {
        let clock = stage.clock.clone();
        move |count| DeadLetter {
            history: history(count),
            ..given::dead_letter(&clock, &given::subscription(), 7)
        }
    };
    let tagged = |count: usize| {
        let tags: Vec<(String, String)> = (0..count).map(|tag| (format!("tag{tag}"), "x".into())).collect();
        event("tagged", &tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>())
    };
    let batch_of_bytes = |bytes: usize| -> Vec<NewEvent> {
        let whole = (0..bytes / EVENT_BYTES_MAX).map(|_| EVENT_BYTES_MAX);
        let rest = Some(bytes % EVENT_BYTES_MAX).filter(|rest| *rest > 0);
        whole
            .chain(rest)
            .map(|bytes| NewEvent { body: vec![b'1'; bytes].into(), ..event("grew", &[]) })
            .collect()
    };
    vec![
        (EVENTS_MAX, Box::new(move |count| given::appends(events(count, "counted", &[("counter", "1")])))),
        (EVENTS_MAX, Box::new(in_two_appends)),
        (EVENT_BYTES_MAX, Box::new(move |bytes| given::appends(vec![given::event_of_bytes(bytes)]))),
        (BATCH_BYTES_MAX, Box::new(move |bytes| given::appends(batch_of_bytes(bytes)))),
        (TAGS_MAX, Box::new(move |count| given::appends(vec![tagged(count)]))),
        (
            STORED_KEY_BYTES_MAX,
            Box::new(move |bytes| Batch { state: vec![set(&"k".repeat(bytes), json!(1))], ..given::batch() }),
        ),
        (
            KEY_BYTES_MAX,
            Box::new(move |bytes| {
                let key = ReplyKey { key: "k".repeat(bytes).into(), ..given::reply_key(3) };
                Batch { reply: Some(StoredReply { key, ..given::reply(3) }), ..given::batch() }
            }),
        ),
        (
            HISTORY_MAX,
            Box::new(move |count| Batch {
                parked: vec![ParkedChange::Keep(parked(count))],
                ..given::batch()
            }),
        ),
        (HISTORY_MAX, Box::new(move |count| Batch { dead_letters: vec![given_up(count)], ..given::batch() })),
    ]
}

/// A text that takes so many bytes as JSON.
fn text_of_bytes(bytes: usize) -> serde_json::Value {
    json!("x".repeat(bytes.saturating_sub(2)))
}

/// The bound is the batch's, however its events are grouped.
fn in_two_appends(count: usize) -> Batch {
    let (one, other) = (count / 2, count - count / 2);
    let appends = [one, other].map(|count| always(events(count, "counted", &[])));
    Batch { appends: appends.to_vec(), ..given::batch() }
}
