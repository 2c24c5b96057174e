//! Opening the file: its folder, its lock, its connections.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use purista_core::clock::Clock;
use purista_events::store::{StoreError, StoreErrorKind};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::lock::Lock;
use crate::{error, event, fetch, occurrence, schema};

/// How much of the file the writer's connection keeps in memory, in KiB.
const WRITER_CACHE_KIB: i64 = 32 * 1024;
/// The same for each reader.
const READER_CACHE_KIB: i64 = 8 * 1024;
/// How many prepared statements a connection keeps.
const STATEMENTS_MAX: usize = 128;

/// How a file is opened.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) clock: Clock,
    pub(crate) readers: usize,
    /// How long a statement waits for a foreign connection that holds the file.
    pub(crate) busy_timeout: Duration,
    /// How long an owner that is about to let go of the file is waited for.
    pub(crate) lock_wait: Duration,
}

/// An open file.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) writer: Connection,
    pub(crate) readers: Vec<Connection>,
    pub(crate) lock: Lock,
    pub(crate) path: PathBuf,
    pub(crate) known: Known,
}

/// What a file says of itself.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) origin: Arc<str>,
    pub(crate) head: i64,
    /// The latest time that was recorded, in nanoseconds since 1970.
    pub(crate) latest: i64,
}

impl Opening {
    pub(crate) fn open(&self, path: &Path) -> Result<OpenFile, StoreError> {
        let path = located(path)?;
        let lock = Lock::take(&path, self.lock_wait)?;
        let shown = path.display().to_string();
        let failed = |error: rusqlite::Error| {
            let what = format!("open `{shown}` failed");
            StoreError::new(StoreErrorKind::ReadFailed, what).with_source(error)
        };
        let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut writer = Connection::open_with_flags(
            &path,
            flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        )
        .map_err(failed)?;
        writer.busy_timeout(self.busy_timeout).map_err(failed)?;
        let version = schema::check(&writer, &shown)?;
        prepare_writer(&writer, &shown, &failed)?;
        schema::bring_up_to_date(&mut writer, version, &self.clock).map_err(failed)?;
        make_durable(&writer, &path)?;
        let readers = self.connect_readers(&path)?;
        let known = Known::read(&writer).map_err(failed)?;
        Ok(OpenFile { writer, readers, lock, path, known })
    }

    /// The file as it is, without owning it.
    pub(crate) fn open_read_only(&self, path: &Path) -> Result<(Vec<Connection>, Known), StoreError> {
        let readers = self.connect_readers(path)?;
        let Some(first) = readers.first() else { return Err(error::closed()) };
        let shown = path.display().to_string();
        let version = schema::check(first, &shown)?;
        if version == 0 {
            let what = format!("open `{shown}` failed: it is an empty file, and is opened for reading only");
            return Err(StoreError::new(StoreErrorKind::Invalid, what));
        }
        if version < schema::VERSION {
            let what = format!(
                "open `{shown}` failed: it has form {version}, and is opened for reading only; open it for writing once, \
                 which brings it to form {}",
                schema::VERSION
            );
            return Err(StoreError::new(StoreErrorKind::Invalid, what));
        }
        let known = Known::read(first).map_err(error::read_failed("read of the head"))?;
        Ok((readers, known))
    }

    fn connect_readers(&self, path: &Path) -> Result<Vec<Connection>, StoreError> {
        let connect = || -> rusqlite::Result<Connection> {
            let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_READ_ONLY;
            let reader = Connection::open_with_flags(path, flags)?;
            reader.busy_timeout(self.busy_timeout)?;
            reader.pragma_update(None, "query_only", true)?;
            // The writer copies the write-ahead log into the file, and after a failed write nobody does.
            reader.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            prepare(&reader, READER_CACHE_KIB)?;
            event::make_readable(&reader)?;
            occurrence::make_readable(&reader)?;
            Ok(reader)
        };
        let failed = |error: rusqlite::Error| {
            if error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) {
                let what = format!("open `{}` failed: it is no SQLite file", path.display());
                return StoreError::new(StoreErrorKind::Invalid, what).with_source(error);
            }
            let what = format!("open `{}` for reading failed", path.display());
            StoreError::new(StoreErrorKind::ReadFailed, what).with_source(error)
        };
        (0..self.readers).map(|_| connect().map_err(failed)).collect()
    }
}

impl Known {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let origin: String =
            connection.query_row("SELECT value FROM meta WHERE name = 'origin'", [], |row| row.get(0))?;
        let latest = connection.query_row(
            "SELECT max(coalesce((SELECT recorded_at FROM events ORDER BY position DESC LIMIT 1), 0),
                        coalesce((SELECT recorded_at FROM batches ORDER BY number DESC LIMIT 1), 0))",
            [],
            |row| row.get(0),
        )?;
        Ok(Self { origin: origin.into(), head: fetch::head(connection)?, latest })
    }
}

fn prepare(connection: &Connection, cache_kib: i64) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // A plan follows from its statement alone. Else SQLite prepares a statement anew for each value of `LIMIT ?`.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Negative is KiB, positive would be pages.
    connection.pragma_update(None, "cache_size", -cache_kib)
}

/// Sets what durability rests on, and looks whether it took.
fn prepare_writer(
    writer: &Connection,
    path: &str,
    failed: &impl Fn(rusqlite::Error) -> StoreError,
) -> Result<(), StoreError> {
    let mode: String = writer.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(failed)?;
    writer.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    // Where fsync leaves the data in the disk's cache, as on macOS, this flushes that, too.
    writer.pragma_update(None, "fullfsync", true).map_err(failed)?;
    writer.pragma_update(None, "checkpoint_fullfsync", true).map_err(failed)?;
    writer.pragma_update(None, "foreign_keys", true).map_err(failed)?;
    let synchronous: i64 = writer.query_row("PRAGMA synchronous", [], |row| row.get(0)).map_err(failed)?;
    if mode != "wal" || synchronous != 2 {
        let what = format!(
            "open `{path}` failed: it needs a write-ahead log that is flushed with every commit, and got journal_mode \
             {mode} and synchronous {synchronous}; a network file system has neither"
        );
        return Err(StoreError::new(StoreErrorKind::Invalid, what));
    }
    prepare(writer, WRITER_CACHE_KIB).map_err(failed)
}

/// The path with its folder made, and without links: two names of one file must find one lock.
fn located(path: &Path) -> Result<PathBuf, StoreError> {
    let failed = |error| {
        let what = format!("open `{}` failed", path.display());
        StoreError::new(StoreErrorKind::ReadFailed, what).with_source(error)
    };
    if let Ok(found) = fs::canonicalize(path) {
        return Ok(found);
    }
    let Some(name) = path.file_name() else {
        return Err(StoreError::new(StoreErrorKind::Invalid, format!("`{}` names no file", path.display())));
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_folder(folder).map_err(failed)?;
    Ok(fs::canonicalize(folder).map_err(failed)?.join(name))
}

/// Makes a folder and those above it, each durable in the one that holds it.
fn make_folder(folder: &Path) -> std::io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_folder(above)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_folder(above)
}

/// A new name in a folder survives a crash of the machine only when the folder itself is flushed.
pub(crate) fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { fs::File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Flushes what is about to be shown. A process that was killed between a write and its flush leaves commits that this
/// one sees, and that a crash of the machine could still take back.
fn make_durable(writer: &Connection, path: &Path) -> Result<(), StoreError> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let flush = || -> std::io::Result<()> {
        if fs::exists(&log)? {
            fs::OpenOptions::new().read(true).write(true).open(&log)?.sync_all()?;
        }
        path.parent().map_or(Ok(()), sync_folder)
    };
    let failed =
        || StoreError::new(StoreErrorKind::ReadFailed, format!("flush of `{}` failed", path.display()));
    flush().map_err(|error| failed().with_source(error))?;
    // Begins with a short log. A foreign reader may hold it back; then the next checkpoint does it.
    writer
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .map_err(|error| failed().with_source(error))
}
