//! One owner of a file: an operating system's lock on a file beside it.
//!
//! SQLite's own exclusive mode would keep readers of other processes out, too, and the command line reads a file that is
//! in use.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use purista_events::store::{StoreError, StoreErrorKind};

/// How long a lock is waited for between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// Held while the file is owned. The operating system lets go of it when the process dies, however it dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, waiting at most `wait` for an owner that is about to let go of it.
    pub(crate) fn take(path: &Path, wait: Duration) -> Result<Self, StoreError> {
        let beside = beside(path);
        let failed = |error| {
            let what = format!("take the lock `{}` failed", beside.display());
            StoreError::new(StoreErrorKind::Closed, what).with_source(error)
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&beside).map_err(failed)?;
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if started.elapsed() < wait => std::thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => return Err(in_use(path, &mut file)),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        // For whoever is refused; the lock itself does not depend on it.
        let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

/// Who has the file open; `None` when nobody has. It makes no lock file, and holds the lock for a moment at most.
pub(crate) fn owner(path: &Path) -> std::io::Result<Option<String>> {
    let mut file = match File::open(beside(path)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(named(&mut file))),
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

fn in_use(path: &Path, file: &mut File) -> StoreError {
    let owner = named(file);
    let what = format!(
        "open `{}` failed: {owner} has it open; a store has one owner, so end that one first, or share its store within \
         the process, or give this one a file of its own",
        path.display(),
    );
    StoreError::new(StoreErrorKind::InUse, what)
}
