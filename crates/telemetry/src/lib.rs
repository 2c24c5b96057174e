//! Where spans and logs go: readable lines for people, JSON lines for machines, traces for a collector.
//!
//! **What it is.** One call at the start of a program that lets everything which uses `tracing` be seen: on the error output, a
//! line an event, with the trace id of the flow that it belongs to; and where `OTEL_EXPORTER_OTLP_ENDPOINT` names a collector of
//! OpenTelemetry's, as traces that go on from one process to the next.
//!
//! **What it is not.** It stores and rotates no files: what starts the program (systemd, a container, a shell) takes the
//! error output and keeps it. It shows no traces: a collector and what stands behind it do.
//!
//! ```
//! use purista_telemetry::telemetry::{self, Telemetry};
//!
//! # fn main() -> Result<(), purista_telemetry::error::InitError> {
//! let _telemetry = telemetry::init(Telemetry::from_env()?)?; // what comes last leaves when it is dropped
//! tracing::info!(user_id = 7, "signed up");
//! # Ok(())
//! # }
//! ```
//!
//! Look first at [`telemetry`], then at [`logging`] and [`traces`]; `line` says what a line looks like, `outlet` why a blocked
//! pipe stops nobody, `traces/worker` why a collector that is away stops nobody either.

pub mod error;
pub mod logging;
pub mod telemetry;
pub mod traces;

mod line;
mod outlet;
mod variables;
