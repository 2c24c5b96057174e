//! Carries messages between the processes of a system over MQTT 5, in the form that PURISTA 2.x speaks.
//!
//! **What it is.** [`bridge::MqttBridge`], an [`EventBridge`](purista_core::bridge::EventBridge) on a broker of MQTT 5
//! (tested with mosquitto 2.0): commands are shared among their servers, events reach each subscription, and what a durable subscription misses the
//! broker keeps in a session.
//!
//! **What it is not.** A store. The broker keeps what waits for sessions as well as it is told to, has no dead letters, and
//! knows no delay. What must not be lost is recorded in the log of `purista-events` and relayed.
//!
//! ```no_run
//! # async fn example() -> Result<(), purista_core::bridge::BridgeError> {
//! use purista_mqtt::bridge::MqttBridge;
//!
//! // The client id is for durable subscriptions: the same at each start of this process.
//! let bridge = MqttBridge::builder("mqtt://127.0.0.1:1883").client_id("email-1").connect().await?;
//! # drop(bridge); Ok(())
//! # }
//! ```
//!
//! A session that no process uses any more is ended by [`MqttBridge::retire_session`](bridge::MqttBridge::retire_session).
//! Look first at [`bridge`]; topics are in [`address`], what differs from PURISTA in `docs/wire-deviations.md`.

pub mod address;
pub mod bridge;
pub mod connect;

mod dial;
mod durable;
mod feed;
mod hub;
mod in_hand;
mod line;
mod link;
mod queue;
mod refused;
mod retire;
mod session;
mod tls;
mod url;
mod wire;
