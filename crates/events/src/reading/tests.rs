//! Reading now, as it was, from snapshots, and in pages.

use purista_core::id::Id;

use super::*;
use crate::batch::{Append, Batch};
use crate::memory::MemoryStore;
use crate::samples::{
    Joined, Left, Renamed, RenamedV1, append, joined, left, new_event, renamed, renamed_v1,
};
use crate::store::StoreErrorKind;
use crate::view::{View, every, view};

fn members() -> View<Vec<String>> {
    view(Vec::new())
        .on(|members: &mut Vec<String>, event: Joined| members.push(event.user))
        .on(|members: &mut Vec<String>, event: Left| members.retain(|user| *user != event.user))
}

fn kept(policy: u64) -> View<Vec<String>> {
    members().snapshot("members", 1, every(policy))
}

fn clock() -> Clock {
    Clock::follows_tokio(Timestamp::UNIX_EPOCH, 7)
}

async fn join(store: &MemoryStore, users: &[&str]) -> Position {
    let events = users.iter().map(|user| new_event(&joined(user))).collect();
    append(store, None, events).await.position
}

async fn seen<B: Boundary>(store: &MemoryStore, boundary: B, moment: Moment) -> Seen<B::State> {
    Reader::new(store).read(boundary, moment).await.unwrap()
}

#[tokio::test]
async fn now_is_everything_of_one_tenant() {
    let store = MemoryStore::default();
    join(&store, &["ada"]).await;
    append(&store, Some("acme"), vec![new_event(&joined("bob"))]).await;
    let of = |tenant| {
        let store = store.clone();
        async move { Reader::new(&store).of_tenant(tenant).read(members(), Moment::Now).await.unwrap().state }
    };
    assert_eq!((of(None).await, of(Some("acme")).await), (vec!["ada".to_owned()], vec!["bob".to_owned()]));
    assert!(of(Some("other")).await.is_empty());
}

#[tokio::test]
async fn the_condition_of_a_read_fails_when_something_it_selects_was_added_and_only_then() {
    let store = MemoryStore::default();
    join(&store, &["ada"]).await;
    let ada = view(()).tagged("user", "ada").on(|(), _: Left| ());
    let condition = seen(&store, ada, Moment::Now).await.condition.unwrap();
    let commit = |n| {
        let mut batch = Batch::new(Id::from_random(n), None);
        batch.appends.push(Append { events: vec![new_event(&joined("x"))], condition: condition.clone() });
        store.commit(batch)
    };
    append(&store, Some("acme"), vec![new_event(&left("ada"))]).await;
    append(&store, None, vec![new_event(&left("bob")), new_event(&joined("ada"))]).await;
    assert!(
        commit(1).await.is_ok(),
        "another tenant, another user and another type are none of its business"
    );
    append(&store, None, vec![new_event(&left("ada"))]).await;
    assert_eq!(commit(2).await.unwrap_err().kind(), StoreErrorKind::Conflict);
}

#[tokio::test]
async fn a_boundary_of_several_pages_is_read_whole() {
    let store = MemoryStore::default();
    for _ in 0..3 {
        let users: Vec<String> = (0..900).map(|n| n.to_string()).collect();
        join(&store, &users.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    let now = seen(&store, members(), Moment::Now).await;
    assert_eq!((now.state.len(), now.events_read), (2_700, 2_700));
    let then = seen(&store, members(), Moment::At(Position::new(1_950))).await;
    assert_eq!((then.state.len(), then.events_read), (1_950, 1_950));
}

/// A view that keeps snapshots, in a tuple with one that is too young to have any.
#[tokio::test]
async fn each_view_of_a_tuple_is_read_behind_its_own_snapshot() {
    let store = MemoryStore::default();
    for _ in 0..10 {
        let users: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
        join(&store, &users.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    let old = seen(&store, kept(1_000), Moment::Now).await;
    keep(&store, old.due_snapshots).await;
    let young = || view(0).on(|count: &mut u32, _: Renamed| *count += 1).snapshot("young", 1, every(1_000));
    let plain = || view(0).tagged("user", "ada").on(|count: &mut u32, _: Left| *count += 1);
    append(&store, None, vec![new_event(&renamed("ada", &["Ada"])), new_event(&joined("ada"))]).await;
    let end = append(&store, None, vec![new_event(&left("ada"))]).await.position;
    for moment in [Moment::Now, Moment::At(end)] {
        let Seen { state: (members, renamed, left), events_read, .. } =
            seen(&store, (kept(1_000), young(), plain()), moment).await;
        assert_eq!((members.len(), renamed, left), (10_000, 1, 1));
        assert_eq!(events_read, 3, "{moment:?}: the 10,000 events of the snapshot are not read again");
    }
}

#[tokio::test]
async fn at_a_position_is_the_same_for_ever_and_carries_no_condition() {
    let store = MemoryStore::default();
    let then = join(&store, &["ada"]).await;
    let before = seen(&store, members(), Moment::Now).await;
    assert_eq!(before.position, then);
    join(&store, &["bob"]).await;
    let again = seen(&store, members(), Moment::At(before.position)).await;
    assert_eq!(
        (again.state, again.position, again.condition.is_none()),
        (vec!["ada".to_owned()], then, true)
    );
    assert!(seen(&store, members(), Moment::At(Position::START)).await.state.is_empty());
}

#[tokio::test]
async fn a_position_that_was_not_reached_is_refused() {
    let store = MemoryStore::default();
    join(&store, &["ada"]).await;
    let error = Reader::new(&store).read(members(), Moment::At(Position::new(2))).await.unwrap_err();
    assert_eq!(error.to_string(), "position 2 was not reached: the log ends at 1");
}

#[tokio::test(start_paused = true)]
async fn as_of_a_time_is_what_was_recorded_up_to_it() {
    let clock = clock();
    let store = MemoryStore::new(clock.clone());
    let second = Duration::from_secs(1);
    let times: Vec<Timestamp> = {
        let mut times = vec![clock.now()];
        for user in ["ada", "bob", "cem"] {
            tokio::time::advance(second).await;
            join(&store, &[user]).await;
            times.push(clock.now());
        }
        times
    };
    let reader = Reader::new(&store).clock(clock.clone());
    for (count, time) in times.iter().enumerate() {
        let seen = reader.read(members(), Moment::AsOf(*time)).await.unwrap();
        assert_eq!((seen.state.len(), seen.position), (count, Position::new(count as u64)), "at {time}");
    }
    let between = times[1].saturating_add(second / 2).unwrap();
    assert_eq!(reader.read(members(), Moment::AsOf(between)).await.unwrap().state, ["ada"]);
}

#[tokio::test(start_paused = true)]
async fn as_of_this_moment_waits_until_nothing_more_can_be_recorded_at_it() {
    let clock = clock();
    let store = MemoryStore::new(clock.clone());
    let reader = Reader::new(&store).clock(clock.clone());
    let now = clock.now();
    let reading = reader.read(members(), Moment::AsOf(now));
    let (seen, _) = tokio::join!(reading, join(&store, &["ada"]));
    // It was recorded at that very time, after the read had begun.
    assert_eq!(seen.unwrap().state, ["ada"]);
    join(&store, &["bob"]).await;
    assert_eq!(reader.read(members(), Moment::AsOf(now)).await.unwrap().state, ["ada"]);
}

#[tokio::test(start_paused = true)]
async fn a_time_to_come_is_refused() {
    let clock = clock();
    let store = MemoryStore::new(clock.clone());
    let soon = clock.now().saturating_add(Duration::from_millis(1)).unwrap();
    let result = Reader::new(&store).clock(clock).read(members(), Moment::AsOf(soon)).await;
    assert!(matches!(result, Err(ReadError::Future(time)) if time == soon));
}

#[tokio::test]
async fn a_snapshot_changes_nothing_but_the_number_of_events_read() {
    let store = MemoryStore::default();
    join(&store, &["ada", "bob", "cem"]).await;
    let first = seen(&store, kept(3), Moment::Now).await;
    assert_eq!((first.events_read, first.due_snapshots.len()), (3, 1));
    keep(&store, first.due_snapshots).await;
    append(&store, None, vec![new_event(&left("bob"))]).await;

    let with = seen(&store, kept(3), Moment::Now).await;
    let without = seen(&store, members(), Moment::Now).await;
    assert_eq!((with.events_read, without.events_read), (1, 4));
    assert_eq!((with.state, with.position), (without.state, without.position));
    assert!(with.due_snapshots.is_empty(), "one event is not three");

    store.forget_snapshots(None).await.unwrap();
    let again = seen(&store, kept(3), Moment::Now).await;
    assert_eq!((again.state, again.events_read), (vec!["ada".to_owned(), "cem".to_owned()], 4));
}

#[tokio::test]
async fn the_past_before_a_snapshot_is_read_without_it() {
    let store = MemoryStore::default();
    join(&store, &["ada", "bob"]).await;
    keep(&store, seen(&store, kept(1), Moment::Now).await.due_snapshots).await;
    let before = seen(&store, kept(1), Moment::At(Position::new(1))).await;
    assert_eq!((before.state, before.events_read), (vec!["ada".to_owned()], 1));
    let there = seen(&store, kept(1), Moment::At(Position::new(2))).await;
    assert_eq!((there.state.len(), there.events_read), (2, 0));
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_used_is_ignored() {
    let store = MemoryStore::default();
    join(&store, &["ada", "bob"]).await;
    let due = seen(&store, kept(1), Moment::Now).await.due_snapshots.remove(0);
    for broken in [
        Snapshot { body: "{".into(), ..due.clone() },
        // A log that was restored from a backup ends before it.
        Snapshot { position: Position::new(9), body: r#"["mallory"]"#.into(), ..due.clone() },
    ] {
        store.forget_snapshots(None).await.unwrap();
        store.save_snapshot(broken).await.unwrap();
        let seen = seen(&store, kept(1), Moment::Now).await;
        assert_eq!((seen.state, seen.events_read), (vec!["ada".to_owned(), "bob".to_owned()], 2));
    }
}

#[tokio::test]
async fn a_snapshot_beyond_the_horizon_is_not_kept() {
    let store = MemoryStore::default();
    join(&store, &["ada"]).await;
    let due = seen(&store, kept(1), Moment::Now).await.due_snapshots.remove(0);
    keep(&store, vec![Snapshot { position: Position::new(2), ..due.clone() }]).await;
    assert!(store.snapshot(&due.key).await.unwrap().is_none());
    keep(&store, vec![due.clone()]).await;
    assert!(store.snapshot(&due.key).await.unwrap().is_some());
}

#[tokio::test]
async fn snapshots_of_another_version_query_or_tenant_are_others() {
    let store = MemoryStore::default();
    append(&store, Some("acme"), vec![new_event(&joined("bob"))]).await;
    join(&store, &["ada"]).await;
    keep(&store, seen(&store, kept(1), Moment::Now).await.due_snapshots).await;
    let acme = Reader::new(&store).of_tenant(Some("acme"));
    assert_eq!(acme.read(kept(1), Moment::Now).await.unwrap().state, ["bob"]);
    let newer = members().snapshot("members", 2, every(1));
    assert_eq!(seen(&store, newer, Moment::Now).await.events_read, 1);
    let narrower = members().tagged("user", "x").snapshot("members", 1, every(1));
    assert!(seen(&store, narrower, Moment::Now).await.state.is_empty());
    assert_eq!(seen(&store, kept(1), Moment::Now).await.events_read, 0, "it is there all the same");
}

#[tokio::test]
async fn views_of_a_tuple_go_on_each_from_its_own_snapshot() {
    let store = MemoryStore::default();
    join(&store, &["ada", "bob"]).await;
    keep(&store, seen(&store, kept(1), Moment::Now).await.due_snapshots).await;
    join(&store, &["cem"]).await;
    let count = view(0).on(|count: &mut u32, _: Joined| *count += 1);
    let both = seen(&store, (kept(9), count), Moment::Now).await;
    assert_eq!(both.state, (vec!["ada".to_owned(), "bob".to_owned(), "cem".to_owned()], 3));
}

#[tokio::test]
async fn older_forms_are_read_through_upcasters() {
    let store = MemoryStore::default();
    let events = vec![new_event(&renamed_v1("ada", "Ada")), new_event(&renamed("ada", &["Ada", "L"]))];
    append(&store, None, events).await;
    let names = || view(Vec::new()).on(|names: &mut Vec<Vec<String>>, event: Renamed| names.push(event.full));
    let error = Reader::new(&store).read(names(), Moment::Now).await.unwrap_err();
    assert!(error.to_string().contains("renamed v1 at position 1"), "{error}");
    let upcasters =
        Upcasters::new().upcast(|old: RenamedV1| Renamed { user: old.user, full: vec![old.name] });
    let state = Reader::new(&store).upcasters(&upcasters).read(names(), Moment::Now).await.unwrap().state;
    assert_eq!(state, [vec!["Ada".to_owned()], vec!["Ada".to_owned(), "L".to_owned()]]);
}

#[tokio::test]
async fn pages_go_both_ways_and_end() {
    let store = MemoryStore::default();
    join(&store, &["a", "b", "c", "d", "e"]).await;
    for (direction, from, expected) in [
        (Direction::Forwards, 0, vec![vec![1, 2], vec![3, 4], vec![5]]),
        (Direction::Backwards, u64::MAX, vec![vec![5, 4], vec![3, 2], vec![1]]),
        (Direction::Forwards, 3, vec![vec![4, 5]]),
        (Direction::Backwards, 3, vec![vec![2, 1]]),
    ] {
        let mut pager = Pager::new(&store, Query::all(), Position::new(from), direction).page(2);
        let mut found = Vec::new();
        while let Some(page) = pager.next().await.unwrap() {
            found.push(page.iter().map(|event| event.position.number()).collect::<Vec<_>>());
        }
        assert_eq!(found, expected, "{direction:?} from {from}");
    }
    let mut pager =
        Pager::new(&store, Query::all(), Position::START, Direction::Forwards).up_to(Position::new(3));
    assert_eq!(pager.next().await.unwrap().unwrap().len(), 3);
    assert!(pager.next().await.unwrap().is_none());
}
