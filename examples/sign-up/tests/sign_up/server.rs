//! A running sign-up, whole or in part, and the folder that it keeps everything in.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::http::{self, Answer};
use crate::{postgres, soon};

/// A folder that goes with the test, unless the test fails.
pub(crate) struct Folder {
    path: PathBuf,
    /// The database that is used instead of it.
    store: Option<String>,
    /// Variables of the programs that use it.
    environment: Vec<(&'static str, String)>,
}

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sign-up-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self { path, store: None, environment: Vec::new() }
    }

    /// The same with a database for everything but mails.
    pub(crate) async fn with_postgres() -> Self {
        let mut folder = Self::new();
        folder.store = Some(postgres::database().await);
        folder
    }

    /// The same with variables for the programs that use it.
    pub(crate) fn with_environment(mut self, environment: &[(&'static str, &str)]) -> Self {
        self.environment.extend(environment.iter().map(|(name, value)| (*name, (*value).to_owned())));
        self
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    pub(crate) fn mails(&self) -> PathBuf {
        self.data().join("mail")
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
    let mut command = Command::new(env!("CARGO_BIN_EXE_sign-up"));
    command.arg("--data").arg(folder.data()).args(arguments);
    if let Some(url) = &folder.store {
        command.args(["--store", url]);
    }
    if !arguments.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command
        .env_remove("RUST_LOG")
        .env_remove("PURISTA_LOG_FORMAT")
        .env_remove("PURISTA_STORE")
        .env_remove("PURISTA_BRIDGE")
        .env_remove("SIGN_UP_SMTP")
        .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
        .envs(folder.environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// One running process, whatever parts it runs.
pub(crate) struct Process {
    child: Child,
    /// What it said when it was ready.
    pub(crate) said: Vec<String>,
    log: PathBuf,
}

impl Process {
    /// Starts, and returns when it has said what it runs.
    pub(crate) async fn start(folder: &Folder, arguments: &[&str]) -> Self {
        let log = folder.path().join("log");
        let errors = std::fs::File::options().append(true).create(true).open(&log).unwrap();
        let mut child = program(folder, arguments).stdout(Stdio::piped()).stderr(errors).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said: Vec<String> = Vec::new();
        while !said.last().is_some_and(|line| line.starts_with("runs ")) {
            match soon("the next line at the start", lines.next_line()).await.unwrap() {
                Some(line) => said.push(line),
                None => panic!("it has ended: {}", std::fs::read_to_string(log).unwrap()),
            }
        }
        Self { child, said, log }
    }

    /// Says at once that it shall end in order.
    pub(crate) fn terminate(&self) {
        let id = Pid::from_raw(self.child.id().unwrap().try_into().unwrap()).unwrap();
        kill_process(id, Signal::TERM).unwrap();
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        soon("the end of the process", self.child.wait()).await.unwrap()
    }

    pub(crate) async fn stop(mut self) {
        self.terminate();
        let status = self.ended().await;
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }

    /// As a power cut would, as far as the process is concerned.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

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
}

/// One that serves the page and the API.
pub(crate) struct Server {
    process: Process,
    /// Address and port.
    pub(crate) place: String,
}

impl Server {
    pub(crate) async fn start(folder: &Folder) -> Self {
        Self::start_with(folder, &[]).await
    }

    /// Starts, and returns when it has said where it serves.
    pub(crate) async fn start_with(folder: &Folder, arguments: &[&str]) -> Self {
        let process = Process::start(folder, arguments).await;
        let page = process.said.first().and_then(|line| line.split_once("http://"));
        let Some((_, place)) = page else { panic!("{:?}: {}", process.said, process.log()) };
        let place = place.trim_end_matches('/').to_owned();
        Self { process, place }
    }

    pub(crate) async fn ask(&self, request: &[u8]) -> Answer {
        soon("an answer", http::ask(&self.place, request)).await.unwrap()
    }

    pub(crate) async fn sign_up(&self, email: &str, name: &str) -> Answer {
        self.ask(&http::sign_up(email, name, None)).await
    }

    pub(crate) async fn stop(self) {
        self.process.stop().await;
    }

    pub(crate) async fn kill(self) {
        self.process.kill().await;
    }
}

impl Deref for Server {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
