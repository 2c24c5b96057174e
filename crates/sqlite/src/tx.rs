//! The transaction in which the handlers of a projection write.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use purista_core::error::HandlerError;
use purista_events::read_models::Build;
use purista_events::store::{StoreError, StoreErrorKind};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Params, Row, params};

use crate::error::Refusal;

/// SQLite's module of full-text tables.
pub(crate) const FULL_TEXT: &str = "fts5";

/// The writer's transaction, as the handlers of a projection see it. `{names}` in SQL stands for the build's own table
/// `names`; other tables can be read and not written.
///
/// ```
/// use purista_core::event::Event;
/// use purista_events::projection::Projection;
/// use purista_events::recorded::Recorded;
/// use purista_sqlite::read_models::projection;
/// use purista_sqlite::tx::Tx;
/// # use garde::Validate; use schemars::JsonSchema; use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
/// #[garde(allow_unvalidated)]
/// struct Renamed { user: String, name: String }
/// impl Event for Renamed { const NAME: &'static str = "renamed"; }
///
/// fn names() -> Projection<Tx> {
///     projection("names", 1)
///         .set_up(|tx| tx.create_table("names", "user TEXT PRIMARY KEY, name TEXT NOT NULL"))
///         .on(|tx, event: Recorded<Renamed>| {
///             let sql = "INSERT OR REPLACE INTO {names} (user, name) VALUES (?1, ?2)";
///             tx.execute(sql, (&event.body.user, &event.body.name))?;
///             Ok(())
///         })
/// }
/// ```
pub struct Tx {
    connection: Rc<Connection>,
    build: Build,
    suffix: String,
    /// Those that were made in it.
    tables: RefCell<Vec<String>>,
    /// The first failure that is the disk's, and not the handler's.
    broken: Cell<Option<rusqlite::ffi::Error>>,
}

impl Tx {
    pub(crate) fn new(connection: &Rc<Connection>, build: &Build) -> Self {
        let suffix = suffix(build);
        let (connection, build) = (Rc::clone(connection), build.clone());
        Self { connection, build, suffix, tables: RefCell::default(), broken: Cell::new(None) }
    }

    pub(crate) fn suffix(&self) -> &str {
        &self.suffix
    }

    /// Makes a table of this build, with these columns; readers find it under this name.
    pub fn create_table(&self, name: &str, columns: &str) -> Result<(), HandlerError> {
        self.check_name(name)?;
        self.make(name, &format!("CREATE TABLE \"{name}{}\" ({columns})", self.suffix))
    }

    /// Makes a full-text table of this build (SQLite's FTS5), with these columns and options, as
    /// `name, email UNINDEXED, tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3'`.
    ///
    /// Readers find it under this name, with its columns, `rowid`, `rank`, and the name itself as what `MATCH` searches:
    /// `SELECT email FROM people WHERE people MATCH ?1 ORDER BY rank LIMIT 20`.
    pub fn create_search_table(&self, name: &str, columns: &str) -> Result<(), HandlerError> {
        self.check_name(name)?;
        self.make(
            name,
            &format!("CREATE VIRTUAL TABLE \"{name}{}\" USING {FULL_TEXT} ({columns})", self.suffix),
        )
    }

    fn make(&self, name: &str, sql: &str) -> Result<(), HandlerError> {
        self.say(self.connection.execute_batch(sql))?;
        self.tables.borrow_mut().push(name.to_owned());
        Ok(())
    }

    fn check_name(&self, name: &str) -> Result<(), HandlerError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(is_plain) {
            return Err(HandlerError::failed(format!(
                "`{name}` is no name of a table: letters, digits and `_`"
            )));
        }
        self.refuse_taken(name)
    }

    /// The tables that were made.
    pub(crate) fn into_tables(self) -> Vec<String> {
        self.tables.into_inner()
    }

    /// A name that readers know already belongs to this projection or to nobody.
    fn refuse_taken(&self, name: &str) -> Result<(), HandlerError> {
        let owner = self.say(
            self.connection
                .query_row(
                    "SELECT (SELECT projection FROM projection_tables p WHERE p.name = ?1 AND p.projection <> ?2) \
                     FROM (SELECT 1) WHERE EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?1 AND type <> 'view') \
                     OR EXISTS (SELECT 1 FROM projection_tables p WHERE p.name = ?1 AND p.projection <> ?2)",
                    params![name, self.build.name.as_str()],
                    |row| row.get::<_, Option<String>>(0),
                )
                .optional(),
        )?;
        match owner {
            None => Ok(()),
            Some(owner) => {
                let owner = owner.map_or("the store".to_owned(), |owner| format!("the projection `{owner}`"));
                Err(HandlerError::failed(format!(
                    "the table `{name}` is one of {owner}: give it another name"
                )))
            }
        }
    }

    /// Changes rows, and returns how many.
    pub fn execute(&self, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
        let sql = self.named(sql);
        self.say(self.connection.prepare_cached(&sql).and_then(|mut statement| statement.execute(params)))
    }

    /// Runs several statements without parameters: indices of the tables just made, as
    /// `CREATE INDEX {names}_by_name ON {names} (name)`.
    pub fn execute_batch(&self, sql: &str) -> rusqlite::Result<()> {
        self.say(self.connection.execute_batch(&self.named(sql)))
    }

    /// Reads one row, when there is one. It sees what was written before in the same transaction.
    pub fn query_row<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        let sql = self.named(sql);
        let found = self.connection.prepare_cached(&sql);
        self.say(found.and_then(|mut statement| statement.query_row(params, read).optional()))
    }

    /// Reads all rows.
    pub fn query<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        let sql = self.named(sql);
        let found = self.connection.prepare_cached(&sql);
        self.say(found.and_then(|mut statement| statement.query_map(params, read)?.collect()))
    }

    /// Puts the names of the build's tables in.
    fn named(&self, sql: &str) -> String {
        let mut named = String::with_capacity(sql.len() + 2 * self.suffix.len());
        let mut rest = sql;
        while let Some((before, after)) = rest.split_once('{') {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            named.push_str(before);
            let name =
                after.split_once('}').filter(|(name, _)| !name.is_empty() && name.chars().all(is_plain));
            rest = if let Some((name, behind)) = name {
                named.push_str(name);
                named.push_str(&self.suffix);
                behind
            } else {
                named.push('{');
                after
            };
        }
        named.push_str(rest);
        named
    }

    /// Keeps in mind what concerns the disk.
    fn say<T>(&self, result: rusqlite::Result<T>) -> rusqlite::Result<T> {
        if let Err(rusqlite::Error::SqliteFailure(error, _)) = &result
            && is_of_the_disk(error.code)
            && self.broken.get().is_none()
        {
            self.broken.set(Some(*error));
        }
        result
    }

    /// The end of a step that failed: the disk's failure if there was one, else the handler's.
    pub(crate) fn refusal(&self, error: HandlerError) -> Refusal {
        if let Some(of_the_disk) = self.broken.get() {
            return Refusal::Failed(rusqlite::Error::SqliteFailure(of_the_disk, None));
        }
        let what = format!("a step of the projection {} failed", self.build);
        StoreError::new(StoreErrorKind::Invalid, what).with_source(Refused(error)).into()
    }
}

fn is_of_the_disk(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::DatabaseCorrupt
            | ErrorCode::NotADatabase
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::OutOfMemory
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
    )
}

impl fmt::Debug for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").field("build", &self.build).finish_non_exhaustive()
    }
}

/// What stands behind the names of a build's tables.
pub(crate) fn suffix(build: &Build) -> String {
    format!("_v{}_{}", build.version, build.generation)
}

/// An error of the user's code on its way through the writer.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) HandlerError);

impl Refused {
    /// Sets the user's errors apart from the engine's.
    pub(crate) fn part<T>(ended: Result<T, StoreError>) -> Result<Result<T, HandlerError>, StoreError> {
        match ended {
            Ok(found) => Ok(Ok(found)),
            Err(error) => error.into_source::<Self>().map(|refused| Err(refused.0)),
        }
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.report())
    }
}

impl std::error::Error for Refused {}
