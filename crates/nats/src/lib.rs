//! Carries messages between the processes of a system over NATS, in the form that PURISTA 2.x speaks.
//!
//! **What it is.** [`bridge::NatsBridge`], an [`EventBridge`](purista_core::bridge::EventBridge) on core NATS: commands are
//! requests with an inbox, events are publications, shared subscriptions are queue groups.
//!
//! **What it is not.** A store. Core NATS keeps nothing: a message that nobody hears is gone, and `durable` is not among its
//! capabilities. What must not be lost is recorded in the log of `purista-events` and relayed.
//!
//! ```no_run
//! # async fn example() -> Result<(), purista_core::bridge::BridgeError> {
//! use purista_nats::bridge::NatsBridge;
//!
//! let bridge = NatsBridge::connect("nats://127.0.0.1:4222").await?;
//! # drop(bridge); Ok(())
//! # }
//! ```
//!
//! Look first at [`bridge`]; subjects are in [`address`], what differs from PURISTA in `docs/wire-deviations.md`.

pub mod address;
pub mod bridge;
pub mod connect;

mod confirm;
mod feed;
mod inbox;
mod link;
mod wire;
