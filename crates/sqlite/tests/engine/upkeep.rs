//! The copy and the check of a file, while it is used; and what a program that only reads may do.

use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::snapshot::{Snapshot, SnapshotKey};
use purista_events::store::{Direction, EventStore as _, StoreErrorKind};
use purista_sqlite::store::SqliteStore;
use rusqlite::Connection;
use tokio::task::JoinSet;

use crate::folder::Folder;
use crate::given::{self, batch};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_of_one_moment_and_opens_as_a_store() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file()).unwrap();
    for _ in 0..50 {
        store.commit(batch("one")).await.unwrap();
    }
    let before = *store.head().borrow();
    let mut writers = JoinSet::new();
    for _ in 0..4 {
        let store = store.clone();
        writers.spawn(async move {
            for _ in 0..50 {
                store.commit(batch("two")).await.unwrap();
            }
        });
    }
    let to = folder.path().join("copy.db");
    store.backup(&to).await.unwrap();
    writers.join_all().await;
    let after = *store.head().borrow();
    assert_eq!(store.backup(&to).await.unwrap_err().kind(), StoreErrorKind::Invalid);

    let copy = SqliteStore::open(&to).unwrap();
    assert_eq!(copy.origin(), store.origin());
    let head = *copy.head().borrow();
    assert!(before <= head && head <= after);
    let up_to_head = |events: Vec<purista_events::recorded::Recorded>| {
        events.into_iter().filter(|event| event.position <= head).collect::<Vec<_>>()
    };
    let (of_copy, _) = given::view(&copy, &Query::all()).await.unwrap();
    let (of_store, _) = given::view(&store, &Query::all()).await.unwrap();
    assert_eq!(of_copy, up_to_head(of_store));
    assert_eq!(copy.check().await.unwrap(), [""; 0]);
    copy.commit(batch("three")).await.unwrap();
    assert!(!folder.path().join("copy.db.part").exists());
}

#[tokio::test]
async fn a_check_names_what_is_wrong() {
    for (change, finding) in [
        ("UPDATE events SET hops = 9 WHERE position = 3", "event at 3 is not what was written"),
        ("DELETE FROM tags WHERE position = 2", "an event's tag is not in the index: 2"),
        ("INSERT INTO tags VALUES ('thing', 'x', '', 99)", "an event that is not there: 99"),
        ("DELETE FROM events WHERE position = 4", "a position is missing: 5"),
        ("UPDATE forms SET count = 9", "the counted forms are not those of the events: 5"),
        ("UPDATE streams SET count = 9", "a stream has not as many events as it counts: 5"),
    ] {
        let folder = Folder::new();
        let store = SqliteStore::open(folder.file()).unwrap();
        for _ in 0..5 {
            store.commit(batch("one")).await.unwrap();
        }
        assert_eq!(store.check().await.unwrap(), [""; 0]);
        Connection::open(folder.file()).unwrap().execute(change, []).unwrap();
        let found = store.check().await.unwrap();
        assert!(found.iter().any(|line| line.contains(finding)), "{change}: {found:?}");
    }
}

#[tokio::test]
async fn a_program_that_only_reads_works_beside_the_owner() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file()).unwrap();
    let first = store.commit(batch("one")).await.unwrap();
    let reader = SqliteStore::open_read_only(folder.file()).unwrap();
    store.commit(batch("two")).await.unwrap();
    let page = reader.read(&Query::all(), Position::START, Direction::Forwards, 9).await.unwrap();
    assert_eq!(page.len(), 2);
    assert_eq!(reader.follow(&Query::all(), first.position, 9).await.unwrap().events.len(), 1);
    assert_eq!(reader.position_at(first.recorded_at).await.unwrap(), first.position);
    assert_eq!(reader.forms().await.unwrap().len(), 1);
    assert_eq!(reader.check().await.unwrap(), [""; 0]);
    reader.backup(folder.path().join("copy.db")).await.unwrap();
    let key = SnapshotKey::of(None, "view".into(), 1, &Query::all());
    let snapshot = Snapshot { key, position: first.position, taken_at: first.recorded_at, body: "{}".into() };
    assert_eq!(reader.save_snapshot(snapshot).await.unwrap_err().kind(), StoreErrorKind::Closed);
    assert_eq!(
        SqliteStore::builder(folder.file()).lock_wait(std::time::Duration::ZERO).open().unwrap_err().kind(),
        StoreErrorKind::InUse
    );
    reader.close().await.unwrap();
    store.commit(batch("three")).await.unwrap();
}

#[tokio::test]
async fn a_damaged_snapshot_is_none() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file()).unwrap();
    let receipt = store.commit(batch("one")).await.unwrap();
    let key = SnapshotKey::of(None, "view".into(), 1, &Query::all());
    let snapshot = Snapshot {
        key: key.clone(),
        position: receipt.position,
        taken_at: receipt.recorded_at,
        body: "{}".into(),
    };
    store.save_snapshot(snapshot.clone()).await.unwrap();
    assert_eq!(store.snapshot(&key).await.unwrap(), Some(snapshot));
    for change in ["body = '[]'", "position = 0", "body = 7", "checksum = 'x'"] {
        let connection = Connection::open(folder.file()).unwrap();
        connection.execute(&format!("UPDATE snapshots SET {change}"), []).unwrap();
        assert_eq!(store.snapshot(&key).await.unwrap(), None, "{change}");
    }
}
