//! What the programs that measure purista share: a contract, a service that serves it, and a harness.
//!
//! **What it is not.** No test: nothing in here passes or fails on time. `docs/performance.md` says how to run each program
//! and what it showed.

pub mod sign_up;
