//! Notices that the safe position stands still while committed events wait above it, and reports the blocking transaction.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use purista_core::lag::Holder;
use tokio::time::Instant;
use tokio_postgres::{Client, Error, Row};

/// A prepared transaction has no session, and survives a restart of the server.
pub(crate) const HOLDERS: &str = "SELECT pid, prepared, owner, application, database, state, seconds FROM ( \
     SELECT pid, NULL::text AS prepared, coalesce(usename::text, '') AS owner, \
     coalesce(application_name, '') AS application, coalesce(datname::text, '') AS database, coalesce(state, '') AS state, \
     extract(epoch FROM clock_timestamp() - coalesce(xact_start, clock_timestamp()))::float8 AS seconds, backend_xid AS xid \
     FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() \
     UNION ALL SELECT 0, gid, owner::text, '', database::text, 'prepared', \
     extract(epoch FROM clock_timestamp() - prepared)::float8, transaction FROM pg_prepared_xacts) h \
     ORDER BY age(xid) DESC LIMIT 10";

/// How often the blocking transactions are read while the safe position stands still.
const READ_EVERY: Duration = Duration::from_secs(1);

/// What is known of a safe position that stands still.
#[derive(Debug)]
pub(crate) struct Blocked {
    /// After which time it is reported.
    after: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The safe position, and since when it has not moved although events wait above it.
    stands: Option<(i64, Instant)>,
    read_at: Option<Instant>,
    /// The blocking transaction that the last warning named, without its age.
    warned_of: Option<String>,
    report: Option<String>,
}

impl Blocked {
    pub(crate) fn new(after: Duration) -> Self {
        Self { after, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What blocks the safe position for too long, if something does.
    pub(crate) fn report(&self) -> Option<String> {
        self.state().report.clone()
    }

    /// Learns the safe position and the last position of all; reads the blocking transactions when it is time to.
    pub(crate) async fn look(&self, client: &Client, head: i64, last: i64) -> Result<(), Error> {
        let Some(stands_for) = self.learn(head, last, Instant::now()) else { return Ok(()) };
        let rows = client.query(HOLDERS, &[]).await?;
        let oldest = rows.first().map(holder).transpose()?;
        self.name(stands_for, oldest.as_ref());
        Ok(())
    }

    /// For how long it stands still, when that is too long and the blocking transactions are to be read.
    fn learn(&self, head: i64, last: i64, now: Instant) -> Option<Duration> {
        let mut state = self.state();
        if head >= last {
            if state.warned_of.is_some() {
                tracing::info!("recorded events are delivered again");
            }
            *state = State::default();
            return None;
        }
        let since = match state.stands {
            Some((stood, since)) if stood == head => since,
            _ => {
                state.stands = Some((head, now));
                now
            }
        };
        let stands_for = now.saturating_duration_since(since);
        let is_read = state.read_at.is_some_and(|at| now.saturating_duration_since(at) < READ_EVERY);
        if stands_for < self.after || is_read {
            return None;
        }
        state.read_at = Some(now);
        Some(stands_for)
    }

    fn name(&self, stands_for: Duration, oldest: Option<&Holder>) {
        let unseen = "a transaction that this user may not see: it needs the role pg_read_all_stats";
        let blocker = oldest.map_or_else(|| unseen.to_owned(), ToString::to_string);
        let identity = oldest.map_or_else(|| unseen.to_owned(), Holder::remedy);
        let mut state = self.state();
        if state.warned_of.as_ref() != Some(&identity) {
            tracing::warn!(
                blocker,
                seconds = stands_for.as_secs(),
                "committed events are not delivered: a transaction that began before them is still open"
            );
            state.warned_of = Some(identity);
        }
        state.report = Some(format!(
            "committed events are not delivered for {} s: they wait for {blocker}",
            stands_for.as_secs()
        ));
    }
}

/// A row of [`HOLDERS`].
pub(crate) fn holder(row: &Row) -> Result<Holder, Error> {
    let seconds: f64 = row.try_get(6)?;
    Ok(Holder {
        pid: row.try_get(0)?,
        prepared: row.try_get(1)?,
        user: row.try_get(2)?,
        application: row.try_get(3)?,
        database: row.try_get(4)?,
        state: row.try_get(5)?,
        age: Duration::try_from_secs_f64(seconds).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_position_that_stands_still_is_reported_after_its_time_and_no_longer_than_it_stands() {
        let minute = Duration::from_secs(60);
        let blocked = Blocked::new(minute);
        let holder = Holder { prepared: Some("x".to_owned()), ..Holder::default() };
        let at = Instant::now();
        assert_eq!(blocked.learn(1, 2, at), None);
        assert_eq!(blocked.learn(2, 3, at + minute), None, "it has moved");
        assert_eq!(blocked.learn(2, 9, at + minute * 2 - READ_EVERY), None);
        assert_eq!(blocked.learn(2, 9, at + minute * 2), Some(minute));
        assert_eq!(blocked.learn(2, 9, at + minute * 2), None, "it was read just now");
        blocked.name(minute, Some(&holder));
        let report = blocked.report().unwrap();
        assert!(report.contains("for 60 s") && report.contains("ROLLBACK PREPARED 'x'"), "{report}");
        assert_eq!(blocked.learn(9, 9, at + minute * 3), None);
        assert_eq!(blocked.report(), None);
    }
}
