//! `purista store backup`: a copy of the file while it is used.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use purista_events::store::{EventStore as _, StoreErrorKind};
use purista_sqlite::store::SqliteStore;
use serde_json::json;

use crate::opening::{self, Location, located};
use crate::refusal::Refusal;
use crate::screen::{Screen, number};

/// Copies the store. A file of that name is replaced only on demand, and only when the whole copy is there.
pub(crate) async fn run(
    location: &Location,
    to: &Path,
    force: bool,
    screen: &mut Screen,
) -> anyhow::Result<()> {
    let Location::File(file) = location else {
        return Err(Refusal::error(
            "a database is not copied into a file",
            "`pg_dump --schema=NAME` makes a copy of the schema that `pg_restore` reads; for a copy of each moment archive the \
             server's log",
        ));
    };
    let store = opening::read_file(file)?;
    refuse_unfit(file, to, force)?;
    if force && to.exists() {
        let beside = with_ending(to, ".new");
        // Left by one that was killed.
        remove(&beside)?;
        store.backup(&beside).await?;
        // The page checksums of the file that is replaced.
        remove(&with_ending(to, ".sums"))?;
        std::fs::rename(&beside, to)
            .with_context(|| format!("rename `{}` to `{}` failed", beside.display(), to.display()))?;
    } else {
        store.backup(to).await?;
    }
    store.close().await?;
    let bytes = std::fs::metadata(to)?.len();
    let sentence = format!("copied to `{}`, {} bytes", to.display(), number(bytes));
    screen.say(&sentence, &json!({ "file": to.display().to_string(), "bytes": bytes }))
}

/// Makes the data file out of a backup.
pub(crate) async fn restore(
    location: &Location,
    from: &Path,
    force: bool,
    screen: &mut Screen,
) -> anyhow::Result<()> {
    let Location::File(file) = location else {
        return Err(Refusal::error(
            "a database is not restored from a file",
            "`pg_restore` reads what `pg_dump --schema=NAME` wrote",
        ));
    };
    if located(file) == located(from) {
        let remedy = "name the backup, and with `--file` the data file that it becomes";
        return Err(Refusal::error(format!("`{}` is the data file itself", from.display()), remedy));
    }
    // Its errors are those of any store that is opened for reading.
    opening::read_file(from)?.close().await?;
    if file.exists() && !force {
        return Err(Refusal::error(
            format!("there is a file `{}` already", file.display()),
            "stop its program and give `--force`: its files are renamed to `.replaced` and not deleted",
        ));
    }
    SqliteStore::restore(from, file, force).await.map_err(|error| match error.kind() {
        StoreErrorKind::InUse => Refusal::error(error.to_string(), "stop the program that has it open first"),
        _ => error.into(),
    })?;
    let store = opening::read_file(file)?;
    let head = *store.head().borrow();
    store.close().await?;
    let sentence = format!("restored `{}` from `{}`, up to position {head}", file.display(), from.display());
    let json = json!({
        "file": file.display().to_string(),
        "from": from.display().to_string(),
        "head": head,
    });
    screen.say(&sentence, &json)
}

fn refuse_unfit(file: &Path, to: &Path, force: bool) -> anyhow::Result<()> {
    let shown = to.display();
    if located(file) == located(to) {
        return Err(Refusal::error(format!("`{shown}` is the data file itself"), "name another file"));
    }
    if to.is_dir() {
        let remedy = format!("name a file in it, such as `{}`", to.join("backup.db").display());
        return Err(Refusal::error(format!("`{shown}` is a folder"), remedy));
    }
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        let what = format!("there is no folder `{}`", folder.display());
        return Err(Refusal::error(what, "make it first, or name a file in another one"));
    }
    if to.exists() && !force {
        let what = format!("there is a file `{shown}` already");
        return Err(Refusal::error(what, "name another file, or replace that one with `--force`"));
    }
    if let Some(owner) = SqliteStore::owner(to)? {
        let what = format!("`{shown}` is open in {owner}");
        return Err(Refusal::error(what, "name another file: one that is in use is not replaced"));
    }
    // SQLite would take what lies there for the newest part of the copy.
    for ending in ["-wal", "-journal"] {
        let log = with_ending(to, ending);
        if std::fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
            let what = format!(
                "beside `{shown}` lies `{}`, which belongs to another store of that name",
                log.display()
            );
            return Err(Refusal::error(what, "name another file, or remove both if nobody needs them"));
        }
    }
    Ok(())
}

fn remove(file: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove `{}` failed", file.display()))
        }
        _ => Ok(()),
    }
}

fn with_ending(file: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(ending);
    name.into()
}
