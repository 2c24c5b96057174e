//! A copy of the file, while it is used.

use std::fs;
use std::path::{Path, PathBuf};

use purista_events::store::{StoreError, StoreErrorKind};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::private_file::{private, sync_folder};
use crate::store::SqliteStore;
use crate::sums;

impl SqliteStore {
    /// Copies the store into a new file, as it is at one moment, while commits go on; the copy is durable when this returns,
    /// and is opened as any store. It holds one reader's thread, and the write-ahead log grows meanwhile. A store that was
    /// opened for reading only can do it, too.
    ///
    /// `Invalid` when there is a file of that name already, `NoSpace` when the disk is full. What was begun is removed then.
    pub async fn backup(&self, to: impl AsRef<Path>) -> Result<(), StoreError> {
        let (from, to) = (self.handle().path.clone(), to.as_ref().to_owned());
        self.handle().read(move |_| copy(&from, &to)).await
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    let what = format!("backup to `{}` failed", to.display());
    if to.exists() {
        let what = format!("{what}: there is such a file already");
        return Err(StoreError::new(StoreErrorKind::Invalid, what));
    }
    // Nobody takes half a copy for a whole one: it gets its name when it is durable.
    let part = beside(to);
    let _ = fs::remove_file(&part);
    // Left by a file that had the name before.
    let _ = fs::remove_file(sums::path_of(to));
    // SQLite writes into an empty file, which only this user may read.
    private()
        .write(true)
        .create_new(true)
        .open(&part)
        .map_err(|error| StoreError::new(StoreErrorKind::ReadFailed, what.clone()).with_source(error))?;
    let copied = vacuum(from, &part).map_err(|error| {
        let kind = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreErrorKind::NoSpace,
            Some(ErrorCode::DatabaseCorrupt) => StoreErrorKind::Corrupt,
            _ => StoreErrorKind::ReadFailed,
        };
        StoreError::new(kind, what.clone()).with_source(error)
    });
    let named = copied.and_then(|()| {
        name(&part, to).map_err(|error| StoreError::new(StoreErrorKind::ReadFailed, what).with_source(error))
    });
    if named.is_err() {
        let _ = fs::remove_file(&part);
    }
    named
}

fn vacuum(from: &Path, part: &Path) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = Connection::open_with_flags(from, flags)?;
    connection.execute("VACUUM INTO ?1", [part.to_string_lossy()]).map(drop)
}

fn name(part: &Path, to: &Path) -> std::io::Result<()> {
    fs::OpenOptions::new().read(true).write(true).open(part)?.sync_all()?;
    // Unlike a rename, a link fails where somebody made such a file meanwhile.
    fs::hard_link(part, to)?;
    fs::remove_file(part)?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_folder(folder)
}

fn beside(to: &Path) -> PathBuf {
    let mut name = to.as_os_str().to_owned();
    name.push(".part");
    name.into()
}
