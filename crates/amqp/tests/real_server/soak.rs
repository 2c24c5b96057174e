//! A slow consumer with very much waiting.

use purista_conformance::bridge::{backlog, soak};

use crate::duties::system;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "soak: 100,000 messages wait for a slow consumer"]
async fn soak_memory_stays_flat_with_100_000_waiting() {
    soak(system(), |world| Box::pin(backlog::memory_stays_flat_with_100_000_waiting(world))).await;
}
