//! Blocking transactions: those that have written and are still open, anywhere in the cluster, in a session or prepared.

use purista_core::lag::Holder;
use purista_events::store::StoreError;

use crate::blocked::{HOLDERS, holder};
use crate::error::read_failed;
use crate::fetch::rows;
use crate::store::PostgresStore;

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
