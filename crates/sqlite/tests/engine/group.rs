//! One fsync for many commits.

use std::process::Command;
use std::time::Duration;

use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::store::{EventStore as _, StoreErrorKind};
use purista_sqlite::store::SqliteStore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::folder::Folder;
use crate::given::{self, batch};
use crate::workload;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_callers_share_their_groups() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file()).unwrap();
    let mut callers = JoinSet::new();
    for caller in 0..64 {
        let store = store.clone();
        callers.spawn(async move {
            for _ in 0..20 {
                store.commit(batch(&caller.to_string())).await.unwrap();
            }
        });
    }
    callers.join_all().await;
    let statistics = store.statistics();
    assert_eq!(statistics.commits, 64 * 20);
    assert!(statistics.groups * 16 <= statistics.commits, "{statistics:?}");
}

#[tokio::test]
async fn a_lone_caller_gets_a_group_of_its_own() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file()).unwrap();
    for _ in 0..10 {
        store.commit(batch("one")).await.unwrap();
    }
    assert_eq!(store.statistics().groups, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_has_a_bound() {
    let folder = Folder::new();
    let store = SqliteStore::builder(folder.file()).group_max(4).open().unwrap();
    let mut callers = JoinSet::new();
    for _ in 0..40 {
        let store = store.clone();
        callers.spawn(async move { store.commit(batch("one")).await.unwrap() });
    }
    callers.join_all().await;
    assert!(store.statistics().groups >= 10, "{:?}", store.statistics());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_write_ahead_log_stays_short_beside_readers() {
    let folder = Folder::new();
    let store = SqliteStore::builder(folder.file()).checkpoint_pages(64).open().unwrap();
    let mut readers = JoinSet::new();
    for _ in 0..3 {
        let store = store.clone();
        readers.spawn(async move {
            while store.poisoned().is_none() {
                let Ok(_) = store.read_view(&Query::all(), Position::START).await else { return };
            }
        });
    }
    let mut longest = 0;
    for _ in 0..1_000 {
        store.commit(batch("one")).await.unwrap();
        longest = longest.max(store.statistics().wal_pages);
    }
    assert!(store.statistics().checkpoints > 0);
    // Without restarts it would be some thousands: each commit brings several pages.
    assert!(longest < 64 * 32, "the log grew to {longest} pages");
    store.close().await.unwrap();
    readers.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_after_the_deadline_and_keeps_its_word() {
    let folder = Folder::new();
    let store = SqliteStore::builder(folder.file()).busy_timeout(Duration::from_secs(60)).open().unwrap();
    // Somebody else holds the file, so nothing is written for a while.
    let mut other = rusqlite::Connection::open(folder.file()).unwrap();
    let hold = other.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    let mut waiting: Vec<_> =
        (0..purista_sqlite::store::QUEUE_MAX).map(|_| store.commit(batch("one"))).collect();
    for commit in &mut waiting {
        assert!(futures_util::poll!(commit).is_pending());
    }
    let mut late = batch("late");
    late.deadline = Some(Instant::now() + Duration::from_millis(50));
    assert_eq!(store.commit(late).await.unwrap_err().kind(), StoreErrorKind::Overloaded);
    drop(hold);
    for commit in waiting {
        commit.await.unwrap();
    }
    let view = given::view(&store, &Query::tag("thing", "late")).await.unwrap().0;
    assert_eq!(view, []);
}

#[test]
#[ignore = "needs strace: cargo xtask test"]
fn commits_of_many_callers_share_their_syncs() {
    let folder = Folder::new();
    let counts = folder.path().join("counts");
    let mut command = Command::new("strace");
    command.args(["-f", "-c", "-e", "trace=fsync,fdatasync,sync_file_range,msync", "-o"]).arg(&counts);
    command.arg(workload::program()).args(workload::arguments(&folder.file(), 64, 50));
    let said = workload::run(&mut command);
    assert!(said.is_unharmed);
    assert_eq!(said.count, 64 * 50);
    let table = std::fs::read_to_string(&counts).unwrap();
    let syncs: usize = table
        .lines()
        .filter(|line| line.contains("sync"))
        .map(|line| line.split_whitespace().nth(3).unwrap().parse::<usize>().unwrap())
        .sum();
    println!("{} commits, {syncs} syncs: {} commits a sync", said.count, said.count / syncs.max(1));
    // How many share one depends on what else the machine does; the bench `durable` measures it against its goal, 16.
    assert!(syncs > 0 && said.count >= 4 * syncs, "{} commits took {syncs} syncs\n{table}", said.count);
}

/// What is not flushed by itself must not teach the commits beside it.
#[test]
#[ignore = "needs strace: cargo xtask test"]
fn commits_are_flushed_also_beside_a_projection() {
    let folder = Folder::new();
    let counts = folder.path().join("counts");
    let mut command = Command::new("strace");
    command.args(["-f", "-c", "-e", "trace=fsync,fdatasync", "-o"]).arg(&counts);
    command.arg(workload::program()).args(workload::arguments(&folder.file(), 1, 100));
    let said = workload::run(&mut command);
    assert!(said.is_unharmed);
    let table = std::fs::read_to_string(&counts).unwrap();
    let syncs: usize = table
        .lines()
        .filter(|line| line.contains("sync"))
        .map(|line| line.split_whitespace().nth(3).unwrap().parse::<usize>().unwrap())
        .sum();
    assert!(said.count == 100 && syncs >= 100, "{} commits took {syncs} syncs\n{table}", said.count);
}
