//! One owner, files of one user, and a write-ahead log that shrinks again.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use purista_events::store::{EventStore as _, StoreErrorKind};
use purista_sqlite::store::SqliteStore;

use crate::folder::Folder;
use crate::given::batch;
use crate::workload;

#[tokio::test]
async fn files_are_for_their_user_alone() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file()).unwrap();
    store.commit(batch("one")).await.unwrap();
    store.backup(folder.path().join("copy.db")).await.unwrap();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?} has mode {mode:o}", entry.file_name());
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort_unstable();
    assert_eq!(
        names,
        ["copy.db", "store.db", "store.db-shm", "store.db-wal", "store.db.lock", "store.db.sums"]
    );
}

#[tokio::test]
async fn a_second_owner_is_refused_although_the_lock_file_is_gone() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file()).unwrap();
    std::fs::remove_file(folder.path().join("store.db.lock")).unwrap();
    let here = SqliteStore::builder(folder.file()).lock_wait(Duration::ZERO).open().unwrap_err();
    assert_eq!(here.kind(), StoreErrorKind::InUse, "{here}");
    assert_eq!(SqliteStore::owner(folder.file()).unwrap().as_deref(), Some("another process"));
    let output =
        Command::new(workload::program()).args(workload::arguments(&folder.file(), 1, 1)).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("another process has it open"), "{said}");
    store.commit(batch("one")).await.unwrap();
}

fn length(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |found| found.len())
}

#[tokio::test]
async fn a_log_that_a_long_read_made_grow_shrinks_when_the_read_ends() {
    const KEPT: u64 = 64 * 1024 * 1024;
    let folder = Folder::new();
    let store = SqliteStore::builder(folder.file()).checkpoint_pages(256).open().unwrap();
    store.commit(batch("one")).await.unwrap();
    let reader = rusqlite::Connection::open(folder.file()).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM events").unwrap();
    let log = folder.path().join("store.db-wal");
    while length(&log) <= KEPT + 1024 * 1024 {
        let mut large = batch("one");
        large.appends[0].events[0].body = format!("\"{}\"", "x".repeat(250_000)).into();
        store.commit(large).await.unwrap();
    }
    reader.execute_batch("COMMIT").unwrap();
    // No commit comes: the idle writer does it.
    let shrunk = async {
        while length(&log) > KEPT {
            tokio::time::sleep(Duration::from_millis(20)).await; // real time: the writer looks once a second
        }
    };
    tokio::time::timeout(Duration::from_secs(60), shrunk).await.expect("the log shrinks");
    store.commit(batch("two")).await.unwrap();
    assert_eq!(store.check().await.unwrap(), [""; 0]);
}
