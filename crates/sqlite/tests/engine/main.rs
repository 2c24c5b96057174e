//! What only this engine promises: its file, its lock, its groups, and what becomes of it when it is killed or the disk
//! fails.

mod corruption;
mod crash;
mod disk;
mod folder;
mod given;
mod group;
mod opening;
mod workload;
