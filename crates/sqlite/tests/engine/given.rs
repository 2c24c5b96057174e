//! Batches to commit.

use purista_core::address::{Address, ServiceId};
use purista_core::clock::Clock;
use purista_core::event::Tags;
use purista_core::message::Party;
use purista_core::text::Text;
use purista_events::batch::{Append, Batch, Condition};
use purista_events::occurrence::Occurrences;
use purista_events::position::{Position, ReadToken};
use purista_events::query::Query;
use purista_events::recorded::{Cause, NewEvent, Recorded};
use purista_events::store::{EventStore as _, StoreError};
use purista_sqlite::store::SqliteStore;

/// A batch of one event with one tag.
pub(crate) fn batch(value: &str) -> Batch {
    let clock = Clock::system();
    let event = NewEvent {
        id: clock.id(),
        name: Text::known("happened"),
        version: 1,
        tags: Tags::new().with("thing", value),
        body: r#"{"what":"it"}"#.into(),
        cause: Cause {
            sender: Party::anywhere(Address::of(ServiceId::new("Test", "1"), "test")),
            principal_id: None,
            trace_id: clock.id(),
            trace: None,
            correlation_id: None,
            causation_id: None,
            hops: 0,
        },
    };
    let mut batch = Batch::new(clock.id(), None);
    batch.appends.push(Append { events: vec![event], condition: Condition::Always });
    batch
}

/// All pages of a view.
pub(crate) async fn view(
    store: &SqliteStore,
    query: &Query,
) -> Result<(Vec<Recorded>, ReadToken), StoreError> {
    store.read_view(query, Position::START).await?.all().await
}

/// The positions of what a query selects, as folds read it: a view with its tags, and what is followed.
pub(crate) async fn folded(store: &SqliteStore, query: &Query) -> Result<Vec<u64>, StoreError> {
    let (_, mut view) = store.read_occurrences(query, Position::START, &[], true).await?;
    let mut seen = Vec::new();
    while let Some(page) = view.next_page().await? {
        for event in page.iter() {
            assert!(!event.tags().is_empty(), "an event without its tags");
            seen.push(event.position.number());
        }
    }
    let (mut followed, mut at) = (Vec::new(), Position::START);
    while at < *store.head().borrow() {
        let page = store.follow_occurrences(query, at, Occurrences::default()).await?;
        followed.extend(page.events.iter().map(|event| event.position.number()));
        assert!(page.looked_up_to > at, "a page that does not go on");
        at = page.looked_up_to;
    }
    assert_eq!(seen, followed);
    Ok(seen)
}

/// A batch of so many events.
pub(crate) fn many(value: &str, count: usize) -> Batch {
    let events = (0..count).flat_map(|_| batch(value).appends).flat_map(|append| append.events).collect();
    let mut many = batch(value);
    many.appends = vec![Append { events, condition: Condition::Always }];
    many
}
