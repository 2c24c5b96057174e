//! Duties of the log's order: positions, times, streams, and those who follow.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use purista_core::id::Id;
use purista_events::batch::{Append, Batch};
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::recorded::Recorded;
use purista_events::store::{Direction, EventStore, FollowPage};
use tokio::task::JoinSet;

use super::given::{self, always, event, events, set};
use super::stage::Stage;

const WRITERS: usize = 16;
const BATCHES: usize = 16;
/// How long a follower waits for the next event, while others write as fast as they can.
const PATIENCE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// The first position comes after the start; positions grow in the order of commits and, in a batch, of its events.
pub async fn positions_grow_in_commit_order(stage: &mut Stage) {
    assert_eq!(*stage.store.head().borrow(), Position::START);
    let mut last = Position::START;
    for count in [1, 3, 2] {
        let receipt = stage.append(events(count, "counted", &[])).await;
        assert_eq!(receipt.positions.len(), count);
        for position in receipt.positions {
            assert!(position > last, "{position} comes after {last}");
            last = position;
        }
        assert_eq!(receipt.position, last);
    }
    let without_events = Batch { state: vec![set("alpha", true.into())], ..given::batch() };
    let receipt = stage.commit(without_events).await;
    assert_eq!((receipt.position, receipt.positions), (last, Vec::new()));
    assert_eq!(stage.events().await.len(), 6);
}

/// While 16 write, one who follows page by page finds every event once and in order: none appears behind him.
pub async fn no_event_arrives_late(stage: &mut Stage) {
    let written = WRITERS * BATCHES * 2;
    let mut tasks = JoinSet::new();
    for page in [1, 7, 1000] {
        let store = Arc::clone(&stage.store);
        tasks.spawn(async move { follow(store.as_ref(), &Query::all(), page, written).await });
    }
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&stage.store);
        writers.spawn(async move {
            for number in 0..BATCHES {
                // Batches of one to three events, so that they end at all places.
                let events = events(1 + number % 3, "counted", &[("writer", &writer.to_string())]);
                let appends = vec![always(events)];
                store.commit(Batch { appends, ..given::batch() }).await.expect("committed");
            }
        });
    }
    writers.join_all().await;
    let recorded = stage.events().await.len();
    stage.append(events(written - recorded, "counted", &[])).await;

    let all = stage.events().await;
    check_order(&all);
    for followed in tasks.join_all().await {
        assert_eq!(followed, all);
    }
}

/// Follows until it has found so many events; a follower that an event slipped past waits for it in vain.
async fn follow(store: &dyn EventStore, query: &Query, page: usize, count: usize) -> Vec<Recorded> {
    let (mut found, mut from, mut head) = (Vec::new(), Position::START, store.head());
    while found.len() < count {
        // Marked as seen before the page is read: what is written after it wakes the follower.
        head.mark_unchanged();
        let FollowPage { events, looked_up_to, is_caught_up } =
            store.follow(query, from, page).await.expect("a page is followed");
        assert!(looked_up_to >= from, "a follower never goes back");
        assert!(events.iter().all(|event| event.position > from && event.position <= looked_up_to));
        assert!(events.len() <= page);
        assert!(is_caught_up || looked_up_to > from, "a page that is not the last one leads on");
        found.extend(events);
        from = looked_up_to;
        if is_caught_up && found.len() < count {
            let woken = tokio::time::timeout(PATIENCE, head.changed()).await;
            woken.expect("all events are found, and none slipped past").expect("the store is open");
        }
    }
    found
}

fn check_order(events: &[Recorded]) {
    for pair in events.windows(2) {
        let [earlier, later] = pair else { continue };
        assert!(earlier.position < later.position);
        assert!(earlier.recorded_at <= later.recorded_at);
    }
}

/// Following skips what the query does not select and says how far it looked; the last page says that it is the last.
pub async fn following_says_how_far_it_looked(stage: &mut Stage) {
    let query = Query::types(["wanted".into()]);
    let page = stage.store.follow(&query, Position::START, 10).await.expect("a page is followed");
    assert_eq!(page, FollowPage { events: Vec::new(), looked_up_to: Position::START, is_caught_up: true });

    for _ in 0..3 {
        stage.append(events(30, "other", &[])).await;
        stage.append(vec![event("wanted", &[]), event("wanted", &[])]).await;
    }
    stage.append(events(30, "other", &[])).await;
    let wanted = stage.page(&query, Position::START, Direction::Forwards, 10).await;
    assert_eq!(wanted.len(), 6);

    for limit in [1, 2, 4, 6, 7, 1000, usize::MAX] {
        assert_eq!(follow(stage.store.as_ref(), &query, limit, 6).await, wanted, "in pages of {limit}");
    }
    let head = stage.settled().await;
    let (mut from, mut is_caught_up) = (Position::START, false);
    while !is_caught_up {
        let page = stage.store.follow(&query, from, 1000).await.expect("a page is followed");
        // No page is full here, so that the one that reaches the head knows that it is the last.
        assert_eq!(page.is_caught_up, page.looked_up_to == head);
        assert!(page.looked_up_to > from, "following stands still at {from}");
        (from, is_caught_up) = (page.looked_up_to, page.is_caught_up);
    }
    let page = stage.store.follow(&query, head, 10).await.expect("a page is followed");
    assert_eq!(page, FollowPage { events: Vec::new(), looked_up_to: head, is_caught_up: true });
}

/// Versions of a stream count from 1 without a gap, also while many write to it; refused batches leave no gap.
pub async fn versions_of_a_stream_are_gapless(stage: &mut Stage) {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&stage.store);
        writers.spawn(async move {
            for number in 0..BATCHES {
                let tenant = (writer % 2 == 0).then(|| "north".into());
                let value = (writer % 3).to_string();
                let mut batch = Batch::new(given::id(), tenant);
                batch.appends = vec![always(events(1 + number % 2, "moved", &[("user", &value)]))];
                if number % 4 == 3 {
                    let condition = given::stream("user", &value, u64::MAX);
                    batch.appends.push(Append { events: Vec::new(), condition });
                    store.commit(batch).await.expect_err("its condition does not hold");
                } else {
                    store.commit(batch).await.expect("committed");
                }
            }
        });
    }
    writers.join_all().await;
    let mut streams: HashMap<_, u64> = HashMap::new();
    for event in stage.events().await {
        let (name, value) = event.tags.first().expect("it has a tag");
        let count = streams.entry((event.tenant_id.clone(), name.to_owned(), value.to_owned())).or_default();
        *count += 1;
        assert_eq!(event.stream_version, Some(*count));
    }
    assert_eq!(streams.len(), 6);
}

/// An event without tags has no stream, no version and no order key; the first tag names the stream, and no other.
pub async fn an_event_without_tags_has_no_stream(stage: &mut Stage) {
    let with_two = event("met", &[("meeting", "1"), ("user", "ada")]);
    stage.append(vec![event("slept", &[]), with_two, event("moved", &[("user", "ada")])]).await;
    stage.append(vec![event("slept", &[])]).await;
    let found: Vec<_> = stage.events().await.iter().map(|e| (e.stream_version, e.order_key())).collect();
    let key = |key: &str| Some(key.to_owned());
    assert_eq!(
        found,
        [(None, None), (Some(1), key("\0meeting\u{0}1")), (Some(1), key("\0user\0ada")), (None, None)]
    );
}

/// Recorded times never run backwards, although the clock does; not even when the store was opened again in between.
pub async fn recorded_times_never_run_back(stage: &mut Stage) {
    let first = stage.append(vec![event("moved", &[])]).await;
    assert_eq!(first.recorded_at, stage.clock.time());
    stage.clock.turn_back(HOUR);
    let second = stage.append(vec![event("moved", &[])]).await;
    stage.reopen().await;
    let third = stage.append(vec![event("moved", &[])]).await;
    stage.clock.advance(HOUR * 2);
    let fourth = stage.append(vec![event("moved", &[])]).await;
    assert_eq!(fourth.recorded_at, stage.clock.time());

    let all = stage.events().await;
    check_order(&all);
    let times: Vec<_> = all.iter().map(|event| event.recorded_at).collect();
    assert_eq!(times, [first, second, third, fourth].map(|receipt| receipt.recorded_at));
}

/// `position_at` finds the last position that was recorded at or before a time.
pub async fn position_at_finds_the_last_before_a_time(stage: &mut Stage) {
    let second = Duration::from_secs(1);
    let at = |time| stage.store.position_at(time);
    let start = stage.clock.time();
    assert_eq!(at(start).await.expect("a position is found"), Position::START);

    let mut expected = vec![(start - second, Position::START)];
    let mut before = Position::START;
    for _ in 0..3 {
        // Two batches of one moment: the later one counts.
        stage.append(vec![event("moved", &[])]).await;
        let last = stage.append(events(2, "moved", &[])).await.position;
        let now = stage.clock.time();
        expected.extend([(now - second, before), (now, last), (now + second, last)]);
        before = last;
        stage.clock.advance(second * 10);
    }
    expected.push((stage.clock.time() + HOUR * 24 * 365, before));
    for (time, position) in expected {
        assert_eq!(at(time).await.expect("a position is found"), position, "at {time}");
    }
}

/// The head grows as events are recorded: soon after a commit, the head has its position, and those who wait wake.
pub async fn the_head_wakes_those_who_wait(stage: &mut Stage) {
    let mut early = stage.store.head();
    assert_eq!(*early.borrow_and_update(), Position::START);
    let mut late = early.clone();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move {
        late.changed().await.expect("the store is open");
        *late.borrow()
    });
    let receipt = stage.append(vec![event("moved", &[]), event("moved", &[])]).await;
    assert_eq!(*stage.store.head().borrow(), receipt.position);
    assert_eq!(waiting.join_all().await, [receipt.position]);
    assert!(early.has_changed().expect("the store is open"));
    assert_eq!(*early.borrow_and_update(), receipt.position);

    stage.commit(Batch { state: vec![set("alpha", true.into())], ..given::batch() }).await;
    assert_eq!(*early.borrow_and_update(), receipt.position, "no event, no new head");
    stage.reopen().await;
    assert_eq!(stage.settled().await, receipt.position);
}

/// The last position is that of the last committed event as soon as its commit has returned, whether or not it can be followed
/// yet; a batch without events moves nothing.
pub async fn the_last_position_is_that_of_the_last_commit(stage: &mut Stage) {
    let last = async |stage: &Stage| stage.store.last_position().await.expect("the last position is read");
    assert_eq!(last(stage).await, Position::START);
    for count in [1, 3, 2, 1, 1, 1, 1, 1] {
        let batch = given::appends(events(count, "counted", &[]));
        let position = stage.store.commit(batch).await.expect("committed").position;
        assert_eq!(last(stage).await, position);
        assert!(*stage.store.head().borrow() <= position);
    }
    let before = last(stage).await;
    stage.commit(Batch { state: vec![set("alpha", true.into())], ..given::batch() }).await;
    assert_eq!(last(stage).await, before);
    stage.reopen().await;
    assert_eq!(last(stage).await, before);
}

/// A commit that returned is seen by every read that begins after it, and by followers when the head says so.
pub async fn what_is_committed_is_seen_at_once(stage: &mut Stage) {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&stage.store);
        writers.spawn(async move {
            let query = Query::tag("writer", writer.to_string());
            for number in 1..=BATCHES {
                let event = event("counted", &[("writer", &writer.to_string())]);
                let id: Id = event.id.clone();
                let appends = vec![always(vec![event])];
                let batch = Batch { appends, ..given::batch() };
                let receipt = store.commit(batch).await.expect("committed");
                let (view, _) = super::stage::view(&*store, &query).await;
                assert_eq!(view.len(), number);
                assert!(super::stage::reached(&*store, receipt.position).await >= receipt.position);
                let page = store.follow(&Query::all(), receipt.position.previous(), 1).await;
                let followed = page.expect("a page is followed").events;
                assert_eq!(followed.first().map(|event| &event.id), Some(&id));
            }
        });
    }
    writers.join_all().await;
}
