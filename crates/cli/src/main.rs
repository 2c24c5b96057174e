//! `purista`: looks into a store, and steers what is kept in it.
//!
//! **What it is.** A door for people and scripts to one file of `purista-sqlite` or one schema of `purista-postgres`: its events, now and as they were, who did
//! what and why; projections, durable subscriptions and dead letters; backups and checks; the move of a file into a database. What only
//! reads works beside a running host.
//!
//! **What it is not.** It runs no handlers: those live in the program that the file belongs to. What needs them is asked for
//! in the file, and the program does it when it starts next.
//!
//! Look first at `arguments` for what there is, then at the module of the same name; `opening` says who may do what to a
//! store that is in use, `engine` what is asked of one, `screen` how it is shown.

mod arguments;
mod backup;
mod check;
mod checksum;
mod copy;
mod dead_letters;
mod engine;
mod events;
mod everywhere;
mod indented;
mod opening;
mod progress;
mod projections;
mod refusal;
mod relay;
mod screen;
mod selection;
mod shown;
mod status;
mod store;
mod subscriptions;
mod table;
mod tail;
mod waiting;

use std::process::ExitCode;

use crate::arguments::{Arguments, Command};
use crate::screen::Screen;

/// Everything was done.
const DONE: u8 = 0;
/// Something failed or was refused; a check that finds something counts as that. A usage error is clap's 2.
const FAILED: u8 = 1;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::read();
    let mut screen = Screen::new(arguments.shared.json);
    let ended = Box::pin(run(arguments, &mut screen)).await;
    let ended = match (ended, screen.flush()) {
        (Ok(code), Err(error)) => Err(error.into()).or_else(gone).map(|()| code),
        (Err(error), _) => gone(error).map(|()| DONE),
        (Ok(code), Ok(())) => Ok(code),
    };
    ExitCode::from(ended.unwrap_or_else(|error| {
        refusal::tell(&error);
        FAILED
    }))
}

/// Whoever read what is printed has seen enough: `purista events list | head`.
fn gone(error: anyhow::Error) -> anyhow::Result<()> {
    let is_gone = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe);
    if is_gone { Ok(()) } else { Err(error) }
}

async fn run(arguments: Arguments, screen: &mut Screen) -> anyhow::Result<u8> {
    let location = arguments.shared.location();
    match arguments.command {
        Command::Events { what } => events::run(&location, what, screen).await?,
        Command::Projections { what } => projections::run(&location, what, screen).await?,
        Command::Subscriptions { what } => subscriptions::run(&location, what, screen).await?,
        Command::DeadLetters { what } => dead_letters::run(&location, what, screen).await?,
        Command::Relay { what } => relay::run(&location, what, screen).await?,
        Command::Store { what } => return store::run(&arguments.shared, what, screen).await,
    }
    Ok(DONE)
}
