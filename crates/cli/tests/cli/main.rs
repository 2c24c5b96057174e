//! The real binary on real files: what it prints, what it refuses, and with which exit code it ends.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed step is a failed test")]

mod beside_a_host;
mod events;
mod files;
mod given;
mod purista;
mod steering;
mod upkeep;
