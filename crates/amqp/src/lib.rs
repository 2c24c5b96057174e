//! Carries messages between the processes of a system over RabbitMQ (AMQP 0-9-1), in the form that PURISTA 2.x speaks.
//!
//! **What it is.** [`bridge::AmqpBridge`], an [`EventBridge`](purista_core::bridge::EventBridge): one headers exchange, a
//! queue for each command and each subscription, publisher confirms, durable subscriptions with delayed retries and dead
//! letters.
//!
//! **What it is not.** A log. A message is gone when it is acknowledged, and one that nobody subscribed to was never kept.
//! What must be found again is recorded in the log of `purista-events`. Nor does it take messages once: a durable
//! subscription may see a message twice, after a crash of either side.
//!
//! ```no_run
//! # async fn example() -> Result<(), purista_core::bridge::BridgeError> {
//! use purista_amqp::bridge::AmqpBridge;
//!
//! let bridge = AmqpBridge::connect("amqp://127.0.0.1:5672").await?;
//! # drop(bridge); Ok(())
//! # }
//! ```
//!
//! Look first at [`bridge`]; names of queues and their bindings are in [`address`], what differs from PURISTA in
//! `docs/wire-deviations.md`.

pub mod address;
pub mod bridge;
pub mod connect;

mod error;
mod feed;
pub mod history;
mod link;
mod reconnect;
mod replies;
mod session;
mod settle;
mod shared;
mod tls;
mod topology;
mod url;
mod wire;
