//! `purista events`.

use crate::given::Folder;
use crate::purista::{json, refuses, run, shows};

#[tokio::test]
async fn events_are_listed_newest_first_or_onwards_from_a_position() {
    let folder = Folder::with_file().await;
    let file = folder.file();
    shows(
        &file,
        &["events", "list"],
        "\
POSITION  RECORDED AT               TYPE        TENANT  PRINCIPAL  TAGS
       5  2026-03-03T12:00:00.000Z  left v1     acme    bob        user=43
       4  2026-03-02T09:30:00.000Z  joined v1   -       -          user=44
       3  2026-03-02T09:00:00.000Z  renamed v1  acme    ada        user=42
       2  2026-03-01T10:05:00.000Z  joined v1   acme    bob        user=43
       1  2026-03-01T10:00:00.000Z  joined v1   acme    ada        user=42
",
    );
    let first = run(&file, &["events", "list", "--from", "2", "--limit", "1", "--body"]);
    assert_eq!(
        first.out,
        "\
POSITION  RECORDED AT               TYPE       TENANT  PRINCIPAL  TAGS     BODY
       2  2026-03-01T10:05:00.000Z  joined v1  acme    bob        user=43  {\"user\":\"43\",\"name\":\"Bob\"}
"
    );
    assert_eq!((first.err.as_str(), first.code), ("there are more: --from 3\n", 0));
    let newest = run(&file, &["events", "list", "--limit", "2"]);
    assert_eq!((newest.err.as_str(), newest.out.lines().count()), ("there are older ones: --before 4\n", 3));
    assert_eq!(run(&file, &["events", "list", "--limit", "5"]).err, "", "there are no more than five");
}

#[tokio::test]
async fn events_are_selected_by_type_tag_and_tenant() {
    let folder = Folder::with_file().await;
    let positions = |arguments: &[&str]| -> Vec<u64> {
        let events = json(&folder.file(), &[&["events", "list"], arguments].concat());
        events.iter().map(|event| event["position"].as_u64().unwrap()).collect()
    };
    assert_eq!(positions(&["--before", "3"]), [2, 1]);
    assert_eq!(positions(&["--from", "4"]), [4, 5]);
    assert_eq!(positions(&["--type", "left", "--type", "renamed"]), [5, 3]);
    assert_eq!(positions(&["--tag", "user=43"]), [5, 2]);
    assert_eq!(positions(&["--tag", "user=43", "--tag", "user=42"]), [0_u64; 0]);
    assert_eq!(positions(&["--type", "joined", "--tenant", "acme"]), [2, 1]);
    assert_eq!(positions(&["--no-tenant"]), [4]);
    assert_eq!(positions(&["--all"]), [5, 4, 3, 2, 1]);
    shows(&folder.file(), &["events", "list", "--tenant", "nobody"], "no events\n");
}

#[tokio::test]
async fn an_event_is_read_by_position_or_id_with_its_body() {
    let folder = Folder::with_file().await;
    let file = folder.file();
    let expect = "\
position     3
id           e0000000000000000000000000000003
type         renamed v1
tags         user=42
stream       user=42, version 2
recorded at  2026-03-02T09:00:00.000Z
tenant       acme
principal    ada
sender       User.1.updateProfile
trace        e0000000000000000000000000000077
correlation  e0000000000000000000000000000cab
caused by    e0000000000000000000000000000cab
hops         1
body
  {
    \"user\": \"42\",
    \"old\": \"Ada\",
    \"new\": \"Ada L.\"
  }
";
    shows(&file, &["events", "read", "3"], expect);
    shows(&file, &["events", "read", "e0000000000000000000000000000003"], expect);
    let event = &json(&file, &["events", "read", "3"])[0];
    assert_eq!(event["type"], "renamed");
    assert_eq!(event["sender"]["target"], "updateProfile");
    assert_eq!(event["tags"][0]["value"], "42");
    assert_eq!(event["body"]["new"], "Ada L.");
    for missing in ["0", "6", "e0000000000000000000000000000099"] {
        refuses(
            &file,
            &["events", "read", missing],
            &format!(
                "error: there is no event `{missing}`\nhelp: give the position of an event, 1 to 5, or its whole id; \
                 `purista events list` shows both\n"
            ),
        );
    }
}

#[tokio::test]
async fn the_past_is_shown_with_its_position() {
    let folder = Folder::with_file().await;
    let file = folder.file();
    let rows = "\
POSITION  RECORDED AT               TYPE       TENANT  PRINCIPAL  TAGS
       2  2026-03-01T10:05:00.000Z  joined v1  acme    bob        user=43
       1  2026-03-01T10:00:00.000Z  joined v1  acme    ada        user=42
";
    shows(
        &file,
        &["events", "as-of", "--time", "2026-03-02T09:00:00+01:00"],
        &format!("as of 2026-03-02T08:00:00Z, which is position 2\n{rows}"),
    );
    shows(&file, &["events", "as-of", "--position", "2"], &format!("as of position 2\n{rows}"));
    shows(
        &file,
        &["events", "as-of", "--time", "2026-03-01"],
        "as of 2026-03-01T00:00:00Z, which is position 0\nno events\n",
    );
    let document =
        run(&file, &["events", "as-of", "--time", "2026-03-03", "--limit", "2", "--body", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&document.out).unwrap();
    assert_eq!((&document["position"], &document["time"]), (&4.into(), &"2026-03-03T00:00:00Z".into()));
    assert_eq!(document["events"].as_array().unwrap().len(), 2);
    assert_eq!(document["events"][0]["body"]["name"], "Eve");
    refuses(
        &file,
        &["events", "as-of", "--position", "6"],
        "error: position 6 was not reached\nhelp: the log ends at 5: give a position up to that\n",
    );
    let future = run(&file, &["events", "as-of", "--time", "2200-01-01"]);
    assert_eq!(future.code, 1);
    assert!(future.err.starts_with("error: 2200-01-01T00:00:00Z is still to come\nhelp: "), "{future:?}");
}

#[tokio::test]
async fn a_history_says_who_did_what_when_and_why() {
    let folder = Folder::with_file().await;
    let file = folder.file();
    shows(
        &file,
        &["events", "history", "--tag", "user=42", "--body"],
        "\
1  2026-03-01T10:00:00.000Z  joined v1  user=42
  who   ada, of tenant acme
  why   User.1.signUp, trace e0000000000000000000000000000077
  what  {\"user\":\"42\",\"name\":\"Ada\"}
3  2026-03-02T09:00:00.000Z  renamed v1  user=42
  who   ada, of tenant acme
  why   User.1.updateProfile, trace e0000000000000000000000000000077, correlation e0000000000000000000000000000cab, \
caused by e0000000000000000000000000000cab
  what  {\"user\":\"42\",\"old\":\"Ada\",\"new\":\"Ada L.\"}
",
    );
    let without = run(&file, &["events", "history", "--tag", "user=44"]).out;
    assert!(without.contains("nobody is named") && !without.contains("Eve"), "{without}");
    let events = json(&file, &["events", "history", "--tag", "user=43", "--type", "left"]);
    assert_eq!((events.len(), &events[0]["position"]), (1, &5.into()));
    assert!(events[0].get("body").is_none());
}

#[tokio::test]
async fn wrong_usage_ends_with_2() {
    let folder = Folder::with_file().await;
    for (arguments, part) in [
        (&["events", "history"][..], "--tag <NAME=VALUE>"),
        (&["events", "history", "--tag", "user"], "a tag is written NAME=VALUE, as in user=42"),
        (&["events", "as-of"], "<--time <TIME>|--position <POSITION>>"),
        (&["events", "as-of", "--time", "soon"], "a time is written 2026-03-01T00:00:00Z"),
        (&["events", "list", "--limit", "0"], "0 is not in 1.."),
        (&["events", "list", "--from", "1", "--before", "3"], "cannot be used with"),
        (&["dead-letters", "drop"], "<ID|--all|--subscription <NAME>>"),
        (&["store", "snapshots", "forget"], "<NAME|--all>"),
        (&["evnts"], "a similar subcommand exists: 'events'"),
    ] {
        let ended = run(&folder.file(), arguments);
        assert_eq!((ended.code, ended.out.as_str()), (2, ""), "{arguments:?}");
        assert!(ended.err.contains(part), "{arguments:?}: {}", ended.err);
    }
}
