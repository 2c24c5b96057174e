//! The bridge on a real mosquitto: the suite of all bridges, the wire, durable subscriptions, and lost connections.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is a failed test")]

mod closing;
mod credentials;
mod durable;
mod duties;
mod hostile;
mod messages;
mod outages;
mod server;
mod sharing;
mod soak;
mod wire;
