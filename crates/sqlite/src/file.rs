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
use crate::private_file::sync_folder;
use crate::sums::{Head, Sums};
use crate::{error, event, fetch, occurrence, schema, sums, wal};

/// How much of the file the writer's connection keeps in memory, in KiB.
const WRITER_CACHE_KIB: i64 = 32 * 1024;
/// The same for each reader.
const READER_CACHE_KIB: i64 = 8 * 1024;
/// How large the write-ahead log stays when it begins again: what a long read made it grow is given back.
pub(crate) const WAL_BYTES_KEPT: u64 = 64 * 1024 * 1024;
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
    pub(crate) sums: Sums,
    pub(crate) path: PathBuf,
    pub(crate) known: Known,
}

/// What a file says of itself.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) origin: Arc<str>,
    pub(crate) head: i64,
    /// The number of the last batch.
    pub(crate) batch: i64,
    /// The latest time that was recorded, in nanoseconds since 1970.
    pub(crate) latest: i64,
}

impl Opening {
    pub(crate) fn open(&self, path: &Path) -> Result<OpenFile, StoreError> {
        let path = located(path)?;
        let is_new = !path.exists();
        let lock = Lock::take(&path, self.lock_wait)?;
        let shown = path.display().to_string();
        let mut sums = Sums::load(&path, true)?;
        if is_new && sums.is_some() {
            let what = format!(
                "open `{shown}` failed: the data file is missing, and `{}` says that there was one. Restore a backup with \
                 `purista store restore`; to begin a new store, remove that file",
                sums::path_of(&path).display()
            );
            let _ = fs::remove_file(&path);
            return Err(StoreError::new(StoreErrorKind::Corrupt, what));
        }
        if let Some(sums) = &mut sums {
            unharmed(sums, &path, &lock)?;
        }
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
        // Until it is known to be whole, nothing is changed: an end of the opening leaves the write-ahead log as it is.
        writer.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
        writer.pragma_update(None, "wal_autocheckpoint", 0).map_err(failed)?;
        let version = schema::check(&writer, &shown)?;
        if let Some(sums) = &sums {
            reaches(&writer, version, sums.head(), &shown)?;
        }
        prepare_writer(&writer, &shown, &failed)?;
        schema::bring_up_to_date(&mut writer, version, &self.clock).map_err(failed)?;
        make_durable(&writer, &path, sums.as_mut())?;
        let known = Known::read(&writer).map_err(failed)?;
        let head = Head { position: known.head, batch: known.batch };
        let sums = match sums {
            Some(sums) => sums,
            None => Sums::adopt(&path, lock.data(), head).map_err(|error| {
                let what = format!("open `{shown}` failed: the checksums of its pages cannot be written");
                StoreError::new(StoreErrorKind::ReadFailed, what).with_source(error)
            })?,
        };
        writer.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(failed)?;
        let readers = self.connect_readers(&path)?;
        Ok(OpenFile { writer, readers, lock, sums, path, known })
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
            reader.pragma_update(None, "cell_size_check", true)?;
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

/// Refuses a data file of which pages are not what was written.
fn unharmed(sums: &mut Sums, path: &Path, lock: &Lock) -> Result<(), StoreError> {
    let shown = path.display();
    let found = sums.compare(path, lock.data()).map_err(|error| {
        StoreError::new(StoreErrorKind::ReadFailed, format!("read of `{shown}` failed")).with_source(error)
    })?;
    if found.is_empty() {
        return Ok(());
    }
    let what = format!(
        "open `{shown}` failed, and nothing was changed: {}. The file is damaged, or was replaced or changed by another program. \
         Replace a file only with `purista store restore`; to open the file as it is, remove `{}` after a look with \
         `purista store check`",
        found.join("; "),
        sums::path_of(path).display()
    );
    Err(StoreError::new(StoreErrorKind::Corrupt, what))
}

/// Refuses a data file whose log ends before the last commit that was acknowledged.
fn reaches(writer: &Connection, version: i32, acknowledged: Head, shown: &str) -> Result<(), StoreError> {
    let failed = error::read_failed("read of the head");
    let found = if version == 0 { Head::default() } else { head_of(writer).map_err(failed)? };
    match lost(found, acknowledged) {
        None => Ok(()),
        Some(lost) => {
            let what = format!(
                "open `{shown}` failed, and nothing was changed: {lost}. The write-ahead log next to it is damaged or missing, or \
                 the file was replaced. Restore a backup with `purista store restore`"
            );
            Err(StoreError::new(StoreErrorKind::Corrupt, what))
        }
    }
}

/// What lies between the end of the log and the end that was acknowledged.
pub(crate) fn lost(found: Head, acknowledged: Head) -> Option<String> {
    if found.position < acknowledged.position {
        let (end, known) = (found.position, acknowledged.position);
        return Some(format!("the log ends at position {end}, and commits up to {known} were acknowledged"));
    }
    (found.batch < acknowledged.batch).then(|| {
        let missing = acknowledged.batch - found.batch;
        format!("the last {missing} acknowledged commits are missing")
    })
}

/// The end of the log.
pub(crate) fn head_of(connection: &Connection) -> rusqlite::Result<Head> {
    Ok(Head { position: fetch::head(connection)?, batch: last_batch(connection)? })
}

/// The number of the last batch, which grows with each.
pub(crate) fn last_batch(connection: &Connection) -> rusqlite::Result<i64> {
    let mut select = connection.prepare_cached("SELECT coalesce(max(number), 0) FROM batches")?;
    select.query_row([], |row| row.get(0))
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
        let Head { position, batch } = head_of(connection)?;
        Ok(Self { origin: origin.into(), head: position, batch, latest })
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
    // A cell that lies outside of its page is damage, and no data.
    writer.pragma_update(None, "cell_size_check", true).map_err(failed)?;
    writer
        .pragma_update(None, "journal_size_limit", i64::try_from(WAL_BYTES_KEPT).unwrap_or(i64::MAX))
        .map_err(failed)?;
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

/// Flushes what is about to be shown. A process that was killed between a write and its flush leaves commits that this
/// one sees, and that a crash of the machine could still take back.
fn make_durable(writer: &Connection, path: &Path, sums: Option<&mut Sums>) -> Result<(), StoreError> {
    let log = wal::path_of(path);
    let flush = || -> std::io::Result<()> {
        if fs::exists(&log)? {
            fs::OpenOptions::new().read(true).write(true).open(&log)?.sync_all()?;
        }
        path.parent().map_or(Ok(()), sync_folder)
    };
    let failed =
        || StoreError::new(StoreErrorKind::ReadFailed, format!("flush of `{}` failed", path.display()));
    flush().map_err(|error| failed().with_source(error))?;
    if let Some(sums) = sums {
        sums.take_in(path).map_err(|error| failed().with_source(error))?;
    }
    // Begins with a short log. A foreign reader may hold it back; then the next checkpoint does it.
    writer
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .map_err(|error| failed().with_source(error))
}
