//! How a store is opened, when the defaults do not fit.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use purista_core::clock::Clock;
use purista_events::store::{StoreError, StoreErrorKind};

use crate::connect::Timeouts;
use crate::opening::Opening;
use crate::store::PostgresStore;

/// The most batches that one transaction commits, unless told otherwise.
pub const GROUP_MAX: usize = 256;

/// How many groups are written side by side, unless told otherwise; each on a connection of its own.
pub const WRITERS: usize = 2;

/// How many connections read, unless told otherwise.
pub const READERS: usize = 8;

/// How long the server lets one statement run, unless told otherwise.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a statement waits for somebody else's lock, unless told otherwise.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the safe position may stand still while committed events wait above it, before it is reported, by default.
pub const BLOCKED_AFTER: Duration = Duration::from_secs(60);

/// The schema in which the store's tables lie, unless told otherwise.
pub const SCHEMA: &str = "purista";

/// The longest name of a schema, in bytes.
const SCHEMA_BYTES_MAX: usize = 48;

impl PostgresStore {
    /// Opens a store with the defaults, see [`Builder::connect`].
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::builder(url).connect().await
    }

    /// Options for opening a store.
    pub fn builder(url: &str) -> Builder {
        let opening = Opening {
            url: url.to_owned(),
            schema: SCHEMA.to_owned(),
            clock: Clock::system(),
            records_own_time: false,
            root_certificates: None,
            group_max: GROUP_MAX,
            writers: WRITERS,
            readers: READERS,
            timeouts: Timeouts { statement: STATEMENT_TIMEOUT, lock: LOCK_TIMEOUT },
            migrates: true,
            blocked_after: BLOCKED_AFTER,
        };
        Builder { opening }
    }
}

/// Options of a [`PostgresStore`], made by [`PostgresStore::builder`].
#[must_use = "nothing is opened before `connect`"]
pub struct Builder {
    opening: Opening,
}

impl Builder {
    /// The schema in which the store's tables lie; [`SCHEMA`] by default. Stores in different schemas of one database know
    /// nothing of each other.
    pub fn schema(mut self, name: impl Into<String>) -> Self {
        self.opening.schema = name.into();
        self
    }

    /// Where ids and the time between two answers of the server come from; the machine's clock by default. Events are recorded with
    /// the time of the server's clock, unless [`Builder::own_time`] says otherwise.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.opening.clock = clock;
        self
    }

    /// Records events with the time of [`Builder::clock`], and not with that of the server's clock: for tests that move their clock.
    /// Where several processes write, one with a wrong clock then spoils the times of all.
    pub fn own_time(mut self) -> Self {
        self.opening.records_own_time = true;
        self
    }

    /// Trusts the certificates in this PEM file, not those of the machine.
    pub fn root_certificates(mut self, path: impl Into<PathBuf>) -> Self {
        self.opening.root_certificates = Some(path.into());
        self
    }

    /// The most batches that one transaction commits, at least 1; [`GROUP_MAX`] by default.
    pub fn group_max(mut self, batches: usize) -> Self {
        self.opening.group_max = batches.max(1);
        self
    }

    /// How many groups are written side by side, at least 1; [`WRITERS`] by default.
    pub fn writers(mut self, connections: usize) -> Self {
        self.opening.writers = connections.max(1);
        self
    }

    /// How many connections read, at least 1; [`READERS`] by default. Projections use them too. Beside these and the writers' a
    /// store has one that watches the log's end, and one for leases.
    pub fn readers(mut self, connections: usize) -> Self {
        self.opening.readers = connections.max(1);
        self
    }

    /// How long the server lets one statement run; [`STATEMENT_TIMEOUT`] by default.
    pub fn statement_timeout(mut self, time: Duration) -> Self {
        self.opening.timeouts.statement = time;
        self
    }

    /// How long a statement waits for somebody else's lock; [`LOCK_TIMEOUT`] by default.
    pub fn lock_timeout(mut self, time: Duration) -> Self {
        self.opening.timeouts.lock = time;
        self
    }

    /// How long the safe position may stand still while committed events wait above it; [`BLOCKED_AFTER`] by default. After that
    /// time the store's health is degraded and names the blocking transaction, and one warning is logged.
    pub fn blocked_after(mut self, time: Duration) -> Self {
        self.opening.blocked_after = time;
        self
    }

    /// Leaves the tables as they are: where they are missing or older than this program, opening fails and says so. For
    /// installations in which somebody else makes tables.
    pub fn without_migrations(mut self) -> Self {
        self.opening.migrates = false;
        self
    }

    /// Opens the store, and makes its tables where they are missing. It needs the runtime of tokio that it is called on for as
    /// long as the store is used. Cancel safe: what was made is found the next time.
    ///
    /// It fails with `Invalid` when the address is none, when the tables cannot be made or are of a newer version, else with
    /// `ReadFailed`. No error repeats a password.
    pub async fn connect(self) -> Result<PostgresStore, StoreError> {
        PostgresStore::start(self.checked()?).await
    }

    /// What it was given, when that can be meant.
    pub(crate) fn checked(self) -> Result<Opening, StoreError> {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let begins = |c: char| c.is_ascii_lowercase();
        let schema = &self.opening.schema;
        if !schema.starts_with(begins) || !schema.chars().all(is_plain) || schema.len() > SCHEMA_BYTES_MAX {
            let what = format!(
                "`{schema}` is no schema of a store: at most {SCHEMA_BYTES_MAX} of a to z, 0 to 9 and `_`, a letter first"
            );
            return Err(StoreError::new(StoreErrorKind::Invalid, what));
        }
        Ok(self.opening)
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address bears a password.
        f.debug_struct("Builder").field("schema", &self.opening.schema).finish_non_exhaustive()
    }
}
