//! Events that lie in a log before something is measured.

use anyhow::Result;
use purista_core::address::{Address, AddressParts};
use purista_core::clock::Clock;
use purista_core::event::Event;
use purista_core::message::Party;
use purista_events::batch::{Append, Batch, Condition};
use purista_events::recorded::{Cause, NewEvent};
use purista_events::store::EventStore;

/// Records these events in one batch, as if `sender` had done it.
pub async fn recorded<E: Event>(
    store: &impl EventStore,
    sender: &'static AddressParts,
    events: impl IntoIterator<Item = Result<E>>,
) -> Result<()> {
    let clock = Clock::system();
    let new = |event: Result<E>| {
        let cause = Cause {
            sender: Party::anywhere(Address::known(sender)),
            principal_id: None,
            trace_id: clock.id(),
            trace: None,
            correlation_id: None,
            causation_id: None,
            hops: 0,
        };
        Ok(NewEvent::of(&event?, clock.id(), cause)?)
    };
    let events = events.into_iter().map(new).collect::<Result<_>>()?;
    let mut batch = Batch::new(clock.id(), None);
    batch.appends.push(Append { events, condition: Condition::Always });
    store.commit(batch).await?;
    Ok(())
}
