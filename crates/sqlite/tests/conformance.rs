//! The duties of a store, as the suite has them for every engine.
#![expect(clippy::expect_used, reason = "a store that does not open is a failed test")]

use std::future::{Ready, ready};
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use purista_conformance::store::StoreSystem;
use purista_core::clock::Clock;
use purista_events::store::EventStore;
use purista_sqlite::store::SqliteStore;

/// A file in a folder of its own.
struct Sqlite {
    folder: PathBuf,
}

impl StoreSystem for Sqlite {
    fn open(&self, clock: Clock) -> BoxFuture<'_, Arc<dyn EventStore>> {
        Box::pin(async move {
            let store = SqliteStore::builder(self.folder.join("store.db")).clock(clock).open();
            let store: Arc<dyn EventStore> = Arc::new(store.expect("the file opens"));
            store
        })
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        // What cannot be removed lies in the system's folder for such things.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn system() -> Ready<Sqlite> {
    let name = format!("purista-sqlite-{}", Clock::system().id());
    ready(Sqlite { folder: std::env::temp_dir().join(name) })
}

purista_conformance::store_suite!(system());
