//! Events as they lie in old logs, byte for byte: `fixtures/NAME.vVERSION.json` is the body of one. A form that was ever
//! stored stays readable, or is named as one that nobody reads.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use purista::testing::TestHost;
use purista::{Event, HostBuilder, Upcasters};
use purista_core::address::{Address, ServiceId};
use purista_core::clock::Clock;
use purista_core::event::Tags;
use purista_core::health::Condition;
use purista_core::message::Party;
use purista_core::text::Text;
use purista_events::batch::{Append, Batch, Condition as If};
use purista_events::memory::MemoryStore;
use purista_events::memory::tables::Tables;
use purista_events::position::Position;
use purista_events::projection::{Projection, projection};
use purista_events::projector::{Condition as Working, Projected, ProjectionHandle, fold::folding};
use purista_events::readers::{Readers, check};
use purista_events::recorded::{Cause, NewEvent, Recorded};
use purista_events::store::EventStore;
use serde_json::{Value, json};

use crate::contracts::{Registered, Renamed, RenamedV1, renamed};

const PATIENCE: Duration = Duration::from_secs(30);

/// What each file is today: the forms that it has become. One that is missing here is read by no code.
fn today(form: &str) -> Option<Value> {
    let renamed = |name: &str, times| json!([{ "user": "ada", "name": name, "times": times }]);
    match form {
        "registered v1" => Some(json!([{ "user": "ada", "email": "ada@example.com" }])),
        "renamed v1" => Some(renamed("Ada", 1)),
        "renamed v2" => Some(renamed("Countess", 3)),
        "profileUpdated v1" => Some(json!([
            { "user": "ada", "name": "Ada L.", "times": 1 },
            { "user": "ada", "email": "al@example.com" },
        ])),
        _ => None,
    }
}

/// The steps of the program of today: one event of the oldest program is two, and one of these is an old form itself.
#[expect(clippy::indexing_slicing, reason = "what is missing in JSON is `null`")]
fn upcasters() -> Upcasters {
    Upcasters::new()
        .upcast(|old: RenamedV1| Renamed { user: old.user, name: old.name, times: 1 })
        .upcast_json("profileUpdated", 1, &[("renamed", 1), ("registered", 1)], |json| {
            let profile = &json["profile"];
            vec![
                ("renamed", 1, json!({ "user": json["user"], "name": profile["name"] })),
                ("registered", 1, json!({ "user": json["user"], "email": profile["email"] })),
            ]
        })
}

fn readers() -> Readers {
    Readers::new().event::<Registered>().event::<Renamed>()
}

/// Every file, in order of name, as an event that was never recorded.
fn stored() -> Vec<NewEvent> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/deciding/fixtures");
    let files: BTreeMap<String, Vec<u8>> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap())
        .map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap()))
        .collect();
    let events = files.into_iter().map(|(file, body)| {
        let (name, version) = file.strip_suffix(".json").and_then(|file| file.rsplit_once(".v")).unwrap();
        event(name, version.parse().unwrap(), body)
    });
    events.collect()
}

fn event(name: &str, version: u32, body: Vec<u8>) -> NewEvent {
    let clock = Clock::system();
    let cause = Cause {
        sender: Party::anywhere(Address::of(ServiceId::new("Older", "1"), "program")),
        principal_id: None,
        trace_id: clock.id(),
        trace: None,
        correlation_id: None,
        causation_id: None,
        hops: 0,
    };
    let tags = Tags::new().with("user", "ada");
    NewEvent { id: clock.id(), name: Text::from(name), version, tags, body: body.into(), cause }
}

async fn record(store: &MemoryStore, events: Vec<NewEvent>) -> Position {
    let mut batch = Batch::new(Clock::system().id(), None);
    batch.appends.push(Append { events, condition: If::Always });
    store.commit(batch).await.unwrap().position
}

/// A store that follows the test's time, with these events.
async fn store_of(events: Vec<NewEvent>) -> MemoryStore {
    let store = TestHost::start([]).await.stop().await.1.reopen();
    record(&store, events).await;
    store
}

async fn host_with(store: &MemoryStore, projections: Vec<Projected>) -> TestHost {
    let builder = TestHost::builder().store(store.clone());
    let builder = builder
        .configure(|host| projections.into_iter().fold(host.upcasters(upcasters()), HostBuilder::projection));
    builder.start().await
}

/// Rows are what it heard, under the positions of the events.
fn heard<E: Event + serde::Serialize>(name: &'static str) -> Projection<Tables> {
    projection(name, 1).on(|rows: &Tables, event: Recorded<E>| {
        rows.put("heard", &event.position.to_string(), serde_json::to_value(event.body)?);
        Ok(())
    })
}

fn rows(store: &MemoryStore, projection: &str) -> Vec<Value> {
    store.rows(projection, "heard").unwrap().unwrap_or_default().into_values().collect()
}

async fn becomes_paused(handle: &ProjectionHandle) -> (Position, String) {
    let mut states = handle.states();
    let paused = states.wait_for(|state| matches!(state.condition, Working::Paused(_)));
    let paused = tokio::time::timeout(PATIENCE, paused).await.unwrap().unwrap().condition.clone();
    let Working::Paused(pause) = paused else { unreachable!("it was waited for") };
    (pause.at, pause.reason)
}

#[tokio::test]
async fn a_file_of_each_old_form_is_read_as_what_it_is_today() {
    let store = store_of(stored()).await;
    let all = crate::log(&store).await;
    let mut seen = 0;
    for stored in &all {
        let form = format!("{} v{}", stored.name, stored.version);
        let Some(expected) = today(&form) else { continue };
        let mut became: Vec<Value> = Vec::new();
        let wanted = |name: &str| [("registered", 1), ("renamed", 2)].into_iter().find(|of| of.0 == name);
        let read = upcasters().read(
            stored,
            |name| wanted(name).map(|of| of.1),
            |_, _, body| {
                became.push(serde_json::from_slice(body).unwrap());
                Ok::<_, purista_events::upcast::UnreadableEvent>(())
            },
        );
        read.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(Value::from(became), expected, "{form}");
        seen += 1;
    }
    assert_eq!((seen, all.len()), (4, 6), "each file is there, and a new one says what it is today");
}

#[tokio::test]
async fn what_no_code_reads_is_named_by_the_check_and_the_rest_is_not() {
    let store = store_of(stored()).await;
    let found = check(&store, &upcasters(), &readers()).await.unwrap();
    let found: Vec<_> = found.iter().map(|unread| (unread.form.to_string(), unread.to_string())).collect();
    let unread = ["left v1", "renamed v9"];
    assert_eq!(found.iter().map(|(form, _)| form).collect::<Vec<_>>(), unread.iter().collect::<Vec<_>>());
    assert!(found[0].1.contains("nothing reads the event left v1"), "{}", found[0].1);
    assert!(found[1].1.contains("v9 is newer: run the newer program"), "{}", found[1].1);
    let without_steps = check(&store, &Upcasters::new(), &readers()).await.unwrap();
    let forms: Vec<_> = without_steps.iter().map(|unread| unread.form.to_string()).collect();
    assert_eq!(forms, ["left v1", "profileUpdated v1", "renamed v1", "renamed v9"]);
}

#[tokio::test]
async fn a_form_that_no_code_reads_pauses_its_own_projection_and_another_goes_on() {
    let store = store_of(stored()).await;
    let (names, addresses) = (heard::<Renamed>("names"), heard::<Registered>("addresses"));
    let (names, addresses) = (store.projected(names), store.projected(addresses));
    let (of_names, of_addresses) = (names.handle(), addresses.handle());
    let host = host_with(&store, vec![names, addresses]).await;

    let unread = crate::log(&store).await.into_iter().find(|event| event.version == 9).unwrap();
    let (at, reason) = becomes_paused(&of_names).await;
    assert_eq!(at, unread.position);
    assert!(reason.contains("the event renamed v9 at position"), "{reason}");
    // Everything before it is taken in, also what was stored under another name.
    assert_eq!(
        rows(&store, "names"),
        [today("profileUpdated v1"), today("renamed v1"), today("renamed v2")]
            .map(|of| of.unwrap()[0].clone())
    );

    let last =
        record(&store, vec![event("registered", 1, br#"{"user":"bob","email":"b@x"}"#.to_vec())]).await;
    of_addresses.reached(last, PATIENCE).await.unwrap();
    assert_eq!(rows(&store, "addresses").len(), 3, "two of the files, and the one of now");
    assert!(of_names.reached(last, Duration::from_millis(1)).await.is_err());
    let parts = host.host().health().report().parts;
    let of = |name: &str| parts.iter().find(|part| part.name == name).unwrap();
    assert_eq!(of("projection names 1").condition, Condition::Degraded);
    assert_eq!(of("projection addresses 1").condition, Condition::Up);
}

#[tokio::test]
async fn projections_of_a_host_read_through_its_upcasters_unless_they_have_their_own() {
    let events = stored().into_iter().filter(|event| event.version != 9);
    let store = store_of(events.collect()).await;
    let own = Upcasters::new().upcast(|old: RenamedV1| renamed(&old.name, 77)).upcast_json(
        "profileUpdated",
        1,
        &[],
        |_| Vec::new(),
    );
    let by_host = store.projected(heard::<Renamed>("byHost"));
    let by_itself = store.projected(heard::<Renamed>("byItself").upcasters(own));
    let counting = folding("counting", 1, 0_u32).on(|count, _: Recorded<Renamed>| *count += 1);
    let (counting, count) = counting.of(&store);
    let handles = [by_host.handle(), by_itself.handle(), counting.handle()];
    let host = host_with(&store, vec![by_host, by_itself, counting]).await;
    let head = *store.head().borrow();
    for handle in &handles {
        handle.reached(head, PATIENCE).await.unwrap();
    }
    let times = |projection: &str| -> Vec<Value> {
        rows(&store, projection).into_iter().map(|row| row["times"].clone()).collect()
    };
    assert_eq!(times("byHost"), [1, 1, 3]);
    assert_eq!(times("byItself"), [77, 3]);
    assert_eq!(count.read(|count| *count), 3);
    host.stop().await;

    // What waits is counted by the names under which it is stored.
    let waits = store.projected(heard::<Renamed>("waits")).upcasters(&upcasters());
    let lag = waits.handle().lag(Clock::system().now()).await.unwrap();
    assert_eq!(lag.events.events, 3);
    let unread = store.projected(heard::<Renamed>("unread"));
    assert_eq!(unread.handle().lag(Clock::system().now()).await.unwrap().events.events, 2);
}

/// A host is given them, whichever comes first.
#[tokio::test]
async fn it_does_not_matter_whether_the_host_has_its_upcasters_before_its_projections() {
    let store = store_of(vec![event("renamed", 1, br#"{"user":"ada","name":"Ada"}"#.to_vec())]).await;
    let names = store.projected(heard::<Renamed>("names"));
    let handle = names.handle();
    let builder = TestHost::builder().store(store.clone());
    let host = builder.configure(|host| host.projection(names).upcasters(upcasters())).start().await;
    handle.reached(Position::new(1), PATIENCE).await.unwrap();
    assert_eq!(rows(&store, "names"), [json!({ "user": "ada", "name": "Ada", "times": 1 })]);
    host.stop().await;
}
