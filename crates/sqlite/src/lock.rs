//! One owner of a data file: an operating system's lock on a file next to it, and one on the data file itself.
//!
//! SQLite's own exclusive mode would keep readers of other processes out, too, and the command line reads a file that is
//! in use. The lock file names the owner. The lock on the data file holds where the lock file was deleted.
//!
//! On Linux `flock` and the locks of SQLite (`fcntl`) are apart. Elsewhere they may not be, so there the lock file is all. The
//! data file is closed last: to close it drops the locks that SQLite has on it in this process.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use purista_events::store::{StoreError, StoreErrorKind};

use crate::private_file::private;

/// Whether the data file is locked as well.
const LOCKS_DATA: bool = cfg!(target_os = "linux");

/// How long a lock is waited for between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// Held while the file is owned. The operating system lets go of it when the process dies, however it dies.
#[derive(Debug)]
pub(crate) struct Lock {
    data: File,
    _file: File,
}

impl Lock {
    /// Takes the lock, waiting at most `wait` for an owner that is about to release it. It makes the data file, readable by its
    /// owner alone, where there is none.
    pub(crate) fn take(path: &Path, wait: Duration) -> Result<Self, StoreError> {
        let beside = beside(path);
        let failed = |error| {
            let what = format!("take the lock `{}` failed", beside.display());
            StoreError::new(StoreErrorKind::Closed, what).with_source(error)
        };
        let mut file = private().read(true).write(true).create(true).open(&beside).map_err(failed)?;
        let started = Instant::now();
        let lock = |locked: &File| {
            loop {
                match locked.try_lock() {
                    Err(TryLockError::WouldBlock) if started.elapsed() < wait => std::thread::sleep(PAUSE),
                    end => return end,
                }
            }
        };
        match lock(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(path, &named(&mut file))),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let data = private().read(true).write(true).create(true).open(path).map_err(|error| {
            let what = format!("open `{}` failed", path.display());
            StoreError::new(StoreErrorKind::ReadFailed, what).with_source(error)
        })?;
        if LOCKS_DATA {
            match lock(&data) {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(in_use(path, "another process")),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        // For the process that is refused; the lock itself does not depend on it.
        let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
        Ok(Self { data, _file: file })
    }

    /// The data file, for reading its pages.
    pub(crate) fn data(&self) -> &File {
        &self.data
    }
}

/// Who has the file open; `None` when nobody has. It makes no lock file, and holds the lock for a moment at most.
pub(crate) fn owner(path: &Path) -> std::io::Result<Option<String>> {
    let mut file = match File::open(beside(path)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return owner_of_data(path),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => owner_of_data(path),
        Err(TryLockError::WouldBlock) => Ok(Some(named(&mut file))),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The owner of a data file whose lock file is not locked: it was deleted, or made again.
fn owner_of_data(path: &Path) -> std::io::Result<Option<String>> {
    if !LOCKS_DATA {
        return Ok(None);
    }
    let data = match File::open(path) {
        Ok(data) => data,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match data.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some("another process".to_owned())),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

fn named(file: &mut File) -> String {
    let mut owner = String::new();
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut owner));
    match owner.trim().parse::<u32>() {
        Ok(id) if id == std::process::id() => "this process".to_owned(),
        Ok(id) => format!("process {id}"),
        Err(_) => "another process".to_owned(),
    }
}

fn in_use(path: &Path, owner: &str) -> StoreError {
    let what = format!(
        "open `{}` failed: {owner} has it open; a store has one owner, so end that one first, or share its store within \
         the process, or give this one a file of its own",
        path.display(),
    );
    StoreError::new(StoreErrorKind::InUse, what)
}
