//! Duties of conditions: they hold against the log as it stood before the batch, and of many deciders one wins.

use std::sync::Arc;

use purista_events::batch::{Append, Batch, Condition};
use purista_events::position::ReadToken;
use purista_events::query::{Query, QueryItem};
use purista_events::recorded::NewEvent;
use purista_events::store::StoreErrorKind::{self, Conflict};
use purista_events::store::{EventStore, StoreError};
use serde_json::json;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::given::{self, always, event, events, set, stream};
use super::stage::Stage;

const DECIDERS: usize = 64;
const ROUNDS: usize = 8;
const SEATS: usize = 10;

fn if_so(condition: Condition, events: Vec<NewEvent>) -> Batch {
    Batch { appends: vec![Append { events, condition }], ..given::batch() }
}

/// Events are appended when their stream has exactly as many events as was said, whatever other streams have.
pub async fn a_stream_has_the_version_that_was_expected(stage: &mut Stage) {
    let ada =
        |version, count| if_so(stream("user", "ada", version), events(count, "moved", &[("user", "ada")]));
    stage.refuse(ada(1, 1), Conflict).await;
    stage.commit(ada(0, 2)).await;
    for version in [0, 1, 3, u64::MAX] {
        stage.refuse(ada(version, 1), Conflict).await;
    }
    stage.append(vec![event("moved", &[("user", "bob")]), event("moved", &[])]).await;
    // Ada's tag is not the first here: the event is in another stream.
    stage.append(vec![event("met", &[("meeting", "1"), ("user", "ada")])]).await;
    stage.commit(ada(2, 1)).await;
    stage.refuse(if_so(stream("user", "bob", 0), Vec::new()), Conflict).await;
    stage.commit(if_so(stream("user", "eve", 0), Vec::new())).await;
    stage.refuse(Batch { tenant: Some("north".into()), ..ada(3, 1) }, Conflict).await;
}

/// Events are appended unless the query selects something that was recorded since it was read; what it does not select
/// stands in nobody's way.
pub async fn a_query_selects_nothing_new(stage: &mut Stage) {
    stage.append(vec![event("moved", &[("user", "ada")])]).await;
    let query = Query::tag("user", "ada");
    let typed = Query::types(["moved".into()]);
    let (_, token) = stage.view(&query).await;
    let unless =
        |query: &Query| if_so(Condition::Unless(query.clone(), token.clone()), vec![event("seen", &[])]);

    stage.append(vec![event("moved", &[("user", "bob")]), event("slept", &[])]).await;
    stage.commit(unless(&query)).await;
    stage.refuse(unless(&typed), Conflict).await;
    stage.refuse(unless(&Query::all()), Conflict).await;

    stage.append(vec![event("met", &[("meeting", "1"), ("user", "ada")])]).await;
    stage.refuse(unless(&query), Conflict).await;
    let (seen, now) = stage.view(&query).await;
    assert_eq!(seen.len(), 2);
    stage.commit(if_so(Condition::Unless(query, now), vec![event("moved", &[("user", "ada")])])).await;
}

/// A boundary of one tenant is broken by what has both the tag and one of the types of one of its alternatives, and by nothing
/// else that was recorded meanwhile.
pub async fn a_condition_asks_for_tag_and_type_of_each_alternative(stage: &mut Stage) {
    let item = |types: &[&str], tags: &[(&str, &str)]| QueryItem {
        types: types.iter().map(|name| (*name).into()).collect(),
        tags: tags.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
    };
    let moved_or_met = Query::types([]).of_tenant(None);
    let moved_or_met = Query { items: vec![item(&["moved", "met"], &[("user", "ada")])], ..moved_or_met };
    let or_of_bob = moved_or_met.clone().or(item(&[], &[("user", "bob")]));
    let or_both = moved_or_met.clone().or(item(&["slept"], &[("user", "ada"), ("hotel", "1")]));
    let (_, token) = stage.view(&moved_or_met).await;
    let unless = |query: &Query| if_so(Condition::Unless(query.clone(), token.clone()), Vec::new());

    stage
        .append(vec![event("slept", &[("user", "ada")]), event("moved", &[("user", "eve"), ("hotel", "1")])])
        .await;
    for query in [&moved_or_met, &or_of_bob, &or_both] {
        stage.commit(unless(query)).await;
    }
    stage.append(vec![event("slept", &[("user", "bob")])]).await;
    stage.refuse(unless(&or_of_bob), Conflict).await;
    stage.append(vec![event("slept", &[("hotel", "1"), ("user", "ada")])]).await;
    stage.refuse(unless(&or_both), Conflict).await;
    stage.commit(unless(&moved_or_met)).await;
    stage.append(vec![event("met", &[("meeting", "1"), ("user", "ada")])]).await;
    for query in [&moved_or_met, &or_of_bob, &or_both] {
        stage.refuse(unless(query), Conflict).await;
    }
}

/// A query of one tenant is not disturbed by another; a query of all tenants is.
pub async fn a_condition_sees_the_tenants_of_its_query(stage: &mut Stage) {
    let query = Query::tag("user", "ada");
    let (_, token) = stage.view(&query).await;
    let of_tenant = |tenant: Option<&str>| query.clone().of_tenant(tenant.map(Into::into));
    let append = vec![always(vec![event("moved", &[("user", "ada")])])];
    stage.commit(Batch { appends: append, ..given::batch_of("north") }).await;
    let unless = |query| if_so(Condition::Unless(query, token.clone()), Vec::new());

    stage.commit(unless(of_tenant(None))).await;
    stage.commit(unless(of_tenant(Some("south")))).await;
    stage.refuse(unless(of_tenant(Some("north"))), Conflict).await;
    stage.refuse(unless(query.clone()), Conflict).await;
}

/// An append without events guards its batch by its condition alone.
pub async fn a_condition_without_events_guards_the_batch(stage: &mut Stage) {
    let (_, token) = stage.view(&Query::all()).await;
    let guarded =
        |condition, value| Batch { state: vec![set("alpha", json!(value))], ..if_so(condition, Vec::new()) };
    stage.commit(guarded(stream("user", "ada", 0), 1)).await;
    stage.commit(guarded(Condition::Unless(Query::all(), token.clone()), 2)).await;
    stage.append(vec![event("moved", &[("user", "ada")])]).await;
    stage.refuse(guarded(stream("user", "ada", 0), 3), Conflict).await;
    stage.refuse(guarded(Condition::Unless(Query::all(), token), 4), Conflict).await;
    let found = stage.state(None).await;
    assert_eq!(found.get("alpha").map(|found| &found.value), Some(&json!(2)));
    assert_eq!(stage.events().await.len(), 1);
}

/// Two appends of one batch are both checked against the log before it: neither sees the other's events.
pub async fn conditions_look_at_the_log_before_the_batch(stage: &mut Stage) {
    let (_, token) = stage.view(&Query::all()).await;
    let moved = || vec![event("moved", &[("user", "ada")])];
    let append = |condition| Append { events: moved(), condition };
    let appends = vec![
        append(stream("user", "ada", 0)),
        append(stream("user", "ada", 0)),
        append(Condition::Unless(Query::tag("user", "ada"), token)),
    ];
    stage.commit(Batch { appends, ..given::batch() }).await;
    let versions: Vec<_> = stage.events().await.iter().map(|event| event.stream_version).collect();
    assert_eq!(versions, [Some(1), Some(2), Some(3)]);
    let appends = vec![append(stream("user", "ada", 3)), append(stream("user", "ada", 4))];
    stage.refuse(Batch { appends, ..given::batch() }, Conflict).await;
}

/// Of 64 that decide on what they read at the same time, exactly one wins, round after round.
pub async fn of_many_deciders_on_one_boundary_one_wins(stage: &mut Stage) {
    let query = Query::tag("seat", "1");
    for round in 1..=ROUNDS {
        let query = query.clone();
        let ends = race(stage, move |_| (query.clone(), None)).await;
        check_one_won(&ends);
        assert_eq!(stage.events().await.len(), round);
    }
}

/// Of 64 that expect the same version of a stream, exactly one wins, round after round.
pub async fn of_many_writers_of_one_version_one_wins(stage: &mut Stage) {
    for round in 1..=ROUNDS {
        let version = u64::try_from(round - 1).unwrap_or(0);
        let ends = race(stage, move |_| (Query::all(), Some(stream("seat", "1", version)))).await;
        check_one_won(&ends);
        let last = stage.events().await.pop().expect("one was recorded");
        assert_eq!(last.stream_version, Some(version + 1));
    }
}

/// Deciders on different boundaries do not disturb one another.
pub async fn deciders_on_different_boundaries_all_win(stage: &mut Stage) {
    let ends = race(stage, |number| {
        let boundary = Query::tag("guest", number.to_string());
        (boundary, None)
    })
    .await;
    assert_eq!(ends, vec![Ok(()); DECIDERS]);
    assert_eq!(stage.events().await.len(), DECIDERS);
}

/// Every decider reads; when all have read, all append, under what they read or under the condition given for them.
async fn race(
    stage: &Stage,
    boundary: impl Fn(usize) -> (Query, Option<Condition>),
) -> Vec<Result<(), StoreErrorKind>> {
    let all_have_read = Arc::new(Barrier::new(DECIDERS));
    let mut deciders = JoinSet::new();
    for number in 0..DECIDERS {
        let (store, all_have_read) = (Arc::clone(&stage.store), Arc::clone(&all_have_read));
        let (query, condition) = boundary(number);
        deciders.spawn(async move {
            let (_, token) = super::stage::view(&*store, &query).await;
            let condition = condition.unwrap_or(Condition::Unless(query, token));
            all_have_read.wait().await;
            let sold = event("sold", &[("seat", "1"), ("guest", &number.to_string())]);
            let end = store.commit(if_so(condition, vec![sold])).await;
            end.map(|_| ()).map_err(|error| error.kind())
        });
    }
    deciders.join_all().await
}

fn check_one_won(ends: &[Result<(), StoreErrorKind>]) {
    assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 1, "exactly one wins");
    assert!(ends.iter().all(|end| matches!(end, Ok(()) | Err(Conflict))), "{ends:?}");
}

/// Deciders that decide again when they lose sell every seat there is, and none twice.
pub async fn deciders_that_decide_again_never_sell_too_much(stage: &mut Stage) {
    let mut deciders = JoinSet::new();
    for _ in 0..2 * SEATS {
        let store = Arc::clone(&stage.store);
        deciders.spawn(async move {
            let query = Query::tag("show", "1");
            // Whoever loses has lost to one who sold: more often than there are seats nobody can.
            for _ in 0..=SEATS {
                let (sold, token) = super::stage::view(&*store, &query).await;
                if sold.len() >= SEATS {
                    return false;
                }
                match sell(store.as_ref(), query.clone(), token).await {
                    Ok(()) => return true,
                    Err(error) => assert_eq!(error.kind(), Conflict, "{error}"),
                }
            }
            panic!("a decider lost although nothing was sold");
        });
    }
    let sold = deciders.join_all().await.into_iter().filter(|is_sold| *is_sold).count();
    assert_eq!((sold, stage.events().await.len()), (SEATS, SEATS));
}

async fn sell(store: &dyn EventStore, query: Query, token: ReadToken) -> Result<(), StoreError> {
    let condition = Condition::Unless(query, token);
    store.commit(if_so(condition, vec![event("sold", &[("show", "1")])])).await.map(|_| ())
}
