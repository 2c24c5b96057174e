//! SIGTERM under load: whatever had come before the signal is answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::{Mutex, watch};

use crate::http::{self, Connection};
use crate::server::{Folder, Server};
use crate::{alone, soon};

/// Each has one request under way at a time.
const CALLERS: usize = 96;
/// How many answers all callers together have got before the signal comes.
const ANSWERS_BEFORE: u64 = 3 * CALLERS as u64;
/// The least that must be under way in the middle round, else the test would show nothing.
const IN_FLIGHT_MIN: usize = 32;
/// What the program itself allows.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(25);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_leaves_no_request_unanswered_that_came_before_it() {
    let _cores = alone().await;
    rounds(40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "soak: 200 rounds: cargo xtask soak"]
async fn soak_a_signal_leaves_no_request_unanswered_that_came_before_it() {
    let _cores = alone().await;
    rounds(200).await;
}

async fn rounds(rounds: usize) {
    let folder = Folder::new();
    let mut in_flight = Vec::new();
    for round in 0..rounds {
        in_flight.push(one_round(&folder, round).await);
    }
    in_flight.sort_unstable();
    let median = in_flight[rounds / 2];
    println!("{rounds} rounds, in flight at the signal: median {median}, least {}", in_flight[0]);
    assert!(median >= IN_FLIGHT_MIN, "{in_flight:?}");
}

/// What has left before the signal, and whether it came already.
#[derive(Default)]
struct Signal {
    in_flight: usize,
    has_come: bool,
}

/// Gives the number of requests that were under way.
async fn one_round(folder: &Folder, round: usize) -> usize {
    let mut server = Server::start(folder).await;
    let signal = Arc::new(Mutex::new(Signal::default()));
    let answers = watch::Sender::new(0_u64);
    let callers = join_all((0..CALLERS).map(|caller| {
        let (place, signal, answers) = (server.place.clone(), Arc::clone(&signal), answers.clone());
        async move { call(&place, &format!("r{round}c{caller}"), &signal, &answers).await }
    }));
    let terminate = async {
        let mut answers = answers.subscribe();
        soon("enough answers", answers.wait_for(|answers| *answers >= ANSWERS_BEFORE)).await.unwrap();
        let mut signal = signal.lock().await;
        signal.has_come = true;
        server.terminate();
        (signal.in_flight, Instant::now())
    };
    let (unanswered, (in_flight, began)) =
        soon("the last answers", async { tokio::join!(callers, terminate) }).await;
    let unanswered: Vec<String> = unanswered.into_iter().flatten().collect();
    let status = server.ended().await;
    let log = server.log();
    assert!(unanswered.is_empty(), "round {round}: of {in_flight} in flight {unanswered:#?}\n{log}");
    assert_eq!(status.code(), Some(0), "round {round}: {log}");
    assert!(began.elapsed() < DRAIN_TIME_MAX, "round {round}: {log}");
    in_flight
}

/// Signs people up, one after the other, until the signal has come. Says what was not answered although it had left.
async fn call(
    place: &str,
    name: &str,
    signal: &Mutex<Signal>,
    answers: &watch::Sender<u64>,
) -> Option<String> {
    let mut connection = Connection::open(place).await.unwrap();
    for n in 0.. {
        let email = format!("{name}n{n}@example.com");
        let sent = connection.send(&http::sign_up(&email, "Ada", None)).await;
        {
            let mut signal = signal.lock().await;
            if signal.has_come {
                return None;
            }
            sent.unwrap();
            signal.in_flight += 1;
        }
        let answer = connection.answer().await;
        let mut signal = signal.lock().await;
        signal.in_flight -= 1;
        match answer {
            Ok(answer) if answer.status == 200 => answers.send_modify(|answers| *answers += 1),
            other => return Some(format!("{email}: {other:?}")),
        }
        if signal.has_come {
            return None;
        }
    }
    None
}
