//! A batch inside the user's own transaction: events and the user's rows, together or not at all.

use purista_events::batch::{Batch, Receipt};
use purista_events::store::{StoreError, StoreErrorKind};
use tokio_postgres::{Error, Transaction};

use crate::error::{change_failed, closed};
use crate::flight;
use crate::group::{self, Session, Statements};
use crate::state;
use crate::store::PostgresStore;

impl PostgresStore {
    /// Commits a batch with the transaction: its events are recorded when that is committed, and never when it is not. The checks
    /// and errors are those of [`purista_events::store::EventStore::commit`].
    ///
    /// It is the first thing that the transaction writes, and there is one batch in it: whoever has written has his place in the
    /// log already, and would come before what he waited for. What he writes afterwards is his own affair. It is refused as
    /// `Invalid` otherwise. After an error the transaction is rolled back by its owner.
    ///
    /// The locks of the batch are held until the transaction ends, and followers of the whole log wait for it: so it is short. They
    /// hear of it when somebody looks next, within half a second.
    ///
    /// ```no_run
    /// # use purista_events::{batch::Batch, store::StoreError};
    /// # use purista_postgres::store::PostgresStore;
    /// # async fn example(store: PostgresStore, client: &mut tokio_postgres::Client, batch: Batch) -> Result<(), Box<dyn std::error::Error>> {
    /// let transaction = client.transaction().await?;
    /// store.commit_in(&transaction, batch).await?;
    /// transaction.execute("UPDATE stock SET pieces = pieces - 1 WHERE article = $1", &[&"chair"]).await?;
    /// transaction.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Not cancel safe: a transaction in which it was dropped is rolled back.
    pub async fn commit_in(
        &self,
        transaction: &Transaction<'_>,
        batch: Batch,
    ) -> Result<Receipt, StoreError> {
        let what = "a batch in its user's transaction";
        if self.handle().is_closed() {
            return Err(closed());
        }
        batch.check_bounds()?;
        let path = enter(transaction, &self.handle().server.schema).await.map_err(change_failed(what))?;
        let Some(path) = path else {
            let what = "the transaction has written already: the batch comes first, and there is one in it";
            return Err(StoreError::new(StoreErrorKind::Invalid, what));
        };
        let ended = self.write_in(transaction, &batch).await;
        let back = transaction.query("SELECT set_config('search_path', $1, true)", &[&path]).await;
        // A transaction that has failed takes it back by itself.
        if ended.is_ok() {
            back.map_err(change_failed(what))?;
        }
        ended
    }

    async fn write_in(&self, transaction: &Transaction<'_>, batch: &Batch) -> Result<Receipt, StoreError> {
        let what = "a batch in its user's transaction";
        let (shared, schema) = (&self.handle().shared, &self.handle().server.schema);
        let state_texts = state::texts(&batch.state);
        let mut statements = Statements::new();
        let mut session =
            Session { client: transaction.client(), statements: &mut statements, schema: schema.as_str() };
        let members = [(batch, state_texts.as_slice())];
        let decided = session.decide(shared, &members, group::Transaction::IsOpen).await;
        let mut decided = decided.map_err(change_failed(what))?;
        if !decided.orders.is_empty() {
            flight::run(transaction.client(), &decided.orders).await.map_err(change_failed(what))?;
        }
        decided.answers.pop().unwrap_or_else(|| Err(closed()))
    }
}

/// Sees to it that the store's tables are found, and returns where the user's were. `None` when something was written already.
async fn enter(transaction: &Transaction<'_>, schema: &str) -> Result<Option<String>, Error> {
    let asked = "SELECT current_setting('search_path'), pg_current_xact_id_if_assigned() IS NULL";
    let row = transaction.query_one(asked, &[]).await?;
    if !row.try_get::<_, bool>(1)? {
        return Ok(None);
    }
    let path = format!("\"{schema}\", public");
    transaction.query("SELECT set_config('search_path', $1, true)", &[&path]).await?;
    row.try_get(0).map(Some)
}
