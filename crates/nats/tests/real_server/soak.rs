//! A slow consumer with very much waiting.

use purista_conformance::bridge::{backlog, run};

use crate::streams::{System, Version};

async fn memory_stays_flat(on: Version) {
    run(System::on(on), |world| Box::pin(backlog::memory_stays_flat_with_100_000_waiting(world))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "soak: 100,000 messages wait for a slow consumer"]
async fn soak_memory_stays_flat_with_100_000_waiting() {
    memory_stays_flat(Version::Debian).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "soak: 100,000 messages wait for a slow consumer"]
async fn soak_memory_stays_flat_with_100_000_waiting_on_the_newest_server() {
    memory_stays_flat(Version::Newest).await;
}
