//! On the wire like PURISTA: whole hosts on each bridge, compared message by message with what PURISTA 2.0.5 sends, asked by
//! plain clients in Python, and beside a peer that behaves and breaks as PURISTA does.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends where something is not as it should be"
)]

mod amqp;
mod carrier;
mod compared;
mod deviations;
mod fixtures;
mod hostile;
mod incomplete;
mod mixed;
mod mqtt;
mod nats;
mod peer;
mod plain;
mod resent;
mod running;
mod services;
mod shared;
mod steps;
