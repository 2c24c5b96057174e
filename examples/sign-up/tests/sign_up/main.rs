//! The program as it is started: real processes, real sockets, real files, a real browser and a real mail server.
#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends where something is not as it should be"
)]

use std::future::Future;
use std::time::Duration;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

mod apart;
mod browser;
mod crash;
mod devtools;
mod drain;
mod http;
mod key;
mod mails;
mod on_postgres;
mod postgres;
mod requests;
mod server;
mod smtp;
mod smtp_server;
mod start;
mod traces;

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tests that count what two cores can do want them for themselves.
static CORES: RwLock<()> = RwLock::const_new(());

async fn beside_others() -> RwLockReadGuard<'static, ()> {
    CORES.read().await
}

async fn alone() -> RwLockWriteGuard<'static, ()> {
    CORES.write().await
}

/// Waits for something, and says what it was if it does not come.
#[track_caller]
fn soon<F: Future>(what: &str, event: F) -> impl Future<Output = F::Output> {
    within(PATIENCE, what, event)
}

#[track_caller]
fn within<F: Future>(time: Duration, what: &str, event: F) -> impl Future<Output = F::Output> {
    let place = std::panic::Location::caller();
    async move {
        let waited = tokio::time::timeout(time, event).await;
        waited.unwrap_or_else(|_| panic!("{place}: no sign of {what} within {time:?}"))
    }
}
