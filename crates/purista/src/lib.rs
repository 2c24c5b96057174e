//! A framework for message-driven backends: typed commands and events, one unit of work, nothing acknowledged ever lost.
//!
//! **What it is.** A [`Service`] groups [commands](command::CommandDef) (requests with a reply) and
//! [subscriptions](subscription::SubscriptionDef) (consumers of events), each a plain async function with typed, validated input
//! and output. A [`Host`] runs services. Messages go over an event bridge (`purista_core::bridge`): inside the
//! process, or over a broker. Events, state and replies commit together in an
//! event store (`purista_events::store`), before anything of them leaves.
//!
//! **What it is not.** It contains no broker client, no database and no HTTP server: the crates `purista-nats`, `purista-amqp`,
//! `purista-mqtt`, `purista-sqlite`, `purista-postgres` and `purista-http` do, and depend on `purista-core` and
//! `purista-events` alone.
//!
//! ```
//! # use {garde::Validate, schemars::JsonSchema, serde::{Deserialize, Serialize}};
//! use purista::{Command, Context, HandlerError, Host, Service, ServiceId, command};
//!
//! #[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)]
//! #[garde(allow_unvalidated)]
//! struct Divide { a: i64, b: i64 }
//!
//! impl Command for Divide {
//!     const SERVICE: ServiceId = ServiceId::new("Math", "1");
//!     const NAME: &'static str = "divide";
//!     type Output = Quotient;
//! }
//! # #[derive(Debug, PartialEq, Clone, Serialize, Deserialize, JsonSchema, Validate)]
//! # #[garde(allow_unvalidated)]
//! # struct Quotient { value: i64 }
//!
//! async fn divide(_: Context<()>, input: Divide) -> Result<Quotient, HandlerError> {
//!     let value = input.a.checked_div(input.b).ok_or_else(|| HandlerError::bad_request("b is zero"))?;
//!     Ok(Quotient { value })
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let math = Service::builder(Divide::SERVICE, "Arithmetic", ()).command(command(divide)).build();
//! let host = Host::builder().service(math).start().await?;
//! assert_eq!(host.client().invoke(Divide { a: 6, b: 3 }).await?, Quotient { value: 2 });
//! # host.stop().await; Ok(()) }
//! ```
//!
//! # Commands and subscriptions
//!
//! [`command()`] and [`subscription()`] make a handler of a function, [`listen`] one that hears every message of a [`Filter`]. The
//! first argument is the [`Context`]: state, events, nested calls. A handler fails with a [`HandlerError`]; [`Retry`] says how
//! often a subscription tries again.
//!
//! # Event sourcing
//!
//! A [`View`] folds events, a [`Boundary`] selects those that a decision depends on, [`decide()`] makes a command of both.
//! [`Upcasters`] read older forms.
//!
//! # Testing
//!
//! The feature `testing` has a `TestHost`: the same path as in production, with a clock that belongs to the test.
//!
//! # Guides
//!
//! The repository has them under `docs/`: writing a service, event sourcing, what is delivered, traces, the command line,
//! adding a store, adding an adapter.

pub mod command;
pub mod context;
pub mod decide;
pub mod gated;
pub mod host;
pub mod memory;
pub mod observation;
pub mod read;
pub mod retry;
pub mod service;
pub mod settings;
pub mod state;
pub mod subscription;
#[cfg(feature = "testing")]
pub mod testing;
pub mod unit_of_work;

mod bridge_fed;
mod commit;
mod deadline;
mod dispatch;
mod durable;
mod failure;
mod guard;
/// The chapters whose examples are compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/event-sourcing.md")]
mod guide {}
mod hearing;
mod idempotency;
mod listener;
mod listening;
mod observed;
mod projecting;
/// The first example of the repository.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
mod readme {}
mod recorder;
mod relay;
mod runtime;
mod steps;
mod verdict;

pub use command::{CommandDef, Replies, command};
pub use context::Context;
pub use decide::{Facts, decide, decide_with};
pub use host::{Host, HostBuilder, RunningHost};
pub use purista_core::address::{Address, ServiceId};
pub use purista_core::bridge::EventBridge;
pub use purista_core::client::{CALLS_IN_FLIGHT_DEFAULT, Call, Client};
pub use purista_core::clock::Clock;
pub use purista_core::contract::{Command, Contract};
pub use purista_core::decision::{Decision, Events, Replying};
pub use purista_core::error::HandlerError;
pub use purista_core::event::{Event, Tags};
pub use purista_core::id::Id;
pub use purista_core::in_process::InProcessBridge;
pub use purista_core::invoke_error::{InvokeError, InvokeErrorKind};
pub use purista_core::route::Route;
pub use purista_core::status::Status;
pub use purista_core::subscription::Filter;
pub use purista_events::upcast::Upcasters;
pub use purista_events::view::{Boundary, View, every, view};
pub use retry::{RETRY_DELAY_MAX, Retry};
pub use service::{Service, ServiceBuilder};
pub use subscription::{SubscriptionDef, listen, subscription};
