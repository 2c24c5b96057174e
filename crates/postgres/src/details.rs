//! What tools ask a store for beyond its contract: where it is, and where something lies by its id.

use purista_core::id::Id;
use purista_events::position::Position;
use purista_events::store::StoreError;
use purista_events::subscriptions::{DeadLetter, SubscriptionId};

use crate::error::read_failed;
use crate::fetch::rows;
use crate::store::PostgresStore;
use crate::{codec, connect, subscriptions};

impl PostgresStore {
    /// Which server, database and schema, for people; neither user nor password are in it.
    pub fn place(&self) -> String {
        let server = &self.handle().server;
        connect::place(&server.config, &server.schema)
    }

    /// How many bytes its tables and their indices have on the server's disk. Cancel safe.
    pub async fn size(&self) -> Result<u64, StoreError> {
        let what = "read of the store's size";
        let sql = "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c \
                   WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'";
        let client = self.handle().client(what).await?;
        let bytes: i64 =
            client.query_one(sql, &[]).await.and_then(|row| row.try_get(0)).map_err(read_failed(what))?;
        Ok(u64::try_from(bytes).unwrap_or(0))
    }

    /// Where the event of this id lies. It reads the whole log: events are looked for by position, type and tag. Cancel safe.
    pub async fn position_of(&self, event: &Id) -> Result<Option<Position>, StoreError> {
        let what = "search for an event";
        let client = self.handle().client(what).await?;
        let found =
            rows(&client, "SELECT position FROM events WHERE id = $1", &[&codec::id(event)], what).await?;
        let position = found.first().map(|row| row.try_get(0)).transpose().map_err(read_failed(what))?;
        Ok(position.map(codec::position))
    }

    /// The dead letter of this id. Cancel safe.
    pub async fn dead_letter(&self, id: &Id) -> Result<Option<DeadLetter>, StoreError> {
        subscriptions::letter(&self.handle().client("read of a dead letter").await?, id).await
    }

    /// How many dead letters there are, of one subscription or of all. Cancel safe.
    pub async fn count_dead_letters(&self, subscription: Option<&SubscriptionId>) -> Result<u64, StoreError> {
        let what = "count of dead letters";
        let sql = "SELECT count(*) FROM dead_letters WHERE $1::text IS NULL OR subscription = $1";
        let name = subscription.map(|id| codec::text(id.as_str()));
        let found = rows(&self.handle().client(what).await?, sql, &[&name], what).await?;
        let count: i64 = found.first().map_or(Ok(0), |row| row.try_get(0)).map_err(read_failed(what))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }
}
