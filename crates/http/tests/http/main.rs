//! The gateway as its callers see it: through sockets, with an in-process bridge behind it.

mod contracts;
mod requests;
mod support;
