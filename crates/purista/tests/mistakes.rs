//! What the compiler says to a wrong program is a part of the interface: the headline names the type and what is missing,
//! and the whole is short enough to be read.

/// The most lines that one mistake may cost its reader.
const LINES_MAX: usize = 25;

#[test]
fn the_compiler_says_what_is_wrong_in_words() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}

#[test]
fn every_message_names_the_type_and_is_short() {
    let headlines = [
        ("wrong_output", "NewUser"),
        ("not_async", "must be an `async fn` that returns"),
        ("wrong_resources", "Accounts"),
        ("missing_validation", "`Unchecked` cannot travel in a message"),
        ("success_event_is_no_event", "`Found` is not an event"),
        ("input_is_no_command", "`NewUser` is not a command"),
        ("heard_is_no_event", "`Plain` is not an event"),
        ("bad_service_name", "a service name is a letter"),
        ("decision_without_reply", "the decision returns `SignedUp`, but its command answers with `Welcome`"),
        ("boundary_is_no_view", "`bool` is not a boundary"),
        ("state_is_another", "type mismatch in function arguments"),
    ];
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ui");
    let told = std::fs::read_dir(folder).unwrap().filter(|entry| {
        entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "stderr")
    });
    assert_eq!(told.count(), headlines.len(), "every mistake is listed here");
    for (mistake, headline) in headlines {
        let text = std::fs::read_to_string(format!("{folder}/{mistake}.stderr")).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines.len() <= LINES_MAX, "{mistake}: {} lines", lines.len());
        assert!(lines.iter().take(10).any(|line| line.contains(headline)), "{mistake}: {text}");
    }
}
