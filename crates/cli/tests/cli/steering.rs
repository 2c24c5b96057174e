//! Projections, subscriptions and dead letters: what is shown, and what is changed for the program's next start.

use std::time::Duration;

use purista_events::position::Position;
use purista_events::store::EventStore as _;
use purista_events::subscriptions::SubscriptionId;
use purista_sqlite::store::SqliteStore;

use crate::given::{self, Folder};
use crate::purista::{Ended, Running, json, refuses, run, shows};

const REACHED: Duration = Duration::from_secs(20);

/// The cells of a table, where a width depends on the day of the test.
fn cells(ended: &Ended) -> Vec<Vec<&str>> {
    ended
        .out
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect()
}

#[tokio::test]
async fn subscriptions_are_listed_with_what_waits() {
    let folder = Folder::with_file().await;
    let ended = run(&folder.file(), &["subscriptions", "list"]);
    let mut rows = cells(&ended);
    let waits = rows[2].remove(3);
    assert!(waits.contains(" d "), "{waits}");
    assert_eq!(
        rows,
        [
            vec!["SUBSCRIPTION", "DONE UP TO", "BEHIND", "FOR", "PARKED", "DEAD", "STATE"],
            vec!["Audit.1.note", "-", "-", "-", "0", "1", "fed by a bridge"],
            vec!["Email.1.sendWelcomeEmail", "3", "2", "1", "1", "fed from the log"],
            vec!["purista.relay", "5", "0", "-", "0", "0", "relay to the bridge"],
        ]
    );
    let rows = json(&folder.file(), &["subscriptions", "list"]);
    assert_eq!(rows[1]["parked"][0]["failures"][0]["reason"], "connect to smtp.example:25: refused");
    assert_eq!((&rows[1]["eventsBehindAtMost"], &rows[1]["deadLetters"]), (&2.into(), &1.into()));
}

#[tokio::test]
async fn a_subscription_is_paused_and_resumed_in_the_file() {
    let folder = Folder::with_file().await;
    let file = folder.file();
    let name = "Email.1.sendWelcomeEmail";
    shows(
        &file,
        &["subscriptions", "pause", name, "--reason", "smtp is down"],
        "Email.1.sendWelcomeEmail is paused: its program will not run it until it is resumed\n",
    );
    let kept = || {
        let file = file.clone();
        async move {
            let store = SqliteStore::open(file).unwrap();
            let record = store.subscription(&SubscriptionId::new(name)).await.unwrap().unwrap();
            store.close().await.unwrap();
            record.pause.map(|pause| pause.reason)
        }
    };
    assert_eq!(kept().await.as_deref(), Some("smtp is down"));
    let again = run(&file, &["subscriptions", "pause", name]);
    assert!(again.code == 0 && again.out.ends_with(": smtp is down\n"), "{again:?}");
    assert_eq!(json(&file, &["subscriptions", "list"])[1]["pause"]["reason"], "smtp is down");
    shows(
        &file,
        &["subscriptions", "resume", name],
        "Email.1.sendWelcomeEmail goes on when its program starts next\n",
    );
    assert_eq!(kept().await, None);
    shows(&file, &["subscriptions", "resume", name], "Email.1.sendWelcomeEmail is not paused\n");
    refuses(
        &file,
        &["subscriptions", "pause", "Email.1.other"],
        "error: the file knows no subscription `Email.1.other`\nhelp: it knows Audit.1.note, Email.1.sendWelcomeEmail\n",
    );
    refuses(
        &file,
        &["subscriptions", "pause", "purista.relay"],
        "error: the relay is no subscription: it is not paused\nhelp: stop the program, or start it without its bridge\n",
    );
}

#[tokio::test]
async fn dead_letters_are_listed_and_shown() {
    let folder = Folder::with_file().await;
    let file = folder.file();
    shows(
        &file,
        &["dead-letters", "list"],
        "\
ID                                SUBSCRIPTION              WHAT                 SINCE                     ATTEMPTS  REASON
e00000000000000000000000000000d1  Email.1.sendWelcomeEmail  event at 2           2026-03-01T10:07:00.000Z         2  given up after 2 attempts
e00000000000000000000000000000d2  Audit.1.note              message of a bridge  2026-03-01T10:07:00.000Z         2  given up after 2 attempts
",
    );
    shows(
        &file,
        &["dead-letters", "show", "e00000000000000000000000000000d2", "--body"],
        "\
id            e00000000000000000000000000000d2
subscription  Audit.1.note
what          message of a bridge
since         2026-03-01T10:07:00.000Z
reason        given up after 2 attempts
attempts      2
trace         e0000000000000000000000000000077
  attempt 1 at 2026-03-01T10:06:00.000Z: connect to smtp.example:25: refused
  attempt 2 at 2026-03-01T10:06:00.000Z: connect to smtp.example:25: refused
body
  {
    \"id\": \"m-1\",
    \"payload\": {
      \"what\": \"it\"
    }
  }
",
    );
    let event = &json(&file, &["dead-letters", "show", "e00000000000000000000000000000d1", "--body"])[0];
    assert_eq!((&event["position"], &event["body"]["name"]), (&2.into(), &"Bob".into()));
    let listed = json(&file, &["dead-letters", "list", "--subscription", "Audit.1.note"]);
    assert!(listed.len() == 1 && listed[0]["isFromBridge"] == true && listed[0].get("body").is_none());
    refuses(
        &file,
        &["dead-letters", "show", "d1"],
        "error: there is no dead letter `d1`\nhelp: `purista dead-letters list` shows their whole ids; one that was \
         replayed or dropped is gone\n",
    );
    let one = run(&file, &["dead-letters", "list", "--limit", "1"]);
    assert_eq!(one.err, "there are 1 more: --limit NUMBER shows up to 1000\n");
}

#[tokio::test]
async fn a_replayed_dead_letter_waits_again_from_its_first_attempt_on() {
    let folder = Folder::with_file().await;
    let file = folder.file();
    refuses(
        &file,
        &["dead-letters", "replay", "e00000000000000000000000000000d1", "e00000000000000000000000000000d2"],
        "error: the dead letter e00000000000000000000000000000d2 is a message of a bridge, which only its program can \
         deliver\nhelp: start the program and call `RunningHost::try_again`; or `purista dead-letters show --body` it, and \
         `drop` it\n",
    );
    assert_eq!(json(&file, &["dead-letters", "list"]).len(), 2, "none of them is touched");
    let replayed = run(&file, &["dead-letters", "replay", "--all"]);
    assert_eq!(
        (replayed.out.as_str(), replayed.err.as_str(), replayed.code),
        (
            "e00000000000000000000000000000d1 waits again for Email.1.sendWelcomeEmail, which tries it when its program \
             starts next\n",
            "1 message of a bridge stays: only the program can deliver them, see `purista dead-letters replay --help`\n",
            0
        )
    );
    let store = SqliteStore::open(&file).unwrap();
    let record = store.subscription(&SubscriptionId::new("Email.1.sendWelcomeEmail")).await.unwrap().unwrap();
    let parked = &record.parked[0];
    assert_eq!((parked.position, parked.attempts, parked.due), (Position::new(2), 0, None));
    assert_eq!(parked.key.as_deref(), Some("acme\u{0}user\u{0}43"));
    assert_eq!(parked.history.len(), 2, "what was tried before is not forgotten");
    store.close().await.unwrap();
    shows(
        &file,
        &["dead-letters", "replay", "--subscription", "Email.1.sendWelcomeEmail"],
        "nothing to replay\n",
    );
    shows(
        &file,
        &["dead-letters", "drop", "e00000000000000000000000000000d2"],
        "e00000000000000000000000000000d2 is forgotten\n",
    );
    shows(&file, &["dead-letters", "list"], "no dead letters\n");
}

#[tokio::test]
async fn a_projection_is_paused_and_resumed_in_the_file() {
    let folder = Folder::with_file().await;
    let file = folder.file();
    shows(
        &file,
        &["projections", "list"],
        "\
PROJECTION  VERSION  BUILD  DONE UP TO  BEHIND  FOR  STATE
names             1      1           5       0  -    readers see it
",
    );
    shows(
        &file,
        &["projections", "pause", "names", "--reason", "moving house"],
        "names 1 is paused: its program will not run it until it is resumed\n",
    );
    let row = &json(&file, &["projections", "list"])[0];
    assert_eq!((&row["pause"]["reason"], &row["pause"]["before"]), (&"moving house".into(), &6.into()));
    let store = SqliteStore::open(&file).unwrap();
    store
        .commit(given::happened(
            6,
            (None, None),
            ("joined", "signUp"),
            ("45", r#"{"user":"45","name":"Ivy"}"#),
        ))
        .await
        .unwrap();
    let (working, names) = given::run(store.projected(given::names()));
    let mut states = names.states();
    let is_paused = |state: &purista_events::projector::ProjectionState| {
        format!("{:?}", state.condition).contains("moving house")
    };
    tokio::time::timeout(REACHED, states.wait_for(is_paused)).await.unwrap().unwrap();
    working.stop().await;
    store.close().await.unwrap();
    assert_eq!(json(&file, &["projections", "list"])[0]["doneUpTo"], 5, "nothing was taken in");
    shows(&file, &["projections", "resume", "names"], "names 1 goes on when its program starts next\n");
    shows(&file, &["projections", "resume", "names"], "names 1 is not paused\n");
    let store = SqliteStore::open(&file).unwrap();
    let (working, names) = given::run(store.projected(given::names()));
    names.reached(Position::new(6), REACHED).await.unwrap();
    working.stop().await;
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_rebuild_is_asked_for_and_the_program_does_it_when_it_starts() {
    let folder = Folder::with_file().await;
    let file = folder.file();
    refuses(
        &file,
        &["projections", "rebuild", "name"],
        "error: the file knows no projection `name`\nhelp: it knows names 1\n",
    );
    refuses(
        &file,
        &["projections", "rebuild", "names", "--version", "2"],
        "error: the file knows no projection `names` of version 2\nhelp: it knows names 1\n",
    );
    let asked =
        "asked for: the program makes names 1 anew when it starts next, beside what readers see until then\n";
    shows(&file, &["projections", "rebuild", "names"], asked);
    assert!(json(&file, &["projections", "list"])[0]["rebuildAskedAt"].is_string());
    let listed = run(&file, &["projections", "list"]).out;
    assert!(listed.contains("readers see it, to be made anew: asked for at "), "{listed}");
    shows(
        &file,
        &["projections", "rebuild", "names", "--withdraw"],
        "names 1 is not made anew when its program starts next\n",
    );
    shows(
        &file,
        &["projections", "rebuild", "names", "--withdraw"],
        "nobody asked for names 1 to be made anew\n",
    );
    shows(&file, &["projections", "rebuild", "names"], asked);
    for _ in 0..2 {
        let store = SqliteStore::open(&file).unwrap();
        let (working, names) = given::run(store.projected(given::names()));
        let is_second = |state: &purista_events::projector::ProjectionState| {
            state.builds.iter().any(|build| build.is_current && build.build.generation == 2)
        };
        // The second time it is not asked for any more.
        tokio::time::timeout(REACHED, names.states().wait_for(is_second)).await.unwrap().unwrap();
        working.stop().await;
        store.close().await.unwrap();
    }
    let rows = json(&file, &["projections", "list"]);
    assert_eq!((rows.len(), &rows[0]["build"], &rows[0]["doneUpTo"]), (1, &2.into(), &5.into()));
    assert!(rows[0]["rebuildAskedAt"].is_null());
}

#[tokio::test]
async fn events_are_requested_to_be_sent_again() {
    let folder = Folder::with_file().await;
    let file = folder.file();
    let requested = run(&file, &["relay", "resend", "--after", "2"]);
    let said = "requested: the program sends the events after 2 up to 5 again when it starts next\n";
    assert_eq!((requested.out.as_str(), requested.code), (said, 0), "{}", requested.err);
    assert!(requested.err.contains("older than 7 days"), "{}", requested.err);
    let store = SqliteStore::open(&file).unwrap();
    let pending = purista_events::resend::requested(&store).await.unwrap().unwrap();
    assert_eq!((pending.after(), pending.up_to()), (Position::new(2), Position::new(5)));
    store.close().await.unwrap();
    shows(&file, &["relay", "resend", "--withdraw"], "the request is withdrawn\n");
    let store = SqliteStore::open(&file).unwrap();
    assert_eq!(purista_events::resend::requested(&store).await.unwrap(), None);
    store.close().await.unwrap();
    let late = run(&file, &["relay", "resend", "--after", "5"]);
    assert_eq!(late.code, 1, "{}", late.err);
    assert!(late.err.contains("no event after 5 was relayed yet, the last one is at 5"), "{}", late.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_can_be_waited_for() {
    let folder = Folder::with_file().await;
    let file = folder.file();
    let mut waiting = Running::start(&file, &["projections", "rebuild", "names", "--wait"]);
    assert!(waiting.line().starts_with("asked for: "));
    let store = SqliteStore::open(&file).unwrap();
    let (working, _) = given::run(store.projected(given::names()));
    let ended = waiting.end();
    assert_eq!(ended.out, "names 1 is made anew: readers see it, up to position 5\n");
    assert_eq!(ended.code, 0);
    working.stop().await;
    store.close().await.unwrap();
    let mut waiting = Running::start(&file, &["projections", "rebuild", "names", "--wait"]);
    waiting.line();
    assert_eq!(waiting.error_line(), "names 1: waiting for its program to start; Ctrl-C ends the wait");
    waiting.interrupt();
    let ended = waiting.end();
    assert_eq!(ended.err, "the wait is ended; what was asked for stays asked for\n");
    assert_eq!((ended.out.as_str(), ended.code), ("", 0));
    assert!(json(&file, &["projections", "list"])[0]["rebuildAskedAt"].is_string());
}

#[tokio::test]
async fn a_projection_into_another_place_is_steered_as_far_as_the_file_goes() {
    let folder = Folder::with_file().await;
    let file = folder.file();
    let store = SqliteStore::open(&file).unwrap();
    let sink = |_| -> futures_util::future::BoxFuture<'static, _> { Box::pin(std::future::ready(Ok(()))) };
    let to_sink = || {
        purista_events::projector::Projected::to_sink(
            &store,
            "search",
            3,
            purista_events::query::Query::all(),
            sink,
        )
    };
    let (working, search) = given::run(to_sink());
    search.reached(Position::new(5), REACHED).await.unwrap();
    working.stop().await;
    store.close().await.unwrap();
    shows(
        &file,
        &["projections", "list"],
        "\
PROJECTION  VERSION  BUILD  DONE UP TO  BEHIND  FOR  STATE
names             1      1           5       0  -    readers see it
search            3      -           5       0  -    in another place
",
    );
    assert_eq!(json(&file, &["subscriptions", "list"]).len(), 3, "it is no subscription");
    refuses(
        &file,
        &["projections", "rebuild", "search"],
        "error: search 3 is kept in another place, which only its program can empty\nhelp: raise its version in the \
         program: another version begins at the first event\n",
    );
    assert_eq!(run(&file, &["projections", "pause", "search"]).code, 0);
    assert_eq!(json(&file, &["projections", "list"])[1]["pause"]["reason"], "paused on the command line");
    assert_eq!(run(&file, &["projections", "resume", "search"]).code, 0);
    assert!(json(&file, &["projections", "list"])[1]["pause"].is_null());
}
