//! The bridge on a real nats-server: the suite of all bridges, the wire, and lost connections.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is a failed test")]

mod closing;
mod credentials;
mod duties;
mod key_value;
mod overflow;
mod server;
mod soak;
mod streams;
mod wire;
