//! The duties of read models, as the suite has them for every engine.
#![expect(clippy::expect_used, reason = "what does not hold is a failed test")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures_util::future::BoxFuture;
use purista_conformance::read_models::{Counted, Raise, ReadModelSystem};
use purista_core::clock::Clock;
use purista_events::projection::Projection;
use purista_events::recorded::Recorded;
use purista_sqlite::read_models::projection;
use purista_sqlite::store::SqliteStore;
use purista_sqlite::tx::Tx;

struct Sqlite {
    folder: PathBuf,
}

impl ReadModelSystem for Sqlite {
    type Store = SqliteStore;

    fn open(&self, clock: Clock) -> SqliteStore {
        SqliteStore::builder(self.folder.join("store.db")).clock(clock).open().expect("the file opens")
    }

    fn counting(&self, name: &'static str, version: u32, raise: Raise) -> Projection<Tx> {
        let upsert = format!(
            "INSERT INTO {{{name}}} (thing, count) VALUES (?1, ?2) \
             ON CONFLICT (thing) DO UPDATE SET count = count + excluded.count"
        );
        projection(name, version)
            .set_up(move |tx| tx.create_table(name, "thing TEXT PRIMARY KEY, count INTEGER NOT NULL"))
            .on(move |tx, event: Recorded<Counted>| {
                // A handler that fails has written something already.
                tx.execute(&upsert, (&event.body.thing, 0))?;
                tx.execute(&upsert, (&event.body.thing, raise(&event)?))?;
                Ok(())
            })
    }

    fn counts<'a>(
        &'a self,
        store: &'a SqliteStore,
        name: &'static str,
    ) -> BoxFuture<'a, BTreeMap<String, i64>> {
        Box::pin(async move {
            let reader = store.read_models();
            let counts = reader.read(move |connection| {
                let mut counts = connection.prepare_cached(&format!("SELECT thing, count FROM {name}"))?;
                counts.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
            });
            counts.await.expect("the counts are read")
        })
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        // What cannot be removed lies in the system's folder for such things.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn system() -> Sqlite {
    let name = format!("purista-sqlite-{}", Clock::system().id());
    Sqlite { folder: std::env::temp_dir().join(name) }
}

purista_conformance::read_model_suite!(system());
