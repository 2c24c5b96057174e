//! Killed at any moment, it comes back with everything that it acknowledged, and nothing in part.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use purista_core::clock::Clock;

use crate::folder::Folder;
use crate::workload::{self, Said};

const TASKS: usize = 16;

/// Kills a writer after a random time, again and again, each time on a new file, and looks at what is left; then lets the
/// projection count the rest.
fn kill_at_random_times(rounds: usize) {
    let clock = Clock::system();
    let (mut acknowledged, mut found, mut behind) = (0, 0, 0);
    for round in 0..rounds {
        let folder = Folder::new();
        let mut writer = Command::new(workload::program())
            .args(workload::arguments(&folder.file(), TASKS, 0))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The parent reads while the writer writes, or the pipe would fill and hold it back.
        let mut pipe = writer.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            pipe.read_to_end(&mut text).unwrap();
            text
        });
        let wait = Duration::from_millis(1) + Duration::from_millis(499).mul_f64(clock.fraction());
        std::thread::sleep(wait); // real time: the process is killed at a random moment
        writer.kill().unwrap();
        writer.wait().unwrap();
        let text = String::from_utf8(reader.join().unwrap()).unwrap();
        let said = Said::parse(&text);
        assert_eq!(said.failures, [""; 0], "round {round}");
        acknowledged += said.count;
        found += workload::verify(&folder.file(), TASKS, &said.acknowledged);
        let connection = rusqlite::Connection::open(folder.file()).unwrap();
        behind += usize::from(workload::check_projection(&connection) == Some(false));
        drop(connection);
        let mut rest = Command::new(workload::program());
        rest.args(workload::arguments(&folder.file(), 0, 1));
        assert!(workload::run(&mut rest).is_unharmed);
        let connection = rusqlite::Connection::open(folder.file()).unwrap();
        assert_eq!(workload::check_projection(&connection), Some(true), "round {round}");
    }
    println!(
        "{rounds} rounds: {acknowledged} acknowledged, {found} found, LOST=0; {behind} with events to be counted"
    );
    assert!(behind > 0, "no projection was killed on its way");
    assert!(acknowledged > rounds, "the writers were killed before they wrote");
}

#[test]
fn nothing_acknowledged_is_lost_when_it_is_killed() {
    kill_at_random_times(40);
}

#[test]
#[ignore = "soak: 200 rounds: cargo xtask soak"]
fn soak_nothing_acknowledged_is_lost_when_it_is_killed() {
    kill_at_random_times(200);
}

/// Kills the writer at its N-th call of each kind that changes the disk, for N from 1 on, until it ends unharmed.
#[test]
#[ignore = "needs strace: cargo xtask test"]
fn nothing_acknowledged_is_lost_at_any_write_boundary() {
    for (calls, step) in [("pwrite64", 3), ("fsync,fdatasync", 1), ("ftruncate,unlink,openat", 7)] {
        let mut at = 1;
        loop {
            let folder = Folder::new();
            let mut command = Command::new("strace");
            command.args(["-f", "-qq", "-o", "/dev/null"]);
            command.arg(format!("-einject={calls}:signal=KILL:when={at}"));
            command.arg(workload::program()).args(workload::arguments(&folder.file(), 2, 10));
            let said = workload::run(&mut command);
            assert_eq!(said.failures, [""; 0]);
            workload::verify(&folder.file(), 2, &said.acknowledged);
            if said.is_unharmed {
                assert_eq!(said.count, 20);
                break;
            }
            at += step;
        }
        println!("{calls}: killed at each up to {at}, LOST=0");
        assert!(at > 1, "no {calls} was ever called");
    }
}
