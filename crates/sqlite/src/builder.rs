//! How a store is opened, when the defaults do not fit.

use std::path::{Path, PathBuf};
use std::time::Duration;

use purista_core::clock::Clock;
use purista_events::store::StoreError;

use crate::file::Opening;
use crate::queue::Limits;
use crate::store::SqliteStore;

/// The most batches that one fsync commits, unless told otherwise.
pub const GROUP_MAX: usize = 256;

/// From how many pages of 4 KiB on the write-ahead log is copied into the file, unless told otherwise: 16 MiB.
pub const CHECKPOINT_PAGES: u64 = 4_096;

/// How many threads read, unless told otherwise.
pub const READERS: usize = 4;

/// How long a statement waits for another program that holds the file, unless told otherwise.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an owner that is about to let go of the file is waited for, unless told otherwise.
pub const LOCK_WAIT: Duration = Duration::from_secs(1);

impl SqliteStore {
    /// Opens a file with the defaults, see [`Builder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::builder(path).open()
    }

    /// Opens a file that exists for reading only, see [`Builder::open_read_only`].
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::builder(path).open_read_only()
    }

    /// Options for opening a file.
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        Builder::new(path.as_ref().to_owned())
    }
}

/// Options of a [`SqliteStore`], made by [`SqliteStore::builder`].
#[derive(Debug)]
#[must_use = "nothing is opened before `open`"]
pub struct Builder {
    path: PathBuf,
    opening: Opening,
    limits: Limits,
}

impl Builder {
    pub(crate) fn new(path: PathBuf) -> Self {
        let busy_timeout = BUSY_TIMEOUT;
        let opening =
            Opening { clock: Clock::system(), readers: READERS, busy_timeout, lock_wait: LOCK_WAIT };
        let limits = Limits { group_max: GROUP_MAX, checkpoint_pages: CHECKPOINT_PAGES, busy_timeout };
        Self { path, opening, limits }
    }

    /// Where the time of day comes from; the machine's clock by default.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.opening.clock = clock;
        self
    }

    /// The most batches that one fsync commits, at least 1; [`GROUP_MAX`] by default.
    pub fn group_max(mut self, batches: usize) -> Self {
        self.limits.group_max = batches.max(1);
        self
    }

    /// How many threads read, at least 1; [`READERS`] by default.
    pub fn readers(mut self, threads: usize) -> Self {
        self.opening.readers = threads.max(1);
        self
    }

    /// From how many pages of 4 KiB on the write-ahead log is copied into the file, at least 1; [`CHECKPOINT_PAGES`] by
    /// default. More is fewer fsyncs and a larger file beside the file.
    pub fn checkpoint_pages(mut self, pages: u64) -> Self {
        self.limits.checkpoint_pages = pages.max(1);
        self
    }

    /// How long a statement waits for another program that holds the file; [`BUSY_TIMEOUT`] by default.
    pub fn busy_timeout(mut self, time: Duration) -> Self {
        self.opening.busy_timeout = time;
        self.limits.busy_timeout = time;
        self
    }

    /// How long an owner that is about to let go of the file is waited for; [`LOCK_WAIT`] by default.
    pub fn lock_wait(mut self, time: Duration) -> Self {
        self.opening.lock_wait = time;
        self
    }

    /// Opens the file, and makes it with its folder when it does not exist. It blocks while the disk works, and at
    /// most [`Builder::lock_wait`] for the file's lock.
    ///
    /// It fails with `InUse` when another store has the file open, with `Invalid` when the file is no store or of a
    /// newer version, else with `ReadFailed` or `Corrupt`.
    pub fn open(self) -> Result<SqliteStore, StoreError> {
        SqliteStore::start(self.opening.open(&self.path)?, self.opening.clock, self.limits)
    }

    /// Opens a file that exists for reading only, also while another process owns it. Every commit is refused as
    /// `Closed`, and [`purista_events::store::EventStore::head`] stays what it was: `follow` sees what is added.
    ///
    /// The errors are those of [`Builder::open`]; no lock is taken.
    pub fn open_read_only(self) -> Result<SqliteStore, StoreError> {
        let file = self.opening.open_read_only(&self.path)?;
        SqliteStore::start_read_only(self.path, file, self.opening.clock)
    }
}
