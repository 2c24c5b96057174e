//! A file of an earlier form is brought up to date, with everything in it.

use std::fs;
use std::path::Path;

use purista_core::trace::TraceContext;
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::store::{EventStore as _, StoreErrorKind};
use purista_events::subscriptions::{DeadLetterSource, SubscriptionId};
use purista_sqlite::store::SqliteStore;

use crate::folder::Folder;
use crate::given;

/// Written by the version that knew form 1: six batches of two tasks, and something for a subscription.
const FORM_1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/form-1.db");

/// The first twelve events of a file that the version wrote that knew form 2.
const FORM_2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/form-2.db");

/// Written by the version that knew form 3: six batches of two tasks.
const FORM_3: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/form-3.db");

fn form_of(file: &Path) -> i32 {
    let connection = rusqlite::Connection::open(file).unwrap();
    connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn a_file_of_form_1_is_brought_up_to_date_with_everything_in_it() {
    let folder = Folder::new();
    fs::copy(FORM_1, folder.file()).unwrap();
    assert_eq!(form_of(&folder.file()), 1);
    // Twice: what is up to date stays as it is.
    for _ in 0..2 {
        let store = SqliteStore::open(folder.file()).unwrap();
        let (events, _) = given::view(&store, &Query::all()).await.unwrap();
        assert_eq!(events.len(), 18);
        let forms = store.forms().await.unwrap();
        let found: Vec<_> = forms.iter().map(|form| (form.name.as_str(), form.version, form.count)).collect();
        assert_eq!(found, [("written", 1, Some(18))]);
        assert_eq!((forms[0].oldest, forms[0].newest), (Position::new(1), Position::new(18)));
        assert_eq!(store.snapshots().await.unwrap(), []);
        let email = SubscriptionId::new("Email.1.welcome");
        let record = store.subscription(&email).await.unwrap().unwrap();
        assert_eq!((record.progress.low, record.parked.len()), (Position::new(4), 1));
        let letters = store.dead_letters(Some(&email), 9).await.unwrap();
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0].source, DeadLetterSource::Event(Position::new(3)));
        assert!(
            store
                .subscription(&SubscriptionId::new("Search.1.index"))
                .await
                .unwrap()
                .unwrap()
                .pause
                .is_some()
        );
        assert_eq!(store.check().await.unwrap(), [""; 0]);
        store.close().await.unwrap();
        assert_eq!(form_of(&folder.file()), 4);
    }
}

#[tokio::test]
async fn what_was_recorded_before_folds_had_a_checksum_is_folded_and_guarded_by_the_whole_one() {
    let folder = Folder::new();
    fs::copy(FORM_2, folder.file()).unwrap();
    assert_eq!(form_of(&folder.file()), 2);
    let store = SqliteStore::open(folder.file()).unwrap();
    assert_eq!(form_of(&folder.file()), 4);
    store.commit(given::batch("new")).await.unwrap();
    assert_eq!(given::folded(&store, &Query::all()).await.unwrap(), (1..=13).collect::<Vec<_>>());
    let measured = Query::types(["measured".into()]);
    assert_eq!(given::folded(&store, &measured).await.unwrap(), (1..=12).collect::<Vec<_>>());
    assert_eq!(given::folded(&store, &Query::tag("meter", "4")).await.unwrap(), [5]);
    assert_eq!(store.check().await.unwrap(), [""; 0]);
    store.close().await.unwrap();
    let connection = rusqlite::Connection::open(folder.file()).unwrap();
    connection.execute("UPDATE events SET body = '{}' WHERE position = 7", []).unwrap();
    drop(connection);
    folder.forget_sums();
    let store = SqliteStore::open(folder.file()).unwrap();
    let error = given::folded(&store, &Query::all()).await.unwrap_err();
    assert!(error.to_string().contains("event at 7 "), "{error}");
}

#[tokio::test]
async fn what_was_recorded_before_events_had_a_trace_is_read_and_guarded_beside_what_has_one() {
    let folder = Folder::new();
    fs::copy(FORM_3, folder.file()).unwrap();
    assert_eq!(form_of(&folder.file()), 3);
    let store = SqliteStore::open(folder.file()).unwrap();
    assert_eq!(form_of(&folder.file()), 4);
    let trace = TraceContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", Some("a=1"));
    let mut batch = given::batch("new");
    batch.appends[0].events[0].cause.trace = trace.clone().map(Box::new);
    store.commit(batch).await.unwrap();
    let (events, _) = given::view(&store, &Query::all()).await.unwrap();
    let traces: Vec<_> = events.iter().map(|event| event.cause.trace.as_deref().cloned()).collect();
    assert_eq!((events.len(), &traces[..18]), (19, &[const { None }; 18][..]));
    assert_eq!(traces[18], trace);
    assert_eq!(store.check().await.unwrap(), [""; 0]);
    store.close().await.unwrap();
    // What is added to an event that had none is damage, and so is what is taken away.
    for (position, damage) in [(7, "'{}'"), (19, "NULL")] {
        let connection = rusqlite::Connection::open(folder.file()).unwrap();
        connection
            .execute(&format!("UPDATE events SET trace = {damage} WHERE position = {position}"), [])
            .unwrap();
        drop(connection);
        folder.forget_sums();
        let store = SqliteStore::open(folder.file()).unwrap();
        let found = store.check().await.unwrap().join("\n");
        assert!(found.contains(&format!("event at {position} is not what was written")), "{found}");
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_file_of_form_1_is_not_brought_up_to_date_for_reading() {
    let folder = Folder::new();
    fs::copy(FORM_1, folder.file()).unwrap();
    let error = SqliteStore::open_read_only(folder.file()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Invalid);
    assert!(error.to_string().contains("form 1"), "{error}");
    assert_eq!(form_of(&folder.file()), 1);
}
