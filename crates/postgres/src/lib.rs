//! A store in Postgres: events, state, replies, progress and dead letters, committed together; for more than one process.
//!
//! **What it is.** An [`EventStore`](purista_events::store::EventStore) that several processes have open at once:
//! [`store::PostgresStore`]. What waits is committed as one group; followers read below the oldest transaction that still
//! writes, so that no event ever appears behind them.
//!
//! **What it is not.** It replicates nothing by itself, and is as durable as its server. A transaction that somebody leaves open
//! after it has written, anywhere in the cluster, holds followers back: it delays, and never skips.
//!
//! **What is done by one process at a time.** Relaying, projecting, feeding a durable subscription: a host does each only while it has
//! the lease of it ([`EventStore::lease`](purista_events::store::EventStore::lease)), a lock of its session on the server. Another has
//! it within seconds when the process, its connection or its machine is gone. Commands are answered by all of them.
//!
//! ```no_run
//! use purista_core::id::Id;
//! use purista_events::{batch::Batch, store::EventStore};
//! use purista_postgres::store::PostgresStore;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let store = PostgresStore::connect("postgres://app:secret@localhost/app").await?;
//! let receipt = store.commit(Batch::new(Id::from_random(7), None)).await?;
//! assert!(!receipt.is_repeated);
//! store.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! A log that began in another store is taken over as it is: [`copying`], for the command `purista store copy`.
//!
//! Look first at `place`, which says how the log is ordered, then at `lane`, which writes: `known` is what a group asks,
//! `decision` what becomes of each batch, `write` what is written. `sql/1-log.sql` says where everything lies.

mod ahead;
mod blocked;
mod check;
mod codec;
mod connect;
mod copy_state;
mod decision;
mod details;
mod error;
mod event;
mod fetch;
mod flight;
mod forms;
mod group;
mod horizon;
mod inspection;
mod kept;
mod known;
mod lane;
mod leases;
mod locks;
mod opening;
mod place;
mod pool;
mod queue;
mod receipts;
mod rows;
mod selection;
mod shared;
mod snapshot;
mod state;
mod subscriptions;
mod tail;
mod time;
mod tls;
mod upkeep;
mod views;
mod write;

pub mod builder;
pub mod commit_in;
pub mod copying;
pub mod holders;
pub mod migrations;
pub mod read_models;
pub mod status;
pub mod store;
pub mod tx;

pub use store::PostgresStore;

/// The client that handlers of projections write SQL with, in the version that this one uses.
pub use tokio_postgres;
