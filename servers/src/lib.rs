//! Servers of other people, started for tests and measurements: each on a free port, with its data in a folder of its own.
//!
//! Who starts one owns it: it ends with the value, is killed as a power cut would, and comes back with its data. Nothing here
//! knows a client or a crate of ours, so that a bridge's tests, an example's and a measurement start the same server.
//!
//! It installs nothing: `cargo xtask test` does. A server that is missing or does not come up ends the test, with what to do.
//!
//! ```no_run
//! # async fn show() {
//! use purista_servers::nats::NatsServer;
//!
//! let mut server = NatsServer::start().await;
//! println!("{}", server.url());
//! server.kill();
//! server.restart().await; // the same port, the same data
//! # }
//! ```
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "this is test code that lives in a library: a server that does not start is a failed test"
)]

pub mod folder;
pub mod mosquitto;
pub mod nats;
pub mod otlp;
pub mod pgbouncer;
pub mod postgres;
pub mod rabbitmq;

mod port;
