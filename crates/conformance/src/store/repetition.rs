//! Duties towards those who ask again: ids of batches, keys of replies, messages of a bridge.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use purista_events::batch::{Append, Batch, Receipt, ReplyKey, StoredReply};
use purista_events::fingerprint::Fingerprint;
use purista_events::lost_answer::commit_until_known;
use purista_events::store::StoreError;
use purista_events::store::StoreErrorKind::{AlreadyDone, KeyTaken, Overloaded, Unknown};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::given::{self, event, stream, subscription};
use super::stage::Stage;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The same id again returns the first receipt and writes nothing, whatever the batch holds, and whatever has become
/// of its conditions, its key, its progress and its deadline since.
pub async fn a_repeated_batch_returns_the_first_receipt(stage: &mut Stage) {
    let batch = given::everything(&stage.clock, 1);
    let first = stage.commit(batch.clone()).await;
    stage.append(vec![event("went on", &[("order", "1")])]).await;
    stage.clock.advance(MINUTE);
    let contents = stage.contents().await;
    let repeated = Receipt { is_repeated: true, ..first };

    assert_eq!(stage.commit(batch.clone()).await, repeated);
    let late = Batch { deadline: Some(Instant::now()), ..batch.clone() };
    assert_eq!(stage.commit(late).await, repeated);
    let other = Batch { id: batch.id, ..given::everything(&stage.clock, 2) };
    assert_eq!(stage.commit(other).await, repeated);
    assert_eq!(stage.contents().await, contents);
}

/// Of many that commit one batch at the same time, one does it, and all have the one receipt.
pub async fn a_batch_committed_many_times_at_once_happens_once(stage: &mut Stage) {
    let batch = given::everything(&stage.clock, 1);
    let mut commits = JoinSet::new();
    for _ in 0..32 {
        let (store, batch) = (Arc::clone(&stage.store), batch.clone());
        commits.spawn(async move { store.commit(batch).await.expect("the batch is committed") });
    }
    let receipts = commits.join_all().await;
    assert_eq!(receipts.iter().filter(|receipt| !receipt.is_repeated).count(), 1);
    let first = receipts.iter().find(|receipt| !receipt.is_repeated).expect("one did it");
    let repeated = Receipt { is_repeated: true, ..first.clone() };
    assert!(receipts.iter().all(|receipt| receipt == first || *receipt == repeated));
    assert_eq!(stage.events().await.len(), 3);
}

/// A commit whose answer is lost is found by its id when the store is back; while it is away, nobody calls it refused.
pub async fn a_commit_whose_answer_is_lost_is_recovered(stage: &mut Stage) {
    let batch = given::everything(&stage.clock, 1);
    for is_away_for in [2, u32::MAX] {
        let commits = AtomicU32::new(0);
        let commit = |batch: Batch| {
            let (store, number) = (Arc::clone(&stage.store), commits.fetch_add(1, Ordering::Relaxed));
            async move {
                match number {
                    0 => {
                        store.commit(batch).await?;
                        Err(StoreError::new(Unknown, "the answer is lost"))
                    }
                    number if number <= is_away_for => Err(StoreError::new(Overloaded, "the store is away")),
                    _ => store.commit(batch).await,
                }
            }
        };
        match commit_until_known(batch.clone(), commit).await {
            Ok(receipt) => assert!(receipt.is_repeated && is_away_for == 2, "it was committed once"),
            Err(error) => assert_eq!((error.kind(), is_away_for), (Unknown, u32::MAX), "{error}"),
        }
        assert_eq!(stage.events().await.len(), 3);
    }
}

/// The ids of batches are known for seven days, also after the store was opened again.
pub async fn ids_of_batches_are_kept_for_seven_days(stage: &mut Stage) {
    let batch = given::everything(&stage.clock, 1);
    let empty = given::batch();
    let first = stage.commit(batch.clone()).await;
    let of_nothing = stage.commit(empty.clone()).await;
    assert_eq!((of_nothing.position, of_nothing.positions.len()), (first.position, 0));
    for _ in 0..2 {
        stage.clock.advance(DAY * 3);
        // Other batches come and go; an engine may use them to forget what is old.
        stage.append(vec![event("went on", &[])]).await;
        stage.reopen().await;
        assert_eq!(stage.commit(batch.clone()).await, Receipt { is_repeated: true, ..first.clone() });
        assert_eq!(stage.commit(empty.clone()).await, Receipt { is_repeated: true, ..of_nothing.clone() });
    }
    assert_eq!(stage.events().await.len(), 5);
}

/// A key keeps its reply as it was given: another batch with that key is refused. Another scope, another key and
/// another tenant are other keys.
pub async fn a_key_holds_one_reply(stage: &mut Stage) {
    let batch = |reply: StoredReply| Batch { reply: Some(reply), ..given::appends(vec![event("done", &[])]) };
    stage.commit(batch(given::reply(1))).await;
    stage.refuse(batch(given::reply(1)), KeyTaken).await;
    let other_input = StoredReply { fingerprint: Fingerprint([9; 16]), ..given::reply(1) };
    stage.refuse(batch(other_input), KeyTaken).await;

    let scope = ReplyKey { scope: "bob@User.1.signUp".into(), ..given::reply_key(1) };
    let without_body = StoredReply { key: scope.clone(), body: None, event_name: None, ..given::reply(1) };
    stage.commit(batch(without_body.clone())).await;
    stage.commit(batch(given::reply(2))).await;
    let of_tenant = StoredReply { body: Some("null".into()), ..given::reply(1) };
    stage.commit(Batch { reply: Some(of_tenant.clone()), ..given::batch_of("north") }).await;

    assert_eq!(stage.reply(None, &given::reply_key(1)).await, Some(given::reply(1)));
    assert_eq!(stage.reply(None, &scope).await, Some(without_body));
    assert_eq!(stage.reply(Some("north"), &given::reply_key(1)).await, Some(of_tenant));
    assert_eq!(stage.reply(Some("south"), &given::reply_key(1)).await, None);
    assert_eq!(stage.reply(None, &given::reply_key(3)).await, None);
}

/// Of many batches that bring one key at the same time, one is committed, and the others learn that it is taken.
pub async fn of_many_with_one_key_one_wins(stage: &mut Stage) {
    let mut commits = JoinSet::new();
    for _ in 0..32 {
        let store = Arc::clone(&stage.store);
        let batch = Batch { reply: Some(given::reply(1)), ..given::appends(vec![event("done", &[])]) };
        commits.spawn(async move { store.commit(batch).await.map_err(|error| error.kind()) });
    }
    let ends = commits.join_all().await;
    assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 1);
    assert!(ends.into_iter().filter_map(Result::err).all(|kind| kind == KeyTaken));
    assert_eq!(stage.events().await.len(), 1);
}

/// A key that is taken and a finished position are said before a condition that does not hold either: who lost a race
/// against himself learns of that, and not of the race.
pub async fn what_is_done_is_said_before_a_conflict(stage: &mut Stage) {
    stage.commit(given::everything(&stage.clock, 1)).await;
    let guard = Append { events: Vec::new(), condition: stream("order", "1", 0) };
    let lost = Batch { appends: vec![guard], ..given::batch() };
    stage.refuse(Batch { reply: Some(given::reply(1)), ..lost.clone() }, KeyTaken).await;
    let done = vec![given::done(&subscription(), 1)];
    stage.refuse(Batch { progress: done, ..lost.clone() }, AlreadyDone).await;
    let consumed = Some((subscription(), given::message(1)));
    stage.refuse(Batch { consumed, reply: Some(given::reply(1)), ..lost }, AlreadyDone).await;
}

/// A reply is kept for seven days; then its key is free.
pub async fn a_reply_expires_after_seven_days(stage: &mut Stage) {
    let batch = || Batch { reply: Some(given::reply(1)), ..given::batch() };
    stage.commit(batch()).await;
    stage.clock.advance(DAY * 6 + MINUTE * 60 * 23);
    stage.refuse(batch(), KeyTaken).await;
    assert_eq!(stage.reply(None, &given::reply_key(1)).await, Some(given::reply(1)));

    stage.clock.advance(MINUTE * 60 * 2);
    assert_eq!(stage.reply(None, &given::reply_key(1)).await, None);
    let later = StoredReply { body: Some("2".into()), ..given::reply(1) };
    stage.commit(Batch { reply: Some(later.clone()), ..given::batch() }).await;
    assert_eq!(stage.reply(None, &given::reply_key(1)).await, Some(later));
}

/// A message of a bridge is handled once for a subscription; other subscriptions and other messages are their own.
pub async fn a_message_is_consumed_once(stage: &mut Stage) {
    let [email, search, _] = given::subscriptions();
    let consumed = |subscription: &_, number| {
        let consumed = Some((Clone::clone(subscription), given::message(number)));
        Batch { consumed, ..given::appends(vec![event("handled", &[])]) }
    };
    assert!(!stage.is_consumed(&email, &given::message(1)).await);
    stage.commit(consumed(&email, 1)).await;
    stage.refuse(consumed(&email, 1), AlreadyDone).await;
    assert!(stage.is_consumed(&email, &given::message(1)).await);
    assert!(!stage.is_consumed(&search, &given::message(1)).await);
    assert!(!stage.is_consumed(&email, &given::message(2)).await);

    stage.commit(consumed(&search, 1)).await;
    stage.commit(consumed(&email, 2)).await;
    stage.clock.advance(DAY * 6);
    stage.refuse(consumed(&email, 1), AlreadyDone).await;
    stage.reopen().await;
    assert!(stage.is_consumed(&email, &given::message(1)).await);
    assert_eq!(stage.store.subscriptions().await.expect("subscriptions are read").len(), 2);
    stage.clock.advance(DAY * 8);
    assert!(!stage.is_consumed(&email, &given::message(1)).await);
    // Whether its rows are still there is the engine's affair.
    assert_eq!(stage.store.subscriptions().await.expect("subscriptions are read"), []);
}
