//! Where spans and logs go: readable lines for people, JSON lines for machines.
//!
//! **What it is.** One call at the start of a program that lets everything which uses `tracing` be seen on the error
//! output, a line an event, with the trace id of the flow that it belongs to.
//!
//! **What it is not.** It stores and rotates no files: what starts the program (systemd, a container, a shell) takes the
//! error output and keeps it.
//!
//! ```
//! use purista_telemetry::logging::{self, Logging};
//!
//! # fn main() -> Result<(), logging::InitError> {
//! let _logs = logging::init(Logging::from_env()?)?; // the last lines are written when it is dropped
//! tracing::info!(user_id = 7, "signed up");
//! # Ok(())
//! # }
//! ```
//!
//! Look first at [`logging`]; `line` says what a line looks like, `outlet` why a blocked pipe stops nobody.

pub mod logging;

mod line;
mod outlet;
