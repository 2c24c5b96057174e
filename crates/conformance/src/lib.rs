//! The duties of adapters as tests: one suite that every bridge passes, in its own crate's tests.
//!
//! An adapter depends on this crate for its tests only, implements one small trait that makes fresh systems, and calls one
//! macro; it then has a test of its own for every duty, under the duty's name. Look at [`bridge`]
//! and [`store`].
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "this is test code that lives in a library: a failed expectation is a failed test"
)]

pub mod bridge;
pub mod proxy;
pub mod read_models;
pub mod store;
