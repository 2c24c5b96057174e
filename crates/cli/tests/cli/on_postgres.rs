//! The same commands on a database, beside programs that have it open.

use purista_events::projector::request;
use purista_events::store::EventStore as _;
use purista_events::subscriptions::SubscriptionId;
use purista_postgres::store::PostgresStore;
use serde_json::{Value, json};

use crate::given::{self, Folder, happened};
use crate::postgres;
use crate::purista::{Running, json_of, run, run_between, run_on};

/// What [`given::write`] has, in a database; and a program that has it open.
async fn filled() -> (String, PostgresStore) {
    let (folder, url) = (Folder::with_file().await, postgres::database().await);
    let copied = run_between(&folder.file(), &url, &["store", "copy"]);
    assert_eq!(copied.code, 0, "{copied:?}");
    let store = postgres::open(&url).await;
    (url, store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn whatever_reads_says_the_same_of_a_file_and_of_its_copy() {
    let (folder, url) = (Folder::with_file().await, postgres::database().await);
    assert_eq!(run_between(&folder.file(), &url, &["store", "copy"]).code, 0);
    let program = postgres::open(&url).await;
    for arguments in [
        &["events", "list"][..],
        &["events", "list", "--all", "--body", "--json"],
        &["events", "list", "--type", "joined", "--tenant", "acme"],
        &["events", "read", "3"],
        &["events", "read", "e0000000000000000000000000000003"],
        &["events", "read", "77"],
        &["events", "as-of", "--time", "2026-03-02"],
        &["events", "as-of", "--position", "4", "--json"],
        &["events", "as-of", "--position", "6"],
        &["events", "history", "--tag", "user=42", "--body"],
        &["dead-letters", "list"],
        &["dead-letters", "show", "e00000000000000000000000000000d1", "--body"],
        &["dead-letters", "show", "e00000000000000000000000000000d2", "--json"],
        &["dead-letters", "show", "e0000000000000000000000000000001"],
        &["store", "snapshots"],
        &["events", "list", "--limit", "0"],
    ] {
        let (of_file, of_copy) = (run(&folder.file(), arguments), run_on(&url, arguments));
        assert_eq!(
            (of_copy.code, &of_copy.out, &of_copy.err),
            (of_file.code, &of_file.out, &of_file.err),
            "{arguments:?}"
        );
    }
    let without_time = |mut listed: Vec<Value>| {
        for value in &mut listed {
            value["secondsBehind"] = Value::Null;
        }
        listed
    };
    let subscriptions = &["subscriptions", "list"];
    let of_file = crate::purista::json(&folder.file(), subscriptions);
    assert_eq!(without_time(json_of(&url, subscriptions)), without_time(of_file));
    let info = &json_of(&url, &["store", "info"])[0];
    assert_eq!(
        (&info["events"], &info["head"], &info["origin"], &info["deadLetters"]),
        (&json!(5), &json!(5), &json!("0000000000000a110000000000000001"), &json!(2))
    );
    let shown = run_on(&url, &["store", "info"]);
    let place = program.place();
    assert!(
        shown.out.contains(&place) && shown.out.contains("events         5, up to position 5"),
        "{shown:?}"
    );
    assert!(!shown.out.contains("CANARY"), "{shown:?}");
    program.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn a_database_is_steered_beside_its_programs_which_learn_of_it_when_they_start_next() {
    const LATER: &str = "a program that runs already learns of it within seconds\n";
    let (url, program) = filled().await;
    let email = SubscriptionId::new("Email.1.sendWelcomeEmail");
    let pause = async || program.subscription(&email).await.unwrap().unwrap().pause;
    let ended = run_on(&url, &["subscriptions", "pause", email.as_str(), "--reason", "smtp is down"]);
    assert_eq!((ended.code, ended.err.as_str()), (0, LATER), "{ended:?}");
    assert_eq!(pause().await.unwrap().reason, "smtp is down");
    let ended = run_on(&url, &["subscriptions", "resume", email.as_str()]);
    assert_eq!((ended.code, ended.err.as_str(), pause().await), (0, LATER, None), "{ended:?}");
    let ended = run_on(&url, &["subscriptions", "pause", "Nobody.1.knows"]);
    assert!(ended.err.starts_with("error: the store knows no subscription"), "{}", ended.err);

    let replayed = run_on(&url, &["dead-letters", "replay", "e00000000000000000000000000000d1"]);
    assert_eq!((replayed.code, replayed.err.as_str()), (0, LATER), "{replayed:?}");
    assert_eq!(program.subscription(&email).await.unwrap().unwrap().parked.len(), 2);
    assert_eq!(run_on(&url, &["dead-letters", "drop", "--all"]).code, 0);
    assert_eq!(program.count_dead_letters(None).await.unwrap(), 0);
    assert_eq!(run_on(&url, &["store", "snapshots", "forget", "--all"]).out, "1 snapshot forgotten\n");
    program.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn a_rebuild_is_asked_for_beside_a_program_and_done_by_the_next_one() {
    let (url, program) = filled().await;
    let ended = run_on(&url, &["projections", "rebuild", "names"]);
    assert!(ended.err.starts_with("error: the store knows no projection `names`"), "{}", ended.err);
    let projected = || program.projected(given::names_on_postgres());
    let last = *program.head().borrow();
    let (working, running) = given::run(projected());
    running.reached(last, std::time::Duration::from_secs(20)).await.unwrap();
    let listed = &json_of(&url, &["projections", "list"])[0];
    assert_eq!((&listed["doneUpTo"], &listed["build"]), (&json!(5), &json!(1)));
    let ended = run_on(&url, &["projections", "rebuild", "names"]);
    assert_eq!(
        (ended.out.as_str(), ended.code),
        (
            "asked for: a program makes names 1 anew when it starts next, beside what readers see until then\n",
            0
        )
    );
    assert!(request::asked_since(&program, "names", 1).await.unwrap().is_some());
    working.stop().await;
    let mut waiting = Running::start_between(
        std::path::Path::new("/none"),
        &url,
        &["projections", "rebuild", "names", "--wait"],
    );
    waiting.line();
    let (working, _) = given::run(projected());
    assert_eq!(waiting.line(), "names 1 is made anew: readers see it, up to position 5");
    assert_eq!(waiting.end().code, 0);
    working.stop().await;
    let paused = run_on(&url, &["projections", "pause", "names", "--reason", "moving house"]);
    assert!(paused.code == 0 && paused.err.contains("within seconds"), "{paused:?}");
    assert_eq!(json_of(&url, &["projections", "list"])[0]["pause"]["reason"], "moving house");
    assert_eq!(run_on(&url, &["projections", "resume", "names"]).code, 0);
    program.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn events_are_followed_as_programs_record_them() {
    let (url, program) = filled().await;
    let none = std::path::Path::new("/none");
    let mut tail = Running::start_between(none, &url, &["events", "tail", "--last", "1", "--json"]);
    assert!(tail.line().contains(r#""position":5"#));
    assert_eq!(tail.line(), r#"{"caughtUp":5}"#);
    let next = program.commit(happened(6, (None, None), ("joined", "signUp"), ("45", "{}"))).await.unwrap();
    assert!(tail.line().contains(&format!("\"position\":{}", next.position)));
    tail.interrupt();
    assert_eq!(tail.end().code, 0);
    program.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn a_check_names_each_damage_and_ends_with_1() {
    for (change, finding) in [
        ("UPDATE purista.events SET body = '{' WHERE position = 2", "the body of an event is no JSON: 2"),
        (
            "UPDATE purista.events SET recorded_at = 1 WHERE position = 4",
            "an event was recorded before the one before it: 4",
        ),
        (
            "UPDATE purista.events SET stream_version = 1 WHERE position = 5",
            "a stream has not as many events as it counts: 5",
        ),
        ("DELETE FROM purista.streams WHERE value = '44'", "the stream of an event is not counted: 4"),
        ("DELETE FROM purista.tags WHERE position = 1", "an event's tag is not in the index: 1"),
        (
            "DELETE FROM purista.events WHERE position = 4",
            "the index names a tag of an event that is not there: 4",
        ),
        ("DELETE FROM purista.forms WHERE name = 'left'", "the form of an event is not known: 5"),
        ("UPDATE purista.progress SET low = 99", "a subscription is beyond the end of the log: 99"),
    ] {
        let (url, program) = filled().await;
        let sound = run_on(&url, &["store", "check"]);
        assert!(
            sound.code == 0 && sound.out.ends_with("5 events: everything is as it was written\n"),
            "{sound:?}"
        );
        postgres::client(&url).await.batch_execute(change).await.unwrap();
        let ended = run_on(&url, &["store", "check"]);
        assert_eq!(ended.code, 1, "{change}: {ended:?}");
        assert!(ended.out.contains(&format!("found: {finding}\n")), "{change}: {}", ended.out);
        program.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn tables_are_made_on_demand_and_a_database_without_them_is_named() {
    let url = postgres::database().await;
    let help = "help: `purista store migrate` makes them; or start the program, which does the same\n";
    for arguments in [&["events", "list"][..], &["subscriptions", "pause", "Email.1.x"], &["store", "info"]] {
        let ended = run_on(&url, arguments);
        assert_eq!((ended.code, ended.out.as_str()), (1, ""), "{arguments:?}");
        assert!(ended.err.contains("tables are missing") && ended.err.ends_with(help), "{}", ended.err);
    }
    let status = &json_of(&url, &["store", "status"])[0];
    assert_eq!(status["migrations"][0], json!({ "number": 1, "name": "log", "madeAt": null }));
    let shown = run_on(&url, &["store", "status"]);
    assert!(shown.out.contains("not yet: `purista store migrate` makes it"), "{shown:?}");
    assert_eq!(
        run_on(&url, &["store", "migrate"]).out,
        "made: 1 log, 2 copy, 3 begin, 4 trace, 5 rows, 6 clock\n"
    );
    assert_eq!(run_on(&url, &["store", "migrate"]).out, "all tables are there, nothing was changed\n");
    assert_eq!(json_of(&url, &["store", "migrate"])[0], json!({ "made": [] }));
    assert!(json_of(&url, &["store", "status"])[0]["migrations"][1]["madeAt"].is_string());
    assert_eq!(run_on(&url, &["events", "list"]).out, "no events\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn who_holds_followers_back_is_named_by_the_status() {
    let (url, program) = filled().await;
    let idle = postgres::client(&url).await;
    idle.batch_execute("SET application_name TO 'forgetful'; BEGIN; SELECT pg_current_xact_id()")
        .await
        .unwrap();
    let shown = run_on(&url, &["store", "status"]);
    assert!(
        shown.code == 0 && shown.out.contains("forgetful") && shown.out.contains("idle in transaction"),
        "{shown:?}"
    );
    program.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn what_belongs_to_the_other_engine_is_refused_with_the_way_there() {
    let url = postgres::database().await;
    let backup = run_on(&url, &["store", "backup", "copy.db"]);
    assert!(backup.code == 1 && backup.err.contains("pg_dump"), "{backup:?}");
    let folder = Folder::with_file().await;
    for command in ["migrate", "status"] {
        let ended = run(&folder.file(), &["store", command]);
        assert_eq!(ended.code, 1);
        assert!(
            ended.err.starts_with(&format!("error: `{command}` is for a database\nhelp: name it")),
            "{ended:?}"
        );
    }
    for (url, part) in [
        ("mysql://ada:CANARY@localhost/app", "write postgres://user:password@host:5432/database"),
        ("postgres://ada:CANARY@127.0.0.1:1/app", "is it there"),
    ] {
        let ended = run_on(url, &["events", "list"]);
        assert!(ended.code == 1 && ended.err.contains(part) && !ended.err.contains("CANARY"), "{ended:?}");
    }
    // What is said on the command line goes before what a variable says.
    let file = folder.file();
    let listed = run_on(&url, &["events", "list", "--limit", "1", "--file", file.to_str().unwrap()]);
    assert!(listed.code == 0 && listed.out.contains("left v1"), "{listed:?}");
    let named = run_on(&format!("{url}_not"), &["events", "list"]);
    assert!(named.err.contains("make it with `createdb"), "{named:?}");
}
