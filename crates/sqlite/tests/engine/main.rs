//! What only this engine promises: its file, its lock, its groups, and what becomes of it when it is killed or the disk
//! fails.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed step is a failed test")]

mod corruption;
mod crash;
mod disk;
mod folder;
mod forgetting;
mod forms;
mod given;
mod group;
mod integrity;
mod opening;
mod owning;
mod projections;
mod queries;
mod restoring;
mod upkeep;
mod watchdog;
mod workload;
