//! What only a file can be asked, for tools: who owns it, which form it has, and where something lies by its id.

use std::path::Path;

use purista_core::id::Id;
use purista_events::position::Position;
use purista_events::store::{StoreError, StoreErrorKind};
use purista_events::subscriptions::{DeadLetter, SubscriptionId};
use rusqlite::{OptionalExtension as _, params};

use crate::codec::Column;
use crate::error::read_failed;
use crate::store::SqliteStore;
use crate::{dead_letter, lock};

impl SqliteStore {
    /// Who has the store in this file open, such as `process 4711`; `None` when nobody has.
    pub fn owner(path: impl AsRef<Path>) -> Result<Option<String>, StoreError> {
        let path = path.as_ref();
        // Two names of one file find one lock.
        let located = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        lock::owner(&located).map_err(|error| {
            let what = format!("look at the lock of `{}` failed", path.display());
            StoreError::new(StoreErrorKind::ReadFailed, what).with_source(error)
        })
    }

    /// The form of the file: which version of its tables it holds.
    pub async fn form_of_file(&self) -> Result<u32, StoreError> {
        self.handle()
            .read(|connection| {
                let form = connection.query_row("PRAGMA user_version", [], |row| row.get(0));
                form.map_err(read_failed("read of the file's form"))
            })
            .await
    }

    /// Where the event of this id lies. It reads the whole log: events are looked for by position, type and tag.
    pub async fn position_of(&self, event: &Id) -> Result<Option<Position>, StoreError> {
        let event = event.clone();
        self.handle()
            .read(move |connection| {
                let found: rusqlite::Result<Option<Column<Position>>> = connection
                    .query_row("SELECT position FROM events WHERE id = ?1", [Column(&event)], |row| {
                        row.get(0)
                    })
                    .optional();
                found.map(|found| found.map(|at| at.0)).map_err(read_failed("search for an event"))
            })
            .await
    }

    /// The dead letter of this id.
    pub async fn dead_letter(&self, id: &Id) -> Result<Option<DeadLetter>, StoreError> {
        let id = id.clone();
        self.handle()
            .read(move |connection| {
                dead_letter::read_one(connection, &id).map_err(read_failed("read of a dead letter"))
            })
            .await
    }

    /// How many dead letters there are, of one subscription or of all.
    pub async fn count_dead_letters(&self, subscription: Option<&SubscriptionId>) -> Result<u64, StoreError> {
        let subscription = subscription.cloned();
        self.handle()
            .read(move |connection| {
                let sql = match subscription {
                    Some(_) => "SELECT count(*) FROM dead_letters WHERE subscription = ?1",
                    None => "SELECT count(*) FROM dead_letters WHERE ?1 IS NULL",
                };
                let name = subscription.as_ref().map(SubscriptionId::as_str);
                let count: i64 = connection
                    .query_row(sql, params![name], |row| row.get(0))
                    .map_err(read_failed("count of dead letters"))?;
                Ok(u64::try_from(count).unwrap_or(0))
            })
            .await
    }
}
