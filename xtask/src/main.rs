//! The workspace's own commands: `cargo xtask test`, `ci` and the checks that `ci` is made of.
//!
//! They live in a crate rather than in shell scripts so that they are tested, typed, and the same on a
//! contributor's machine and in CI. Each command is one file; this one only parses the command line.

mod ci;
mod finding;
mod floors;
mod imports;
mod instructions;
mod metadata;
mod process;
mod programs;
mod python;
mod readme;
mod source;
mod suite;
mod tally;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", about = "The commands of this workspace")]
struct CommandLine {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what the tests need, run every test but the soak tests, count them.
    Test {
        /// Only this package; may be given several times.
        #[arg(short, long = "package", value_name = "NAME")]
        packages: Vec<String>,
    },
    /// Run the tests whose names start with `soak_`, optimised, one after the other.
    Soak {
        /// Only this package; may be given several times.
        #[arg(short, long = "package", value_name = "NAME")]
        packages: Vec<String>,
    },
    /// Everything that must hold before a change lands.
    Ci,
    /// Check which crate may use which, and where imports come from.
    Floors,
    /// Check the habits that no compiler checks.
    Tidy,
    /// Count the instructions of one validated command and compare them with the stored figure.
    Instructions {
        /// Store the figure just counted as the new one.
        #[arg(long)]
        bless: bool,
    },
}

fn main() -> ExitCode {
    let CommandLine { task } = CommandLine::parse();
    let root = metadata::root();
    let result = match task {
        Task::Test { packages } => suite::test(&root, &packages),
        Task::Soak { packages } => suite::soak(&root, &packages),
        Task::Ci => ci::run(&root),
        Task::Floors => floors::check(&root),
        Task::Tidy => tidy::check(&root),
        Task::Instructions { bless } => instructions::gate(&root, bless),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
