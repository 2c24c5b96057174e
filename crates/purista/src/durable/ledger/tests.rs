//! The bookkeeping by itself: order, holding back, progress.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use purista_core::address::{Address, ServiceId};
use purista_core::event::Tags;
use purista_core::id::Id;
use purista_core::message::Party;
use purista_core::text::Text;
use purista_events::recorded::Cause;
use purista_events::subscriptions::{Progress, SubscriptionId};

use super::*;

fn at(position: u64, key: &str) -> Recorded {
    let tags = if key.is_empty() { Tags::new() } else { Tags::new().with("user", key) };
    Recorded {
        position: Position::new(position),
        id: Id::from_random(position.into()),
        name: Text::known("happened"),
        version: 1,
        tags,
        stream_version: None,
        recorded_at: Timestamp::UNIX_EPOCH,
        tenant_id: None,
        cause: Cause {
            sender: Party::anywhere(Address::of(ServiceId::new("User", "1"), "x")),
            principal_id: None,
            trace_id: Id::from_random(1),
            trace: None,
            correlation_id: None,
            causation_id: None,
            hops: 1,
        },
        body: Bytes::from_static(b"{}"),
    }
}

/// When every test begins.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

fn second(second: u64) -> Instant {
    *BEGAN + Duration::from_secs(second)
}

fn began() -> Moment {
    Moment { time_of_day: Timestamp::UNIX_EPOCH, instant: *BEGAN }
}

fn ledger(record: SubscriptionRecord) -> Ledger {
    Ledger::new(record, 16, &began())
}

fn page(events: Vec<Recorded>, looked_up_to: u64) -> FollowPage {
    FollowPage { events, looked_up_to: Position::new(looked_up_to), is_caught_up: true }
}

fn parked(event: &Recorded, due: Option<i64>) -> Parked {
    Parked {
        subscription: SubscriptionId::new("s"),
        position: event.position,
        attempts: 1,
        key: event.order_key(),
        due: due.map(|second| Timestamp::from_second(second).unwrap()),
        history: Vec::new(),
    }
}

/// The positions that may be tried at this second, first or again.
fn tried(ledger: &mut Ledger, at: u64) -> Vec<u64> {
    let now = second(at);
    let mut positions = Vec::new();
    while let Some(job) = ledger.next_job(now) {
        match job {
            Job::First(event) => positions.push(event.position.number()),
            Job::Again(parked) => positions.push(parked.position.number()),
            Job::ParkBehind(events) => {
                for event in events {
                    let one = parked(&event, None);
                    ledger.parked_behind(Parked { due: None, attempts: 0, ..one }, &began());
                }
            }
            Job::GiveUp(events) => events.into_iter().for_each(|(event, _)| ledger.given_up(event.position)),
        }
    }
    positions
}

#[test]
fn events_of_one_key_go_one_after_another_and_others_beside() {
    let mut ledger = ledger(SubscriptionRecord::default());
    ledger.admit(page(vec![at(1, "a"), at(2, "a"), at(3, "b"), at(4, ""), at(5, "")], 6));
    assert_eq!(tried(&mut ledger, 0), [1, 3, 4, 5]);
    ledger.finished(Position::new(1), false);
    assert_eq!(tried(&mut ledger, 0), [2]);
}

#[test]
fn progress_is_the_lowest_unfinished_and_what_is_done_beyond() {
    let mut ledger = ledger(SubscriptionRecord::default());
    ledger.admit(page(vec![at(2, "a"), at(4, "b"), at(6, "c")], 9));
    assert_eq!(tried(&mut ledger, 0).len(), 3);
    assert_eq!(ledger.to_save(false), None, "nothing is finished");
    ledger.finished(Position::new(4), false);
    let saving = ledger.to_save(false).unwrap();
    assert_eq!(saving, Saving { up_to: Position::new(1), done: vec![Position::new(4)] });
    ledger.saved(&saving);
    assert_eq!(ledger.to_save(false), None);
    ledger.finished(Position::new(2), false);
    ledger.finished(Position::new(6), true);
    let saving = ledger.to_save(false).unwrap();
    assert_eq!(
        saving,
        Saving { up_to: Position::new(9), done: vec![] },
        "non-matching positions count as finished"
    );
    ledger.saved(&saving);
    assert!(ledger.is_empty());
}

#[test]
fn what_the_store_knows_as_done_is_not_tried_again() {
    let progress = Progress { low: Position::new(2), done: [Position::new(4)].into() };
    let mut ledger = ledger(SubscriptionRecord { progress, ..SubscriptionRecord::default() });
    ledger.admit(page(vec![at(3, ""), at(4, ""), at(5, "")], 5));
    assert_eq!(tried(&mut ledger, 0), [3, 5]);
}

#[test]
fn a_parked_event_holds_back_its_key_until_it_is_finished() {
    let mut ledger = ledger(SubscriptionRecord::default());
    ledger.admit(page(vec![at(1, "a"), at(2, "a"), at(3, "b")], 3));
    assert_eq!(tried(&mut ledger, 0), [1, 3]);
    ledger.parked_now(parked(&at(1, "a"), Some(60)), &began());
    ledger.finished(Position::new(3), false);
    ledger.admit(page(vec![at(4, "a"), at(5, "b")], 5));
    assert_eq!(tried(&mut ledger, 0), [5], "2 and 4 wait behind 1");
    assert_eq!(ledger.parked.len(), 3);
    assert_eq!(ledger.next_due(), Some(second(60)));
    assert_eq!(tried(&mut ledger, 60), [1]);
    assert_eq!(tried(&mut ledger, 60), [] as [u64; 0], "1 is being tried");
    ledger.finished(Position::new(1), true);
    assert_eq!(tried(&mut ledger, 60), [2]);
    ledger.finished(Position::new(2), true);
    assert_eq!(tried(&mut ledger, 60), [4]);
    ledger.finished(Position::new(4), true);
    ledger.admit(page(vec![at(6, "a")], 6));
    assert_eq!(tried(&mut ledger, 60), [6], "the key is free");
}

#[test]
fn what_was_parked_before_a_restart_holds_back_its_key_after_it() {
    let progress = Progress { low: Position::new(1), done: [Position::new(1)].into() };
    let record = SubscriptionRecord { progress, parked: vec![parked(&at(1, "a"), Some(60))], pause: None };
    let mut ledger = ledger(record);
    ledger.admit(page(vec![at(2, "a"), at(3, "b")], 3));
    assert_eq!(tried(&mut ledger, 0), [3]);
    assert_eq!(tried(&mut ledger, 61), [1]);
}

#[test]
fn a_later_event_never_overtakes_one_that_is_about_to_be_parked() {
    let now = second(0);
    let mut ledger = ledger(SubscriptionRecord::default());
    ledger.admit(page(vec![at(1, "a"), at(2, "a")], 2));
    assert!(matches!(ledger.next_job(now), Some(Job::First(_))));
    ledger.parked_now(parked(&at(1, "a"), None), &began());
    let Some(Job::ParkBehind(behind)) = ledger.next_job(now) else { panic!("2 is to be parked") };
    assert_eq!(tried(&mut ledger, 0), [1]);
    ledger.finished(Position::new(1), true);
    ledger.admit(page(vec![at(3, "a")], 3));
    assert_eq!(tried(&mut ledger, 0), [] as [u64; 0], "2 is on its way to the store");
    ledger.parked_behind(parked(&behind[0], None), &began());
    assert_eq!(tried(&mut ledger, 0), [2]);
    ledger.finished(Position::new(2), true);
    assert_eq!(tried(&mut ledger, 0), [3]);
}

/// So many wait, each of a key of its own, until a second that is its position.
fn with_waiting(events: u64) -> Ledger {
    let waiting = (1..=events)
        .map(|position| parked(&at(position, &position.to_string()), Some(position.cast_signed())));
    let progress = Progress { low: Position::new(events), ..Progress::default() };
    ledger(SubscriptionRecord { progress, parked: waiting.collect(), pause: None })
}

#[test]
fn the_next_due_is_found_without_looking_at_all_that_wait() {
    let mut ledger = with_waiting(10_000);
    let began = Instant::now();
    for position in 10_001..=60_000 {
        ledger.admit(page(vec![at(position, "new")], position));
        assert_eq!(ledger.next_due(), Some(second(1)));
        assert!(matches!(ledger.next_job(second(0)), Some(Job::First(_))));
        ledger.finished(Position::new(position), true);
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed()); // real time: work is measured
}

#[test]
fn what_waits_is_tried_in_the_order_of_due_times_also_after_another_failure() {
    let mut ledger = with_waiting(3);
    assert_eq!(ledger.next_due(), Some(second(1)));
    assert_eq!(tried(&mut ledger, 1), [1]);
    ledger.parked_now(parked(&at(1, "1"), Some(9)), &began());
    assert_eq!(ledger.next_due(), Some(second(2)));
    assert_eq!(tried(&mut ledger, 9), [2, 3, 1]);
}

#[test]
fn retries_leave_half_of_the_attempts_to_new_events() {
    let mut ledger = with_waiting(100);
    ledger.admit(page((101..=120).map(|position| at(position, "")).collect(), 120));
    let jobs: Vec<_> = (0..28).filter_map(|_| ledger.next_job(second(100))).collect();
    let again = |job: &Job| matches!(job, Job::Again(_));
    assert!(jobs.iter().take(4).map(again).eq([true, false, true, false]), "they take turns");
    assert_eq!(jobs.iter().filter(|job| again(job)).count(), 8, "of 16 at a time");
    assert_eq!(jobs.len(), 28, "the 20 new ones are all tried");
    assert!(ledger.next_job(second(100)).is_none());
    assert_eq!(ledger.next_due(), None, "nothing is waited for while half of the attempts are retries");
    ledger.finished(Position::new(1), true);
    assert!(matches!(ledger.next_job(second(100)), Some(Job::Again(_))));
}

#[test]
fn one_at_a_time_retries_and_new_events_take_turns() {
    let mut ledger = with_waiting(10);
    ledger.trying_max = 1;
    ledger.admit(page(vec![at(11, ""), at(12, "")], 12));
    let mut positions = Vec::new();
    for _ in 0..4 {
        let position = match ledger.next_job(second(10)).unwrap() {
            Job::First(event) => event.position,
            Job::Again(parked) => parked.position,
            other => panic!("{other:?}"),
        };
        positions.push(position.number());
        ledger.finished(position, true);
    }
    assert_eq!(positions, [1, 11, 2, 12]);
}

#[test]
fn a_key_has_a_bound_of_its_own_and_what_is_beyond_becomes_dead_letters() {
    let mut ledger = ledger(SubscriptionRecord::default());
    ledger.admit(page(vec![at(1, "a")], 1));
    assert_eq!(tried(&mut ledger, 0), [1]);
    ledger.parked_now(parked(&at(1, "a"), Some(60)), &began());
    let more = u64::try_from(PARKED_KEY_MAX).unwrap() + 5;
    ledger.admit(page(
        (2..=more).map(|position| at(position, "a")).chain([at(more + 1, "b")]).collect(),
        more + 1,
    ));
    let Some(Job::ParkBehind(behind)) = ledger.next_job(second(0)) else {
        panic!("they wait behind the first")
    };
    assert_eq!(behind.len(), PARKED_KEY_MAX - 1);
    let Some(Job::GiveUp(beyond)) = ledger.next_job(second(0)) else { panic!("the bound is reached") };
    assert!(beyond.iter().all(|(_, why)| *why == Overflow::Key));
    assert_eq!(beyond.len(), 5);
    assert!(!ledger.is_full());
    assert_eq!(tried(&mut ledger, 0), [more + 1], "the other key goes on");
}

#[test]
fn beyond_the_bound_of_the_subscription_no_more_are_held_back() {
    let mut ledger = with_waiting(u64::try_from(PARKED_MAX).unwrap());
    assert!(ledger.is_full());
    ledger.admit(page(vec![at(10_001, "7"), at(10_002, "new")], 10_002));
    let Some(Job::GiveUp(beyond)) = ledger.next_job(second(0)) else { panic!("the bound is reached") };
    assert_eq!(
        beyond.first().map(|(event, why)| (event.position.number(), *why)),
        Some((10_001, Overflow::Subscription))
    );
    assert_eq!(tried(&mut ledger, 0), [10_002], "new events are tried all the same");
}

#[test]
fn finished_positions_that_handlers_saved_are_replaced_by_the_watermark() {
    let mut ledger = ledger(SubscriptionRecord::default());
    for n in 1..=20_000 {
        ledger.admit(page(vec![at(n, "key")], n));
        assert!(
            matches!(ledger.next_job(second(0)), Some(Job::First(event)) if event.position.number() == n)
        );
        ledger.finished(Position::new(n), true);
        if let Some(saving) = ledger.to_save(false) {
            assert_eq!((saving.up_to, saving.done.len()), (Position::new(n), 0));
            ledger.saved(&saving);
        }
        assert!(ledger.finished_ahead() <= FINISHED_SAVED_MAX, "{}", ledger.finished_ahead());
    }
    let rest = ledger.to_save(true).unwrap();
    assert_eq!(rest.up_to, Position::new(20_000));
    ledger.saved(&rest);
    assert_eq!((ledger.finished_ahead(), ledger.to_save(true)), (0, None));
}

#[test]
fn the_watermark_passes_what_the_subscription_does_not_select() {
    let mut ledger = ledger(SubscriptionRecord::default());
    ledger.admit(page(Vec::new(), 700));
    assert_eq!(ledger.to_save(false), None);
    assert_eq!(ledger.to_save(true), Some(Saving { up_to: Position::new(700), done: Vec::new() }));
}
