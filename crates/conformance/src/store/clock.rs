//! Duties towards a clock that is set wrong while the store is open, or was before it was opened.

use std::time::Duration;

use purista_core::store::StateChange;
use purista_events::batch::{Batch, Receipt};

use super::given::{self, event, set};
use super::stage::Stage;

const HOUR: Duration = Duration::from_secs(60 * 60);
const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A clock that jumps far ahead is not believed: events have the time that has passed, reads of the past find them, nothing that is
/// stored for some time ends early, and the store reports it until the clock is right again.
pub async fn a_clock_that_jumps_ahead_moves_no_time(stage: &mut Stage) {
    assert_eq!(stage.store.attention(), None);
    let lasting = StateChange { time_to_live: Some(2 * HOUR), ..set("alpha", true.into()) };
    let reply = Some(given::reply(1));
    let batch = Batch { state: vec![lasting], reply, ..given::appends(vec![event("moved", &[])]) };
    let first = stage.commit(batch.clone()).await;

    stage.clock.jump_ahead(MONTH);
    let report = stage.store.attention().expect("the jump is reported");
    assert!(report.contains("clock"), "{report}");
    let second = stage.append(vec![event("moved", &[])]).await;
    assert_eq!(second.recorded_at, first.recorded_at, "no time has passed");
    let found = stage.store.position_at(first.recorded_at + HOUR).await.expect("a position is found");
    assert_eq!(found, second.position);
    assert_eq!(stage.reply(None, &given::reply_key(1)).await, Some(given::reply(1)), "a reply is kept");
    assert_eq!(stage.state(None).await.len(), 1, "state lives");
    assert_eq!(stage.commit(batch).await, Receipt { is_repeated: true, ..first.clone() });

    stage.clock.advance(3 * HOUR);
    assert_eq!(stage.state(None).await.len(), 0, "time goes on");
    let third = stage.append(vec![event("moved", &[])]).await;
    assert_eq!(third.recorded_at, first.recorded_at + 3 * HOUR);
    stage.clock.turn_back(MONTH);
    assert_eq!(stage.store.attention(), None, "the clock is right again");
    let fourth = stage.append(vec![event("moved", &[])]).await;
    assert_eq!(fourth.recorded_at, stage.clock.time());
}

/// A clock that is behind the log is reported, also by the store that is opened with it; times do not run back, nothing ends early.
pub async fn a_clock_behind_the_log_is_reported(stage: &mut Stage) {
    let lasting = StateChange { time_to_live: Some(HOUR), ..set("alpha", true.into()) };
    let batch = Batch { state: vec![lasting], ..given::appends(vec![event("moved", &[])]) };
    let first = stage.commit(batch).await;
    stage.clock.turn_back(2 * HOUR);
    for _ in 0..2 {
        let report = stage.store.attention().expect("the clock is reported");
        assert!(report.contains("clock"), "{report}");
        let next = stage.append(vec![event("moved", &[])]).await;
        assert_eq!(next.recorded_at, first.recorded_at);
        assert_eq!(stage.state(None).await.len(), 1, "state lives");
        stage.reopen().await;
    }
    stage.clock.advance(2 * HOUR);
    assert_eq!(stage.store.attention(), None, "the clock has caught up");
    stage.clock.advance(2 * HOUR);
    assert_eq!(stage.state(None).await.len(), 0, "time goes on");
    let last = stage.append(vec![event("moved", &[])]).await;
    assert_eq!(last.recorded_at, stage.clock.time());
}
