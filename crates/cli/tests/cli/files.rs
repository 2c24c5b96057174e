//! Which files it opens, and what it says of the others.

use std::fs;
use std::path::Path;

use purista_sqlite::rusqlite::Connection;

use crate::given::Folder;
use crate::purista::{refuses, run};

const WRITING: [&[&str]; 8] = [
    &["projections", "rebuild", "names"],
    &["projections", "pause", "names"],
    &["projections", "resume", "names"],
    &["subscriptions", "pause", "Email.1.sendWelcomeEmail"],
    &["subscriptions", "resume", "Email.1.sendWelcomeEmail"],
    &["dead-letters", "replay", "--all"],
    &["dead-letters", "drop", "--all"],
    &["store", "snapshots", "forget", "--all"],
];

#[track_caller]
fn is_refused(file: &Path, expect: &str) {
    let before = fs::read(file).ok();
    refuses(file, &["events", "list"], expect);
    for arguments in WRITING {
        refuses(file, arguments, expect);
    }
    assert_eq!(fs::read(file).ok(), before, "nothing is made or changed");
}

#[test]
fn a_missing_file_is_named_and_not_made() {
    let folder = Folder::new();
    let file = folder.path().join("data/app.db");
    is_refused(
        &file,
        &format!(
            "error: there is no file `{}`\nhelp: name the data file with `--file PATH` or in PURISTA_FILE; a program \
             makes it when it starts first\n",
            file.display()
        ),
    );
    assert!(!file.parent().unwrap().exists());
    let shown = folder.path().display();
    refuses(
        folder.path(),
        &["store", "info"],
        &format!(
            "error: `{shown}` is a folder\nhelp: name the file in it, such as `--file {shown}/app.db`\n"
        ),
    );
}

#[test]
fn what_is_no_store_stays_as_it_is() {
    let folder = Folder::new();
    let file = folder.file();
    let remedy = "help: name the file that `SqliteStore::open` is given in the program\n";
    fs::write(
        &file,
        "a letter to somebody, and longer than the header of a file of SQLite is, which has 100 bytes or so",
    )
    .unwrap();
    let shown = file.display();
    let text = run(&file, &["events", "list"]);
    assert_eq!((text.code, text.out.as_str()), (1, ""));
    let begin = format!("error: open `{shown}` failed: it is no SQLite file");
    assert!(text.err.starts_with(&begin) && text.err.ends_with(remedy), "{}", text.err);
    fs::write(&file, "").unwrap();
    is_refused(
        &file,
        &format!(
            "error: open `{shown}` failed: it is an empty file, and is opened for reading only\nhelp: name the file that \
             the program writes; an empty one becomes a store when a program opens it\n"
        ),
    );
    fs::remove_file(&file).unwrap();
    Connection::open(&file).unwrap().execute_batch("CREATE TABLE a (b)").unwrap();
    is_refused(
        &file,
        &format!("error: open `{shown}` failed: it is a SQLite file, but no store of purista\n{remedy}"),
    );
}

#[tokio::test]
async fn a_file_of_another_form_is_neither_read_nor_changed() {
    let folder = Folder::with_file().await;
    let file = folder.file();
    let shown = file.display();
    let set_form = |form: u32| {
        Connection::open(&file).unwrap().pragma_update(None, "user_version", form).unwrap();
    };
    set_form(99);
    is_refused(
        &file,
        &format!(
            "error: open `{shown}` failed: it has form 99, and this program knows forms up to 4; a newer version of it \
             wrote the file\nhelp: use the `purista` of the version that wrote it\n"
        ),
    );
    set_form(1);
    is_refused(
        &file,
        &format!(
            "error: open `{shown}` failed: it has form 1, and is opened for reading only; open it for writing once, which \
             brings it to form 4\nhelp: start its program once, or use the `purista` of the version that wrote it\n"
        ),
    );
}

#[tokio::test]
async fn the_option_wins_over_the_environment() {
    let folder = Folder::with_file().await;
    let file = folder.file();
    let elsewhere = folder.path().join("elsewhere.db");
    for arguments in
        [["--file", file.to_str().unwrap(), "store", "info"], ["store", "info", "-f", file.to_str().unwrap()]]
    {
        let ended = run(&elsewhere, &arguments);
        assert_eq!(ended.code, 0, "{ended:?}");
    }
}
