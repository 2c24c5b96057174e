//! What is there, the mark, and what comes.

use std::time::Duration;

use super::*;
use crate::memory::MemoryStore;
use crate::samples::{append, joined, left, new_event};

fn follower(store: &MemoryStore, query: Query) -> Follower {
    Follower::new(Arc::new(store.clone()), query, Position::START)
}

async fn join(store: &MemoryStore, count: usize) {
    append(store, None, (0..count).map(|n| new_event(&joined(&n.to_string()))).collect()).await;
}

async fn next(follower: &mut Follower) -> Result<u64, u64> {
    match follower.next().await.unwrap() {
        Followed::Event(event) => Ok(event.position.number()),
        Followed::CaughtUp(position) => Err(position.number()),
    }
}

#[tokio::test]
async fn the_mark_comes_after_what_was_there_and_before_what_comes() {
    let store = MemoryStore::default();
    join(&store, 2).await;
    let mut follower = follower(&store, Query::all());
    assert_eq!(next(&mut follower).await, Ok(1));
    assert_eq!(next(&mut follower).await, Ok(2));
    assert_eq!(next(&mut follower).await, Err(2));
    let (live, ()) = tokio::join!(next(&mut follower), join(&store, 1));
    assert_eq!(live, Ok(3));
    assert_eq!(next(&mut follower).await, Err(3));
}

#[tokio::test]
async fn an_empty_log_is_caught_up_at_once() {
    let mut follower = follower(&MemoryStore::default(), Query::all());
    assert_eq!(next(&mut follower).await, Err(0));
}

#[tokio::test]
async fn the_mark_moves_also_where_nothing_is_selected() {
    let store = MemoryStore::default();
    let mut follower = follower(&store, Query::types(["left".into()]));
    assert_eq!(next(&mut follower).await, Err(0));
    let (mark, ()) = tokio::join!(next(&mut follower), join(&store, 3));
    assert_eq!(mark, Err(3));
    append(&store, None, vec![new_event(&left("0"))]).await;
    assert_eq!(next(&mut follower).await, Ok(4));
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_has_caught_up_waits() {
    let mut follower = follower(&MemoryStore::default(), Query::all());
    assert_eq!(next(&mut follower).await, Err(0));
    assert!(tokio::time::timeout(Duration::from_secs(600), follower.next()).await.is_err());
}

#[tokio::test]
async fn a_long_log_is_followed_with_a_bounded_buffer() {
    let store = MemoryStore::default();
    for _ in 0..20 {
        join(&store, 1_000).await;
    }
    let mut follower = follower(&store, Query::all());
    let mut held = 0;
    for position in 1..=20_000 {
        assert_eq!(next(&mut follower).await, Ok(position));
        held = held.max(follower.held());
    }
    assert_eq!(next(&mut follower).await, Err(20_000));
    assert!(held > 1 && held < FOLLOWED_MAX, "{held}");
}

#[tokio::test]
async fn after_an_error_it_goes_on_where_it_was() {
    let store = MemoryStore::default();
    join(&store, 2).await;
    let mut follower = follower(&store, Query::all());
    store.fail_next_reads(1);
    assert!(follower.next().await.is_err());
    assert_eq!(next(&mut follower).await, Ok(1));
}
