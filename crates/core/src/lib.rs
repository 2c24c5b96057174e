//! The ground floor of purista: messages, contracts, and the traits that bridges, stores and doors implement.
//!
//! **What it is.** Everything that two processes of a system must agree on: the [`message::Message`] that travels,
//! the [`contract::Command`] and [`event::Event`] traits by which a plain struct becomes an address, a schema and a
//! typed call; the [`bridge::EventBridge`] contract with its in-process implementation; and the [`client::Client`].
//!
//! **What it is not.** It runs no service: the host, dispatch and durable delivery live in the crate `purista`; the
//! log lives in `purista-events`.
//!
//! An adapter for a broker depends on this crate alone. Look first at [`bridge`], then at [`in_process`], which is the
//! smallest complete bridge.

pub mod address;
pub mod bounds;
pub mod bridge;
pub mod broker;
pub mod canonical;
pub mod catalogue;
pub mod checker;
pub mod client;
pub mod clock;
pub mod contract;
pub mod decision;
pub mod detaching;
pub mod door;
pub mod encoding;
pub mod error;
pub mod event;
pub mod fault;
pub mod health;
pub mod id;
pub mod in_process;
pub mod invoke_error;
pub mod lag;
pub mod length_unit;
pub mod message;
pub mod outline;
pub mod parameter;
pub mod payload;
pub mod pump;
pub mod recording;
pub mod refusal;
pub mod replies;
pub mod route;
pub mod running;
pub mod schema;
pub mod sharded;
pub mod span;
pub mod standing;
pub mod status;
pub mod store;
pub mod subscription;
pub mod text;
pub mod tokens;
pub mod trace;
