//! What can be asked for on the command line.

use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::dead_letters::DeadLetters;
use crate::events::Events;
use crate::everywhere::Shared;
use crate::projections::Projections;
use crate::relay::Relay;
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
    /// The relay: sending recorded events to the bridge again.
    Relay {
        #[command(subcommand)]
        what: Relay,
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
