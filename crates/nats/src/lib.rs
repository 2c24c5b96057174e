//! Carries messages between the processes of a system over NATS, in the form that PURISTA 2.x speaks.
//!
//! **What it is.** [`bridge::NatsBridge`], an [`EventBridge`](purista_core::bridge::EventBridge) on NATS: commands are requests
//! with an inbox, events are publications, shared subscriptions are queue groups. With [`jetstream::JetStream`] the server
//! keeps events, and subscriptions can be durable.
//!
//! **What it is not.** A store. Core NATS keeps nothing: a message that nobody hears is gone. What must not be lost is kept by
//! JetStream, or recorded in the log of `purista-events` and relayed. Commands are kept by nobody: a caller who got no answer
//! asks again, under a key of idempotency.
//!
//! | | core NATS | with JetStream |
//! |---|---|---|
//! | `Ok` of a published event | the server has read it | the server has stored it; published once more it is stored once |
//! | an event while its durable subscription is away | refused: there is none | comes when it is back, in order at one in flight |
//! | a process that ends with an event in hand | the event is lost | another gets it after 9 s |
//! | an event that is given up | logged | lies in the stream `<PREFIX>_DEAD_LETTERS`, with reason, attempts and where it came from |
//! | a crash of the server's process | what was on its way is lost | nothing acknowledged is lost |
//! | a crash of its machine | the same | up to two minutes may be lost, unless the server (2.10 or later) says `sync_interval: always` |
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
pub mod jetstream;
pub mod key_value;

mod bucket;
mod confirm;
mod durable;
mod feed;
mod inbox;
mod link;
mod wire;
