//! Two processes share the work of one store: one is killed in the middle of it, the server crashes under both, and what comes out is
//! exact.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something is not as it should be"
)]

mod workers;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use purista_servers::postgres::{Postgres, fresh_name};
use workers::{Place, Worker};

/// How long anything may take that takes some seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long another may take to go on.
const TAKES_OVER_WITHIN: Duration = Duration::from_secs(10);
/// The same when the process that works is stopped, and says nothing of it.
const FROZEN_WITHIN: Duration = Duration::from_secs(15);
/// How many mails are in flight at a time.
const IN_FLIGHT: usize = 4;
/// How many orders are taken between two deaths.
const ORDERS: usize = 120;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn when_the_process_that_works_is_killed_another_goes_on_and_nothing_is_counted_twice_or_lost() {
    let (server, schema) = (Postgres::start(), fresh_name());
    let place = Place::new(&server, &schema).await;
    let mut working = Worker::start(&place).await;
    place.order(1).await;
    working.mails(1, PATIENCE).await;
    let mut waiting = Worker::start(&place).await;
    let mut mailed = Vec::new();
    for round in 1..=3 {
        let before = working.mailed();
        let orders = place.order_beside(ORDERS);
        working.mails(before + 10, PATIENCE).await;
        assert_eq!(waiting.mailed(), 0, "one at a time mails, and not the other");
        // In the middle of its mails and of its counting.
        let since = Instant::now();
        mailed.extend(working.kill().await);
        waiting.mails(1, TAKES_OVER_WITHIN).await;
        println!("the other mails {:?} after the kill", since.elapsed());
        assert!(since.elapsed() < TAKES_OVER_WITHIN);
        orders.await;
        let expected = 1 + round * ORDERS;
        place.until_counted(expected, TAKES_OVER_WITHIN).await;
        place.until_mailed(expected, PATIENCE).await;
        working = std::mem::replace(&mut waiting, Worker::start(&place).await);
    }
    let looked = place.run(&["order-and-look"]).await;
    assert_eq!(
        looked.trim(),
        "1 by another: true",
        "who waits for his own order sees it, counted by another"
    );
    place.until_mailed(2 + 3 * ORDERS, PATIENCE).await;
    assert_eq!(waiting.mailed(), 0, "nobody has taken its place");
    mailed.extend(working.kill().await);
    place.is_exact(2 + 3 * ORDERS, &mailed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn when_the_process_that_works_is_stopped_another_continues_and_the_stopped_one_begins_nothing_more() {
    let (server, schema) = (Postgres::start(), fresh_name());
    let place = Place::new(&server, &schema).await;
    let mut frozen = Worker::start(&place).await;
    place.order(1).await;
    frozen.mails(1, PATIENCE).await;
    let mut other = Worker::start(&place).await;
    let orders = place.order_beside(ORDERS);
    frozen.mails(10, PATIENCE).await;
    let since = Instant::now();
    frozen.signal("STOP").await;
    other.mails(1, FROZEN_WITHIN).await;
    println!("the other mails {:?} after the first was stopped", since.elapsed());
    orders.await;
    place.until_mailed(1 + ORDERS, PATIENCE).await;
    place.until_counted(1 + ORDERS, PATIENCE).await;
    frozen.signal("CONT").await;
    // It is awake again when it has seen that it is not its turn; orders that come meanwhile are the other's.
    let before = other.mailed();
    place.order(ORDERS).await;
    place.until_mailed(1 + 2 * ORDERS, PATIENCE).await;
    place.until_counted(1 + 2 * ORDERS, PATIENCE).await;
    assert_eq!(other.mailed(), before + ORDERS, "the one that was stopped has no lease");
    let mut mailed = frozen.kill().await;
    mailed.extend(other.kill().await);
    place.is_exact(1 + 2 * ORDERS, &mailed).await;
    let different: BTreeSet<&String> = mailed.iter().collect();
    let twice = mailed.len() - different.len();
    assert!(twice <= IN_FLIGHT, "only what was in flight when it was stopped is mailed twice: {twice}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn one_key_in_two_processes_has_one_effect_and_equal_answers() {
    let (server, schema) = (Postgres::start(), fresh_name());
    let place = Place::new(&server, &schema).await;
    // The tables are there before they race.
    place.order(1).await;
    for round in 1..=5 {
        let key = format!("key-{round}");
        let role = ["order-once", &key, "32"];
        let (one, other) = tokio::join!(place.run(&role), place.run(&role));
        let answers: Vec<_> = one.lines().chain(other.lines()).collect();
        assert_eq!(answers.len(), 64);
        assert!(answers.iter().all(|answer| *answer == answers[0]), "round {round}: {answers:?}");
        assert_eq!(place.ordered().await, 1 + round, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn when_the_server_crashes_under_them_the_work_goes_on_afterwards() {
    let (server, schema) = (Postgres::start(), fresh_name());
    let place = Place::new(&server, &schema).await;
    let (mut one, mut two) = (Worker::start(&place).await, Worker::start(&place).await);
    let mut expected = 0;
    for _ in 0..2 {
        place.order(ORDERS).await;
        expected += ORDERS;
        // In the middle of it.
        assert!(!place.is_mailed(expected).await);
        server.crash();
        tokio::time::sleep(Duration::from_secs(1)).await; // real time: they notice
        server.restart();
        let place = Place::new(&server, &schema).await;
        let since = Instant::now();
        place.until_counted(expected, PATIENCE).await;
        place.until_mailed(expected, PATIENCE).await;
        println!("everything is done {:?} after the restart", since.elapsed());
    }
    let place = Place::new(&server, &schema).await;
    let mailed = [one.kill().await, two.kill().await].concat();
    place.is_exact(expected, &mailed).await;
}
