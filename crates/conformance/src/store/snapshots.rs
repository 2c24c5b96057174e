//! Snapshots: a cache beside the log, which never goes back and which anybody may throw away.

use std::sync::Arc;

use purista_core::text::Text;
use purista_events::query::{Query, QueryItem};
use purista_events::recorded::Recorded;
use purista_events::snapshot::{SNAPSHOT_BYTES_MAX, Snapshot, SnapshotGroup, SnapshotKey};
use purista_events::store::{PAGE_MAX, StoreErrorKind};

use super::Stage;
use super::given::{self, Tenant, at, events};

fn key(tenant: Option<&str>, name: &str, version: u32, user: &str) -> SnapshotKey {
    let tenant: Tenant = tenant.map(Arc::from);
    SnapshotKey::of(tenant, Text::from(name), version, &Query::tag("user", user))
}

fn snapshot(stage: &Stage, key: SnapshotKey, position: u64, body: &str) -> Snapshot {
    Snapshot { key, position: at(position), taken_at: stage.clock.time(), body: body.to_owned().into() }
}

async fn save(stage: &Stage, snapshot: &Snapshot) {
    stage.store.save_snapshot(snapshot.clone()).await.expect("a snapshot is kept");
}

async fn found(stage: &Stage, key: &SnapshotKey) -> Option<Snapshot> {
    stage.store.snapshot(key).await.expect("a snapshot is read")
}

/// A snapshot comes back as it was given, for its own key and for no other, also after the store was opened again.
pub async fn a_snapshot_is_found_by_its_whole_key(stage: &mut Stage) {
    let keys = [
        key(None, "profile", 1, "ada"),
        key(None, "profile", 2, "ada"),
        key(None, "profile", 1, "bob"),
        key(None, "seats", 1, "ada"),
        key(Some("north"), "profile", 1, "ada"),
        key(Some(""), "profile", 1, "ada"),
    ];
    let mut kept = Vec::new();
    for (number, key) in (1..).zip(keys) {
        assert_eq!(found(stage, &key).await, None);
        let body = format!("{{\"größer\":\"{number}\\u0000\"}}");
        let snapshot = snapshot(stage, key, number, &body);
        save(stage, &snapshot).await;
        kept.push(snapshot);
    }
    stage.reopen().await;
    for snapshot in &kept {
        assert_eq!(found(stage, &snapshot.key).await.as_ref(), Some(snapshot));
    }
}

/// A newer snapshot takes the place of an older one, and an older one changes nothing, in whichever order they come.
pub async fn a_snapshot_never_goes_back(stage: &mut Stage) {
    let key = key(Some("north"), "profile", 1, "ada");
    for (position, expected) in [(5, 5), (3, 5), (9, 9), (9, 9), (8, 9)] {
        let body = format!("[{position}]");
        save(stage, &snapshot(stage, key.clone(), position, &body)).await;
        let kept = found(stage, &key).await.expect("one is kept");
        assert_eq!((kept.position, kept.body), (at(expected), format!("[{expected}]").into()));
    }
}

/// A view that begins at its snapshots has them and every event behind them; all events where a snapshot is missing.
pub async fn a_view_begins_behind_its_snapshots(stage: &mut Stage) {
    let key = |name| key(None, name, 1, "ada");
    let mut places = Vec::new();
    for user in ["ada", "bob", "ada", "ada"] {
        places.push(stage.append(events(1, "moved", &[("user", user)])).await.position.number());
    }
    let [first, _, third, fourth] = places.try_into().expect("there are four");
    save(stage, &snapshot(stage, key("late"), third, "3")).await;
    save(stage, &snapshot(stage, key("early"), first, "1")).await;
    let item = || QueryItem { types: Vec::new(), tags: vec![("user".into(), "ada".into())] };
    let cases: [(&[&'static str], &[u64]); 4] = [
        (&["late"], &[fourth]),
        (&["late", "early"], &[third, fourth]),
        (&["late", "none"], &[first, third, fourth]),
        (&[], &[first, third, fourth]),
    ];
    for (names, expected) in cases {
        let keys: Vec<_> = names.iter().map(|name| Some(key(name))).collect();
        let items = names.iter().map(|_| item()).chain(names.is_empty().then(item)).collect();
        let query = Query { items, ..Query::all().of_tenant(None) };
        let (snapshots, view) =
            stage.store.read_view_behind(&query, &keys).await.expect("a view is read behind its snapshots");
        let mut kept = Vec::new();
        for key in keys.iter().flatten() {
            kept.push(stage.store.snapshot(key).await.expect("a snapshot is read"));
        }
        assert_eq!(snapshots, kept);
        let (found, token) = view.all().await.expect("a view is read");
        assert_eq!(token.position(), at(fourth));
        let positions: Vec<u64> = found.iter().map(|event| event.position.number()).collect();
        assert_eq!(positions, expected, "{names:?}");
    }
}

/// Each item of a query begins behind its own snapshot, also on the pages after the first: an item without a snapshot is read
/// from the start, and takes no event of another item with it.
pub async fn each_item_of_a_view_begins_behind_its_own_snapshot(stage: &mut Stage) {
    let item = |user: &str, types: &[&str]| QueryItem {
        types: types.iter().map(|name| Text::from(*name)).collect(),
        tags: vec![("user".into(), user.to_owned().into())],
    };
    let long = PAGE_MAX / 2;
    for user in ["ada", "bob"] {
        for _ in 0..2 {
            stage.append(events(long, "moved", &[("user", user)])).await;
        }
    }
    let both = stage.append(events(1, "moved", &[("user", "ada"), ("user", "bob")])).await.position;
    let ada = stage.append(events(1, "renamed", &[("user", "ada")])).await.position;
    let old = key(None, "profile", 1, "ada");
    save(stage, &snapshot(stage, old.clone(), both.previous().number(), "{}")).await;
    let young = key(None, "profile", 1, "bob");
    for (keys, of_bob) in [
        ([Some(old.clone()), None, None], true),
        ([Some(old.clone()), Some(young.clone()), None], true),
        ([Some(old.clone()), Some(old.clone()), Some(old)], false),
    ] {
        let items = vec![item("ada", &[]), item("bob", &[]), item("bob", &["renamed"])];
        let query = Query { items, ..Query::all().of_tenant(None) };
        let (_, view) =
            stage.store.read_view_behind(&query, &keys).await.expect("a view is read behind its snapshots");
        let (found, token) = view.all().await.expect("a view is read");
        assert_eq!(token.position(), ada);
        let is_of = |event: &&Recorded, user| event.tags.contains("user", user);
        let count = |user| found.iter().filter(|event| is_of(event, user)).count();
        assert_eq!((count("ada"), count("bob")), (2, if of_bob { 2 * long + 1 } else { 1 }), "{keys:?}");
        assert!(found.iter().is_sorted_by(|a, b| a.position < b.position), "in order, and each once");
    }
}

/// Snapshots are forgotten by name or all together, and are counted by name and version. The log has none of it.
pub async fn snapshots_are_counted_and_forgotten(stage: &mut Stage) {
    stage.append(given::events(3, "moved", &[("user", "ada")])).await;
    let before = stage.events().await;
    for (name, version, user) in
        [("profile", 1, "ada"), ("profile", 1, "bob"), ("profile", 2, "ada"), ("seats", 1, "ada")]
    {
        stage.clock.advance(std::time::Duration::from_secs(1));
        save(stage, &snapshot(stage, key(None, name, version, user), 2, "{}")).await;
    }
    let newest = stage.clock.time();
    let groups = stage.store.snapshots().await.expect("snapshots are counted");
    let counted: Vec<_> =
        groups.iter().map(|group| (group.name.as_str(), group.version, group.count)).collect();
    assert_eq!(counted, [("profile", 1, 2), ("profile", 2, 1), ("seats", 1, 1)]);
    assert_eq!(groups.last().map(|SnapshotGroup { newest, .. }| *newest), Some(newest));

    let forget =
        async |stage: &Stage, name| stage.store.forget_snapshots(name).await.expect("they are forgotten");
    assert_eq!(forget(stage, Some("nobody")).await, 0);
    assert_eq!(forget(stage, Some("profile")).await, 3);
    assert_eq!(found(stage, &key(None, "profile", 1, "ada")).await, None);
    assert!(found(stage, &key(None, "seats", 1, "ada")).await.is_some());
    // What is forgotten may come again, and be older than what was there.
    save(stage, &snapshot(stage, key(None, "profile", 1, "ada"), 1, "{}")).await;
    assert_eq!(forget(stage, None).await, 2);
    stage.reopen().await;
    assert_eq!(stage.store.snapshots().await.expect("snapshots are counted"), []);
    assert_eq!(stage.events().await, before);
}

/// A snapshot has a bound.
pub async fn a_snapshot_has_a_bound(stage: &mut Stage) {
    let of = |bytes: usize| snapshot(stage, key(None, "large", 1, "ada"), 1, &"x".repeat(bytes));
    let error = stage.store.save_snapshot(of(SNAPSHOT_BYTES_MAX + 1)).await.expect_err("it is too large");
    assert_eq!(error.kind(), StoreErrorKind::Invalid);
    let largest = of(SNAPSHOT_BYTES_MAX);
    save(stage, &largest).await;
    assert_eq!(found(stage, &largest.key).await, Some(largest));
}
