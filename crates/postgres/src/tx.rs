//! The transaction in which the handlers of a projection write.

use std::cell::{Cell, RefCell};
use std::fmt;

use deadpool_postgres::Client;
use purista_core::error::HandlerError;
use purista_events::read_models::Build;
use purista_events::store::StoreErrorKind;
use tokio::runtime::Handle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

use crate::error::fault_of_the_server;

/// The longest name of a table, in bytes: what stands behind it has room in a name of Postgres.
const TABLE_BYTES_MAX: usize = 40;

/// A step's transaction, as the handlers of a projection see it. `{names}` in SQL stands for the build's own table `names`.
///
/// Handlers are plain functions, as on every engine: each call waits for the server on a thread that may wait. So a handler that
/// says one thing in one statement is much faster than one that asks first.
///
/// ```
/// use purista_core::event::Event;
/// use purista_events::projection::Projection;
/// use purista_events::recorded::Recorded;
/// use purista_postgres::read_models::projection;
/// use purista_postgres::tx::Tx;
/// # use garde::Validate; use schemars::JsonSchema; use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
/// #[garde(allow_unvalidated)]
/// struct Renamed { user: String, name: String }
/// impl Event for Renamed { const NAME: &'static str = "renamed"; }
///
/// fn names() -> Projection<Tx> {
///     projection("names", 1)
///         .set_up(|tx| tx.create_table("names", "\"user\" text PRIMARY KEY, name text NOT NULL"))
///         .on(|tx, event: Recorded<Renamed>| {
///             let sql = "INSERT INTO {names} (\"user\", name) VALUES ($1, $2) \
///                        ON CONFLICT (\"user\") DO UPDATE SET name = excluded.name";
///             tx.execute(sql, &[&event.body.user, &event.body.name])?;
///             Ok(())
///         })
/// }
/// ```
pub struct Tx {
    client: Client,
    runtime: Handle,
    build: Build,
    suffix: String,
    /// Those that were made in it.
    tables: RefCell<Vec<String>>,
    /// Whether the server failed, whatever the handler made of it.
    server_failed: Cell<Option<StoreErrorKind>>,
}

impl Tx {
    /// The transaction that is open on this connection.
    pub(crate) fn new(client: Client, runtime: Handle, build: &Build) -> Self {
        let (suffix, build) = (suffix(build), build.clone());
        Self { client, runtime, build, suffix, tables: RefCell::default(), server_failed: Cell::new(None) }
    }

    /// Makes a table of this build, with these columns; readers find it under this name.
    pub fn create_table(&self, name: &str, columns: &str) -> Result<(), HandlerError> {
        self.check_name(name)?;
        self.execute_batch(&format!("CREATE TABLE \"{name}{}\" ({columns})", self.suffix))?;
        self.tables.borrow_mut().push(name.to_owned());
        Ok(())
    }

    fn check_name(&self, name: &str) -> Result<(), HandlerError> {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !name.starts_with(|c: char| c.is_ascii_lowercase())
            || !name.chars().all(is_plain)
            || name.len() > TABLE_BYTES_MAX
        {
            return Err(HandlerError::failed(format!(
                "`{name}` is no name of a table: at most {TABLE_BYTES_MAX} of a to z, 0 to 9 and `_`, a letter first"
            )));
        }
        let sql = "SELECT (SELECT projection FROM projection_tables WHERE name = $1 AND projection <> $2 LIMIT 1), \
                   EXISTS (SELECT 1 FROM pg_class WHERE relname = $1 AND relnamespace = current_schema()::regnamespace \
                   AND relkind <> 'v')";
        let found = self.query(sql, &[&name, &self.build.name.as_str()])?;
        let Some(row) = found.first() else { return Ok(()) };
        let (owner, is_of_the_store): (Option<String>, bool) = (row.try_get(0)?, row.try_get(1)?);
        let owner = match owner {
            Some(owner) => format!("the projection `{owner}`"),
            None if is_of_the_store => "the store".to_owned(),
            None => return Ok(()),
        };
        Err(HandlerError::failed(format!("the table `{name}` is one of {owner}: give it another name")))
    }

    /// The tables that were made.
    pub(crate) fn tables(&self) -> Vec<String> {
        self.tables.borrow().clone()
    }

    /// Changes rows, and returns how many.
    pub fn execute(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<u64, Error> {
        let sql = self.named(sql);
        self.say(self.runtime.block_on(async {
            let statement = self.client.prepare_cached(&sql).await?;
            self.client.execute(&statement, values).await
        }))
    }

    /// Runs several statements without parameters: indices of the tables just made, as
    /// `CREATE INDEX ON {names} (name)`.
    pub fn execute_batch(&self, sql: &str) -> Result<(), Error> {
        self.say(self.runtime.block_on(self.client.batch_execute(&self.named(sql))))
    }

    /// Reads one row, when there is one. It sees what was written before in the same transaction.
    pub fn query_row(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, Error> {
        Ok(self.query(sql, values)?.into_iter().next())
    }

    /// Reads all rows.
    pub fn query(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        let sql = self.named(sql);
        self.say(self.runtime.block_on(async {
            let statement = self.client.prepare_cached(&sql).await?;
            self.client.query(&statement, values).await
        }))
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

    /// Keeps in mind what the server is at fault for: no handler is paused for that.
    fn say<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &result
            && let Some(kind) = fault_of_the_server(error)
        {
            self.server_failed.set(Some(kind));
        }
        result
    }

    /// Gives the connection back, and says whether the server failed in the meantime.
    pub(crate) fn end(self) -> (Client, Option<StoreErrorKind>) {
        (self.client, self.server_failed.get())
    }
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
