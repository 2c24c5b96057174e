//! Many accounts at once, put into the file before the program starts: over HTTP they would take minutes.

use std::collections::BTreeMap;

use purista_core::address::{Address, ServiceId};
use purista_core::clock::Clock;
use purista_core::event::Tags;
use purista_core::message::Party;
use purista_core::text::Text;
use purista_events::batch::{Append, Batch, Condition, EVENTS_MAX};
use purista_events::recorded::{Cause, NewEvent};
use purista_events::store::EventStore as _;
use purista_sqlite::store::SqliteStore;
use serde_json::{Value, json};

use crate::postgres;
use crate::server::Folder;

/// Adds this many events: sign-ups and as many renames.
pub(crate) async fn add(folder: &Folder, events: usize) {
    let (store, clock) = (folder.open().await, Clock::system());
    let accounts: Vec<usize> = (0..events / 2).collect();
    for accounts in accounts.chunks(EVENTS_MAX / 2) {
        let events = accounts.iter().flat_map(|account| of_account(*account, &clock)).collect();
        let mut batch = Batch::new(clock.id(), None);
        batch.appends.push(Append { events, condition: Condition::Always });
        store.commit(batch).await.unwrap();
    }
    store.close().await.unwrap();
}

/// Adds one event as some program may have stored it.
pub(crate) async fn add_stored(folder: &Folder, name: &'static str, version: u32, body: &Value) {
    let (store, clock) = (folder.open().await, Clock::system());
    let stored = NewEvent { version, ..event(name, Tags::new().with("user", "seed0"), body, &clock) };
    let mut batch = Batch::new(clock.id(), None);
    batch.appends.push(Append { events: vec![stored], condition: Condition::Always });
    store.commit(batch).await.unwrap();
    store.close().await.unwrap();
}

/// The name that the search has to have for each account in the end.
pub(crate) fn names(accounts: usize) -> BTreeMap<String, String> {
    (0..accounts).map(|account| (user_id(account), new_name(account))).collect()
}

/// What the search has for each account, as it lies in the store.
pub(crate) async fn found_in(folder: &Folder) -> BTreeMap<String, String> {
    let sql = "SELECT user_id, name FROM names";
    if let Some(url) = folder.url() {
        let store = postgres::open(url).await;
        let rows = store.read_models().query(sql, &[]).await.unwrap();
        store.close().await.unwrap();
        return rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    }
    let store = SqliteStore::open(folder.file()).unwrap();
    let reader = store.read_models();
    let found = reader.read(|tables| {
        let mut names = tables.prepare(sql)?;
        names.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    });
    let found = found.await.unwrap();
    store.close().await.unwrap();
    found
}

fn user_id(account: usize) -> String {
    format!("seed{account}")
}

fn new_name(account: usize) -> String {
    format!("Grace{account} Hopper{}", account % 100)
}

fn of_account(account: usize, clock: &Clock) -> [NewEvent; 2] {
    let (user_id, old, new) = (user_id(account), format!("Old{account}"), new_name(account));
    let email = format!("seed{account}@example.com");
    let tags = Tags::new().with("user", &user_id);
    let registered = json!({ "userId": user_id, "email": email, "name": old });
    let at = clock.now().to_string();
    let updated = json!({ "userId": user_id, "oldName": old, "newName": new, "at": at });
    [
        event("newUserRegistered", tags.clone().with("email", email), &registered, clock),
        event("profileUpdated", tags, &updated, clock),
    ]
}

fn event(name: &'static str, tags: Tags, body: &Value, clock: &Clock) -> NewEvent {
    NewEvent {
        id: clock.id(),
        name: Text::known(name),
        version: 1,
        tags,
        body: body.to_string().into(),
        cause: Cause {
            sender: Party::anywhere(Address::of(ServiceId::new("Seed", "1"), "seed")),
            principal_id: None,
            trace_id: clock.id(),
            trace: None,
            correlation_id: None,
            causation_id: None,
            hops: 0,
        },
    }
}
