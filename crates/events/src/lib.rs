//! The first floor of purista: the log of events, and what is kept beside it in the same commit.
//!
//! **What it is.** The contract of an [`store::EventStore`]: one [`batch::Batch`] commits events, state, the reply of a
//! command and the progress of subscriptions together or not at all; readers follow the log by [`position::Position`]. And
//! the memory engine, [`memory::MemoryStore`], which is the executable specification: every other engine passes the same
//! suite.
//!
//! **What it is not.** It delivers nothing: durable subscriptions and the unit of work live in the crate `purista`. It
//! stores nothing on disk: that is an engine's work, as `purista-sqlite`.

pub mod batch;
pub mod error;
pub mod fingerprint;
pub mod following;
pub mod form;
pub mod head;
pub mod kept;
pub mod lag;
pub mod lease;
pub mod log_time;
pub mod lost_answer;
pub mod memory;
pub mod occurrence;
pub mod position;
pub mod projection;
pub mod projector;
pub mod query;
pub mod read_models;
pub mod readers;
pub mod reading;
pub mod recorded;
pub mod resend;
pub mod snapshot;
pub mod store;
pub mod subscriptions;
pub mod upcast;
pub mod view;
pub mod view_read;

#[cfg(test)]
mod samples;
