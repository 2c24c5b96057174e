//! The bookkeeping by itself: order, holding back, progress.

use bytes::Bytes;
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
fn tried(ledger: &mut Ledger, second: i64) -> Vec<u64> {
    let now = Timestamp::from_second(second).unwrap();
    let mut positions = Vec::new();
    while let Some(job) = ledger.next_job(now) {
        match job {
            Job::First(event) => positions.push(event.position.number()),
            Job::Again(parked) => positions.push(parked.position.number()),
            Job::ParkBehind(events) => {
                for event in events {
                    let one = parked(&event, None);
                    ledger.parked_behind(Parked { due: None, attempts: 0, ..one });
                }
            }
        }
    }
    positions
}

#[test]
fn events_of_one_key_go_one_after_another_and_others_beside() {
    let mut ledger = Ledger::new(SubscriptionRecord::default());
    ledger.admit(page(vec![at(1, "a"), at(2, "a"), at(3, "b"), at(4, ""), at(5, "")], 6));
    assert_eq!(tried(&mut ledger, 0), [1, 3, 4, 5]);
    ledger.finished(Position::new(1), false);
    assert_eq!(tried(&mut ledger, 0), [2]);
}

#[test]
fn progress_is_the_lowest_unfinished_and_what_is_done_beyond() {
    let mut ledger = Ledger::new(SubscriptionRecord::default());
    ledger.admit(page(vec![at(2, "a"), at(4, "b"), at(6, "c")], 9));
    assert_eq!(tried(&mut ledger, 0).len(), 3);
    assert_eq!(ledger.to_save(), None, "nothing is finished");
    ledger.finished(Position::new(4), false);
    let saving = ledger.to_save().unwrap();
    assert_eq!(saving, Saving { up_to: Position::new(1), done: vec![Position::new(4)] });
    ledger.saved(&saving);
    assert_eq!(ledger.to_save(), None);
    ledger.finished(Position::new(2), false);
    ledger.finished(Position::new(6), true);
    let saving = ledger.to_save().unwrap();
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
    let mut ledger = Ledger::new(SubscriptionRecord { progress, ..SubscriptionRecord::default() });
    ledger.admit(page(vec![at(3, ""), at(4, ""), at(5, "")], 5));
    assert_eq!(tried(&mut ledger, 0), [3, 5]);
}

#[test]
fn a_parked_event_holds_back_its_key_until_it_is_finished() {
    let mut ledger = Ledger::new(SubscriptionRecord::default());
    ledger.admit(page(vec![at(1, "a"), at(2, "a"), at(3, "b")], 3));
    assert_eq!(tried(&mut ledger, 0), [1, 3]);
    ledger.parked_now(parked(&at(1, "a"), Some(60)));
    ledger.finished(Position::new(3), false);
    ledger.admit(page(vec![at(4, "a"), at(5, "b")], 5));
    assert_eq!(tried(&mut ledger, 0), [5], "2 and 4 wait behind 1");
    assert_eq!(ledger.parked(), 3);
    assert_eq!(ledger.next_due(), Some(Timestamp::from_second(60).unwrap()));
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
    let mut ledger = Ledger::new(record);
    ledger.admit(page(vec![at(2, "a"), at(3, "b")], 3));
    assert_eq!(tried(&mut ledger, 0), [3]);
    assert_eq!(tried(&mut ledger, 61), [1]);
}

#[test]
fn a_later_event_never_overtakes_one_that_is_about_to_be_parked() {
    let now = Timestamp::UNIX_EPOCH;
    let mut ledger = Ledger::new(SubscriptionRecord::default());
    ledger.admit(page(vec![at(1, "a"), at(2, "a")], 2));
    assert!(matches!(ledger.next_job(now), Some(Job::First(_))));
    ledger.parked_now(parked(&at(1, "a"), None));
    let Some(Job::ParkBehind(behind)) = ledger.next_job(now) else { panic!("2 is to be parked") };
    assert_eq!(tried(&mut ledger, 0), [1]);
    ledger.finished(Position::new(1), true);
    ledger.admit(page(vec![at(3, "a")], 3));
    assert_eq!(tried(&mut ledger, 0), [] as [u64; 0], "2 is on its way to the store");
    ledger.parked_behind(parked(&behind[0], None));
    assert_eq!(tried(&mut ledger, 0), [2]);
    ledger.finished(Position::new(2), true);
    assert_eq!(tried(&mut ledger, 0), [3]);
}
