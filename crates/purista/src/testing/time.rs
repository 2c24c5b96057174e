//! Pausing and resuming tokio's time, whichever way it is at first.

use std::time::{Duration, Instant};

/// How long paused time is watched: running time advances within it.
const WATCHED: Duration = Duration::from_micros(50);

/// Pauses time. It may be paused already, by the test itself or by an earlier host.
pub(super) fn pause() {
    if !is_paused() {
        tokio::time::pause();
    }
}

/// Lets time run.
pub(super) fn resume() {
    if is_paused() {
        tokio::time::resume();
    }
}

/// Whether tokio's time stands still. Tokio itself says so only by a panic.
fn is_paused() -> bool {
    let (began, paused_at) = (Instant::now(), tokio::time::Instant::now());
    while began.elapsed() < WATCHED {
        std::hint::spin_loop();
    }
    tokio::time::Instant::now() == paused_at
}
