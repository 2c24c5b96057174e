//! Duties of state: compare and set, times to live, values as they were given.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use purista_core::store::{Expect, StateChange, Versioned};
use purista_events::batch::{Batch, Receipt};
use purista_events::store::StoreErrorKind::StateConflict;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::given::{self, remove, set, set_if};
use super::stage::Stage;

const SECOND: Duration = Duration::from_secs(1);

async fn change(stage: &Stage, changes: Vec<StateChange>) -> Receipt {
    stage.commit(Batch { state: changes, ..given::batch() }).await
}

async fn refuse(stage: &Stage, change: StateChange) {
    stage.refuse(Batch { state: vec![change], ..given::batch() }, StateConflict).await;
}

/// The versions that a receipt gives are those that are read.
async fn alpha(stage: &Stage) -> Option<Versioned> {
    stage.state(None).await.remove("alpha")
}

/// A write happens if the key is as its writer expects: absent, of a version, or anything. The version is 1 at first and
/// grows with every write.
pub async fn state_is_compared_and_set(stage: &mut Stage) {
    assert_eq!(alpha(stage).await, None);
    refuse(stage, set_if(Expect::Version(0), "alpha", json!(0))).await;
    refuse(stage, set_if(Expect::Version(1), "alpha", json!(0))).await;
    let receipt = change(stage, vec![set_if(Expect::Absent, "alpha", json!("a"))]).await;
    assert_eq!(receipt.state_versions, [1]);
    assert_eq!(alpha(stage).await, Some(Versioned { value: json!("a"), version: 1 }));

    refuse(stage, set_if(Expect::Absent, "alpha", json!("b"))).await;
    refuse(stage, set_if(Expect::Version(2), "alpha", json!("b"))).await;
    let second = change(stage, vec![set_if(Expect::Version(1), "alpha", json!("b"))]).await;
    let third = change(stage, vec![set("alpha", json!("b"))]).await;
    let [second, third] = [second, third].map(|receipt| receipt.state_versions);
    assert!(second.first() > Some(&1) && third > second, "{second:?} and {third:?}");
    let now = alpha(stage).await.expect("it is there");
    assert_eq!((now.value, vec![now.version]), (json!("b"), third));
    refuse(stage, set_if(Expect::Version(1), "alpha", json!("c"))).await;
}

/// A value that is removed is absent; removing what is absent is no fault. The receipt says 0 for it.
pub async fn state_is_removed(stage: &mut Stage) {
    let receipt = change(stage, vec![remove("alpha"), set("beta", json!(1)), set("gamma", json!(2))]).await;
    assert_eq!(receipt.state_versions, [0, 1, 1]);
    refuse(stage, StateChange { expect: Expect::Version(9), ..remove("beta") }).await;
    refuse(stage, StateChange { expect: Expect::Absent, ..remove("beta") }).await;
    let removal = StateChange { expect: Expect::Version(1), ..remove("beta") };
    assert_eq!(change(stage, vec![removal.clone()]).await.state_versions, [0]);
    assert_eq!(stage.state(None).await.into_keys().collect::<Vec<_>>(), ["gamma"]);
    refuse(stage, removal).await;
    change(stage, vec![StateChange { expect: Expect::Absent, ..remove("beta") }]).await;
    stage.reopen().await;
    assert_eq!(stage.state(None).await.into_keys().collect::<Vec<_>>(), ["gamma"]);
}

/// A version of a key never comes again, neither after its removal nor after its time: who read the value before does
/// not take another for it.
pub async fn versions_of_state_never_come_again(stage: &mut Stage) {
    let mut seen = change(stage, vec![set("alpha", json!(0))]).await.state_versions;
    for round in 1..6 {
        match round % 3 {
            0 => drop(change(stage, vec![remove("alpha")]).await),
            1 => {
                let time_to_live = Some(SECOND);
                let receipt =
                    change(stage, vec![StateChange { time_to_live, ..set("alpha", json!(round)) }]).await;
                seen.extend(receipt.state_versions);
                stage.clock.advance(SECOND * 2);
            }
            _ => {
                change(stage, vec![remove("alpha")]).await;
                stage.reopen().await;
            }
        }
        let version = change(stage, vec![set_if(Expect::Absent, "alpha", json!(round))]).await.state_versions;
        assert!(version.first() > seen.last(), "{version:?} after {seen:?}");
        for old in &seen {
            refuse(stage, set_if(Expect::Version(*old), "alpha", json!("stale"))).await;
        }
        seen.extend(version);
    }
}

/// A value whose time is over is as if it had been removed; a later write without a time keeps it for ever.
pub async fn state_expires_after_its_time(stage: &mut Stage) {
    let short = |key| StateChange { time_to_live: Some(SECOND * 60), ..set(key, json!("short")) };
    change(stage, vec![short("alpha"), short("beta"), set("gamma", json!("long"))]).await;
    stage.clock.advance(SECOND * 59);
    assert_eq!(stage.state(None).await.len(), 3);
    refuse(stage, set_if(Expect::Absent, "alpha", json!(1))).await;
    change(stage, vec![set_if(Expect::Version(1), "beta", json!("kept"))]).await;
    stage.reopen().await;
    stage.clock.advance(SECOND * 2);
    assert_eq!(stage.state(None).await.into_keys().collect::<Vec<_>>(), ["beta", "gamma"]);
    refuse(stage, set_if(Expect::Version(1), "alpha", json!(1))).await;
    refuse(stage, StateChange { expect: Expect::Version(1), ..remove("alpha") }).await;
    stage.clock.advance(SECOND * 60 * 60 * 24 * 365);
    assert_eq!(stage.state(None).await.into_keys().collect::<Vec<_>>(), ["beta", "gamma"]);
    change(stage, vec![set_if(Expect::Absent, "alpha", json!(1))]).await;
    assert_eq!(stage.state(None).await.len(), 3);
}

/// Changes of one key in one batch are made one after the other, each on what the one before it left.
pub async fn changes_of_one_key_follow_one_another(stage: &mut Stage) {
    let changes = vec![
        set_if(Expect::Absent, "alpha", json!(1)),
        set_if(Expect::Version(1), "alpha", json!(2)),
        remove("alpha"),
        set_if(Expect::Absent, "alpha", json!(3)),
    ];
    let versions = change(stage, changes).await.state_versions;
    let now = alpha(stage).await.expect("it is there");
    assert_eq!((now.value, Some(&now.version)), (json!(3), versions.last()));
    assert_eq!((versions.len(), versions.get(2)), (4, Some(&0)));

    let twice = vec![set("beta", json!(1)), set_if(Expect::Absent, "beta", json!(2))];
    stage.refuse(Batch { state: twice, ..given::batch() }, StateConflict).await;
}

/// Values come back as they were given, also `null`, which is a value; keys that are absent are left out.
pub async fn values_of_state_come_back_as_they_were(stage: &mut Stage) {
    let values = [
        Value::Null,
        json!(false),
        json!(""),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(0.5),
        json!("größer ✗ \u{1f980} \"quoted\" \\ \n\u{1}"),
        json!([[], {}, [null, 1, "x"]]),
        json!({ "a": { "b": [1, 2, { "c": null }] }, "": 1, "ä": 2 }),
        json!("x".repeat(300_000)),
    ];
    let names: Vec<String> = (0..values.len()).map(|number| format!("käy {number} '%_")).collect();
    let changes = names.iter().zip(&values).map(|(name, value)| set(name, value.clone())).collect();
    change(stage, changes).await;
    let expected: BTreeMap<String, Versioned> =
        names.iter().cloned().zip(values.into_iter().map(|value| Versioned { value, version: 1 })).collect();

    let mut asked = names.clone();
    asked.extend(["absent".to_owned(), "käy".to_owned(), names.first().cloned().unwrap_or_default()]);
    assert_eq!(stage.store.state(None, &asked).await.expect("state is read"), expected);
    assert_eq!(stage.store.state(None, &[]).await.expect("state is read"), BTreeMap::new());
    stage.reopen().await;
    assert_eq!(stage.store.state(None, &asked).await.expect("state is read"), expected);
}

/// Many keys are read at once.
pub async fn many_keys_are_read_at_once(stage: &mut Stage) {
    let keys: Vec<String> = (0..2_000).map(|number| format!("key-{number}")).collect();
    change(stage, keys.iter().map(|key| set(key, json!(key))).collect()).await;
    let found = stage.store.state(None, &keys).await.expect("state is read");
    assert_eq!(found.len(), keys.len());
    assert!(found.iter().all(|(key, state)| state.value == json!(key)));
}

/// Of many that write on the same version at the same time, one wins.
pub async fn of_many_writers_of_one_key_one_wins(stage: &mut Stage) {
    for round in 0..4_u64 {
        let expect = alpha(stage).await.map_or(Expect::Absent, |now| Expect::Version(now.version));
        let mut writers = JoinSet::new();
        for writer in 0..32 {
            let store = Arc::clone(&stage.store);
            let change = set_if(expect, "alpha", json!([round, writer]));
            let batch = Batch { state: vec![change], ..given::batch() };
            writers.spawn(async move { (writer, store.commit(batch).await.map_err(|error| error.kind())) });
        }
        let ends = writers.join_all().await;
        let won: Vec<u64> = ends.iter().filter(|(_, end)| end.is_ok()).map(|(writer, _)| *writer).collect();
        let [winner] = won.as_slice() else { panic!("{won:?} won") };
        assert_eq!(alpha(stage).await.map(|now| now.value), Some(json!([round, winner])));
        assert!(ends.iter().all(|(_, end)| matches!(end, Ok(_) | Err(StateConflict))));
    }
}
