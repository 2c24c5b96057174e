//! A store in one SQLite file: events, state, replies, progress and dead letters, committed together.
//!
//! **What it is.** The embedded [`EventStore`](purista_events::store::EventStore): [`store::SqliteStore`]. One thread
//! writes, and commits whatever waits as one group with one fsync; readers beside it see what is committed.
//!
//! **What it is not.** It is no server: one process owns the file, a second one is refused. It replicates nothing, and it
//! believes a disk that says that it has flushed.
//!
//! ```
//! use purista_core::id::Id;
//! use purista_events::{batch::Batch, store::EventStore};
//! use purista_sqlite::store::SqliteStore;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = std::env::temp_dir().join(format!("purista-doc-{}", std::process::id()));
//! let store = SqliteStore::open(folder.join("app.db"))?;
//! let receipt = store.commit(Batch::new(Id::from_random(7), None)).await?;
//! assert!(!receipt.is_repeated);
//! store.close().await?;
//! # std::fs::remove_dir_all(folder)?;
//! # Ok(())
//! # }
//! ```
//!
//! Look first at `writer`, which is the heart: group, commit, poison. `commit` is what one batch does; `schema.sql` says
//! where everything lies.

mod aside;
mod backup;
mod busy;
mod check;
mod checksum;
mod codec;
mod commit;
mod dead_letter;
mod details;
mod error;
mod event;
mod fetch;
mod file;
mod folding;
mod forms;
mod guard;
mod handle;
mod kept;
mod lock;
mod occurrence;
mod private_file;
mod progress;
mod prune;
mod queue;
mod readers;
mod receipts;
mod restore;
mod schema;
mod selection;
mod snapshot;
mod state;
mod statements;
mod sums;
mod views;
mod wal;
mod watchdog;
mod writer;

pub mod builder;
pub mod read_models;
pub mod statistics;
pub mod store;
pub mod tx;

pub use store::SqliteStore;

/// The crate that handlers of projections write SQL with, in the version that this one uses.
pub use rusqlite;
