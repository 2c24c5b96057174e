//! What the suite for all engines does not ask of this one: the faults that tests of other crates wish for.

use purista_core::id::Id;
use purista_core::store::{Expect, StateChange};
use serde_json::json;

use super::*;
use crate::store::StoreErrorKind::{Closed, Conflict, NoSpace, ReadFailed, StateConflict, Unknown};

/// A batch that is committed once: one with another id finds that there is a value already.
fn batch(id: u128) -> Batch {
    let state = vec![StateChange {
        key: "key".to_owned(),
        expect: Expect::Absent,
        value: Some(json!(id.to_string())),
        time_to_live: None,
    }];
    Batch { state, ..Batch::new(Id::from_random(id), None) }
}

async fn value(store: &MemoryStore) -> Result<Option<Versioned>, StoreErrorKind> {
    let found = store.state(None, &["key".to_owned()]).await;
    found.map(|mut found| found.remove("key")).map_err(|error| error.kind())
}

async fn commit(store: &MemoryStore, id: u128) -> Result<bool, StoreErrorKind> {
    store.commit(batch(id)).await.map(|receipt| receipt.is_repeated).map_err(|error| error.kind())
}

#[tokio::test]
async fn faults_come_in_the_order_in_which_they_were_wished() {
    let store = MemoryStore::default();
    store.fail_next(2, NoSpace);
    store.fail_next(1, Conflict);
    for kind in [NoSpace, NoSpace, Conflict] {
        assert_eq!(commit(&store, 1).await, Err(kind));
    }
    assert_eq!(value(&store).await, Ok(None));
    assert_eq!(commit(&store, 1).await, Ok(false));
}

#[tokio::test]
async fn unknown_may_have_happened_or_not() {
    let store = MemoryStore::default();
    store.fail_next(1, Unknown);
    assert_eq!(commit(&store, 1).await, Err(Unknown));
    assert_eq!(value(&store).await, Ok(None));
    assert_eq!(commit(&store, 1).await, Ok(false));

    let store = MemoryStore::default();
    store.fail_next(2, Fault::LoseAnswer);
    assert_eq!(commit(&store, 1).await, Err(Unknown));
    assert_eq!(value(&store).await, Ok(Some(Versioned { value: json!("1"), version: 1 })));
    // The answer that is lost may also be a refusal.
    assert_eq!(commit(&store, 2).await, Err(Unknown));
    assert_eq!(commit(&store, 2).await, Err(StateConflict));
    assert_eq!(commit(&store, 1).await, Ok(true));
}

#[tokio::test]
async fn reads_fail_as_often_as_was_wished() {
    let store = MemoryStore::default();
    store.fail_next_reads(2);
    for expected in [Err(ReadFailed), Err(ReadFailed), Ok(None)] {
        assert_eq!(value(&store).await, expected);
    }
}

#[tokio::test]
async fn a_poisoned_store_reads_and_takes_no_commits_until_it_is_opened_again() {
    let store = MemoryStore::default();
    assert_eq!(commit(&store, 1).await, Ok(false));
    store.poison("the disk is gone");
    assert_eq!(store.poisoned().as_deref(), Some("the disk is gone"));
    assert_eq!(commit(&store.clone(), 2).await, Err(Closed));
    assert!(value(&store).await.is_ok_and(|value| value.is_some()));

    let again = store.reopen();
    assert_eq!(again.poisoned(), None);
    assert_eq!(commit(&again, 1).await, Ok(true));
}

#[tokio::test]
async fn clones_are_closed_together_and_another_opening_is_not() {
    let store = MemoryStore::default();
    let (clone, again) = (store.clone(), store.reopen());
    store.close().await.unwrap();
    assert_eq!(commit(&clone, 1).await, Err(Closed));
    assert_eq!(value(&clone).await, Err(Closed));
    assert_eq!(commit(&again, 1).await, Ok(false));
}
