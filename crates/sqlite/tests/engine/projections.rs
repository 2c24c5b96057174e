//! What only this engine promises of projections: plain names for readers, tables of one's own, and a writer that others get.

use std::time::{Duration, Instant};

use garde::Validate;
use purista_core::clock::Clock;
use purista_core::error::HandlerError;
use purista_core::event::Event;
use purista_events::projection::Projection;
use purista_events::projector::{Condition, ProjectionHandle};
use purista_events::read_models::ReadModels as _;
use purista_events::recorded::Recorded;
use purista_events::store::{EventStore as _, StoreErrorKind};
use purista_sqlite::read_models::projection;
use purista_sqlite::store::SqliteStore;
use purista_sqlite::tx::Tx;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::folder::Folder;
use crate::given::{batch, many};

/// What [`batch`] appends.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
struct Happened {
    what: String,
}

impl Event for Happened {
    const NAME: &'static str = "happened";
}

fn run(
    store: &SqliteStore,
    projection: Projection<Tx>,
) -> (ProjectionHandle, CancellationToken, JoinSet<()>) {
    let (projected, stop) = (store.projected(projection), CancellationToken::new());
    let handle = projected.handle();
    let mut task = JoinSet::new();
    task.spawn(projected.run(stop.clone(), Clock::system()));
    (handle, stop, task)
}

fn things(version: u32, columns: &'static str) -> Projection<Tx> {
    projection("things", version)
        .set_up(move |tx| {
            tx.create_table("things", columns)?;
            tx.execute_batch("CREATE INDEX {things}_by_what ON {things} (what)")?;
            Ok(())
        })
        .on(|tx, event: Recorded<Happened>| {
            let (_, thing) = event.tags.first().ok_or_else(|| HandlerError::failed("no thing"))?;
            tx.execute(
                "INSERT OR REPLACE INTO {things} (thing, what) VALUES (?1, ?2)",
                (thing, &event.body.what),
            )?;
            Ok(())
        })
}

async fn condition_of(handle: &ProjectionHandle) -> String {
    let mut states = handle.states();
    let paused = states.wait_for(|state| matches!(state.condition, Condition::Paused(_))).await.unwrap();
    let Condition::Paused(pause) = &paused.condition else { unreachable!("it was waited for") };
    pause.reason.clone()
}

/// What happened, to be searched by its words, in the order of the log.
fn words() -> Projection<Tx> {
    projection("words", 1)
        .set_up(|tx| {
            tx.create_search_table("words", "what, thing UNINDEXED, tokenize = 'unicode61', prefix = '2'")
        })
        .on(|tx, event: Recorded<Happened>| {
            let (_, thing) = event.tags.first().ok_or_else(|| HandlerError::failed("no thing"))?;
            let place = i64::try_from(event.position.number())?;
            let sql = "INSERT INTO {words} (rowid, what, thing) VALUES (?1, ?2, ?3)";
            tx.execute(sql, (place, format!("{} of {thing}", event.body.what), thing))?;
            tx.execute("DELETE FROM {words} WHERE rowid = ?1 - 2", [place])?;
            Ok(())
        })
}

#[tokio::test]
async fn a_full_text_table_is_searched_by_its_name_also_after_it_was_made_anew_and_after_a_restart() {
    let folder = Folder::new();
    for round in 1..=2 {
        let store = SqliteStore::open(folder.file()).unwrap();
        for thing in ["one", "two", "three"] {
            store.commit(batch(thing)).await.unwrap();
        }
        let last = *store.head().borrow();
        let (handle, stop, mut task) = run(&store, words());
        handle.reached(last, Duration::from_secs(20)).await.unwrap();
        handle.rebuild();
        let generation = round + 1;
        let is_new = |state: &purista_events::projector::ProjectionState| {
            state.builds.iter().all(|build| build.is_current && build.build.generation == generation)
        };
        handle.states().wait_for(is_new).await.unwrap();
        let reader = store.read_models();
        let found = reader.read(|tables| {
            let sql = "SELECT thing FROM words WHERE words MATCH ?1 AND rowid > 0 ORDER BY rank, rowid";
            let mut found = tables.prepare(sql)?;
            found.query_map(["it t*"], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()
        });
        assert_eq!(found.await.unwrap(), ["two", "three"], "round {round}");
        stop.cancel();
        task.join_next().await.unwrap().unwrap();
        assert!(store.check().await.unwrap().is_empty());
        let left = store.read_models();
        let tables = left.read(|tables| {
            let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name LIKE 'words\\_v1\\_%' ESCAPE '\\'";
            tables.query_row(sql, [], |row| row.get::<_, i64>(0))
        });
        assert_eq!(
            tables.await.unwrap(),
            6,
            "one table and the five in which it is kept: nothing of older builds"
        );
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn readers_ask_plain_names_and_find_one_version() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file()).unwrap();
    let last = store.commit(batch("one")).await.unwrap().position;
    let (first, _stop, _task) = run(&store, things(1, "thing TEXT PRIMARY KEY, what TEXT"));
    first.reached(last, Duration::from_secs(20)).await.unwrap();
    let reader = store.read_models();
    let ask = |sql: &'static str| {
        reader.read(move |tables| tables.query_row(sql, [], |row| row.get::<_, String>(0)))
    };
    assert_eq!(ask("SELECT what FROM things WHERE thing = 'one'").await.unwrap(), "it");
    assert!(ask("SELECT more FROM things").await.is_err());
    let (second, _other, _second) =
        run(&store, things(2, "thing TEXT PRIMARY KEY, what TEXT, more TEXT DEFAULT 'more'"));
    second.reached(last, Duration::from_secs(20)).await.unwrap();
    assert_eq!(ask("SELECT more FROM things WHERE thing = 'one'").await.unwrap(), "more");
    // Readers cannot write.
    assert!(ask("DELETE FROM things_v2_1 RETURNING thing").await.is_err());
}

#[tokio::test]
async fn a_handler_writes_to_its_own_tables_and_nothing_else() {
    for sql in [
        "DELETE FROM events",
        "UPDATE projections SET position = 7",
        "INSERT INTO meta (name, value) VALUES ('a', 'b')",
        "DROP TABLE tags",
        "COMMIT",
        "ROLLBACK",
        "BEGIN",
        "PRAGMA synchronous = OFF",
        "ATTACH 'elsewhere.db' AS elsewhere",
        "CREATE TABLE other (a)",
        // Of a projection that was made as often as this one.
        "DELETE FROM {things}",
        "DELETE FROM {words}",
        "DELETE FROM {words}_content",
    ] {
        let folder = Folder::new();
        let store = SqliteStore::open(folder.file()).unwrap();
        store.projected(things(1, "thing TEXT PRIMARY KEY, what TEXT")).begin().await.unwrap();
        store.projected(words()).begin().await.unwrap();
        store.commit(batch("one")).await.unwrap();
        let bad = projection("bad", 1)
            .set_up(|tx| tx.create_table("bad", "a"))
            .on(move |tx, _: Recorded<Happened>| Ok(tx.execute_batch(sql)?));
        let (handle, _stop, _task) = run(&store, bad);
        let reason = condition_of(&handle).await;
        assert!(reason.contains("not authorized") || reason.contains("prohibited"), "{sql}: {reason}");
        // And the store is as well as before.
        store.commit(batch("two")).await.unwrap();
        assert_eq!(store.check().await.unwrap(), [""; 0], "{sql}");
    }
}

#[tokio::test]
async fn tables_of_others_are_refused_when_they_are_made() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file()).unwrap();
    store.projected(things(1, "thing TEXT PRIMARY KEY, what TEXT")).begin().await.unwrap();
    for table in ["events", "meta", "things", "no name", "sqlite_things"] {
        let other = projection("other", 1).set_up(move |tx| tx.create_table(table, "a"));
        let error = store.projected(other).begin().await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Invalid, "{table}: {error}");
    }
    // Nothing of it stays.
    assert_eq!(store.builds().await.unwrap().len(), 1);
    store.commit(batch("one")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_do_not_wait_for_a_projection_that_is_made() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file()).unwrap();
    for _ in 0..20 {
        store.commit(many("one", 500)).await.unwrap();
    }
    // An event takes a quarter of a millisecond, so all take two seconds and a half of the writer.
    let slow = projection("slow", 1).on(|_: &Tx, _: Recorded<Happened>| {
        let began = Instant::now();
        while began.elapsed() < Duration::from_micros(250) {
            std::hint::spin_loop();
        }
        Ok(())
    });
    let (handle, stop, task) = run(&store, slow);
    let mut longest = Duration::ZERO;
    let mut commits = 0;
    while handle.reached(purista_events::position::Position::new(10_000), Duration::ZERO).await.is_err() {
        let began = Instant::now();
        store.commit(batch("two")).await.unwrap();
        longest = longest.max(began.elapsed());
        commits += 1;
    }
    // A busy machine takes its time, and one step is five milliseconds: without an end to steps it would be seconds.
    assert!(commits > 20 && longest < Duration::from_secs(1), "{commits} commits, the longest {longest:?}");
    stop.cancel();
    task.join_all().await;
}
