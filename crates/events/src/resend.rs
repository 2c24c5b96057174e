//! A request to send recorded events again over the bridge, stored until the relay has carried it out.
//!
//! A broker may lose what it confirmed, as MQTT brokers do beyond their limit for a subscriber that is away. The log still
//! has it. The relay sends the events between two positions again, under the ids that they had, so that a subscription with a
//! store handles each of them once.

use jiff::Timestamp;
use purista_core::clock::Clock;
use purista_core::store::{Expect, StateChange};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::batch::Batch;
use crate::position::Position;
use crate::store::{EventStore, StoreError, StoreErrorKind};
use crate::subscriptions::{RELAY, SubscriptionId};

/// The key of the state that stores the request.
const KEY: &str = "purista.relay.resend";

/// Events that the relay sends again: those after one position, up to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resend {
    after: u64,
    up_to: u64,
    requested_at: Timestamp,
    /// The version of the stored request.
    #[serde(skip)]
    version: u64,
}

impl Resend {
    /// The position after which the next event is sent; it advances while the relay works.
    pub fn after(&self) -> Position {
        Position::new(self.after)
    }

    /// The position of the last event that is sent.
    pub fn up_to(&self) -> Position {
        Position::new(self.up_to)
    }

    /// The time of the request.
    pub fn requested_at(&self) -> Timestamp {
        self.requested_at
    }
}

/// Requests that the relay sends the events after this position again, up to the last that it has relayed.
///
/// A relay that runs begins within a second, another when its program starts. A request that is pending is extended to include
/// this one. Returns what is pending now.
///
/// # Errors
///
/// Returns [`StoreErrorKind::Invalid`] if nothing was relayed from this store after the position, and the errors of a commit.
pub async fn request(
    store: &(impl EventStore + ?Sized),
    clock: &Clock,
    after: Position,
) -> Result<Resend, StoreError> {
    let invalid = |what: &str| StoreError::new(StoreErrorKind::Invalid, what);
    let relayed = store.subscription(&SubscriptionId::new(RELAY)).await?;
    let relayed = relayed.ok_or_else(|| invalid("no event of this store was relayed to a bridge"))?;
    let up_to = relayed.progress.low;
    if after >= up_to {
        return Err(invalid(&format!("no event after {after} was relayed yet, the last one is at {up_to}")));
    }
    loop {
        let pending = requested(store).await?;
        let expect = pending.as_ref().map_or(Expect::Absent, |pending| Expect::Version(pending.version));
        let after = pending.map_or(after.number(), |pending| pending.after.min(after.number()));
        let resend = Resend { after, up_to: up_to.number(), requested_at: clock.now(), version: 0 };
        match save(store, clock, Some(&resend), expect).await {
            Err(error) if error.kind() == StoreErrorKind::StateConflict => {}
            saved => return saved.map(|()| resend),
        }
    }
}

/// The request that is pending, if any.
///
/// # Errors
///
/// Returns the errors of a read, and [`StoreErrorKind::Corrupt`] if what is stored is not a request.
pub async fn requested(store: &(impl EventStore + ?Sized)) -> Result<Option<Resend>, StoreError> {
    let Some(found) = store.state(None, &[KEY.to_owned()]).await?.into_values().next() else {
        return Ok(None);
    };
    let unreadable = |error| {
        let what = "the request to send events again cannot be read; withdraw it";
        StoreError::new(StoreErrorKind::Corrupt, what).with_source(error)
    };
    let resend = Resend::deserialize(&found.value).map_err(unreadable)?;
    Ok(Some(Resend { version: found.version, ..resend }))
}

/// Stores that everything up to this position was sent again. The last position ends the request. Does nothing if the request
/// was changed meanwhile: then it is to be read again.
///
/// # Errors
///
/// Returns the errors of a commit.
pub async fn advance(
    store: &(impl EventStore + ?Sized),
    clock: &Clock,
    resend: Resend,
    to: Position,
) -> Result<(), StoreError> {
    let (expect, is_done) = (Expect::Version(resend.version), to >= resend.up_to());
    let next = Resend { after: to.number(), ..resend };
    match save(store, clock, (!is_done).then_some(&next), expect).await {
        Err(error) if error.kind() == StoreErrorKind::StateConflict => Ok(()),
        saved => saved,
    }
}

/// Withdraws the request; does nothing without one.
///
/// # Errors
///
/// Returns the errors of a commit.
pub async fn withdraw(store: &(impl EventStore + ?Sized), clock: &Clock) -> Result<(), StoreError> {
    save(store, clock, None, Expect::Any).await
}

async fn save(
    store: &(impl EventStore + ?Sized),
    clock: &Clock,
    resend: Option<&Resend>,
    expect: Expect,
) -> Result<(), StoreError> {
    let value = resend.map(serde_json::to_value).transpose();
    let value: Option<Value> = value.map_err(|error| {
        StoreError::new(StoreErrorKind::Invalid, "the request cannot be encoded").with_source(error)
    })?;
    let mut batch = Batch::new(clock.id(), None);
    batch.state.push(StateChange { key: KEY.to_owned(), expect, value, time_to_live: None });
    let again = batch.clone();
    match store.commit(batch).await {
        Err(error) if error.kind() == StoreErrorKind::Unknown => store.commit(again).await.map(drop),
        saved => saved.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryStore;
    use crate::subscriptions::ProgressChange;

    async fn relayed_up_to(store: &MemoryStore, clock: &Clock, position: u64) {
        let (subscription, up_to) = (SubscriptionId::new(RELAY), Some(Position::new(position)));
        let mut batch = Batch::new(clock.id(), None);
        batch.progress.push(ProgressChange { subscription, up_to, done: None });
        store.commit(batch).await.unwrap();
    }

    #[tokio::test]
    async fn a_request_is_of_what_was_relayed_and_stays_until_its_end() {
        let (store, clock) = (MemoryStore::new(Clock::system()), Clock::system());
        let refused = request(&store, &clock, Position::START).await.unwrap_err();
        assert_eq!(refused.kind(), StoreErrorKind::Invalid, "{refused}");
        relayed_up_to(&store, &clock, 9).await;
        let refused = request(&store, &clock, Position::new(9)).await.unwrap_err();
        assert_eq!(refused.kind(), StoreErrorKind::Invalid, "{refused}");

        let pending = request(&store, &clock, Position::new(5)).await.unwrap();
        assert_eq!((pending.after(), pending.up_to()), (Position::new(5), Position::new(9)));
        let wider = request(&store, &clock, Position::new(3)).await.unwrap();
        assert_eq!(wider.after(), Position::new(3));
        let narrower = request(&store, &clock, Position::new(8)).await.unwrap();
        assert_eq!(narrower.after(), Position::new(3), "a pending request is extended");
        let pending = requested(&store).await.unwrap().unwrap();
        assert_eq!((pending.after(), pending.up_to()), (Position::new(3), Position::new(9)));

        advance(&store, &clock, pending.clone(), Position::new(7)).await.unwrap();
        let rest = requested(&store).await.unwrap().unwrap();
        assert_eq!(rest.after(), Position::new(7));
        request(&store, &clock, Position::new(1)).await.unwrap();
        advance(&store, &clock, rest, Position::new(9)).await.unwrap();
        let extended = requested(&store).await.unwrap().unwrap();
        assert_eq!(extended.after(), Position::new(1), "what was extended meanwhile stays");
        advance(&store, &clock, extended, Position::new(9)).await.unwrap();
        assert_eq!(requested(&store).await.unwrap(), None);
        withdraw(&store, &clock).await.unwrap();
    }
}
