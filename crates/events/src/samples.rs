//! Events for the tests of this crate.

use std::sync::Arc;

use garde::Validate;
use jiff::Timestamp;
use purista_core::address::{Address, ServiceId};
use purista_core::event::{Event, Tags};
use purista_core::id::Id;
use purista_core::message::Party;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::{Append, Batch, Condition, Receipt};
use crate::position::Position;
use crate::recorded::{Cause, NewEvent, Recorded};
use crate::store::EventStore;

const TESTS: ServiceId = ServiceId::new("Tests", "1");

macro_rules! events {
    ($($name:ident $wire:literal $version:literal { $($field:ident: $type:ty),* })+) => { $(
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
        #[garde(allow_unvalidated)]
        pub(crate) struct $name { $(pub(crate) $field: $type),* }
        impl Event for $name {
            const NAME: &'static str = $wire;
            const VERSION: u32 = $version;
            fn tags(&self) -> Tags {
                Tags::new().with("user", &self.user)
            }
        }
    )+ };
}

events! {
    Joined "joined" 1 { user: String }
    RenamedV1 "renamed" 1 { user: String, name: String }
    RenamedV2 "renamed" 2 { user: String, first: String, last: String }
    Renamed "renamed" 3 { user: String, full: Vec<String> }
    Left "left" 1 { user: String }
}

pub(crate) fn joined(user: &str) -> Joined {
    Joined { user: user.to_owned() }
}

pub(crate) fn left(user: &str) -> Left {
    Left { user: user.to_owned() }
}

pub(crate) fn renamed_v1(user: &str, name: &str) -> RenamedV1 {
    RenamedV1 { user: user.to_owned(), name: name.to_owned() }
}

pub(crate) fn renamed(user: &str, full: &[&str]) -> Renamed {
    Renamed { user: user.to_owned(), full: full.iter().map(ToString::to_string).collect() }
}

pub(crate) fn new_event<E: Event>(event: &E) -> NewEvent {
    let cause = Cause {
        sender: Party::anywhere(Address::of(TESTS, "test")),
        principal_id: None,
        trace_id: Id::from_random(1),
        trace: None,
        correlation_id: None,
        causation_id: None,
        hops: 0,
    };
    NewEvent::of(event, Id::from_random(uuid::Uuid::new_v4().as_u128()), cause).unwrap()
}

/// The event as it would lie at this place.
pub(crate) fn recorded<E: Event>(position: u64, event: &E) -> Recorded {
    let NewEvent { id, name, version, tags, body, cause } = new_event(event);
    Recorded {
        position: Position::new(position),
        id,
        name,
        version,
        tags,
        stream_version: None,
        recorded_at: Timestamp::UNIX_EPOCH,
        tenant_id: None,
        cause,
        body,
    }
}

pub(crate) async fn append(store: &dyn EventStore, tenant: Option<&str>, events: Vec<NewEvent>) -> Receipt {
    let mut batch = Batch::new(Id::from_random(uuid::Uuid::new_v4().as_u128()), tenant.map(Arc::from));
    batch.appends.push(Append { events, condition: Condition::Always });
    store.commit(batch).await.unwrap()
}
