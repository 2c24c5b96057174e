//! A slow consumer with very much waiting.

use purista_conformance::bridge::{backlog, soak};

use crate::streams::{System, Version};

/// On the newest server, which has each of them on its disk before it answers, they would be published for minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "soak: 100,000 messages wait for a slow consumer"]
async fn soak_memory_stays_flat_with_100_000_waiting() {
    let system = System::on(Version::Debian);
    soak(system, |world| Box::pin(backlog::memory_stays_flat_with_100_000_waiting(world))).await;
}
