//! Batches to commit.

use purista_core::address::{Address, ServiceId};
use purista_core::clock::Clock;
use purista_core::event::Tags;
use purista_core::message::Party;
use purista_core::text::Text;
use purista_events::batch::{Append, Batch, Condition};
use purista_events::recorded::{Cause, NewEvent};

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
            correlation_id: None,
            causation_id: None,
            hops: 0,
        },
    };
    let mut batch = Batch::new(clock.id(), None);
    batch.appends.push(Append { events: vec![event], condition: Condition::Always });
    batch
}
