//! A process that has no file descriptors left accepts again once it has some.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command as Program, Stdio};

use crate::support::{Builder, Connection, gateway, request};

/// Says to this test, started by itself, that it is the gateway.
const IS_GATEWAY: &str = "PURISTA_TEST_FEW_FILES";
/// How many file descriptors the gateway may have; the runtime needs about ten.
const FILES: usize = 40;

#[tokio::test]
async fn accepting_pauses_while_no_files_are_left_and_goes_on_afterwards() {
    if std::env::var_os(IS_GATEWAY).is_some() {
        return be_the_gateway().await;
    }
    let mut child = Program::new("sh")
        .args(["-c", &format!("ulimit -n {FILES} && exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("few_files::accepting_pauses_while_no_files_are_left_and_goes_on_afterwards")
        .env(IS_GATEWAY, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(child.stdout.take().unwrap()).lines();
    let address =
        told.find_map(|line| line.unwrap().split_once("open at ").map(|(_, at)| at.to_owned())).unwrap();
    let mut connections = Vec::new();
    for _ in 0..2 * FILES {
        let mut connection = Connection::to(&address).await;
        connection.send(&request("GET /healthz", &[], "")).await;
        connections.push(connection);
    }
    // The last ones wait in the system's queue, since the first ones hold all that the process may have.
    assert_eq!(connections[0].reply().await.status, 200);
    let mut last = connections.pop().unwrap();
    assert!(futures_util::poll!(Box::pin(last.reply())).is_pending());
    drop(connections);
    assert_eq!(last.reply().await.status, 200);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

async fn be_the_gateway() {
    let open = Builder::full().await.open(gateway()).await;
    println!("open at {}", open.address);
    let stop = open.house.stop.clone();
    open.house.tasks.spawn_blocking(move || {
        let _ = std::io::stdin().read(&mut [0]);
        stop.cancel();
    });
    open.closed.await;
}
