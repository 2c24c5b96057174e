//! Opens the store: a data file for reading beside whoever owns it, or as its one owner; a database as one of many.

use std::path::{Path, PathBuf};
use std::time::Duration;

use purista_events::batch::Batch;
use purista_events::store::{EventStore as _, StoreError, StoreErrorKind};
use purista_postgres::builder::Builder;
use purista_postgres::store::PostgresStore;
use purista_sqlite::store::SqliteStore;

use crate::engine::Engine;
use crate::refusal::Refusal;
use crate::screen::remark;

/// How long the server may take for one statement of a tool: it reads more at once than a program does.
const STATEMENT_TIME_MAX: Duration = Duration::from_secs(600);

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    /// In a file.
    File(PathBuf),
    /// In a schema of a database.
    Postgres(Database),
}

/// A schema of a database. Its address bears a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Database {
    pub(crate) url: String,
    pub(crate) schema: String,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Database {
    /// How it is opened. No tool makes tables, unless it is told to.
    pub(crate) fn builder(&self) -> Builder {
        self.migrating().without_migrations()
    }

    /// How it is opened by one that makes tables.
    pub(crate) fn migrating(&self) -> Builder {
        let builder = PostgresStore::builder(&self.url).schema(self.schema.as_str());
        builder.writers(1).readers(2).statement_timeout(STATEMENT_TIME_MAX)
    }

    pub(crate) async fn open(&self) -> anyhow::Result<PostgresStore> {
        self.builder().connect().await.map_err(not_connected)
    }
}

/// Why a database is not opened, with what helps.
pub(crate) fn not_connected(error: StoreError) -> anyhow::Error {
    let text = error.to_string();
    let remedy = if text.contains("migrate them first") {
        "`purista store migrate` makes them; or start the program, which does the same"
    } else if text.contains("is not finished") {
        "run `purista store copy` once more: it goes on where it was"
    } else if text.contains("use a newer program") {
        "use the `purista` of the version that made them"
    } else {
        return error.into();
    };
    Refusal::error(text, remedy)
}

/// Opens it for reading; running hosts go on.
pub(crate) async fn read(location: &Location) -> anyhow::Result<Box<dyn Engine>> {
    Ok(match location {
        Location::File(file) => Box::new(read_file(file)?),
        Location::Postgres(database) => Box::new(database.open().await?),
    })
}

/// Opens it to change it. `what` is refused while a host owns a file; a database has many users.
pub(crate) async fn own(location: &Location, what: &str, within: &str) -> anyhow::Result<Box<dyn Engine>> {
    Ok(match location {
        Location::File(file) => Box::new(own_file(file, what, within).await?),
        Location::Postgres(database) => Box::new(database.open().await?),
    })
}

/// Says when programs that run learn of a change, where there may be some.
pub(crate) fn remark_on_programs(store: &dyn Engine) {
    if let Some(heard) = store.heard_by_programs() {
        remark(heard);
    }
}

/// Opens a file for reading; a running host goes on.
pub(crate) fn read_file(file: &Path) -> anyhow::Result<SqliteStore> {
    match std::fs::metadata(file) {
        Ok(found) if found.is_dir() => {
            let remedy = format!("name the file in it, such as `--file {}`", file.join("app.db").display());
            return Err(Refusal::error(format!("`{}` is a folder", file.display()), remedy));
        }
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Refusal::error(
                format!("there is no file `{}`", file.display()),
                "name the data file with `--file PATH` or in PURISTA_FILE; a program makes it when it starts first",
            ));
        }
        Err(error) => {
            return Err(anyhow::Error::new(error).context(format!("look at `{}` failed", file.display())));
        }
    }
    SqliteStore::builder(file).readers(1).open_read_only().map_err(not_opened)
}

/// Opens a file as its owner, to change it; `what` is refused while a host owns it.
///
/// It never makes a file, and never brings one to a newer form: the program would not know that form any more.
pub(crate) async fn own_file(file: &Path, what: &str, within: &str) -> anyhow::Result<SqliteStore> {
    read_file(file)?.close().await?;
    SqliteStore::builder(file).readers(1).open().map_err(|error| match error.kind() {
        StoreErrorKind::InUse => in_use(file, what, within),
        _ => not_opened(error),
    })
}

fn in_use(file: &Path, what: &str, within: &str) -> anyhow::Error {
    let owner = SqliteStore::owner(file).ok().flatten().unwrap_or_else(|| "another process".to_owned());
    Refusal::error(
        format!("`{}` is open in {owner}, and a file has one writer: cannot {what}", file.display()),
        format!("stop that program first, or {within}"),
    )
}

fn not_opened(error: StoreError) -> anyhow::Error {
    let text = error.to_string();
    let remedy = if text.contains("a newer version of it wrote the file") {
        "use the `purista` of the version that wrote it"
    } else if text.contains("opened for reading only; open it for writing once") {
        "start its program once, or use the `purista` of the version that wrote it"
    } else if text.contains("it is an empty file") {
        "name the file that the program writes; an empty one becomes a store when a program opens it"
    } else if error.kind() == StoreErrorKind::ReadFailed && is_not_allowed(&error) {
        // Also for reading SQLite shares memory by a file beside it.
        let remedy = "ask as the user whose program writes the file, or read a copy in a folder of your own";
        return anyhow::Error::from(error)
            .context(Refusal::new("the file or its folder may not be used", remedy));
    } else if error.kind() == StoreErrorKind::Invalid {
        "name the file that `SqliteStore::open` is given in the program"
    } else {
        return error.into();
    };
    Refusal::error(text, remedy)
}

fn is_not_allowed(error: &StoreError) -> bool {
    use purista_sqlite::rusqlite::{Error, ErrorCode};
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Error>());
    let code = source.and_then(Error::sqlite_error_code);
    matches!(code, Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied))
}

/// Commits, and once more under the same id when the answer was lost.
pub(crate) async fn commit(store: &dyn Engine, batch: Batch) -> Result<(), StoreError> {
    let again = batch.clone();
    match store.commit(batch).await {
        Err(error) if error.may_have_happened() => store.commit(again).await.map(drop),
        done => done.map(drop),
    }
}

/// The file's path without links, as far as there is one.
pub(crate) fn located(file: &Path) -> PathBuf {
    std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned())
}
