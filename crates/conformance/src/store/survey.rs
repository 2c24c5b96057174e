//! What a log says of itself without being read: forms, counts, times; and long views while others write.

use std::sync::Arc;
use std::time::Duration;

use purista_core::text::Text;
use purista_events::batch::{Batch, Condition};
use purista_events::form::Form;
use purista_events::position::Position;
use purista_events::query::{Query, QueryItem};
use purista_events::recorded::NewEvent;
use purista_events::store::{PAGE_MAX, StoreErrorKind};

use super::Stage;
use super::given::{self, always, at, event, events};

/// All pages of a view are of the moment at which it began, although writers go on; and so is its token.
pub async fn a_long_view_is_of_one_moment(stage: &mut Stage) {
    for _ in 0..5 {
        stage.append(events(500, "moved", &[("user", "ada")])).await;
    }
    let head = *stage.store.head().borrow();
    let queries = [
        Query::all(),
        Query::tag("user", "ada").of_tenant(None),
        Query::tag("user", "ada"),
        Query::types(["moved".into()]),
        Query::tag("user", "ada").or(QueryItem { types: vec!["moved".into()], tags: Vec::new() }),
    ];
    let mut views = Vec::new();
    // More views than any engine has connections, none of which is read on while others begin.
    for query in queries.iter().cycle().take(25) {
        views.push((query, stage.store.read_view(query, Position::START).await.expect("a view is read")));
    }
    stage.append(events(700, "moved", &[("user", "ada")])).await;
    for (query, mut view) in views {
        let token = view.token.clone();
        let (mut found, mut pages) = (Vec::new(), 0);
        while let Some(page) = view.next_page().await.expect("a page of a view is read") {
            assert!(!page.is_empty() && page.len() <= PAGE_MAX);
            found.extend(page.into_iter().map(|event| event.position));
            pages += 1;
            if pages == 1 {
                stage.append(vec![event("moved", &[("user", "bob")])]).await;
            }
        }
        assert_eq!((found.len(), pages), (2_500, 3), "{query:?}");
        assert!(found.is_sorted_by(|a, b| a < b) && found.iter().all(|position| *position <= head));
        let guarded = given::batch();
        let append = purista_events::batch::Append {
            events: Vec::new(),
            condition: Condition::Unless(query.clone(), token),
        };
        stage.refuse(Batch { appends: vec![append], ..guarded }, StoreErrorKind::Conflict).await;
    }
}

/// A view begins strictly after the position that it is given.
pub async fn a_view_begins_after_a_position(stage: &mut Stage) {
    let receipt = stage.append(events(6, "moved", &[("user", "ada")])).await;
    let query = Query::tag("user", "ada").of_tenant(None);
    let places = receipt.positions;
    for (index, place) in places.iter().enumerate() {
        let view = stage.store.read_view(&query, *place).await.expect("a view is read");
        let (found, token) = view.all().await.expect("a view is read");
        let found: Vec<_> = found.into_iter().map(|event| event.position).collect();
        assert_eq!(Some(found.as_slice()), places.get(index + 1..));
        // The token is of the moment, and not of the place.
        let append = purista_events::batch::Append {
            events: Vec::new(),
            condition: Condition::Unless(query.clone(), token),
        };
        stage.commit(Batch { appends: vec![append], ..given::batch() }).await;
    }
    let beyond = stage.store.read_view(&query, Position::new(u64::MAX)).await.expect("a view is read");
    assert_eq!(beyond.all().await.expect("a view is read").0, []);
}

/// Every form of events is named once, with its first and its last place, of all tenants.
pub async fn forms_name_what_is_stored(stage: &mut Stage) {
    assert_eq!(stage.store.forms().await.expect("forms are read"), []);
    let second = |event: NewEvent| NewEvent { version: 2, ..event };
    let first =
        stage.append(vec![event("moved", &[]), event("slept", &[]), second(event("moved", &[]))]).await;
    let tenant = Some("north".into());
    let batch = Batch {
        tenant,
        appends: vec![always(vec![event("moved", &[]), event("größer", &[])])],
        ..given::batch()
    };
    let last = stage.commit(batch).await;
    stage
        .refuse(
            Batch {
                appends: vec![always(vec![event("never", &[])])],
                state: vec![given::set("", true.into())],
                ..given::batch()
            },
            StoreErrorKind::Invalid,
        )
        .await;
    let form = |name: &str, version, count, oldest: Option<&Position>, newest: Option<&Position>| Form {
        name: Text::from(name),
        version,
        count: Some(count),
        oldest: oldest.copied().unwrap_or_default(),
        newest: newest.copied().unwrap_or_default(),
    };
    let (a, b) = (&first.positions, &last.positions);
    let expected = [
        form("größer", 1, 1, b.get(1), b.get(1)),
        form("moved", 1, 2, a.first(), b.first()),
        form("moved", 2, 1, a.get(2), a.get(2)),
        form("slept", 1, 1, a.get(1), a.get(1)),
    ];
    for _ in 0..2 {
        let mut found = stage.store.forms().await.expect("forms are read");
        assert!(found.is_sorted());
        for (form, expected) in found.iter_mut().zip(&expected) {
            // An engine that does not count says so.
            form.count = form.count.or(expected.count);
        }
        assert_eq!(found, expected);
        stage.reopen().await;
    }
}

/// Events are counted between two places, and up to a bound.
pub async fn counting_has_a_bound(stage: &mut Stage) {
    let receipt = stage.append(events(40, "moved", &[("user", "ada")])).await;
    stage.append(events(10, "slept", &[("user", "bob")])).await;
    let head = *stage.store.head().borrow();
    let middle = receipt.positions.get(29).copied().expect("there are forty");
    let count = async |query: &Query, after, up_to, at_most| {
        let counted = stage.store.count(query, after, up_to, at_most).await.expect("events are counted");
        (counted.events, counted.is_at_least)
    };
    let ada = Query::tag("user", "ada").of_tenant(None);
    for (query, after, up_to, at_most, expected) in [
        (&Query::all(), Position::START, head, 100, (50, false)),
        (&Query::all(), Position::START, head, 50, (50, false)),
        (&Query::all(), Position::START, head, 49, (49, true)),
        (&ada, Position::START, head, 100, (40, false)),
        (&ada, middle, head, 100, (10, false)),
        (&ada, middle, head, 3, (3, true)),
        (&ada, Position::START, middle, 100, (30, false)),
        (&Query::types(["slept".into()]), middle, head, 100, (10, false)),
        (&ada, head, head, 100, (0, false)),
        (&ada, head, Position::new(u64::MAX), 100, (0, false)),
        (&ada, middle, Position::START, 100, (0, false)),
    ] {
        assert_eq!(
            count(query, after, up_to, at_most).await,
            expected,
            "{query:?} after {after} up to {up_to}"
        );
    }
}

/// The time of an event is found by its place.
pub async fn a_place_has_a_time(stage: &mut Stage) {
    for _ in 0..3 {
        let receipt = stage.append(events(2, "moved", &[])).await;
        for position in receipt.positions {
            let time = stage.store.recorded_at(position).await.expect("a time is read");
            assert_eq!(time, Some(receipt.recorded_at));
        }
        stage.clock.advance(Duration::from_secs(60));
    }
    for position in [Position::START, at(1_000_000), Position::new(u64::MAX)] {
        assert_eq!(stage.store.recorded_at(position).await.expect("a time is read"), None);
    }
}

/// Of many who take up one dead letter at once, one does it, and its event is parked in the same commit.
pub async fn a_dead_letter_is_taken_up_once(stage: &mut Stage) {
    let id = given::subscription();
    let letters = [3, 4].map(|place| given::dead_letter(&stage.clock, &id, place));
    stage
        .commit(Batch {
            dead_letters: letters.to_vec(),
            progress: vec![given::up_to(&id, 9)],
            ..given::batch()
        })
        .await;
    let [first, second] = letters;
    let again = |key: Option<&str>| Batch::trying_again(given::id(), &first, key.map(str::to_owned));
    let mut takers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (store, batch) = (Arc::clone(&stage.store), again(Some("key")));
        takers.spawn(async move { store.commit(batch).await.map(drop).map_err(|error| error.kind()) });
    }
    let ends = takers.join_all().await;
    assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 1);
    assert!(ends.iter().all(|end| matches!(end, Ok(()) | Err(StoreErrorKind::AlreadyDone))), "{ends:?}");
    stage.refuse(again(None), StoreErrorKind::AlreadyDone).await;
    stage.reopen().await;
    assert_eq!(stage.dead_letters(None).await, std::slice::from_ref(&second));
    let record = stage.record(&id).await.expect("it is registered");
    let parked: Vec<_> =
        record.parked.iter().map(|one| (one.position, one.attempts, one.due, one.key.as_deref())).collect();
    assert_eq!(parked, [(at(3), 0, None, Some("key"))]);
    assert_eq!(record.parked.first().map(|one| &one.history), Some(&first.history));
    assert_eq!(record.progress.low, at(9), "progress does not go back");

    // Twice in one batch, or beside one that is not there: nothing of it happens.
    let forgotten = |ids: Vec<purista_core::id::Id>| Batch {
        forgotten_dead_letters: ids,
        ..given::everything(&stage.clock, 1)
    };
    stage.refuse(forgotten(vec![second.id.clone(), second.id.clone()]), StoreErrorKind::AlreadyDone).await;
    stage.refuse(forgotten(vec![second.id.clone(), given::id()]), StoreErrorKind::AlreadyDone).await;
    stage.commit(Batch { forgotten_dead_letters: vec![second.id], ..given::batch() }).await;
    assert_eq!(stage.dead_letters(None).await, []);
}
