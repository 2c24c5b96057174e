//! What can be asked for on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::dead_letters::DeadLetters;
use crate::events::Events;
use crate::projections::Projections;
use crate::store::Store;
use crate::subscriptions::Subscriptions;

/// Looks into the data file of a purista program, and steers what is kept in it.
///
/// Whatever only reads works while the program runs: the file is opened for reading only. Whatever changes the file needs it
/// for itself, and is refused while a program has it open.
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
    /// Print JSON: lists as one value a line, everything else as one document.
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub(crate) json: bool,
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
    /// The file itself: what it holds, whether it is sound, copies of it.
    Store {
        #[command(subcommand)]
        what: Store,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_fit_together() {
        Arguments::command().debug_assert();
    }
}
