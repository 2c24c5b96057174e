//! The bridge on a real RabbitMQ: the suite of all bridges, the wire, durable subscriptions, and lost connections.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is a failed test")]

mod closing;
mod credentials;
mod durable;
mod duties;
mod limits;
mod peers;
mod server;
mod soak;
mod wire;
