//! Steps, chains of them, and what is said when one is missing.

use serde_json::json;

use super::*;
use crate::samples::{Joined, Renamed, RenamedV1, RenamedV2, recorded, renamed, renamed_v1};

fn chain() -> Upcasters {
    Upcasters::new()
        .upcast(|old: RenamedV1| {
            let (first, last) = old.name.split_once(' ').unwrap_or((&old.name, ""));
            RenamedV2 { first: first.to_owned(), last: last.to_owned(), user: old.user }
        })
        .upcast(|old: RenamedV2| Renamed { user: old.user, full: vec![old.first, old.last] })
}

fn read(upcasters: &Upcasters, event: &Recorded, wanted: &[(&str, u32)]) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let wanted = |name: &str| wanted.iter().find(|wanted| wanted.0 == name).map(|wanted| wanted.1);
    let result: Result<(), UnreadableEvent> = upcasters.read(event, wanted, |name, version, body| {
        found.push(format!("{name} v{version} {}", std::str::from_utf8(body).unwrap()));
        Ok(())
    });
    result.map(|()| found).map_err(|error| error.to_string())
}

#[test]
fn an_event_of_the_wanted_form_is_itself() {
    let event = recorded(1, &renamed("ada", &["Ada"]));
    let found = read(&chain(), &event, &[("renamed", 3)]).unwrap();
    assert_eq!(found, [r#"renamed v3 {"user":"ada","full":["Ada"]}"#]);
}

#[test]
fn steps_compose_up_to_the_version_that_is_wanted_and_no_further() {
    let event = recorded(1, &renamed_v1("ada", "Ada Lovelace"));
    let found = |version| read(&chain(), &event, &[("renamed", version)]).unwrap();
    assert_eq!(found(3), [r#"renamed v3 {"user":"ada","full":["Ada","Lovelace"]}"#]);
    assert_eq!(found(2), [r#"renamed v2 {"user":"ada","first":"Ada","last":"Lovelace"}"#]);
    assert!(found(1)[0].starts_with("renamed v1"));
}

#[test]
fn a_missing_step_names_type_version_position_and_what_to_add() {
    let event = recorded(7, &renamed_v1("ada", "Ada"));
    let error = read(&Upcasters::new(), &event, &[("renamed", 3)]).unwrap_err();
    for part in ["renamed v1", "position 7", "renamed v3", "add `.upcast(", "`const VERSION: u32 = 1`"] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
    // Half of the chain: what is missing is the second half.
    let half = Upcasters::new().upcast(|old: RenamedV1| RenamedV2 {
        user: old.user,
        first: old.name,
        last: String::new(),
    });
    let error = read(&half, &event, &[("renamed", 3)]).unwrap_err();
    assert!(error.contains("renamed v1") && error.contains("from v2"), "{error}");
}

#[test]
fn a_newer_event_asks_for_the_newer_program() {
    let error = read(&chain(), &recorded(2, &renamed("ada", &[])), &[("renamed", 2)]).unwrap_err();
    assert!(error.contains("v3 is newer"), "{error}");
}

#[test]
fn one_event_becomes_several_in_their_order_or_none() {
    let several = Upcasters::new()
        .upcast_json("renamed", 1, &[("joined", 1), ("renamed", 2)], |json| {
            vec![
                ("joined", 1, json!({ "user": json["user"] })),
                ("renamed", 2, json!({ "user": json["user"], "first": json["name"], "last": "" })),
                ("joined", 1, json!({ "user": "last" })),
            ]
        })
        .upcast(|old: RenamedV2| Renamed { user: old.user, full: vec![old.first] });
    let event = recorded(1, &renamed_v1("ada", "Ada"));
    let found = read(&several, &event, &[("joined", 1), ("renamed", 3)]).unwrap();
    assert_eq!(
        found,
        [
            r#"joined v1 {"user":"ada"}"#,
            r#"renamed v3 {"user":"ada","full":["Ada"]}"#,
            r#"joined v1 {"user":"last"}"#
        ]
    );
    let none = Upcasters::new().upcast_json("renamed", 1, &[], |_| Vec::new());
    assert!(read(&none, &event, &[("renamed", 3)]).unwrap().is_empty());
}

#[test]
fn what_a_step_does_not_list_is_refused() {
    let wrong = Upcasters::new()
        .upcast_json("renamed", 1, &[("renamed", 2)], |_| vec![("joined", 1, json!({ "user": "ada" }))]);
    let error = read(&wrong, &recorded(1, &renamed_v1("ada", "Ada")), &[("renamed", 2)]).unwrap_err();
    assert!(error.contains("add (\"joined\", 1) to its list"), "{error}");
}

#[test]
fn content_of_another_form_is_named_by_the_form_it_was_stored_in() {
    let mut event = recorded(9, &renamed_v1("ada", "Ada"));
    event.body = Bytes::from_static(b"{}");
    let error = read(&chain(), &event, &[("renamed", 3)]).unwrap_err();
    assert_eq!(error, "the event renamed v1 at position 9 cannot be read: its content is not of this form");
}

#[test]
fn readers_look_for_the_older_names_too() {
    let upcasters = Upcasters::new()
        .upcast_json("wasCalled", 1, &[("renamed", 1)], |json| vec![("renamed", 1, json)])
        .upcast_json("baptised", 2, &[("wasCalled", 1)], |json| vec![("wasCalled", 1, json)]);
    let names = |name| upcasters.stored_names([Text::known(name)]);
    assert_eq!(names("renamed"), [Text::known("renamed"), Text::known("wasCalled"), Text::known("baptised")]);
    assert_eq!(names("joined"), [Text::known("joined")]);
    assert!(upcasters.stored_names([]).is_empty());
}

#[test]
fn duplicates_cycles_and_steps_backwards_are_problems() {
    let check = |upcasters: Upcasters, parts: &[&str]| {
        let problems = upcasters.problems();
        assert_eq!(problems.len(), parts.len(), "{problems:?}");
        for (problem, part) in problems.iter().zip(parts) {
            assert!(problem.contains(part), "{part} is not in {problem}");
        }
    };
    check(chain(), &[]);
    check(chain().upcast_json("renamed", 1, &[], |_| Vec::new()), &["two upcasters of renamed v1"]);
    let cycle = Upcasters::new().upcast_json("a", 1, &[("b", 1)], |_| Vec::new()).upcast_json(
        "b",
        1,
        &[("a", 1)],
        |_| Vec::new(),
    );
    check(cycle, &["from a v1 back", "from b v1 back"]);
    check(Upcasters::new().upcast(|event: Joined| event), &["from joined v1 back"]);
    let backwards = Upcasters::new().upcast(|event: RenamedV2| renamed_v1(&event.user, &event.first));
    check(backwards, &["renamed v2 leads back to renamed v1"]);
}
