//! A file that another process has open: it is read beside it, and not changed.

use purista_events::store::EventStore as _;
use purista_sqlite::store::SqliteStore;

use crate::given::{self, Folder, happened};
use crate::purista::{Running, json, refuses, run, shows};

#[tokio::test]
async fn whatever_only_reads_works_beside_a_running_program() {
    let folder = Folder::new();
    let file = folder.file();
    let store = given::write(&file).await;
    let copy = folder.path().join("copy.db");
    for arguments in [
        &["events", "list"][..],
        &["events", "read", "1"],
        &["events", "as-of", "--position", "3"],
        &["events", "history", "--tag", "user=42"],
        &["projections", "list"],
        &["subscriptions", "list"],
        &["dead-letters", "list"],
        &["dead-letters", "show", "e00000000000000000000000000000d1"],
        &["store", "info"],
        &["store", "check"],
        &["store", "snapshots"],
        &["store", "backup", copy.to_str().unwrap()],
    ] {
        let ended = run(&file, arguments);
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{arguments:?}");
    }
    let info = &json(&file, &["store", "info"])[0];
    assert_eq!(info["openIn"], format!("process {}", std::process::id()));
    // It goes on as before.
    store.commit(happened(6, (None, None), ("joined", "signUp"), ("45", "{}"))).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(json(&file, &["store", "info"])[0]["openIn"], serde_json::Value::Null);
    assert_eq!(json(&copy, &["store", "check"])[0]["events"], 5);
}

#[tokio::test]
async fn whatever_changes_the_file_is_refused_with_the_reason_and_the_remedy() {
    let folder = Folder::new();
    let file = folder.file();
    let store = given::write(&file).await;
    let before = json(&file, &["subscriptions", "list"]);
    let within = |what| format!("have the program do it: {what}");
    for (arguments, what, within) in [
        (
            &["projections", "rebuild", "names"][..],
            "ask for a projection to be made anew",
            within("`RunningHost::projection(name)` gives a handle that can `rebuild`"),
        ),
        (
            &["projections", "rebuild", "names", "--withdraw"],
            "take a request back",
            within("`RunningHost::projection(name)` gives a handle that can `rebuild`"),
        ),
        (
            &["projections", "resume", "names"],
            "resume a projection",
            within("`RunningHost::projection(name)` gives a handle that can `resume`"),
        ),
        (
            &["subscriptions", "pause", "Email.1.sendWelcomeEmail"],
            "pause a subscription",
            "let its handler answer `HandlerError::pause`".to_owned(),
        ),
        (
            &["subscriptions", "resume", "Email.1.sendWelcomeEmail"],
            "resume a subscription",
            within("`RunningHost::resume` lets a subscription go on"),
        ),
        (
            &["dead-letters", "replay", "--all"],
            "replay dead letters",
            within("`RunningHost::try_again` tries a dead letter again while it runs"),
        ),
    ] {
        refuses(
            &file,
            arguments,
            &format!(
                "error: `{}` is open in process {}, and a file has one writer: cannot {what}\nhelp: stop that program \
                 first, or {within}\n",
                file.display(),
                std::process::id(),
            ),
        );
    }
    for arguments in [
        &["projections", "pause", "names"][..],
        &["dead-letters", "drop", "--all"],
        &["store", "snapshots", "forget", "profile"],
    ] {
        let ended = run(&file, arguments);
        assert_eq!((ended.code, ended.out.as_str()), (1, ""), "{arguments:?}");
        assert!(ended.err.contains("one writer"), "{}", ended.err);
    }
    let mut after = json(&file, &["subscriptions", "list"]);
    for (after, before) in after.iter_mut().zip(&before) {
        after["secondsBehind"] = before["secondsBehind"].clone();
    }
    assert_eq!(after, before);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_followed_as_another_process_records_them() {
    let folder = Folder::new();
    let file = folder.file();
    let store = given::write(&file).await;
    let mut tail = Running::start(&file, &["events", "tail", "--last", "1", "--tag", "user=43"]);
    assert_eq!(tail.line(), "POSITION  RECORDED AT               TYPE     TENANT  PRINCIPAL  TAGS");
    assert_eq!(tail.line(), "       5  2026-03-03T12:00:00.000Z  left v1  acme    bob        user=43");
    assert_eq!(tail.line(), "-- caught up at position 5, waiting for more; Ctrl-C ends --");
    // The first is not selected.
    store.commit(happened(6, (None, None), ("joined", "signUp"), ("45", "{}"))).await.unwrap();
    store.commit(happened(7, (None, None), ("joined", "signUp"), ("43", "{}"))).await.unwrap();
    let line = tail.line();
    assert!(
        line.starts_with("       7  ") && line.ends_with("joined v1  -       -          user=43"),
        "{line}"
    );
    assert_eq!(tail.line(), "-- caught up at position 7, waiting for more; Ctrl-C ends --");
    tail.interrupt();
    let ended = tail.end();
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (0, "", ""));
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_followed_is_json_on_demand_and_begins_where_it_is_told_to() {
    let folder = Folder::with_file().await;
    let mut tail = Running::start(&folder.file(), &["events", "tail", "--from", "4", "--json", "--body"]);
    let mut line = || serde_json::from_str::<serde_json::Value>(&tail.line()).unwrap();
    assert_eq!(line()["body"]["name"], "Eve");
    assert_eq!(line()["position"], 5);
    assert_eq!(line(), serde_json::json!({ "caughtUp": 5 }));
    tail.interrupt();
    assert_eq!(tail.end().code, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_goes_away_is_no_failure() {
    let folder = Folder::new();
    let store = given::write(&folder.file()).await;
    let mut tail = Running::start(&folder.file(), &["events", "tail", "--from", "1", "--json"]);
    tail.line();
    let unread = tail.stop_reading();
    store.commit(happened(6, (None, None), ("joined", "signUp"), ("45", "{}"))).await.unwrap();
    assert_eq!(unread.end(), (0, String::new()));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_file_is_free_again_when_its_owner_was_killed() {
    let folder = Folder::with_file().await;
    // What a killed process leaves: its id in a file that nobody has locked.
    std::fs::write(folder.path().join("app.db.lock"), "1").unwrap();
    shows(&folder.file(), &["store", "snapshots", "forget", "--all"], "1 snapshot forgotten\n");
    assert_eq!(SqliteStore::owner(folder.file()).unwrap(), None);
}
