//! kill -9 at any time: what was answered is kept, and its mail is written.
//!
//! The oracle is this process, which sees only what everybody outside sees, and in the end the log.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use purista_core::clock::Clock;
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::store::{Direction, EventStore as _, PAGE_MAX};
use purista_sqlite::store::SqliteStore;
use serde_json::Value;

use crate::http::{self, Connection};
use crate::server::{Folder, Server};
use crate::{PATIENCE, alone, mails, within};

const WRITERS: usize = 16;
/// How long a process lives under load before it is killed, at least and at most.
const LIFE_MS: (u64, u64) = (20, 400);
/// How long a process is left alone, each time, to know what it answers then.
const UNDISTURBED: Duration = Duration::from_secs(3);
/// How long one of the mails that are left after the last start may take, with the disk's share of its flushes.
const MAIL_TIME_MAX: Duration = Duration::from_millis(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_loses_an_answered_sign_up_or_its_mail() {
    let _cores = alone().await;
    rounds(40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "soak: 200 rounds: cargo xtask soak"]
async fn soak_no_kill_loses_an_answered_sign_up_or_its_mail() {
    let _cores = alone().await;
    rounds(200).await;
}

async fn rounds(rounds: usize) {
    let (folder, clock, oracle) = (Folder::new(), Clock::system(), Oracle::default());
    // Before and behind the rounds: what else the machine does may change on the way.
    let before = undisturbed().await;
    let mut alive = Duration::ZERO;
    for round in 0..rounds {
        let server = Server::start(&folder).await;
        oracle.ask_again(&server).await;
        let span = LIFE_MS.1 - LIFE_MS.0;
        let life =
            Duration::from_millis(LIFE_MS.0 + u64::try_from(clock.random() % u128::from(span)).unwrap());
        let began = Instant::now();
        oracle.write_until_killed(server, round, life).await;
        alive += began.elapsed();
    }
    let answered = oracle.at_once.load(Ordering::Relaxed);
    oracle.check(&folder).await;

    let expected = f64::midpoint(before, undisturbed().await) * alive.as_secs_f64();
    println!("{rounds} rounds in {alive:?}: {answered} answered; undisturbed {expected:.0}");
    assert!(f64::from(2 * answered) >= expected, "{answered} answered, undisturbed {expected:.0}");
}

/// How many are answered a second by a process that nobody kills.
async fn undisturbed() -> f64 {
    let (folder, oracle) = (Folder::new(), Oracle::default());
    let (server, began) = (Server::start(&folder).await, Instant::now());
    oracle.write_until_killed(server, 0, UNDISTURBED).await;
    f64::from(oracle.at_once.load(Ordering::Relaxed)) / began.elapsed().as_secs_f64()
}

/// Knows what was answered, and what may have happened.
#[derive(Default)]
struct Oracle {
    /// User ids by e-mail address.
    answered: Mutex<HashMap<String, String>>,
    /// How many of them at the first time of asking.
    at_once: AtomicU32,
    /// What was asked and not answered, with its key.
    open: Mutex<Vec<(String, String)>>,
}

impl Oracle {
    async fn write_until_killed(&self, server: Server, round: usize, life: Duration) {
        let place = server.place.clone();
        let killed = async {
            tokio::time::sleep(life).await; // real time: a crash comes when it comes
            server.kill().await;
        };
        let writers = (0..WRITERS).map(|writer| self.write(&place, format!("r{round}w{writer}")));
        tokio::join!(join_all(writers), killed);
    }

    /// Signs people up, one after the other, until the server is gone.
    async fn write(&self, place: &str, name: String) {
        let Ok(mut connection) = Connection::open(place).await else { return };
        for n in 0.. {
            let (email, key) = (format!("{name}n{n}@example.com"), format!("{name}n{n}"));
            let request = http::sign_up(&email, "Ada", Some(&key));
            let answer = match connection.send(&request).await {
                Ok(()) => connection.answer().await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(answer) => {
                    self.answered.lock().unwrap().insert(email, answer.user_id());
                    self.at_once.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => return self.open.lock().unwrap().push((email, key)),
            }
        }
    }

    /// What a client does that got no answer: the same again, under the same key. Never is its own address taken.
    async fn ask_again(&self, server: &Server) {
        let open = std::mem::take(&mut *self.open.lock().unwrap());
        let answers = open.into_iter().map(|(email, key)| async move {
            let answer = server.ask(&http::sign_up(&email, "Ada", Some(&key))).await;
            self.answered.lock().unwrap().insert(email, answer.user_id());
        });
        join_all(answers).await;
    }

    /// After one start more: every address is taken, every mail is written, and the log holds each address once.
    async fn check(&self, folder: &Folder) {
        let server = Server::start(folder).await;
        self.ask_again(&server).await;
        let answered = self.answered.lock().unwrap().clone();
        let addresses: Vec<&str> = answered.keys().map(String::as_str).collect();
        let share = addresses.len().div_ceil(WRITERS).max(1);
        let checks = addresses.chunks(share).map(async |addresses| {
            let mut connection = Connection::open(&server.place).await.unwrap();
            for email in addresses {
                connection.send(&http::sign_up(email, "Ada", None)).await.unwrap();
                assert_eq!(
                    connection.answer().await.unwrap().status,
                    409,
                    "{email} was answered and is free"
                );
            }
        });
        join_all(checks).await;
        let written = mails::until_written(folder, &addresses);
        let time_max = PATIENCE + MAIL_TIME_MAX * u32::try_from(addresses.len()).unwrap();
        let mails = within(time_max, "all mails", written).await;
        for mail in &mails {
            let user_id = &answered[mail.to()];
            assert!(mail.body.contains(user_id), "{mail:?} is to {user_id}");
        }
        server.stop().await;
        assert_eq!(accounts(folder).await, answered);
    }
}

/// The user ids by e-mail address, from the log; no address twice.
async fn accounts(folder: &Folder) -> HashMap<String, String> {
    let store = SqliteStore::open(folder.data().join("sign-up.db")).unwrap();
    let (mut accounts, mut ids, mut from) = (HashMap::new(), HashSet::new(), Position::START);
    loop {
        let page = store.read(&Query::all(), from, Direction::Forwards, PAGE_MAX).await.unwrap();
        let Some(last) = page.last() else { return accounts };
        from = last.position;
        for event in &page {
            let body: Value = serde_json::from_slice(&event.body).unwrap();
            let text = |field: &str| body[field].as_str().unwrap().to_owned();
            let (email, user_id) = (text("email"), text("userId"));
            assert!(ids.insert(user_id.clone()), "{user_id} is two users");
            assert_eq!(accounts.insert(email.clone(), user_id), None, "{email} is two accounts");
        }
    }
}
