//! The bridge on a real mosquitto: the suite of all bridges.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is a failed test")]

mod duties;
mod server;
