//! Events are recorded with the time of the server's clock, whatever the clocks of the processes show.

use std::time::Duration;

use purista_core::clock::Clock;
use purista_events::memory::clock::TestClock;
use purista_events::store::EventStore;

use crate::given::written;
use crate::server::{Server, schema};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn one_process_with_a_wrong_clock_spoils_nobodys_times() {
    let (server, schema) = (Server::shared(), schema());
    // The server runs on this machine, so its clock is this one.
    let (right, wrong) = (Clock::system(), TestClock::new());
    wrong.advance(Duration::from_secs(20 * 365 * 24 * 60 * 60));
    assert!(wrong.time() > right.now() + 24 * 60 * MINUTE);
    let spoiling = server.store(&schema).clock(wrong.clock()).connect().await.expect("the store opens");
    let other = server.store(&schema).connect().await.expect("the store opens");
    for store in [&spoiling, &other] {
        let receipt = store.commit(written("user", "ada")).await.expect("committed");
        let off_by = receipt.recorded_at.duration_since(right.now()).unsigned_abs();
        assert!(off_by < MINUTE, "{receipt:?}");
        let found = store.position_at(right.now() + MINUTE).await.expect("a position is found");
        assert_eq!(found, receipt.position, "a read of the present finds it");
        assert_eq!(store.attention(), None);
    }
    // In a process whose clock jumps, nothing that is stored for some days ends.
    let batch = written("user", "bob");
    let first = spoiling.commit(batch.clone()).await.expect("committed");
    wrong.jump_ahead(Duration::from_secs(30 * 24 * 60 * 60));
    let again = spoiling.commit(batch).await.expect("its receipt is there");
    assert!(again.is_repeated && again.position == first.position);
    for store in [spoiling, other] {
        store.close().await.expect("a store closes");
    }
}
