//! The client of each broker alone, as somebody would use it who writes the same messages by hand: what our bridges are
//! compared with.
//!
//! The same bytes with the same headers, acknowledged and confirmed in the same way, over as many connections. Nothing that
//! a bridge does beside: no deadline, no filter that is asked again, no rules, no handling of whatever may go wrong.

pub mod amqp;
pub mod mqtt;
pub mod nats;
pub mod wire;

mod waiting;

/// The first part of every name at the broker, so that bridges and bare clients do not hear one another.
pub const PREFIX: &str = "bare";
/// How many confirmations one who serves waits for at a time: as many commands as a host handles at a time.
const IN_FLIGHT_MAX: usize = purista_core::subscription::IN_FLIGHT_DEFAULT;
