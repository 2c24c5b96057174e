//! A request to make a projection's read model anew, kept in the store until whoever runs the projection takes it up: what the
//! command line can do about a rebuild, since the handlers live in the program, and what another process of that program can.

use jiff::Timestamp;
use purista_core::clock::Clock;
use purista_core::store::{Expect, StateChange};
use serde_json::Value;

use crate::batch::Batch;
use crate::lost_answer::commit_until_known;
use crate::store::{EventStore, StoreError};

/// Asks for the read model of this projection to be made anew, beside what readers see. Whoever runs it next begins with it; whoever
/// runs it now, on a store that several processes share, begins within a second.
/// Asked twice is asked once.
pub async fn ask(
    store: &(impl EventStore + ?Sized),
    clock: &Clock,
    name: &str,
    version: u32,
) -> Result<(), StoreError> {
    keep(store, clock, key(name, version), Some(Value::from(clock.now().to_string()))).await
}

/// Since when it is asked for; `None` when it is not.
pub async fn asked_since(
    store: &(impl EventStore + ?Sized),
    name: &str,
    version: u32,
) -> Result<Option<Timestamp>, StoreError> {
    let found = store.state(None, &[key(name, version)]).await?.into_values().next();
    // Whatever stands there, it was asked for.
    Ok(found.map(|found| found.value.as_str().and_then(|at| at.parse().ok()).unwrap_or_default()))
}

/// Takes the request back; the same when there was none.
pub async fn withdraw(
    store: &(impl EventStore + ?Sized),
    clock: &Clock,
    name: &str,
    version: u32,
) -> Result<(), StoreError> {
    keep(store, clock, key(name, version), None).await
}

fn key(name: &str, version: u32) -> String {
    format!("purista.projection.{name}.{version}.rebuild")
}

async fn keep(
    store: &(impl EventStore + ?Sized),
    clock: &Clock,
    key: String,
    value: Option<Value>,
) -> Result<(), StoreError> {
    let mut batch = Batch::new(clock.id(), None);
    batch.state.push(StateChange { key, expect: Expect::Any, value, time_to_live: None });
    commit_until_known(batch, |batch| store.commit(batch)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryStore;

    #[tokio::test]
    async fn a_request_waits_until_it_is_taken_back() {
        let (store, clock) = (MemoryStore::new(Clock::system()), Clock::system());
        assert_eq!(asked_since(&store, "names", 1).await.unwrap(), None);
        ask(&store, &clock, "names", 1).await.unwrap();
        assert!(asked_since(&store, "names", 1).await.unwrap().unwrap() > Timestamp::UNIX_EPOCH);
        assert_eq!(asked_since(&store, "names", 2).await.unwrap(), None);
        for _ in 0..2 {
            withdraw(&store, &clock, "names", 1).await.unwrap();
            assert_eq!(asked_since(&store, "names", 1).await.unwrap(), None);
        }
    }
}
