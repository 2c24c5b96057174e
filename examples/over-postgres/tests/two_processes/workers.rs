//! Processes that work on a store, and what they have made of it.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use purista_servers::postgres::Postgres;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio_postgres::Client;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::PATIENCE;

/// A schema in which orders are taken, mailed and counted.
pub(crate) struct Place {
    url: String,
    schema: String,
    client: Client,
}

impl Place {
    pub(crate) async fn new(server: &Postgres, schema: &str) -> Self {
        let (client, connection) =
            tokio_postgres::connect(&server.url(), tokio_postgres::NoTls).await.unwrap();
        // It ends with the client.
        TaskTracker::new().spawn(connection);
        client.batch_execute(&format!("SET search_path TO {schema}")).await.unwrap();
        Self { url: server.url(), schema: schema.to_owned(), client }
    }

    fn command(&self, role: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_over-postgres"));
        command.args(["--store", &self.url, "--schema", &self.schema]).args(role);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs a process to its end, and says what it printed.
    pub(crate) async fn run(&self, role: &[&str]) -> String {
        let output = tokio::time::timeout(PATIENCE, self.command(role).output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{role:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) async fn order(&self, count: usize) {
        self.run(&["order", &count.to_string()]).await;
    }

    /// The same in a process that goes on beside this.
    pub(crate) fn order_beside(&self, count: usize) -> impl Future<Output = ()> {
        let mut ordering = self.command(&["order", &count.to_string()]).spawn().unwrap();
        async move { assert!(ordering.wait().await.unwrap().success()) }
    }

    async fn number(&self, sql: &str) -> usize {
        // The tables are there when somebody works.
        let row = self.client.query_one(sql, &[]).await;
        row.map_or(0, |row| usize::try_from(row.get::<_, i64>(0)).unwrap())
    }

    async fn counted(&self) -> usize {
        self.number("SELECT coalesce(sum(count), 0)::bigint FROM counted").await
    }

    /// How many orders were taken.
    pub(crate) async fn ordered(&self) -> usize {
        self.recorded("ordered").await
    }

    async fn recorded(&self, name: &str) -> usize {
        self.number(&format!("SELECT count(*) FROM events WHERE name = '{name}'")).await
    }

    async fn until(&self, what: &str, within: Duration, is: impl AsyncFn() -> bool) {
        let wait = async {
            while !is().await {
                tokio::time::sleep(Duration::from_millis(20)).await; // real time: other processes work
            }
        };
        let in_time = tokio::time::timeout(within, wait).await.is_ok();
        assert!(
            in_time,
            "{what} in time: {} counted, {} mailed",
            self.counted().await,
            self.recorded("mailed").await
        );
    }

    pub(crate) async fn until_counted(&self, orders: usize, within: Duration) {
        self.until("counted", within, async || self.counted().await >= orders).await;
    }

    pub(crate) async fn until_mailed(&self, orders: usize, within: Duration) {
        self.until("mailed", within, async || self.is_mailed(orders).await).await;
    }

    pub(crate) async fn is_mailed(&self, orders: usize) -> bool {
        self.recorded("mailed").await >= orders
    }

    /// Each order is counted once, mailed at least once, and recorded as mailed once.
    pub(crate) async fn is_exact(&self, orders: usize, mailed: &[String]) {
        assert_eq!(self.recorded("ordered").await, orders);
        assert_eq!(self.counted().await, orders, "each is counted once");
        assert_eq!(self.recorded("mailed").await, orders, "the effect in the store is there once");
        let different: BTreeSet<&String> = mailed.iter().collect();
        assert_eq!(different.len(), orders, "each is mailed");
        println!(
            "{orders} orders, {} mails, of which {} once more",
            mailed.len(),
            mailed.len() - different.len()
        );
    }
}

/// A process that works whenever it is its turn.
pub(crate) struct Worker {
    child: Child,
    mailed: Arc<Mutex<Vec<String>>>,
    printed: Arc<Notify>,
    reading: AbortOnDropHandle<()>,
}

impl Worker {
    /// Starts one, and waits until it is ready.
    pub(crate) async fn start(place: &Place) -> Self {
        let mut child = place.command(&["work"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
        assert_eq!(ready.as_deref(), Some("ready"));
        let (mailed, printed) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(Notify::new()));
        let (notes, note) = (Arc::clone(&mailed), Arc::clone(&printed));
        let read = async move {
            while let Ok(Some(line)) = lines.next_line().await {
                notes.lock().unwrap().push(line);
                note.notify_one();
            }
        };
        Self { child, mailed, printed, reading: AbortOnDropHandle::new(TaskTracker::new().spawn(read)) }
    }

    /// How many mails it has sent.
    pub(crate) fn mailed(&self) -> usize {
        self.mailed.lock().unwrap().len()
    }

    /// Waits until it has sent so many, counted from its start.
    pub(crate) async fn mails(&self, in_all: usize, within: Duration) {
        let wait = async {
            while self.mailed() < in_all {
                self.printed.notified().await;
            }
        };
        tokio::time::timeout(within, wait).await.expect("it mails in time");
    }

    /// Sends it a signal, as `STOP` and `CONT`.
    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().await.unwrap();
        assert!(sent.success());
    }

    /// Ends it as `kill -9` does, and says what it has mailed.
    pub(crate) async fn kill(&mut self) -> Vec<String> {
        self.child.kill().await.unwrap();
        // What it had printed is read to its end.
        let _ = tokio::time::timeout(PATIENCE, &mut self.reading).await.unwrap();
        self.mailed.lock().unwrap().clone()
    }
}
