//! What the programs that measure purista share: a contract, a service that serves it, what it is compared with, and a
//! harness.
//!
//! **What it is not.** No test: nothing in here passes or fails on time. `docs/performance.md` says how to run each program
//! and what it showed.

#[cfg(feature = "compare")]
pub mod bare;
#[cfg(feature = "compare")]
pub mod between;
#[cfg(feature = "compare")]
pub mod callers;
#[cfg(feature = "compare")]
pub mod echo;
#[cfg(feature = "compare")]
pub mod folder;
#[cfg(feature = "compare")]
pub mod given;
#[cfg(feature = "compare")]
pub mod harness;
#[cfg(feature = "compare")]
pub mod postgres;
#[cfg(feature = "compare")]
pub mod raw;
#[cfg(feature = "compare")]
pub mod registered;
pub mod sign_up;
