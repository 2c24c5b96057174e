//! `purista store`.

use std::fs;

use purista_events::store::EventStore as _;
use purista_sqlite::rusqlite::Connection;
use purista_sqlite::store::SqliteStore;

use crate::given::{self, Folder};
use crate::purista::{json, refuses, run, shows};

#[tokio::test]
async fn a_file_says_what_it_holds() {
    let folder = Folder::with_file().await;
    let file = folder.file();
    let bytes = fs::metadata(&file).unwrap().len();
    shows(
        &file,
        &["store", "info"],
        &format!(
            "\
file           {}
size           {},{:03} bytes
form           4
origin         0000000000000a110000000000000001
open in        no program
events         5, up to position 5
recorded       2026-03-01T10:00:00.000Z to 2026-03-03T12:00:00.000Z
types          3
subscriptions  3
projections    1 build
dead letters   2
snapshots      1
",
            file.display(),
            bytes / 1_000,
            bytes % 1_000,
        ),
    );
    let info = &json(&file, &["store", "info"])[0];
    assert_eq!((&info["events"], &info["forms"][0]["type"]), (&5.into(), &"joined".into()));
}

#[tokio::test]
async fn a_sound_file_is_said_to_be_sound() {
    let folder = Folder::with_file().await;
    shows(
        &folder.file(),
        &["store", "check"],
        "\
TYPE     VERSION  EVENTS  FIRST AT  LAST AT
joined         1       3         1        4
left           1       1         5        5
renamed        1       1         3        3
5 events: everything is as it was written
",
    );
    let checked = &json(&folder.file(), &["store", "check"])[0];
    assert_eq!((&checked["isSound"], &checked["events"]), (&true.into(), &5.into()));
}

#[tokio::test]
async fn a_check_names_each_damage_and_ends_with_1() {
    for (change, finding) in [
        ("UPDATE events SET body = '{' WHERE position = 2", "the body of an event is no JSON: 2"),
        ("UPDATE events SET body = '{}' WHERE position = 2", "the event at 2 is not what was written there"),
        (
            "UPDATE events SET recorded_at = 1 WHERE position = 4",
            "an event was recorded before the one before it: 4",
        ),
        (
            "UPDATE events SET stream_version = 1 WHERE position = 5",
            "a stream has not as many events as it counts: 5",
        ),
        ("DELETE FROM streams WHERE value = '44'", "the stream of an event is not counted: 4"),
        ("DELETE FROM events WHERE position = 4", "a position is missing: 5"),
    ] {
        let folder = Folder::with_file().await;
        Connection::open(folder.file()).unwrap().execute_batch(change).unwrap();
        let ended = run(&folder.file(), &["store", "check"]);
        assert_eq!((ended.code, ended.err.as_str()), (1, ""), "{change}");
        assert!(ended.out.lines().any(|line| line == format!("found: {finding}")), "{change}: {}", ended.out);
        assert!(
            ended.out.ends_with("go back to a backup that `purista store check` finds sound\n"),
            "{}",
            ended.out
        );
        let checked = run(&folder.file(), &["store", "check", "--json"]);
        let document: serde_json::Value = serde_json::from_str(&checked.out).unwrap();
        assert_eq!((checked.code, &document["isSound"]), (1, &false.into()));
    }
}

#[tokio::test]
async fn a_backup_replaces_nothing_unless_it_is_told_to() {
    let folder = Folder::with_file().await;
    let file = folder.file();
    let to = folder.path().join("copy.db");
    let (copy, shown) = (to.to_str().unwrap(), to.display());
    let done = run(&file, &["store", "backup", copy]);
    let said = |bytes: u64| format!("copied to `{shown}`, {},{:03} bytes\n", bytes / 1_000, bytes % 1_000);
    assert_eq!((done.out, done.code), (said(fs::metadata(&to).unwrap().len()), 0));
    refuses(
        &file,
        &["store", "backup", copy],
        &format!(
            "error: there is a file `{shown}` already\nhelp: name another file, or replace that one with `--force`\n"
        ),
    );
    fs::write(&to, "something else").unwrap();
    assert_eq!(run(&file, &["store", "backup", copy, "--force"]).code, 0);
    assert_eq!(json(&to, &["store", "check"])[0]["events"], 5);
    assert_eq!(json(&file, &["store", "backup", copy, "--force"])[0]["file"], copy);
    for left in ["copy.db.new", "copy.db.part", "copy.db.new.part"] {
        assert!(!folder.path().join(left).exists(), "{left}");
    }
}

#[tokio::test]
async fn a_restore_makes_a_data_file_of_a_backup() {
    let folder = Folder::with_file().await;
    let file = folder.file();
    let backup = folder.path().join("backup.db");
    let from = backup.to_str().unwrap();
    assert_eq!(run(&file, &["store", "backup", from]).code, 0);
    refuses(
        &file,
        &["store", "restore", from],
        &format!(
            "error: there is a file `{}` already\nhelp: stop its program and give `--force`: its files are renamed to `.replaced` \
             and not deleted\n",
            file.display()
        ),
    );
    let store = SqliteStore::open(&file).unwrap();
    let used = run(&file, &["store", "restore", from, "--force"]);
    assert!(used.code == 1 && used.err.contains("help: stop the program that has it open first"), "{used:?}");
    store.close().await.unwrap();
    let done = run(&file, &["store", "restore", from, "--force"]);
    let said = format!("restored `{}` from `{from}`, up to position 5\n", file.display());
    assert_eq!((done.out, done.code), (said, 0), "{}", done.err);
    assert_eq!(json(&file, &["store", "check"])[0]["events"], 5);
    let other = folder.path().join("other.db");
    assert_eq!(json(&other, &["store", "restore", from])[0]["head"], 5);
}

#[tokio::test]
async fn a_backup_never_falls_on_a_file_that_is_used() {
    let folder = Folder::with_file().await;
    let file = folder.file();
    refuses(
        &file,
        &["store", "backup", file.to_str().unwrap(), "--force"],
        &format!("error: `{}` is the data file itself\nhelp: name another file\n", file.display()),
    );
    let other = folder.path().join("other.db");
    let store = given::write(&other).await;
    let used = run(&file, &["store", "backup", other.to_str().unwrap(), "--force"]);
    assert!(used.code == 1 && used.err.contains("is open in process"), "{used:?}");
    store.close().await.unwrap();
    let to = folder.path().join("copy.db");
    fs::write(folder.path().join("copy.db-wal"), "frames of another store").unwrap();
    let stale = run(&file, &["store", "backup", to.to_str().unwrap()]);
    assert!(stale.code == 1 && stale.err.contains("belongs to another store of that name"), "{stale:?}");
    assert!(!to.exists());
    let nowhere = run(&file, &["store", "backup", folder.path().join("no/copy.db").to_str().unwrap()]);
    assert!(nowhere.code == 1 && nowhere.err.starts_with("error: there is no folder `"), "{nowhere:?}");
    let into = run(&file, &["store", "backup", folder.path().to_str().unwrap()]);
    assert!(into.code == 1 && into.err.contains("is a folder"), "{into:?}");
}

#[tokio::test]
async fn snapshots_are_listed_and_forgotten() {
    let folder = Folder::with_file().await;
    let file = folder.file();
    let listed = "\
SNAPSHOTS OF  VERSION  COUNT  NEWEST
profile             2      1  2026-03-03T12:00:00.000Z
";
    shows(&file, &["store", "snapshots"], listed);
    shows(&file, &["store", "snapshots", "list"], listed);
    assert_eq!(json(&file, &["store", "snapshots", "list"])[0]["name"], "profile");
    shows(&file, &["store", "snapshots", "forget", "other"], "0 snapshots of `other` forgotten\n");
    shows(&file, &["store", "snapshots", "forget", "profile"], "1 snapshot of `profile` forgotten\n");
    shows(&file, &["store", "snapshots"], "no snapshots\n");
}

#[tokio::test]
async fn a_store_without_anything_is_shown_as_such() {
    let folder = Folder::new();
    let file = folder.file();
    SqliteStore::open(&file).unwrap().close().await.unwrap();
    for (arguments, expect) in [
        (&["events", "list"][..], "no events\n"),
        (&["events", "history", "--tag", "user=1"], "no events\n"),
        (&["projections", "list"], "no projections that keep anything in the file\n"),
        (&["subscriptions", "list"], "no durable subscriptions\n"),
        (&["dead-letters", "list"], "no dead letters\n"),
        (&["store", "check"], "0 events: everything is as it was written\n"),
    ] {
        shows(&file, arguments, expect);
    }
    assert!(json(&file, &["events", "list"]).is_empty());
}
