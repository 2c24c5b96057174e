//! What can be asked for on the command line.

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use purista_postgres::builder::SCHEMA;

use crate::dead_letters::DeadLetters;
use crate::events::Events;
use crate::opening::{Database, Location};
use crate::projections::Projections;
use crate::store::Store;
use crate::subscriptions::Subscriptions;

/// Looks into the store of a purista program, a data file or a database, and steers what is kept in it.
///
/// Whatever only reads works while the program runs. Whatever changes a file needs it for itself, and is refused while a
/// program has it open; a database is changed beside the programs that use it.
#[derive(Debug, Parser)]
#[command(
    name = "purista",
    version,
    after_help = "Exit codes: 0 done, 1 failed or refused, 2 wrong usage.\n\
                  Tables have colours on a terminal only, and none when NO_COLOR is set."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) shared: Shared,
    #[command(subcommand)]
    pub(crate) command: Command,
}

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
    is_file_named: bool,
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

impl Arguments {
    /// Reads them; wrong ones end the program.
    pub(crate) fn read() -> Self {
        let matches = Self::command().get_matches();
        let mut arguments = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        let named = |name: &str| matches.value_source(name) == Some(ValueSource::CommandLine);
        arguments.shared.is_file_named = named("file") && !named("store");
        arguments
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Events: now, as they come, and as they were.
    Events {
        #[command(subcommand)]
        what: Events,
    },
    /// Projections: how far they are, and making them anew.
    Projections {
        #[command(subcommand)]
        what: Projections,
    },
    /// Durable subscriptions: how far they are, what waits, what is stopped.
    Subscriptions {
        #[command(subcommand)]
        what: Subscriptions,
    },
    /// Dead letters: messages that were given up.
    DeadLetters {
        #[command(subcommand)]
        what: DeadLetters,
    },
    /// The store itself: what it holds, whether it is sound, copies of it, its tables.
    Store {
        #[command(subcommand)]
        what: Store,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_fit_together() {
        Arguments::command().debug_assert();
    }
}
