//! One running program, and the folder that it keeps everything in.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use purista_events::store::EventStore;
use purista_sqlite::store::SqliteStore;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::http::{Answer, Connection};
use crate::{postgres, soon};

/// A folder that goes with the test, unless the test fails.
pub(crate) struct Folder {
    path: PathBuf,
    /// The database that is used instead of it.
    store: Option<String>,
}

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("profile-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self { path, store: None }
    }

    /// The same with a database in its place.
    pub(crate) async fn with_postgres() -> Self {
        let mut folder = Self::new();
        folder.store = Some(postgres::database().await);
        folder
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// The address of its database, where it has one.
    pub(crate) fn url(&self) -> Option<&str> {
        self.store.as_deref()
    }

    /// The store, while no program has it open.
    pub(crate) async fn open(&self) -> Arc<dyn EventStore> {
        match &self.store {
            Some(url) => Arc::new(postgres::open(url).await),
            None => Arc::new(SqliteStore::open(self.file()).unwrap()),
        }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.data().join("profile.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept to be looked at: {}", self.path.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// The program with a data folder, not yet started; at a port that is free unless the arguments name one.
pub(crate) fn program(folder: &Folder, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_profile"));
    command.arg("--data").arg(folder.data()).args(arguments);
    if let Some(url) = &folder.store {
        command.args(["--store", url]);
    }
    if !arguments.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command.env_remove("RUST_LOG").env_remove("PURISTA_LOG_FORMAT").env_remove("PURISTA_STORE");
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

pub(crate) struct Server {
    child: Child,
    /// Address and port.
    pub(crate) place: String,
    /// What it said when it was ready.
    pub(crate) said: Vec<String>,
    log: PathBuf,
}

impl Server {
    /// Starts, and returns when it has said where it serves.
    pub(crate) async fn start(folder: &Folder) -> Self {
        let log = folder.path.join("log");
        let errors = std::fs::File::options().append(true).create(true).open(&log).unwrap();
        let mut child = program(folder, &[]).stdout(Stdio::piped()).stderr(errors).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = Vec::new();
        while let Some(line) = soon("the next line at the start", lines.next_line()).await.unwrap() {
            let is_last = line.starts_with("metrics ");
            said.push(line);
            if is_last {
                break;
            }
        }
        let place = said.first().and_then(|line| line.split_once("http://")?.1.split('/').next());
        let Some(place) = place.map(str::to_owned) else {
            panic!("{}", std::fs::read_to_string(log).unwrap())
        };
        Self { child, place, said, log }
    }

    pub(crate) async fn connect(&self) -> Connection {
        soon("a connection", Connection::open(&self.place)).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        let mut connection = self.connect().await;
        soon("an answer", connection.get(path)).await
    }

    /// Asks until the search has this many users for the question, and returns them.
    pub(crate) async fn search_until(&self, question: &str, users: usize) -> Vec<(String, String)> {
        let mut connection = self.connect().await;
        soon("what is searched", async {
            loop {
                let found = connection.get(&format!("/api/v1/users?q={question}")).await.good();
                let hits = found["users"].as_array().unwrap();
                if hits.len() == users {
                    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
                    return hits.iter().map(|hit| (text(&hit["userId"]), text(&hit["name"]))).collect();
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await; // real time: the search follows the events
            }
        })
        .await
    }

    /// What it logged so far.
    /// Waits until its log has this text: lines are written by a thread of their own, behind what they tell of.
    pub(crate) async fn logs(&self, text: &str) {
        soon(text, async {
            while !self.log().contains(text) {
                tokio::time::sleep(Duration::from_millis(20)).await; // real time: a file tells nobody that it grew
            }
        })
        .await;
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) async fn stop(mut self) {
        let id = Pid::from_raw(self.child.id().unwrap().try_into().unwrap()).unwrap();
        kill_process(id, Signal::TERM).unwrap();
        let status = soon("the end of the process", self.child.wait()).await.unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }
}
