//! The examples in `docs/command-line.md` print what is written there.

use purista_postgres::migrations::MIGRATIONS;

use crate::given::Folder;
use crate::purista::run;

const PAGE: &str = include_str!("../../../../docs/command-line.md");

/// Examples that a run on the file of these tests cannot repeat: other tests hold what they print.
const ELSEWHERE: [&str; 12] = [
    // A program has the file open.
    "subscriptions pause Email.1.sendWelcomeEmail",
    // Follows the log without an end.
    "events tail",
    // Shows how long ago something was.
    "subscriptions list",
    // A program that works meanwhile.
    "projections rebuild counted --wait",
    // Something that was paused before, or a backup.
    "projections resume",
    "subscriptions resume",
    "store restore",
    // The size of the file, which depends on the schema version.
    "store info",
    "store backup",
    // A database.
    "store migrate",
    "store status",
    "store copy",
];

/// The command lines with what they print.
fn examples() -> Vec<(&'static str, &'static str)> {
    let blocks = PAGE.split("```text\n$ purista ").skip(1);
    let examples = blocks.map(|block| {
        let (example, _) = block.split_once("```").unwrap();
        example.split_once('\n').unwrap()
    });
    examples.collect()
}

/// The words of a line; quotation marks hold several together.
fn words(line: &str) -> Vec<&str> {
    let parts = line.split('"').enumerate();
    let words = parts.flat_map(
        |(nth, part)| {
            if nth % 2 == 1 { vec![part] } else { part.split_whitespace().collect() }
        },
    );
    words.collect()
}

#[tokio::test]
async fn every_example_prints_what_the_page_shows() {
    let (mut run_through, mut wrong) = (0, Vec::new());
    for (line, expect) in examples() {
        if ELSEWHERE.iter().any(|elsewhere| line.starts_with(elsewhere)) {
            continue;
        }
        // A fresh file each time, so that no example depends on the one before it.
        let folder = Folder::with_file().await;
        let ended = run(&folder.file(), &words(line));
        let printed = format!("{}{}", ended.out, ended.err);
        let printed = printed.replace(&folder.file().display().to_string(), "data/app.db");
        if printed != expect {
            wrong.push(format!("$ purista {line}\n--- the page\n{expect}--- printed\n{printed}"));
        }
        run_through += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(run_through >= 15, "{run_through} examples were found");
}

#[test]
fn the_page_names_every_migration() {
    let steps = MIGRATIONS.iter().map(|step| format!("{} {}", step.number, step.name));
    let made = format!("made: {}\n", steps.collect::<Vec<_>>().join(", "));
    assert!(PAGE.contains(&made), "the page lacks `{made}`");
    for step in MIGRATIONS {
        let row = format!("\n{:>4}  {:<6}  2", step.number, step.name);
        assert!(PAGE.contains(&row), "`store status` lacks the step {}", step.name);
    }
}
