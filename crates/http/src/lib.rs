//! The door to the web: commands of the catalogue as HTTP endpoints, with their OpenAPI document.
//!
//! **What it is.** A [`gateway::Gateway`] knows the catalogue and the client, not the handlers, so it serves beside a
//! host or in a process of its own. It checks what concerns HTTP (limits, media types, who asks) and hands the body on
//! as it came; the command's own dispatch decodes and validates it.
//!
//! **What it is not.** No web framework: whoever wants their own routes puts their own server beside it. It ends no TLS;
//! what stands before it does. It stands on `hyper` alone, without axum and tower: a table of routes that is fixed at
//! the start needs no layers, and every layer costs each request a box.
//!
//! ```no_run
//! use purista_http::api_key::ApiKeys;
//! use purista_http::authenticator::Identity;
//! use purista_http::gateway::Gateway;
//!
//! # fn key() -> secrecy::SecretString { "0123456789abcdef".into() }
//! let gateway = Gateway::listen("127.0.0.1:3000")
//!     .title("Accounts")
//!     .page("/", "text/html", "<!doctype html><title>Accounts</title>")
//!     .authenticator(ApiKeys::new().key(key(), Identity::of("billing").in_tenant("acme")));
//! ```
//!
//! Look first at [`gateway`]; who asks is told in [`authenticator`], what is too much in [`limits`].

pub mod api_key;
pub mod authenticator;
pub mod cors;
pub mod gateway;
pub mod jwt;
pub mod limits;

mod accept;
mod body;
mod buffered;
mod connection;
mod connections;
mod endpoint;
mod exchange;
mod form;
mod health;
mod metrics;
mod openapi;
mod parameter;
mod pulse;
mod response;
mod route;
mod served;
mod service;
mod site;
mod traced;
