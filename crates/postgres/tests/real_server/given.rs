//! The parts of batches, and what is found of them.

use std::time::Duration;

use purista_core::address::{Address, ServiceId};
use purista_core::clock::Clock;
use purista_core::event::Tags;
use purista_core::id::Id;
use purista_core::message::Party;
use purista_core::text::Text;
use purista_events::batch::{Append, Batch, Condition};
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::recorded::{Cause, NewEvent, Recorded};
use purista_events::store::EventStore;

/// How long anything may take here that takes milliseconds on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn id() -> Id {
    Clock::system().id()
}

/// An event of the stream of this tag.
pub(crate) fn event(name: &str, value: &str) -> NewEvent {
    let cause = Cause {
        sender: Party::anywhere(Address::of(ServiceId::new("Test", "1"), "write")),
        principal_id: None,
        trace_id: id(),
        trace: None,
        correlation_id: None,
        causation_id: None,
        hops: 0,
    };
    let tags = Tags::new().with(name.to_owned(), value);
    NewEvent { id: id(), name: Text::known("written"), version: 1, tags, body: "{}".into(), cause }
}

pub(crate) fn batch(events: Vec<NewEvent>, condition: Condition) -> Batch {
    Batch { appends: vec![Append { events, condition }], ..Batch::new(id(), None) }
}

/// One event of the stream of this tag, under no condition.
pub(crate) fn written(name: &str, value: &str) -> Batch {
    batch(vec![event(name, value)], Condition::Always)
}

/// Everything that a follower finds from a position on, until it has caught up; and where it is then.
pub(crate) async fn followed(store: &dyn EventStore, mut from: Position) -> (Vec<Recorded>, Position) {
    let mut found = Vec::new();
    loop {
        let page = store.follow(&Query::all(), from, 100).await.expect("a page is followed");
        assert!(page.events.iter().all(|event| event.position > from));
        from = page.looked_up_to;
        found.extend(page.events);
        if page.is_caught_up {
            return (found, from);
        }
    }
}

/// Waits until the log can be followed up to this position.
pub(crate) async fn reached(store: &dyn EventStore, position: Position) {
    let mut head = store.head();
    let reached = tokio::time::timeout(PATIENCE, head.wait_for(|head| *head >= position)).await;
    reached.expect("the head reaches what was committed").expect("the store is open");
}
