//! Blocking transactions: those that have written and are still open, anywhere in the cluster, in a session or prepared.

use std::time::Duration;

use purista_core::lag::Holder;
use purista_events::store::StoreError;
use tokio_postgres::{Error, Row};

use crate::error::read_failed;
use crate::fetch::rows;
use crate::store::PostgresStore;

/// A prepared transaction has no session, and survives a restart of the server.
pub(crate) const HOLDERS: &str = "SELECT pid, prepared, owner, application, database, state, seconds FROM ( \
     SELECT pid, NULL::text AS prepared, coalesce(usename::text, '') AS owner, \
     coalesce(application_name, '') AS application, coalesce(datname::text, '') AS database, coalesce(state, '') AS state, \
     extract(epoch FROM clock_timestamp() - coalesce(xact_start, clock_timestamp()))::float8 AS seconds, backend_xid AS xid \
     FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() \
     UNION ALL SELECT 0, gid, owner::text, '', database::text, 'prepared', \
     extract(epoch FROM clock_timestamp() - prepared)::float8, transaction FROM pg_prepared_xacts) h \
     ORDER BY age(xid) DESC LIMIT 10";

impl PostgresStore {
    /// The blocking transactions at this moment, the oldest first, at most ten. Transactions of some milliseconds belong to every
    /// log that is written; one of seconds was forgotten, and `idle_in_transaction_session_timeout` on the server ends
    /// such ones by itself. A transaction that was prepared for two-phase commit has no session: it is named by its id.
    ///
    /// [`Holder::remedy`] ends one. What sessions of other users do is seen by members of `pg_read_all_stats`. Cancel safe.
    ///
    /// # Errors
    ///
    /// Returns `ReadFailed` if the server cannot be reached.
    pub async fn holders(&self) -> Result<Vec<Holder>, StoreError> {
        let what = "read of the blocking transactions";
        let client = self.handle().client(what).await?;
        let rows = rows(&client, HOLDERS, &[], what).await?;
        rows.iter().map(holder).collect::<Result<_, _>>().map_err(read_failed(what))
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
