#![doc = include_str!("../../../README.md")]

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
#[cfg(doctest)]
mod guide;
mod hearing;
mod idempotency;
mod listener;
mod listening;
mod observed;
mod projecting;
mod recorder;
mod relay;
mod runtime;
mod steps;
mod verdict;

pub use command::{CommandDef, Replies, command};
pub use context::Context;
pub use decide::{Facts, decide, decide_with};
pub use host::{Host, HostBuilder, RunningHost};
pub use purista_core::address::ServiceId;
pub use purista_core::contract::{Command, Contract};
pub use purista_core::decision::{Decision, Events, Replying};
pub use purista_core::error::HandlerError;
pub use purista_core::event::{Event, Tags};
pub use purista_core::in_process::InProcessBridge;
pub use purista_core::route::Route;
pub use purista_core::subscription::Filter;
pub use purista_events::upcast::Upcasters;
pub use purista_events::view::{Boundary, View, every, view};
pub use retry::Retry;
pub use service::{Service, ServiceBuilder};
pub use subscription::{SubscriptionDef, listen, subscription};
