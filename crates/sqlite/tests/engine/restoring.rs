//! A backup becomes the data file, and only by a restore.

use std::path::{Path, PathBuf};

use purista_events::store::{EventStore as _, StoreErrorKind};
use purista_sqlite::store::SqliteStore;

use crate::folder::Folder;
use crate::given::batch;

/// A backup of three events; and the files of a store that was killed after five.
async fn killed() -> (Folder, PathBuf) {
    let folder = Folder::new();
    let (running, backup) = (folder.path().join("running.db"), folder.path().join("backup.db"));
    let store = SqliteStore::open(&running).unwrap();
    for number in 0..5 {
        if number == 3 {
            store.backup(&backup).await.unwrap();
        }
        store.commit(batch("one")).await.unwrap();
    }
    for ending in ["", "-wal", ".sums"] {
        let name = |file: &Path| format!("{}{ending}", file.display());
        std::fs::copy(name(&running), name(&folder.file())).unwrap();
    }
    store.close().await.unwrap();
    (folder, backup)
}

#[tokio::test]
async fn a_backup_copied_over_a_file_is_refused_and_left_as_it_is() {
    let (folder, backup) = killed().await;
    std::fs::copy(&backup, folder.file()).unwrap();
    let log = folder.path().join("store.db-wal");
    let before = (std::fs::read(folder.file()).unwrap(), std::fs::read(&log).unwrap());
    let error = SqliteStore::open(folder.file()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    assert!(error.to_string().contains("Replace a file only with `purista store restore`"), "{error}");
    assert!((std::fs::read(folder.file()).unwrap(), std::fs::read(&log).unwrap()) == before);
}

#[tokio::test]
async fn a_restore_puts_a_backup_in_place_of_what_was_there() {
    let (folder, backup) = killed().await;
    let refused = SqliteStore::restore(&backup, folder.file(), false).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Invalid);
    let owner = SqliteStore::open(folder.file()).unwrap();
    let refused = SqliteStore::restore(&backup, folder.file(), true).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::InUse, "{refused}");
    assert_eq!(owner.head().borrow().number(), 5);
    owner.close().await.unwrap();

    SqliteStore::restore(&backup, folder.file(), true).await.unwrap();
    let store = SqliteStore::open(folder.file()).unwrap();
    assert_eq!(store.head().borrow().number(), 3);
    store.commit(batch("two")).await.unwrap();
    store.close().await.unwrap();
    // What was there is not lost.
    let replaced = SqliteStore::open(folder.path().join("store.db.replaced")).unwrap();
    assert_eq!(replaced.head().borrow().number(), 5);

    // A file that is not there yet needs no leave.
    let other = folder.path().join("other.db");
    SqliteStore::restore(&backup, &other, false).await.unwrap();
    assert_eq!(SqliteStore::open(&other).unwrap().head().borrow().number(), 3);
}

#[tokio::test]
async fn a_damaged_backup_replaces_nothing() {
    let (folder, backup) = killed().await;
    rusqlite::Connection::open(&backup).unwrap().execute("UPDATE events SET hops = 9", []).unwrap();
    let error = SqliteStore::restore(&backup, folder.file(), true).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error}");
    assert_eq!(SqliteStore::open(folder.file()).unwrap().head().borrow().number(), 5);
    let left = |name: &str| folder.path().join(name).exists();
    assert!(!left("store.db.restoring") && !left("store.db.replaced"));
}
