//! `purista store copy`: a file becomes a database, and the log goes on there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, join};
use purista_core::clock::Clock;
use purista_core::error::HandlerError;
use purista_core::id::Id;
use purista_core::store::{Expect, StateChange};
use purista_events::batch::{Batch, Condition, EVENTS_MAX, Receipt, ReplyKey, StoredReply};
use purista_events::fingerprint::Fingerprint;
use purista_events::kept::{Kept, Part};
use purista_events::position::Position;
use purista_events::projector::Projected;
use purista_events::query::Query;
use purista_events::recorded::Recorded;
use purista_events::store::{Direction, EventStore, PAGE_MAX, StoreError, StoreErrorKind};
use purista_events::subscriptions::{Pause, SubscriptionId};
use purista_postgres::store::PostgresStore;
use purista_sqlite::store::SqliteStore;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::given::{self, Folder, happened};
use crate::purista::{Running, run_between, run_on};
use crate::{postgres, purista};

const COPY: &[&str] = &["store", "copy"];

/// Adds what [`given::write`] has nothing of: state with and without a time to live, a removed key, a reply, a handled message, a
/// pause, texts that the other engine writes otherwise.
async fn add_rest(store: &SqliteStore) -> (Batch, Receipt) {
    let clock = Clock::system();
    let change = |key: &str, value: Option<Value>, time_to_live| StateChange {
        key: key.to_owned(),
        expect: Expect::Any,
        value,
        time_to_live,
    };
    let mut first = happened(6, (Some("acme"), Some("a\0b\u{1}")), ("joined", "signUp"), ("a\0b", "{}"));
    first.state.extend([
        change("kept", Some(json!({ "a\0": 1 })), None),
        change("gone", Some(json!(1)), None),
        change("short", Some(json!(2)), Some(Duration::from_secs(3_600))),
    ]);
    first.reply = Some(StoredReply {
        key: ReplyKey { scope: "ada@User.1.signUp".into(), key: "once\0".into() },
        fingerprint: Fingerprint([7; 16]),
        body: Some(r#"{"userId":"46"}"#.into()),
        event_name: Some("joined".into()),
    });
    first.consumed = Some((SubscriptionId::new("Audit.1.note"), Id::parse("m-1").unwrap()));
    let receipt = store.commit(first.clone()).await.unwrap();
    let mut second = Batch::new(clock.id(), Some(Arc::from("")));
    second.state.push(change("gone", Some(json!("of the tenant whose name is empty")), None));
    store.commit(second).await.unwrap();
    let mut third = Batch::new(clock.id(), Some(Arc::from("acme")));
    third.state.push(change("gone", None, None));
    let since = "2026-03-04T00:00:00Z".parse().unwrap();
    third.pauses.push((
        SubscriptionId::new("Email.1.sendWelcomeEmail"),
        Some(Pause { since, reason: "smtp is down".to_owned() }),
    ));
    store.commit(third).await.unwrap();
    (first, receipt)
}

/// Everything that a store keeps beside its events, by what it is of, in no order.
async fn kept<F>(hand_on: impl FnOnce(mpsc::Sender<Vec<Kept>>) -> F) -> BTreeMap<Part, Vec<String>>
where
    F: Future<Output = Result<(), StoreError>>,
{
    let (pages, mut coming) = mpsc::channel::<Vec<Kept>>(1);
    let mut found: BTreeMap<Part, Vec<String>> = BTreeMap::new();
    let taking = async {
        while let Some(page) = coming.recv().await {
            for row in page {
                found.entry(row.part()).or_default().push(format!("{row:?}"));
            }
        }
    };
    let (handed, ()) = join(hand_on(pages), taking).await;
    handed.unwrap();
    for rows in found.values_mut() {
        rows.sort();
    }
    found
}

async fn events(store: &dyn EventStore) -> Vec<Recorded> {
    let (mut events, mut after) = (Vec::new(), Position::START);
    loop {
        let page = store.read(&Query::all(), after, Direction::Forwards, PAGE_MAX).await.unwrap();
        let Some(last) = page.last() else { return events };
        after = last.position;
        events.extend(page);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn a_copy_is_the_same_log_and_goes_on_behind_it() {
    let (folder, url) = (Folder::new(), postgres::database().await);
    given::write(&folder.file()).await.close().await.unwrap();
    // Its times are long ago, and receipts are kept for some days.
    let source = SqliteStore::open(folder.file()).unwrap();
    let (first, receipt) = add_rest(&source).await;
    source.close().await.unwrap();

    let ended = run_between(&folder.file(), &url, COPY);
    assert_eq!(ended.code, 0, "{ended:?}");
    for line in [
        "events 1 to 6      6  ",
        "state              4  ",
        "replies            1  ",
        "messages           1  ",
        "subscriptions      2  ",
        "dead letters       2  ",
        "snapshots          1  ",
        "6 events copied in ",
        "counts and checksums are equal",
        "read models in tables are made anew by their program: names 1",
    ] {
        assert!(ended.out.contains(line), "{line}: {}", ended.out);
    }
    assert!(!ended.out.contains("CANARY") && !ended.err.contains("CANARY"), "{ended:?}");

    let (source, target) = (SqliteStore::open(folder.file()).unwrap(), postgres::open(&url).await);
    assert_eq!(source.origin(), target.origin(), "it is the same log");
    let before = events(&source).await;
    assert_eq!((before.len(), &before), (6, &events(&target).await));
    let kept_of_source = kept(|pages| source.kept(pages)).await;
    assert_eq!(kept_of_source.len(), Part::ALL.len(), "there is something of everything: {kept_of_source:?}");
    assert_eq!(target.forms().await.unwrap().len(), 3);

    // The same batch again is the first one, the same key has its reply, a removed key its version.
    let again = target.commit(first.clone()).await.unwrap();
    assert_eq!(again, Receipt { is_repeated: true, ..receipt });
    let key = &first.reply.as_ref().unwrap().key;
    assert_eq!(target.reply(Some("acme"), key).await.unwrap(), first.reply);
    let message = Id::parse("m-1").unwrap();
    assert!(target.is_consumed(&SubscriptionId::new("Audit.1.note"), &message).await.unwrap());
    let email = SubscriptionId::new("Email.1.sendWelcomeEmail");
    assert_eq!(target.subscription(&email).await.unwrap(), source.subscription(&email).await.unwrap());
    let back = StateChange {
        key: "gone".to_owned(),
        expect: Expect::Absent,
        value: Some(json!(3)),
        time_to_live: None,
    };
    let back = Batch { state: vec![back], ..Batch::new(Clock::system().id(), Some("acme".into())) };
    assert_eq!(target.commit(back).await.unwrap().state_versions, [2], "no version comes twice");

    // What comes now lies behind everything, in its stream and for who follows.
    let condition = Condition::Stream { name: "user".into(), value: "43".into(), version: 2 };
    let mut next = happened(7, (Some("acme"), None), ("joined", "signUp"), ("43", "{}"));
    next.appends[0].condition = condition;
    let next = target.commit(next).await.unwrap();
    assert!(next.position > Position::new(1 << 14), "{next:?}: it lies in an era of its own");
    assert!(next.recorded_at >= before[5].recorded_at);
    target.head().wait_for(|head| *head >= next.position).await.unwrap();
    let page = target.follow(&Query::all(), Position::new(5), 10).await.unwrap();
    let positions: Vec<Position> = page.events.iter().map(|event| event.position).collect();
    assert_eq!(positions, [Position::new(6), next.position]);
    target.close().await.unwrap();
    source.close().await.unwrap();

    // Once more it is refused: the database has gone on.
    let ended = run_between(&folder.file(), &url, COPY);
    assert_eq!((ended.code, ended.out.as_str()), (1, ""));
    assert!(ended.err.starts_with("error: this log was copied before, up to position 6"), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn what_is_there_beside_the_events_is_the_same_row_by_row() {
    let (folder, url) = (Folder::new(), postgres::database().await);
    let source = given::write(&folder.file()).await;
    add_rest(&source).await;
    let before = kept(|pages| source.kept(pages)).await;
    let origin = source.origin();
    source.close().await.unwrap();
    assert_eq!(run_between(&folder.file(), &url, COPY).code, 0);
    let target = PostgresStore::builder(&url).copy_into(&origin).await.unwrap();
    assert!(target.is_finished());
    assert_eq!(kept(|pages| target.kept(pages)).await, before);
    target.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn a_file_that_was_used_between_two_attempts_is_copied_as_it_is_then() {
    let (folder, url) = (Folder::new(), postgres::database().await);
    let source = given::write(&folder.file()).await;
    add_rest(&source).await;
    source.close().await.unwrap();
    assert_eq!(run_between(&folder.file(), &url, COPY).code, 0);
    // As if it had been killed just before its end.
    let client = postgres::client(&url).await;
    client.batch_execute("UPDATE purista.copy SET finished_at = NULL, position = NULL").await.unwrap();
    let source = SqliteStore::open(folder.file()).unwrap();
    let mut later = happened(7, (Some("acme"), None), ("joined", "signUp"), ("47", "{}"));
    let kept_now = StateChange {
        key: "kept".to_owned(),
        expect: Expect::Version(1),
        value: Some(json!("otherwise")),
        time_to_live: None,
    };
    later.state.push(kept_now);
    later.pauses.push((SubscriptionId::new("Email.1.sendWelcomeEmail"), None));
    source.commit(later).await.unwrap();
    let before = kept(|pages| source.kept(pages)).await;
    let origin = source.origin();
    source.close().await.unwrap();

    let ended = run_between(&folder.file(), &url, &["store", "copy", "--json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let told: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((&told["eventsCopiedNow"], &told["upTo"]), (&json!(1), &json!(7)));
    let target = PostgresStore::builder(&url).copy_into(&origin).await.unwrap();
    assert_eq!(kept(|pages| target.kept(pages)).await, before);
    target.close().await;
}

/// How many bytes each event's body has.
const BODY: usize = 256;

/// Users of a file that is long enough to be interrupted.
async fn fill(file: &Path, batches: usize) -> SqliteStore {
    let store = SqliteStore::open(file).unwrap();
    for number in 0..batches {
        let mut batch = Batch::new(Clock::system().id(), None);
        for event in 0..EVENTS_MAX {
            let user = (number * EVENTS_MAX + event).to_string();
            let name = "A name that is not short. ".repeat(9);
            let body = json!({ "user": user, "name": &name[..BODY - 21 - user.len()] }).to_string();
            assert_eq!(body.len(), BODY);
            batch.appends.extend(happened(1, (None, None), ("joined", "signUp"), (&user, &body)).appends);
        }
        for append in &mut batch.appends {
            append.events[0].id = Clock::system().id();
        }
        store.commit(batch).await.unwrap();
    }
    store
}

async fn reached(url: &str) -> i64 {
    let client = postgres::client(url).await;
    let sql = "SELECT coalesce(max(position), 0) FROM purista.events";
    client.query_one(sql, &[]).await.map_or(0, |row| row.get(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn a_copy_that_was_killed_goes_on_and_until_then_nobody_uses_the_database() {
    const EVENTS: i64 = 40_000;
    let (folder, url) = (Folder::new(), postgres::database().await);
    fill(&folder.file(), 40).await.close().await.unwrap();
    let mut kills = 0;
    let mut before = 0;
    loop {
        let copying = Running::start_between(&folder.file(), &url, COPY);
        let more = async {
            while reached(&url).await <= before {
                tokio::time::sleep(Duration::from_millis(5)).await; // real time: another process works
            }
        };
        tokio::time::timeout(Duration::from_secs(60), more).await.unwrap();
        copying.kill();
        before = reached(&url).await;
        kills += 1;
        if kills == 2 || before >= EVENTS {
            break;
        }
    }
    assert!(before > 0 && before < EVENTS, "{before} of {EVENTS}: it was killed in the middle");

    let refused = PostgresStore::connect(&url).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Invalid);
    let listed = run_on(&url, &["events", "list"]);
    assert_eq!(
        listed.err,
        "error: a copy into the store is not finished: `purista store copy` goes on with it\n\
         help: run `purista store copy` once more: it goes on where it was\n"
    );
    let status = run_on(&url, &["store", "status"]);
    let at = format!("is not finished: it is at position {before}, and `purista store copy` goes on with it");
    assert!(status.code == 0 && status.out.contains(&at), "{status:?}");

    let ended = run_between(&folder.file(), &url, &["store", "copy", "--json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let told: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(told["eventsCopiedNow"], EVENTS - before, "only what was missing came");
    assert_eq!((&told["upTo"], &told["isEqual"]), (&json!(EVENTS), &json!(true)));
    assert_eq!(told["events"].as_array().unwrap().len(), 20);
    let target = postgres::open(&url).await;
    let source = SqliteStore::open(folder.file()).unwrap();
    assert!(events(&source).await == events(&target).await);
    assert_eq!(
        run_on(&url, &["store", "check"]).out.lines().last(),
        Some("40,000 events: everything is as it was written")
    );
    target.close().await.unwrap();
    source.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn a_projection_goes_on_from_its_checkpoint() {
    let (folder, url) = (Folder::new(), postgres::database().await);
    let source = fill(&folder.file(), 2).await;
    let seen = Seen::default();
    let (working, running) = given::run(outside(&source, &seen));
    running.reached(Position::new(2_000), Duration::from_secs(20)).await.unwrap();
    working.stop().await;
    assert_eq!(seen.lock().unwrap().len(), 2_000);
    source.close().await.unwrap();

    assert_eq!(run_between(&folder.file(), &url, COPY).code, 0);
    let target = postgres::open(&url).await;
    let body = r#"{"user":"9","name":"Nine"}"#;
    let next = target.commit(happened(9, (None, None), ("joined", "signUp"), ("9", body))).await.unwrap();
    let seen = Seen::default();
    let (working, running) = given::run(outside(&target, &seen));
    running.reached(next.position, Duration::from_secs(20)).await.unwrap();
    working.stop().await;
    assert_eq!(*seen.lock().unwrap(), [next.position], "nothing that was done is done again");
    target.close().await.unwrap();
}

type Seen = Arc<Mutex<Vec<Position>>>;

/// A projection into a place outside, which keeps where it is in the store.
fn outside<S: EventStore + Clone>(store: &S, seen: &Seen) -> Projected {
    let seen = Arc::clone(seen);
    let take = move |page: Arc<[Recorded]>| -> BoxFuture<'static, Result<(), HandlerError>> {
        seen.lock().unwrap().extend(page.iter().map(|event| event.position));
        Box::pin(std::future::ready(Ok(())))
    };
    Projected::to_sink(store, "outside", 1, Query::all(), take)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn a_copy_is_refused_with_the_reason_and_the_remedy() {
    let (folder, url) = (Folder::new(), postgres::database().await);
    let store = given::write(&folder.file()).await;
    let refused = |file: &Path, part: &str| {
        let ended = run_between(file, &url, COPY);
        assert_eq!((ended.code, ended.out.as_str()), (1, ""), "{ended:?}");
        assert!(ended.err.contains(part) && ended.err.contains("\nhelp: "), "{part}: {}", ended.err);
    };
    // A file in use would go on without the copy.
    refused(
        &folder.file(),
        "and a file has one writer: cannot copy it: what it records meanwhile would be missing",
    );
    store.close().await.unwrap();
    let unnamed = purista::run(&folder.file(), COPY);
    assert!(unnamed.err.starts_with("error: it is not said where to copy to\nhelp: "), "{}", unnamed.err);

    // A database in which there is something.
    let used = postgres::database().await;
    let target = postgres::open(&used).await;
    target.commit(happened(1, (None, None), ("joined", "signUp"), ("1", "{}"))).await.unwrap();
    target.close().await.unwrap();
    let ended = run_between(&folder.file(), &used, COPY);
    assert!(
        ended.code == 1 && ended.err.contains("something else already: its table `events` is not empty"),
        "{ended:?}"
    );

    // The copy of another file.
    assert_eq!(run_between(&folder.file(), &url, COPY).code, 0);
    let other = Folder::new();
    SqliteStore::open(other.file()).unwrap().close().await.unwrap();
    refused(&other.file(), "in the store lies a copy of another log");
    let elsewhere = run_between(&other.file(), &url, &["store", "copy", "--schema", "other"]);
    assert_eq!(elsewhere.code, 0, "another schema is another store: {elsewhere:?}");
    assert_eq!(run_on(&url, &["events", "list", "--schema", "other"]).out, "no events\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn what_differs_is_found_and_the_database_is_not_used() {
    for change in [
        "UPDATE purista.events SET body = '{}' WHERE position = 2",
        "UPDATE purista.events SET principal = 'eve' WHERE position = 2",
        "DELETE FROM purista.events WHERE position = 3",
    ] {
        let (folder, url) = (Folder::with_file().await, postgres::database().await);
        // As if it had been killed when the events were there, and somebody had changed one.
        assert_eq!(run_between(&folder.file(), &url, COPY).code, 0);
        let client = postgres::client(&url).await;
        client.batch_execute("UPDATE purista.copy SET finished_at = NULL, position = NULL").await.unwrap();
        client.batch_execute(change).await.unwrap();
        let ended = run_between(&folder.file(), &url, COPY);
        assert_eq!(ended.code, 1, "{change}: {ended:?}");
        assert!(ended.err.contains("error: the database does not hold what the file holds"), "{ended:?}");
        assert!(ended.out.lines().any(|line| line.starts_with("events 1 to 5") && !line.ends_with("equal")));
        assert!(PostgresStore::connect(&url).await.is_err(), "{change}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "soak: a million events: cargo xtask soak"]
async fn soak_a_million_events_are_copied_in_bounded_memory() {
    const MEMORY_KIB_MAX: u64 = 96 * 1024;
    let (folder, url) = (Folder::new(), postgres::database().await);
    fill(&folder.file(), 1_000).await.close().await.unwrap();
    let began = Instant::now();
    let copying = Running::start_between(&folder.file(), &url, &["store", "copy"]);
    let mut memory = 0;
    while let Some(now) = copying.memory_kib() {
        memory = memory.max(now);
        tokio::time::sleep(Duration::from_millis(50)).await; // real time: another process works
    }
    let ended = copying.end();
    println!("{}{}", ended.err, ended.out);
    println!(
        "1,000,000 events of {BODY} bytes were copied and compared in {:?}, in {memory} KiB",
        began.elapsed()
    );
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.out.contains("1,000,000 events copied in ") && memory < MEMORY_KIB_MAX);
}
