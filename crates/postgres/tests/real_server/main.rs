//! Against a real server, on a free port: the duties of a store as the suite has them for every engine, and what only a server
//! with many clients can get wrong.
#![expect(clippy::expect_used, reason = "what cannot be set up is a failed test")]

mod blocked;
mod clock;
mod conformance;
mod copying;
mod given;
mod leases;
mod opening;
mod outages;
mod races;
mod read_models;
mod server;
mod tls;
