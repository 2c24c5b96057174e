//! The gateway as its callers see it: through sockets, with an in-process bridge behind it.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "what a test relies on fails it, in the functions that its tests share too"
)]

mod access;
mod contracts;
mod cross_origin;
mod document;
mod elsewhere;
mod errors;
mod exhaustion;
mod few_files;
mod http2;
mod limits;
mod metrics;
mod opening;
mod requests;
mod stopping;
mod support;
