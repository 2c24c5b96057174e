//! What every command takes: where the store is, and how to print.

use std::path::PathBuf;

use clap::Args;
use purista_postgres::builder::SCHEMA;

use crate::opening::{Database, Location};

/// Above the options that every command takes.
const EVERYWHERE: &str = "Everywhere";

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Shared {
    /// The data file.
    #[arg(
        long,
        short,
        global = true,
        env = "PURISTA_FILE",
        default_value = "data/app.db",
        value_name = "PATH",
        help_heading = EVERYWHERE
    )]
    pub(crate) file: PathBuf,
    /// The database, instead of a file: postgres://user:password@host/database. In the variable no other user sees the password.
    #[arg(long, global = true, env = "PURISTA_STORE", hide_env_values = true, value_name = "URL", help_heading = EVERYWHERE)]
    store: Option<String>,
    /// The schema of the database in which the store lies.
    #[arg(long, global = true, default_value = SCHEMA, value_name = "NAME", help_heading = EVERYWHERE)]
    schema: String,
    /// Print JSON: lists as one value a line, everything else as one document.
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub(crate) json: bool,
    /// Whether the file is named on the command line: it goes before a database in a variable.
    #[arg(skip)]
    pub(crate) is_file_named: bool,
}

impl Shared {
    /// The database, where one is named.
    pub(crate) fn database(&self) -> Option<Database> {
        let (url, schema) = (self.store.clone()?, self.schema.clone());
        Some(Database { url, schema })
    }

    /// Where the store is: what is named on the command line goes before what a variable names, and a database before a file.
    pub(crate) fn location(&self) -> Location {
        let database = self.database().filter(|_| !self.is_file_named);
        database.map_or_else(|| Location::File(self.file.clone()), Location::Postgres)
    }
}
