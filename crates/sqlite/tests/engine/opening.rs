//! Who may open what.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::store::{EventStore as _, StoreError, StoreErrorKind};
use purista_sqlite::store::SqliteStore;
use rusqlite::Connection;

use crate::folder::Folder;
use crate::given::batch;
use crate::workload;

fn open_at_once(file: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::builder(file).lock_wait(Duration::ZERO).open()
}

#[track_caller]
fn check_refused(result: Result<SqliteStore, StoreError>, kind: StoreErrorKind, parts: &[&str]) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "{part:?} is not in {error}");
    }
}

#[tokio::test]
async fn a_folder_that_is_missing_is_made() {
    let folder = Folder::new();
    let file = folder.path().join("a/b/store.db");
    let store = SqliteStore::open(&file).unwrap();
    store.commit(batch("one")).await.unwrap();
    store.close().await.unwrap();
    assert!(file.exists());
    assert!(!folder.path().join("a/b/store.db-wal").exists(), "a store that was closed is one file");
}

#[tokio::test]
async fn a_file_in_use_is_refused_in_the_same_process() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file()).unwrap();
    check_refused(
        open_at_once(&folder.file()),
        StoreErrorKind::InUse,
        &["store.db", "this process", "end that one"],
    );
    // By another name as well.
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(folder.file(), &link).unwrap();
    check_refused(open_at_once(&link), StoreErrorKind::InUse, &["store.db"]);
    // The first one is unharmed.
    store.commit(batch("one")).await.unwrap();
    store.close().await.unwrap();
    open_at_once(&folder.file()).unwrap();
}

#[tokio::test]
async fn a_file_in_use_is_refused_to_another_process() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file()).unwrap();
    let output =
        Command::new(workload::program()).args(workload::arguments(&folder.file(), 1, 1)).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&format!("process {}", std::process::id())), "{said}");
    store.commit(batch("one")).await.unwrap();
    store.close().await.unwrap();
    let store = open_at_once(&folder.file()).unwrap();
    assert_eq!(store.head().borrow().number(), 1);
}

#[tokio::test]
async fn a_handle_that_is_dropped_lets_go_of_the_file() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file()).unwrap();
    let position = store.commit(batch("one")).await.unwrap().position;
    drop(store);
    let store = SqliteStore::builder(folder.file()).lock_wait(Duration::from_secs(60)).open().unwrap();
    assert_eq!(*store.head().borrow(), position);
}

#[tokio::test]
async fn the_origin_stays_the_same() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file()).unwrap();
    let origin = store.origin();
    store.close().await.unwrap();
    assert_eq!(SqliteStore::open(folder.file()).unwrap().origin(), origin);
    let other = Folder::new();
    assert_ne!(SqliteStore::open(other.file()).unwrap().origin(), origin);
}

#[tokio::test]
async fn a_file_of_a_newer_form_is_refused_and_left_alone() {
    let folder = Folder::new();
    SqliteStore::open(folder.file()).unwrap().close().await.unwrap();
    Connection::open(folder.file()).unwrap().pragma_update(None, "user_version", 1_000).unwrap();
    folder.forget_sums();
    let before = std::fs::read(folder.file()).unwrap();
    check_refused(open_at_once(&folder.file()), StoreErrorKind::Invalid, &["store.db", "1000", "newer"]);
    assert_eq!(std::fs::read(folder.file()).unwrap(), before);
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let folder = Folder::new();
    let text = folder.path().join("notes.txt");
    std::fs::write(
        &text,
        "a text that is no database, and longer than the header of one is, to be read as one".repeat(20),
    )
    .unwrap();
    check_refused(open_at_once(&text), StoreErrorKind::Invalid, &["notes.txt", "no SQLite file"]);

    let foreign = folder.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE things (name TEXT)").unwrap();
    let before = std::fs::read(&foreign).unwrap();
    check_refused(open_at_once(&foreign), StoreErrorKind::Invalid, &["foreign.db", "no store of purista"]);
    assert_eq!(std::fs::read(&foreign).unwrap(), before);
}

#[tokio::test]
async fn what_a_closed_store_is_asked_is_refused() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file()).unwrap();
    let other = store.clone();
    store.close().await.unwrap();
    other.close().await.unwrap();
    assert_eq!(other.commit(batch("one")).await.unwrap_err().kind(), StoreErrorKind::Closed);
    let keys = ["a".to_owned()];
    assert_eq!(other.state(None, &keys).await.unwrap_err().kind(), StoreErrorKind::Closed);
    assert_eq!(other.poisoned(), None);
}

#[tokio::test]
async fn a_file_in_use_is_read_beside_its_owner() {
    let folder = Folder::new();
    let owner = SqliteStore::open(folder.file()).unwrap();
    owner.commit(batch("one")).await.unwrap();
    let reader = SqliteStore::open_read_only(folder.file()).unwrap();
    assert_eq!(reader.origin(), owner.origin());
    assert_eq!(reader.commit(batch("two")).await.unwrap_err().kind(), StoreErrorKind::Closed);
    owner.commit(batch("two")).await.unwrap();
    let page = reader.follow(&Query::all(), Position::START, 10).await.unwrap();
    assert_eq!(page.events.len(), 2);
    reader.close().await.unwrap();
    owner.commit(batch("three")).await.unwrap();
    owner.close().await.unwrap();
    // Also when nobody owns it.
    let reader = SqliteStore::open_read_only(folder.file()).unwrap();
    assert_eq!(reader.head().borrow().number(), 3);
}

#[test]
fn a_file_that_is_missing_is_not_made_for_reading() {
    let folder = Folder::new();
    check_refused(
        SqliteStore::open_read_only(folder.file()),
        StoreErrorKind::ReadFailed,
        &["store.db", "for reading failed"],
    );
    assert!(!folder.file().exists());
}
