//! A backup becomes the data file: copied, looked at, and put in place of what was there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use purista_events::store::{EventStore as _, StoreError, StoreErrorKind};

use crate::lock::Lock;
use crate::private_file::{private, sync_folder};
use crate::store::SqliteStore;
use crate::{sums, wal};

/// What the files of the store before it are called after a restore: their names with this ending.
pub(crate) const REPLACED: &str = "replaced";

impl SqliteStore {
    /// Makes a data file of a backup: copies it, looks through the copy, and renames it to `target`. No store may have `target`
    /// open. With `replace` the files of a store that is there already are renamed to `<name>.replaced` and not deleted; they
    /// take the place of those of the restore before. It blocks while the disk works.
    ///
    /// A file is never restored by copying over it: its write-ahead log and its page checksums belong to what was there, and the
    /// next opening fails.
    ///
    /// # Errors
    ///
    /// `InUse` when a store has `target` open. `Invalid` when `target` exists without `replace`, or when `backup` is no store or
    /// has a write-ahead log next to it. `Corrupt` when the backup is damaged. `NoSpace` and `ReadFailed` as they say. The files
    /// at `target` are unchanged then.
    pub async fn restore(
        backup: impl AsRef<Path>,
        target: impl AsRef<Path>,
        replace: bool,
    ) -> Result<(), StoreError> {
        let (backup, target) = (backup.as_ref(), target.as_ref());
        let invalid = |why: String| {
            let what = format!("restore of `{}` failed: {why}", backup.display());
            StoreError::new(StoreErrorKind::Invalid, what)
        };
        if fs::metadata(wal::path_of(backup)).is_ok_and(|log| log.len() > 0) {
            let why = "a write-ahead log lies next to it, so it was not closed, or is no backup; open and close it once";
            return Err(invalid(why.to_owned()));
        }
        if target.exists() && !replace {
            return Err(invalid(format!("there is a file `{}` already", target.display())));
        }
        let part = named(target, "restoring");
        let copied = copied(backup, &part).map_err(failed(backup));
        let sound = match copied {
            Ok(()) => look_through(&part).await,
            Err(error) => Err(error),
        };
        let placed = sound.and_then(|()| place(backup, &part, target));
        for left in [part.clone(), wal::path_of(&part), named_shm(&part)] {
            let _ = fs::remove_file(left);
        }
        placed
    }
}

fn failed(backup: &Path) -> impl Fn(std::io::Error) -> StoreError {
    move |error| {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull => StoreErrorKind::NoSpace,
            _ => StoreErrorKind::ReadFailed,
        };
        StoreError::new(kind, format!("restore of `{}` failed", backup.display())).with_source(error)
    }
}

fn copied(backup: &Path, part: &Path) -> std::io::Result<()> {
    let _ = fs::remove_file(part);
    let mut from = fs::File::open(backup)?;
    let mut to = private().write(true).create_new(true).open(part)?;
    std::io::copy(&mut from, &mut to)?;
    to.sync_all()
}

/// Opens the copy as it is, and asks the same as `purista store check`.
async fn look_through(part: &Path) -> Result<(), StoreError> {
    let store = SqliteStore::builder(part).readers(1).open_read_only()?;
    let found = store.check().await;
    store.close().await?;
    match found?.as_slice() {
        [] => Ok(()),
        [first, ..] => {
            let what = format!("the backup is damaged: {first}; `purista store check` names the rest");
            Err(StoreError::new(StoreErrorKind::Corrupt, what))
        }
    }
}

/// Moves the files of the store before it out of the way, and the copy to its name.
fn place(backup: &Path, part: &Path, target: &Path) -> Result<(), StoreError> {
    let is_there = target.exists();
    let lock = Lock::take(target, Duration::ZERO)?;
    let moved = || -> std::io::Result<()> {
        let replaced = named(target, REPLACED);
        let put_aside = |file: &Path, to: &Path| match fs::rename(file, to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        if is_there {
            put_aside(target, &replaced)?;
        }
        put_aside(&wal::path_of(target), &wal::path_of(&replaced))?;
        let _ = fs::remove_file(named_shm(target));
        fs::rename(part, target)?;
        // The checksums last: as long as they are those of the store before, no interrupted restore is opened.
        put_aside(&sums::path_of(target), &sums::path_of(&replaced))?;
        let folder =
            target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_folder(folder)
    };
    let moved = moved().map_err(failed(backup));
    drop(lock);
    moved
}

fn named(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

/// The memory that connections share.
fn named_shm(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push("-shm");
    name.into()
}
