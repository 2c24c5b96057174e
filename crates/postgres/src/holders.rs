//! Who holds followers back: transactions that have written and are not ended, anywhere in the cluster.

use std::time::Duration;

use purista_core::lag::Holder;
use purista_events::store::StoreError;

use crate::error::read_failed;
use crate::fetch::rows;
use crate::store::PostgresStore;

impl PostgresStore {
    /// Who holds followers back at this moment, the oldest first, at most ten. Transactions of some milliseconds belong to every
    /// log that is written; one of seconds was forgotten by somebody, and `idle_in_transaction_session_timeout` on the server ends
    /// such ones by itself. A transaction that was prepared for two phases has no session and is not among them.
    ///
    /// `SELECT pg_terminate_backend(pid)` ends one. What sessions of other users do is seen by members of `pg_read_all_stats`. Cancel safe.
    pub async fn holders(&self) -> Result<Vec<Holder>, StoreError> {
        let what = "read of who holds followers back";
        let sql = "SELECT pid, coalesce(application_name, ''), coalesce(datname, ''), coalesce(state, ''), \
                   greatest(extract(epoch FROM clock_timestamp() - coalesce(xact_start, clock_timestamp())), 0)::float8 \
                   FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() \
                   ORDER BY backend_xid::text::bigint LIMIT 10";
        let client = self.handle().client(what).await?;
        let holder = |row: &tokio_postgres::Row| -> Result<Holder, tokio_postgres::Error> {
            let seconds: f64 = row.try_get(4)?;
            Ok(Holder {
                pid: row.try_get(0)?,
                application: row.try_get(1)?,
                database: row.try_get(2)?,
                state: row.try_get(3)?,
                age: Duration::try_from_secs_f64(seconds).unwrap_or_default(),
            })
        };
        let rows = rows(&client, sql, &[], what).await?;
        rows.iter().map(holder).collect::<Result<_, _>>().map_err(read_failed(what))
    }
}
