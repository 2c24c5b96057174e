//! The gateway as its callers see it: through sockets, with an in-process bridge behind it.

mod access;
mod contracts;
mod cross_origin;
mod document;
mod errors;
mod http2;
mod limits;
mod opening;
mod requests;
mod stopping;
mod support;
