//! How far a copy into a store is: whoever opens the store looks at it first.

use purista_events::position::Position;
use purista_events::store::StoreError;
use tokio_postgres::{Client, Error};

use crate::codec;
use crate::error::read_failed;

/// What was copied into a store, or is being copied.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyState {
    /// The log that is copied.
    pub origin: String,
    /// Up to where its events are there; when it is finished, up to where they were copied.
    pub reached: Position,
    /// Whether everything is there.
    pub is_finished: bool,
}

/// What was copied into the store, or is being copied.
pub(crate) async fn state(client: &Client) -> Result<Option<CopyState>, StoreError> {
    let what = "read of the copy's state";
    let sql = "SELECT origin, finished_at IS NOT NULL, \
               coalesce(position, (SELECT coalesce(max(position), 0) FROM events)) FROM copy";
    let Some(row) = client.query_opt(sql, &[]).await.map_err(read_failed(what))? else { return Ok(None) };
    let read = || -> Result<CopyState, Error> {
        Ok(CopyState {
            origin: codec::text_of(row.try_get(0)?).into_owned(),
            is_finished: row.try_get(1)?,
            reached: codec::position(row.try_get(2)?),
        })
    };
    read().map(Some).map_err(read_failed(what))
}
