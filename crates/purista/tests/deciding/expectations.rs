//! Given, when, then: what holds passes, and what does not ends in words that help.

use std::panic::AssertUnwindSafe;

use purista::Facts;
use purista::testing::given;
use purista_core::id::Id;

use crate::contracts::{
    Open, Pinged, by_email, names, open, register, registered, rename, renamed, to_register, to_rename,
    unique,
};

#[track_caller]
fn fails_with(expectation: impl FnOnce(), parts: &[&str]) {
    let panic = std::panic::catch_unwind(AssertUnwindSafe(expectation)).unwrap_err();
    let text = panic.downcast::<String>().unwrap();
    for part in parts {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn what_holds_passes() {
    given().when(to_register("ada", "a@x"), unique, register).then(registered("ada", "a@x"));
    given()
        .event((registered("bob", "b@x"), registered("cem", "c@x")))
        .when(to_register("ada", "c@x"), unique, register)
        .refused(409);
    given().event(renamed("Ada", 3)).when(to_rename("ada", "B"), names, rename).then(renamed("B", 4));
    given().event(renamed("Ada", 3)).when(to_rename("ada", "Ada"), names, rename).then(());
    let refusal = given().event(registered("ada", "a@x")).when(to_register("ada", "b@x"), unique, register);
    assert_eq!(refusal.refusal().public_message(), "the account exists");
}

#[test]
fn facts_are_those_of_the_test() {
    let facts = Facts::new(jiff::Timestamp::UNIX_EPOCH, Id::parse("new-1").unwrap()).of_tenant("acme");
    let then = given().at(facts).when_with(Open { email: "a@x".to_owned() }, by_email, open);
    let then = then.then((registered("new-1", "a@x"), Pinged { user: "new-1".to_owned() }));
    assert_eq!((then.reply().user.as_str(), then.reply().at_second), ("new-1", 0));
}

#[test]
fn other_events_are_shown_side_by_side_with_what_was_given() {
    fails_with(
        || {
            given()
                .event(registered("bob", "b@x"))
                .when(to_register("ada", "a@x"), unique, register)
                .then(registered("ada", "other@x"));
        },
        &[
            "expected:\n  registered v1 [user=ada, email=other@x]",
            "recorded:\n  registered v1 [user=ada, email=a@x]",
            "given:\n  registered v1 [user=bob, email=b@x]",
            "<- not selected by the boundary",
        ],
    );
}

#[test]
fn a_refusal_and_an_acceptance_that_nobody_expected_say_why() {
    let taken = || given().event(registered("ada", "a@x")).when(to_register("ada", "a@x"), unique, register);
    fails_with(
        || drop(taken().then(registered("ada", "a@x"))),
        &["it was refused: 409 the account exists", "given:"],
    );
    fails_with(|| drop(taken().refused(404)), &["a refusal with 404 was expected, and it was 409"]);
    fails_with(|| drop(taken().reply().clone()), &["a reply was expected", "409"]);
    let free = || given().when(to_register("ada", "a@x"), unique, register);
    fails_with(|| drop(free().refused(409)), &["it was accepted", "registered v1", "given: nothing"]);
    fails_with(|| drop(free().then(())), &["expected:\n  nothing"]);
}

#[test]
fn what_could_never_be_recorded_is_said() {
    let long = || renamed(&"x".repeat(21), 1);
    fails_with(|| drop(given().event(long())), &["was never recorded", "renamed breaks its own rules"]);
    let decided = given().when(to_rename("ada", &"x".repeat(21)), names, rename);
    decided.refused(500);
}
