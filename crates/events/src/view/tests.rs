//! What a view selects, what it adds up to, and what a tuple of views sees.

use super::*;
use crate::occurrence::Occurrences;
use crate::query::{Query, TenantScope};
use crate::recorded::Recorded;
use crate::samples::{Joined, Left, Renamed, RenamedV1, joined, left, recorded, renamed, renamed_v1};

fn members() -> View<Vec<String>> {
    view(Vec::new())
        .on(|members: &mut Vec<String>, event: Joined| members.push(event.user))
        .on(|members: &mut Vec<String>, event: Left| members.retain(|user| *user != event.user))
}

fn names(user: &str) -> View<Vec<String>> {
    view(Vec::new())
        .tagged("user", user)
        .on(|names: &mut Vec<String>, event: Renamed| names.extend(event.full))
}

fn folded<B: Boundary>(mut boundary: B, events: &[Recorded]) -> B::State {
    let page: Occurrences = events.iter().cloned().collect();
    for event in page.iter() {
        for view in boundary.views() {
            view.apply(&event, &event.tags(), &Upcasters::new()).unwrap();
        }
    }
    boundary.into_state()
}

fn applied<S: Send + 'static>(
    view: &mut View<S>,
    event: &Recorded,
    upcasters: &Upcasters,
) -> Result<(), UnreadableEvent> {
    let page: Occurrences = std::iter::once(event.clone()).collect();
    page.iter().try_for_each(|event| view.apply(&event, &event.tags(), upcasters))
}

fn history() -> Vec<Recorded> {
    vec![
        recorded(1, &joined("ada")),
        recorded(2, &joined("bob")),
        recorded(3, &renamed("ada", &["Ada"])),
        recorded(4, &renamed("bob", &["Bob"])),
        recorded(5, &left("bob")),
    ]
}

#[test]
fn a_view_folds_the_events_of_its_types_and_tags_in_order() {
    assert_eq!(folded(members(), &history()), ["ada"]);
    assert_eq!(folded(names("bob"), &history()), ["Bob"]);
    assert_eq!(folded(names("cem"), &history()), [""; 0]);
}

#[test]
fn of_several_tags_an_event_must_bear_all() {
    let both = names("ada").tagged("course", "maths");
    assert!(folded(both, &history()).is_empty());
    let mut event = recorded(6, &renamed("ada", &["A"]));
    event.tags = event.tags.with("course", "maths");
    assert_eq!(folded(names("ada").tagged("course", "maths"), &[event]), ["A"]);
}

#[test]
fn each_view_of_a_tuple_applies_what_it_selects_itself() {
    let (members, (ada, bob)) = folded((members(), (names("ada"), names("bob"))), &history());
    assert_eq!(
        (members.as_slice(), ada.as_slice(), bob.as_slice()),
        (&["ada".to_owned()][..], &["Ada".to_owned()][..], &["Bob".to_owned()][..])
    );
}

#[test]
fn what_a_view_selects_is_what_it_applies() {
    let upcasters = Upcasters::new();
    let mut boundary = (members(), names("ada"));
    let items = boundary.views().iter().map(|view| view.item(&upcasters)).collect();
    let query = Query { tenants: TenantScope::All, items };
    let selected: Vec<u64> =
        history().iter().filter(|event| query.selects(event)).map(|event| event.position.number()).collect();
    assert_eq!(selected, [1, 2, 3, 5]);
}

#[test]
fn a_second_closure_for_one_name_takes_the_place_of_the_first() {
    let twice =
        names("ada").on(|names: &mut Vec<String>, event: Renamed| names.push(format!("{}!", event.full[0])));
    assert_eq!(folded(twice, &history()), ["Ada!"]);
}

#[test]
fn an_event_that_cannot_be_read_is_named() {
    let mut view = names("ada");
    let error = applied(&mut view, &recorded(8, &renamed_v1("ada", "Ada")), &Upcasters::new())
        .unwrap_err()
        .to_string();
    assert!(error.contains("renamed v1 at position 8"), "{error}");
    let mut broken = recorded(9, &renamed("ada", &[]));
    broken.body = Bytes::from_static(b"[]");
    let error = applied(&mut view, &broken, &Upcasters::new()).unwrap_err().to_string();
    assert!(error.contains("renamed v3 at position 9"), "{error}");
}

#[test]
fn older_forms_reach_a_view_through_upcasters() {
    let upcasters = Upcasters::new()
        .upcast(|old: RenamedV1| Renamed { user: old.user, full: vec![old.name] })
        .upcast_json("baptised", 1, &[("renamed", 3)], |json| vec![("renamed", 3, json)]);
    let mut view = names("ada");
    applied(&mut view, &recorded(1, &renamed_v1("ada", "Ada")), &upcasters).unwrap();
    assert_eq!(view.item(&upcasters).types, [Text::known("renamed"), Text::known("baptised")]);
    assert_eq!(view.into_state(), ["Ada"]);
}

#[test]
fn a_restored_view_applies_only_what_lies_behind_its_snapshot() {
    let snapshotted = || names("ada").snapshot("names", 1, every(10));
    let mut restored = snapshotted();
    restored.restore(br#"["Snap"]"#, Position::new(3)).unwrap();
    assert_eq!(restored.restored_up_to(), Position::new(3));
    let mut events = history();
    events.push(recorded(6, &renamed("ada", &["Later"])));
    assert_eq!(folded(restored, &events), ["Snap", "Later"]);
    // What cannot be read changes nothing.
    let mut view = snapshotted();
    assert!(view.restore(b"{", Position::new(3)).is_err());
    assert_eq!(folded(view, &events), ["Ada", "Later"]);
    assert!(names("ada").capture().is_none(), "no name, no snapshot");
}

#[test]
fn a_snapshot_is_due_after_so_many_events() {
    let is_due = |events: usize, policy| {
        let mut view = names("ada").snapshot("names", 1, policy);
        for place in 1..=events {
            applied(&mut view, &recorded(place as u64, &renamed("ada", &["A"])), &Upcasters::new()).unwrap();
            applied(&mut view, &recorded(place as u64, &renamed("bob", &["B"])), &Upcasters::new()).unwrap();
        }
        view.capture().is_some()
    };
    assert!(!is_due(2, every(3)) && is_due(3, every(3)));
    assert!(!is_due(0, every(0)), "without a new event there is nothing new to keep");
}
