//! Watches how far the log can be followed: behind a commit of this process, behind a word from another, and now and then.
//!
//! The word goes out after the commit and outside of its transaction: a NOTIFY inside would make all commits of the server wait
//! for one another. One word stands for all commits of a few milliseconds, and where it is lost, the next look finds them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_postgres::{Client, Error, Statement};
use tokio_util::sync::CancellationToken;

use crate::connect::Server;
use crate::shared::Shared;
use crate::time::SERVER_TIME;

/// Everything below it is ended: nothing can appear there any more.
pub(crate) const HORIZON: &str =
    "(SELECT (l.era + pg_snapshot_xmin(pg_current_snapshot())::text::bigint) << 14 FROM log l)";

/// The last position below which nothing can appear any more.
pub(crate) fn end() -> String {
    format!("SELECT coalesce(max(position), 0) FROM events WHERE position < {HORIZON}")
}

/// The same; the last position of all; and the server's time.
pub(crate) fn head() -> String {
    format!("SELECT ({}), (SELECT coalesce(max(position), 0) FROM events), {SERVER_TIME}", end())
}

/// How often it looks when nobody says anything.
const POLL: Duration = Duration::from_millis(500);
/// How soon it looks again while somebody still writes below what was committed; each time twice as long, up to the last.
const AGAIN: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];
/// How long commits are gathered into one look while they come faster than it looks; each time twice as long, up to the last.
/// Every look that finds more wakes all who follow, and each of them asks then.
const LOOKS_APART: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(8)];
/// How long words to other processes are gathered.
const GATHERED_FOR: Duration = Duration::from_millis(3);
/// How many words wait to be heard.
const WORDS_MAX: usize = 16;
/// How long it waits before it connects again.
const RECONNECT: Duration = Duration::from_millis(200);

/// Watches until it is told to end.
pub(crate) async fn watch(server: Server, shared: Arc<Shared>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let watching = async {
            let (notified, words) = mpsc::channel(WORDS_MAX);
            let client = server.connect(Some(notified)).await?;
            Watch::new(client, words, &server.schema, &shared).await?.run().await
        };
        let ended: Option<Result<(), Error>> = stop.run_until_cancelled(watching).await;
        let Some(Err(error)) = ended else { return };
        tracing::debug!(%error, "the watch over the log's end connects again");
        stop.run_until_cancelled(tokio::time::sleep(RECONNECT)).await;
    }
}

struct Watch<'s> {
    client: Client,
    words: mpsc::Receiver<i32>,
    /// The number of this session, by which it knows its own words.
    own: i32,
    head: Statement,
    tell: String,
    shared: &'s Shared,
}

impl<'s> Watch<'s> {
    async fn new(
        client: Client,
        words: mpsc::Receiver<i32>,
        schema: &str,
        shared: &'s Shared,
    ) -> Result<Self, Error> {
        // A word counts as a transaction that writes. None of them needs to survive the server.
        client.batch_execute(&format!("SET synchronous_commit TO off; LISTEN \"{schema}\"")).await?;
        let own = client.query_one("SELECT pg_backend_pid()", &[]).await?.try_get(0)?;
        let head = client.prepare(&head()).await?;
        Ok(Self { client, words, own, head, tell: format!("NOTIFY \"{schema}\""), shared })
    }

    async fn run(&mut self) -> Result<(), Error> {
        let mut wait = AGAIN[0];
        let mut apart = LOOKS_APART[0];
        // When others are told of what was committed here.
        let mut due = None;
        loop {
            let is_caught_up = self.look().await?;
            let pause = if is_caught_up { POLL } else { wait.max(apart) };
            wait = if is_caught_up { AGAIN[0] } else { (wait * 2).min(AGAIN[1]) };
            let (looked_at, look_at) = (Instant::now(), Instant::now() + pause);
            loop {
                tokio::select! {
                    () = self.shared.written.notified() => {
                        due.get_or_insert_with(|| Instant::now() + GATHERED_FOR);
                        let next = looked_at + apart;
                        let is_busy = Instant::now() < next;
                        apart = if is_busy { (apart * 2).min(LOOKS_APART[1]) } else { LOOKS_APART[0] };
                        tokio::time::sleep_until(next).await;
                        break;
                    }
                    word = self.words.recv() => {
                        if word == Some(self.own) {
                            continue;
                        }
                        if word.is_none() {
                            // The connection has ended: the next look says why.
                            wait = AGAIN[0];
                            tokio::time::sleep(AGAIN[1]).await;
                        }
                        break;
                    }
                    () = tokio::time::sleep_until(due.unwrap_or(look_at)), if due.is_some() => {
                        self.client.batch_execute(&self.tell).await?;
                        due = None;
                    }
                    () = tokio::time::sleep_until(look_at) => break,
                }
            }
        }
    }

    /// Looks how far the log can be followed, and whether that is all of it.
    async fn look(&self) -> Result<bool, Error> {
        let asked_at = self.shared.time.uptime();
        let row = self.client.query_one(&self.head, &[]).await?;
        let (head, last): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        self.shared.time.learn_from_server(row.try_get(2)?, asked_at);
        self.shared.reached(head);
        self.shared.blocked.look(&self.client, head, last).await?;
        Ok(head >= last)
    }
}
