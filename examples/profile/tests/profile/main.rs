//! The program as it is started: real processes, real sockets, real files.
#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends where something is not as it should be"
)]

use std::future::Future;
use std::time::Duration;

mod answers;
mod flow;
mod http;
mod postgres;
mod race;
mod rebuild;
mod seed;
mod server;
mod start;

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something, and says what it was if it does not come.
#[track_caller]
fn soon<F: Future>(what: &str, event: F) -> impl Future<Output = F::Output> {
    let place = std::panic::Location::caller();
    async move {
        let waited = tokio::time::timeout(PATIENCE, event).await;
        waited.unwrap_or_else(|_| panic!("{place}: no sign of {what} within {PATIENCE:?}"))
    }
}
