//! A damaged event is noticed, and nothing is skipped.

use purista_events::occurrence::Occurrences;
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::store::{Direction, EventStore as _, StoreErrorKind};
use purista_sqlite::store::SqliteStore;
use rusqlite::Connection;

use crate::folder::Folder;
use crate::given::{self, batch};

/// A file of five events whose third was changed behind the store's back.
async fn damaged(change: &str) -> (Folder, SqliteStore) {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file()).unwrap();
    for _ in 0..5 {
        store.commit(batch("one")).await.unwrap();
    }
    store.close().await.unwrap();
    let connection = Connection::open(folder.file()).unwrap();
    assert_eq!(connection.execute(&format!("UPDATE events SET {change} WHERE position = 3"), []).unwrap(), 1);
    drop(connection);
    // The checksums of pages would notice it first.
    folder.forget_sums();
    let store = SqliteStore::open(folder.file()).unwrap();
    (folder, store)
}

#[tokio::test]
async fn every_column_is_covered() {
    for change in [
        "body = '{\"what\":\"at\"}'",
        "body = CAST(body AS BLOB)",
        "name = 'happens'",
        "tenant = 'other'",
        "recorded_at = recorded_at + 1",
        "id = zeroblob(16)",
        "version = 2",
        "stream_version = NULL",
        "tags = '[]'",
        "sender_service = sender_target, sender_target = sender_service",
        "principal = ''",
        "trace_id = zeroblob(16)",
        "hops = 1",
        "checksum = checksum + 1",
    ] {
        let (_folder, store) = damaged(change).await;
        let error = given::view(&store, &Query::all()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{change}: {error}");
        assert!(error.to_string().contains("event at 3 "), "{change}: {error}");
    }
}

#[tokio::test]
async fn every_column_that_a_fold_reads_is_covered() {
    let queries = [
        Query::all(),
        Query::types(["happened".into()]),
        // Of all tenants, a view of a tag reads whole events: its order has to be made.
        Query::tag("thing", "one").of_tenant(None),
    ];
    for change in [
        "body = '{\"what\":\"at\"}'",
        "body = CAST(body AS BLOB)",
        "version = 2",
        "tags = '[[\"thing\",\"two\"]]'",
        "fold_checksum = fold_checksum + 1",
        "fold_checksum = fold_checksum + (1 << 32)",
        // Its absence makes the whole checksum count, and that of another event is none of this one.
        "fold_checksum = NULL, hops = 9",
        "fold_checksum = (SELECT fold_checksum FROM events WHERE position = 2)",
    ] {
        let (_folder, store) = damaged(change).await;
        for query in &queries {
            let error = given::folded(&store, query).await.expect_err(change);
            assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{change}: {error}");
            assert!(error.to_string().contains("event at 3 "), "{change}: {error}");
        }
        assert!(!store.check().await.unwrap().is_empty(), "{change}");
    }
    let (_folder, store) = damaged("name = 'happens'").await;
    assert_eq!(given::folded(&store, &Query::all()).await.unwrap_err().kind(), StoreErrorKind::Corrupt);
    // What it does not read is the whole checksum's to guard.
    let (_folder, store) = damaged("hops = 9").await;
    assert_eq!(given::folded(&store, &Query::all()).await.unwrap(), [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_fold_follows_up_to_the_damage_and_no_further() {
    for query in [Query::all(), Query::tag("thing", "one"), Query::types(["happened".into()])] {
        let (_folder, store) = damaged("body = '[]'").await;
        let page = store.follow_occurrences(&query, Position::START, Occurrences::default()).await.unwrap();
        assert_eq!((page.events.len(), page.looked_up_to), (2, Position::new(2)));
        let error =
            store.follow_occurrences(&query, page.looked_up_to, Occurrences::default()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    }
}

#[tokio::test]
async fn a_follower_reads_up_to_the_damage_and_no_further() {
    for query in [Query::all(), Query::tag("thing", "one"), Query::types(["happened".into()])] {
        let (_folder, store) = damaged("hops = 9").await;
        let page = store.follow(&query, Position::START, 10).await.unwrap();
        assert_eq!(page.events.len(), 2);
        assert_eq!(page.looked_up_to, Position::new(2));
        assert!(!page.is_caught_up);
        let error = store.follow(&query, page.looked_up_to, 10).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
        // What lies around it is read on its own.
        let after = store.read(&query, Position::new(3), Direction::Forwards, 10).await.unwrap();
        assert_eq!(after.len(), 2);
        // And the log still takes commits.
        store.commit(batch("one")).await.unwrap();
    }
}

#[tokio::test]
async fn an_event_that_is_missing_is_noticed_where_its_tag_is_not() {
    let (folder, store) = damaged("hops = 9").await;
    store.close().await.unwrap();
    let connection = Connection::open(folder.file()).unwrap();
    connection.execute("DELETE FROM events WHERE position = 3", []).unwrap();
    drop(connection);
    folder.forget_sums();
    let store = SqliteStore::open(folder.file()).unwrap();
    let error = given::view(&store, &Query::tag("thing", "one")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    let error = given::folded(&store, &Query::tag("thing", "one").of_tenant(None)).await.unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}

#[tokio::test]
async fn control_characters_in_tags_are_no_damage_and_damage_beside_them_is_found() {
    let folder = Folder::new();
    let store = SqliteStore::builder(folder.file()).open().unwrap();
    for value in ["\0", "\u{1}", "a\0b\u{1}c", "\\u0000", "\\\0", "\n\u{1f}", "ada"] {
        for _ in 0..2 {
            let mut batch = given::batch(value);
            for event in batch.appends.iter_mut().flat_map(|append| &mut append.events) {
                event.tags = event.tags.clone().with("thing", "ada").with("note", value);
            }
            store.commit(batch).await.unwrap();
        }
    }
    assert_eq!(store.check().await.unwrap(), [""; 0]);
    store.close().await.unwrap();
    let connection = rusqlite::Connection::open(folder.file()).unwrap();
    let deleted = connection.execute("DELETE FROM tags WHERE value = ?1 AND name = 'note'", ["a\0b\u{1}c"]);
    assert_eq!(deleted.unwrap(), 2);
    drop(connection);
    folder.forget_sums();
    let store = SqliteStore::builder(folder.file()).open().unwrap();
    let found = store.check().await.unwrap();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|line| line.starts_with("an event's tag is not in the index")), "{found:?}");
}
