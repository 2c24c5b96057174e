//! How far somebody who follows the log is behind it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::form::Counted;
use crate::position::Position;
use crate::query::Query;
use crate::store::{Direction, EventStore, StoreError};

/// How many events are counted at most; more are "at least so many".
pub const LAG_COUNTED_MAX: u64 = 10_000;

/// How far a projection, a durable subscription or the relay is behind its log.
#[derive(Debug, Clone, PartialEq)]
pub struct Lag {
    /// Everything up to here is done.
    pub position: Position,
    /// The last event that was committed at that moment, also where it cannot be delivered yet.
    pub head: Position,
    /// How many of its events lie between.
    pub events: Counted,
    /// How long the oldest of them waits; nothing when none does.
    pub behind: Duration,
    /// How many events it took in a second of late; 0 when it is not known.
    pub per_second: f64,
    /// When it will have caught up at that rate, where it can be said.
    pub caught_up_in: Option<Duration>,
}

impl Lag {
    /// Measures the follower of this query at `position`. It costs one count up to [`LAG_COUNTED_MAX`] and two reads.
    ///
    /// Every committed event counts, also one above the safe position, which a blocking transaction keeps from being delivered.
    ///
    /// # Errors
    ///
    /// Returns the error of the store's reads.
    pub async fn measure<S: EventStore + ?Sized>(
        store: &S,
        query: &Query,
        position: Position,
        now: Timestamp,
        per_second: f64,
    ) -> Result<Self, StoreError> {
        let head = store.last_position().await?;
        let events = store.count(query, position, head, LAG_COUNTED_MAX).await?;
        let mut behind = Duration::ZERO;
        if events.events > 0 {
            let next = store.read(query, position, Direction::Forwards, 1).await?;
            let waits =
                next.first().map_or(SignedDuration::ZERO, |event| now.duration_since(event.recorded_at));
            behind = Duration::try_from(waits).unwrap_or_default();
        }
        // Beyond what is counted, all events between are taken for its own: it is done at that time or before.
        let between = head.number().saturating_sub(position.number());
        let left = if events.is_at_least { between } else { events.events };
        let caught_up_in = estimate(events, left, per_second);
        Ok(Self { position, head, events, behind, per_second, caught_up_in })
    }

    /// Whether nothing waits.
    pub fn is_caught_up(&self) -> bool {
        self.events.events == 0
    }
}

fn estimate(events: Counted, left: u64, per_second: f64) -> Option<Duration> {
    if events.events == 0 {
        return Some(Duration::ZERO);
    }
    if per_second <= 0.0 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    Duration::try_from_secs_f64(left as f64 / per_second).ok()
}
