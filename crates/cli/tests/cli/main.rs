//! The real binary on real files and databases: what it prints, what it refuses, and with which exit code it ends.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed step is a failed test")]

mod beside_a_host;
mod copying;
mod events;
mod files;
mod given;
mod on_postgres;
mod page;
mod postgres;
mod purista;
mod steering;
mod upkeep;
