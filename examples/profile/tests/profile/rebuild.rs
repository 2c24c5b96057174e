//! The search is made anew while it is used: it never fails, never empties, never goes back, and ends right.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;

use crate::http::Connection;
use crate::seed;
use crate::server::{Folder, Server};

const RENAMES: u64 = 1_000;
const SEARCH_EVERY: Duration = Duration::from_millis(10);
const REBUILDS_MAX_TIME: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_search_is_rebuilt_while_it_is_used() {
    let folder = Folder::new();
    seed::add(&folder, 4_000).await;
    rebuild_under_use(&folder, 2_000, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn the_search_is_rebuilt_while_it_is_used_on_postgres() {
    let folder = Folder::with_postgres().await;
    seed::add(&folder, 4_000).await;
    rebuild_under_use(&folder, 2_000, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "soak: a rebuild of five seconds: cargo xtask soak"]
async fn soak_the_search_is_rebuilt_over_seconds_while_it_is_used() {
    const AT_LEAST: Duration = Duration::from_secs(5);
    let mut events = 100_000;
    loop {
        let folder = Folder::new();
        seed::add(&folder, events).await;
        let took = rebuild_under_use(&folder, events / 2, RENAMES).await;
        println!("a rebuild of {events} events beside {RENAMES} renames took {took:?}");
        if took >= AT_LEAST {
            break;
        }
        // This machine is too fast for so few.
        events *= 2;
    }
}

/// Rebuilds once at least, until a client has renamed so often; how long the first rebuild took.
async fn rebuild_under_use(folder: &Folder, accounts: usize, renames: u64) -> Duration {
    let server = Server::start(folder).await;
    let mut connection = server.connect().await;
    let before = until_caught_up(&mut connection).await;
    let walker = connection.sign_up(&format!("w{accounts}@x.example"), "Walker 0").await.good();
    let walker = walker["userId"].as_str().unwrap().to_owned();
    server.search_until("walker", 1).await;

    let (ends, ended) = watch::channel(false);
    let searching = search(&server, ended);
    let rebuilding = async {
        connection.ask("POST", "/api/v1/admin/search/rebuild", None).await.unwrap().good();
        let began = Instant::now();
        let mut writer = server.connect().await;
        let renaming = async {
            for nth in 1..=renames {
                writer.rename(&walker, &format!("Walker {nth}")).await.good();
            }
        };
        let watching = async {
            while state(&mut connection).await["generation"] == before["generation"] {
                assert!(began.elapsed() < REBUILDS_MAX_TIME, "the rebuild does not end");
                tokio::time::sleep(Duration::from_millis(5)).await; // real time: another process works
            }
            began.elapsed()
        };
        let ((), took) = tokio::join!(renaming, watching);
        until_caught_up(&mut connection).await;
        ends.send_replace(true);
        took
    };
    let (searches, took) = tokio::join!(searching, rebuilding);
    assert!(searches > 2, "{searches} searches in {took:?}");
    let hits = server.search_until("walker", 1).await;
    assert_eq!(hits, [(walker.clone(), format!("Walker {renames}"))]);
    server.stop().await;

    let mut found = seed::found_in(folder).await;
    assert_eq!(found.remove(&walker), Some(format!("Walker {renames}")));
    let mut expect = seed::names(accounts);
    found.retain(|user_id, _| user_id.starts_with("seed"));
    assert!(found == expect, "{:?}", expect.retain(|user_id, name| found.get(user_id) != Some(name)));
    took
}

/// Searches every 10 ms until it is told to end; how often it did.
async fn search(server: &Server, mut ended: watch::Receiver<bool>) -> u64 {
    let mut connection = server.connect().await;
    let mut every = tokio::time::interval(SEARCH_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut searches, mut latest) = (0, 0);
    while !*ended.borrow_and_update() {
        every.tick().await; // real time: so often does a user type
        let found = connection.get("/api/v1/users?q=walk").await.good();
        let [hit] = &found["users"].as_array().unwrap()[..] else { panic!("search {searches}: {found}") };
        let nth: u64 = hit["name"].as_str().unwrap().strip_prefix("Walker ").unwrap().parse().unwrap();
        assert!(nth >= latest, "search {searches} went back from {latest} to {nth}");
        let seeded = connection.get("/api/v1/users?q=grace7%20hopper7").await.good();
        assert_eq!(seeded["users"][0]["name"], "Grace7 Hopper7", "search {searches}: {seeded}");
        (searches, latest) = (searches + 1, nth);
    }
    searches
}

async fn state(connection: &mut Connection) -> Value {
    connection.get("/api/v1/admin/search").await.good()
}

async fn until_caught_up(connection: &mut Connection) -> Value {
    let began = Instant::now();
    loop {
        let state = state(connection).await;
        let is_there = state["eventsBehind"] == 0 && state.get("rebuild").is_none();
        if is_there && state["generation"].as_u64() > Some(0) {
            return state;
        }
        assert!(began.elapsed() < REBUILDS_MAX_TIME, "{state}");
        tokio::time::sleep(Duration::from_millis(20)).await; // real time: another process works
    }
}
