//! Leases: locks of one session, which the server frees when the session ends, however its process ended.
//!
//! One connection bears all leases of a process. The server ends it within some seconds when the other end is gone without a word,
//! and also when the process is stopped (SIGSTOP) while its kernel still acknowledges: a stopped process sends nothing. The process
//! gives its leases up sooner, by its own monotonic clock, also when it was the one that stood still.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use purista_events::lease::{Expiry, Lease};
use purista_events::store::StoreError;
use tokio::time::Instant;
use tokio_postgres::{Client, Error};
use tokio_util::sync::CancellationToken;

use crate::connect::{FROZEN_AFTER, Server};
use crate::error::closed;
use crate::locks::Locks;

/// How often a lease that somebody else has is asked for.
const ASKED_EVERY: Duration = Duration::from_secs(1);
/// How often the server is asked whether it is there, and how long it may take to say so. Both together are less than what the
/// server takes to notice that we are gone, see [`GONE`].
const BEAT: Duration = Duration::from_secs(2);
/// After how long without a word of its connection a process gives its leases up: later than the longest pause between two
/// questions, and earlier than [`FROZEN_AFTER`], when the server gives them to another.
const VALID_FOR: Duration = Duration::from_secs(6);
/// After how long without an acknowledgement the server takes this process's machine for gone: 5 s, then 3 questions in 2 s each.
const GONE: &str =
    "SET tcp_keepalives_idle TO 5; SET tcp_keepalives_interval TO 2; SET tcp_keepalives_count TO 3";
/// Ends a session of which nothing was heard for so many milliseconds. The setting came with version 14.
const FROZEN: &str = "SELECT set_config('idle_session_timeout', $1, false) FROM pg_settings \
     WHERE name = 'idle_session_timeout'";

/// The leases of a process.
#[derive(Clone)]
pub(crate) struct Leases(Arc<Inner>);

struct Inner {
    server: Server,
    stop: CancellationToken,
    /// One that is being made or used is not made a second time.
    session: tokio::sync::Mutex<Option<Arc<Session>>>,
}

/// A connection that bears leases.
struct Session {
    client: Client,
    lost: CancellationToken,
    expiry: Arc<Expiry>,
    /// A session gets its own locks a second time: so who has one is known here, too.
    held: Mutex<BTreeSet<i64>>,
    server: Server,
}

/// Gives a lease back when it is dropped.
struct Held {
    session: Arc<Session>,
    key: i64,
}

impl Leases {
    pub(crate) fn new(server: Server, stop: CancellationToken) -> Self {
        Self(Arc::new(Inner { server, stop, session: tokio::sync::Mutex::new(None) }))
    }

    /// Waits until this process has the lease of this name.
    pub(crate) async fn take(&self, name: &str) -> Result<Lease, StoreError> {
        let key = Locks::guard(&format!("{}\0lease\0{name}", self.0.server.schema));
        loop {
            if self.0.stop.is_cancelled() {
                return Err(closed());
            }
            match self.ask(key).await {
                Ok(Some(lease)) => return Ok(lease),
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, name, "a lease is asked for again"),
            }
            let pause = self.0.stop.run_until_cancelled(tokio::time::sleep(ASKED_EVERY));
            if pause.await.is_none() {
                return Err(closed());
            }
        }
    }

    async fn ask(&self, key: i64) -> Result<Option<Lease>, Error> {
        let session = self.session().await?;
        if !session.held().insert(key) {
            return Ok(None);
        }
        // From here on it is given back, whatever happens.
        let held = Held { session: Arc::clone(&session), key };
        let row = session.client.query_one("SELECT pg_try_advisory_lock($1)", &[&key]).await?;
        let is_ours: bool = row.try_get(0)?;
        Ok(is_ours.then(|| Lease::expiring(session.lost.clone(), Arc::clone(&session.expiry), held)))
    }

    async fn session(&self) -> Result<Arc<Session>, Error> {
        let mut known = self.0.session.lock().await;
        let is_valid = |session: &&Arc<Session>| !session.lost.is_cancelled() && !session.expiry.is_over();
        if let Some(session) = known.as_ref().filter(is_valid) {
            return Ok(Arc::clone(session));
        }
        let (lost, server) = (CancellationToken::new(), self.0.server.clone());
        let client = server.connect_until(lost.clone(), None).await?;
        client.batch_execute(GONE).await?;
        let asked_at = Instant::now();
        if client.query_opt(FROZEN, &[&FROZEN_AFTER.as_millis().to_string()]).await?.is_none() {
            tracing::warn!(
                "Postgres is older than version 14: a process that is stopped (SIGSTOP) keeps its leases until it continues"
            );
        }
        let expiry = Arc::new(Expiry::at(asked_at + VALID_FOR));
        let session = Arc::new(Session { client, lost, expiry, held: Mutex::default(), server });
        self.0.server.tasks.spawn(beat(Arc::clone(&session), self.0.stop.clone()));
        Ok(Arc::clone(known.insert(session)))
    }
}

impl Session {
    fn held(&self) -> MutexGuard<'_, BTreeSet<i64>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the server now and then whether it is there; all leases are lost when it does not say so, and when the store is closed.
async fn beat(session: Arc<Session>, stop: CancellationToken) {
    let _lost = session.lost.clone().drop_guard();
    while stop.run_until_cancelled(tokio::time::sleep(BEAT)).await.is_some() {
        let asked_at = Instant::now();
        if session.expiry.is_over() {
            tracing::warn!("this process stood still for some seconds: its leases are given up");
            return;
        }
        let answer = tokio::time::timeout(BEAT, session.client.batch_execute("")).await;
        if !matches!(answer, Ok(Ok(()))) {
            return;
        }
        session.expiry.renew(asked_at + VALID_FOR);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let (session, key) = (Arc::clone(&self.session), self.key);
        // With a session that is lost, its locks are gone as well. One that we do not have is not given back by this.
        self.session.server.tasks.spawn(async move {
            let freed = session.client.query("SELECT pg_advisory_unlock($1)", &[&key]).await;
            session.held().remove(&key);
            if let Err(error) = freed {
                tracing::debug!(%error, "a lease ends with its session");
            }
        });
    }
}
