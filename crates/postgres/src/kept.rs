//! Everything that lies in the store beside the events, read row by row: what a copy brought is compared with what it was.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use deadpool_postgres::Client;
use futures_util::{Stream, TryStreamExt as _};
use purista_core::text::Text;
use purista_events::batch::{ReplyKey, StoredReply};
use purista_events::fingerprint::Fingerprint;
use purista_events::kept::{Kept, ROWS_MAX, StateRow};
use purista_events::snapshot::{Snapshot, SnapshotKey};
use purista_events::store::{StoreError, StoreErrorKind};
use purista_events::subscriptions::SubscriptionId;
use tokio::sync::mpsc;
use tokio_postgres::{Error, Row};

use crate::error::{corrupt, read_failed};
use crate::subscriptions::{self, Decoded};
use crate::{codec, receipts};

type Read = fn(&Row) -> Decoded<Kept>;

/// What one statement gives.
const TABLES: [(&str, Read); 7] = [
    ("SELECT tenant, key, value, version, expires_at FROM state ORDER BY tenant, key", state),
    ("SELECT state_versions_forgotten FROM log", forgotten),
    (
        "SELECT tenant, scope, key, fingerprint, body, event_name, recorded_at FROM replies ORDER BY tenant, scope, key",
        reply,
    ),
    ("SELECT id, recorded_at, position, events, state_versions FROM batches ORDER BY id", receipt),
    ("SELECT subscription, message, recorded_at FROM consumed ORDER BY subscription, message", consumed),
    (
        "SELECT id, subscription, position, message, at, reason, attempts, trace_id, history FROM dead_letters ORDER BY number",
        letter,
    ),
    (
        "SELECT name, version, tenant, query, position, taken_at, body FROM snapshots \
         ORDER BY name, version, tenant, query",
        snapshot,
    ),
];

/// Hands on everything that is kept beside the events, page by page; it waits while nobody takes a page.
pub(crate) async fn hand_on(client: &Client, pages: &mpsc::Sender<Vec<Kept>>) -> Result<(), StoreError> {
    let what = "read of what is kept beside the events";
    for (sql, read) in TABLES {
        let none: [&str; 0] = [];
        let rows = client.query_raw(sql, none).await.map_err(read_failed(what))?;
        send(rows, read, pages).await?;
    }
    let names = "SELECT subscription FROM progress UNION SELECT subscription FROM parked \
                 UNION SELECT subscription FROM pauses ORDER BY 1";
    for row in client.query(names, &[]).await.map_err(read_failed(what))? {
        let name: &str = row.try_get(0).map_err(read_failed(what))?;
        let id = SubscriptionId::new(&*codec::text_of(name));
        if let Some(record) = subscriptions::record(client, &id).await? {
            pages.send(vec![Kept::Subscription(id, record)]).await.map_err(|_| nobody())?;
        }
    }
    Ok(())
}

async fn send(
    rows: impl Stream<Item = Result<Row, Error>>,
    read: Read,
    pages: &mpsc::Sender<Vec<Kept>>,
) -> Result<(), StoreError> {
    let mut rows = pin!(rows);
    let mut page = Vec::new();
    while let Some(row) =
        rows.try_next().await.map_err(read_failed("read of what is kept beside the events"))?
    {
        page.push(
            read(&row).map_err(|error| corrupt("a row is not what was written there").with_source(error))?,
        );
        if page.len() >= ROWS_MAX {
            pages.send(std::mem::take(&mut page)).await.map_err(|_| nobody())?;
        }
    }
    if page.is_empty() {
        return Ok(());
    }
    pages.send(page).await.map_err(|_| nobody())
}

fn nobody() -> StoreError {
    StoreError::new(StoreErrorKind::Closed, "nobody takes what is kept")
}

fn tenant(row: &Row, column: usize) -> Decoded<Option<Arc<str>>> {
    Ok(codec::tenant_of(row.try_get(column)?).map(Arc::from))
}

fn text(row: &Row, column: usize) -> Decoded<String> {
    Ok(codec::text_of(row.try_get(column)?).into_owned())
}

fn fingerprint(row: &Row, column: usize) -> Decoded<Fingerprint> {
    Ok(Fingerprint(row.try_get::<_, &[u8]>(column)?.try_into()?))
}

fn state(row: &Row) -> Decoded<Kept> {
    Ok(Kept::State(StateRow {
        tenant: tenant(row, 0)?,
        key: text(row, 1)?,
        value: row.try_get(2)?,
        version: u64::try_from(row.try_get::<_, i64>(3)?)?,
        expires_at: row.try_get::<_, Option<i64>>(4)?.map(codec::timestamp),
    }))
}

fn forgotten(row: &Row) -> Decoded<Kept> {
    Ok(Kept::StateVersionsForgotten(u64::try_from(row.try_get::<_, i64>(0)?)?))
}

fn reply(row: &Row) -> Decoded<Kept> {
    let event_name: Option<&str> = row.try_get(5)?;
    Ok(Kept::Reply {
        tenant: tenant(row, 0)?,
        reply: StoredReply {
            key: ReplyKey { scope: text(row, 1)?.into(), key: text(row, 2)?.into() },
            fingerprint: fingerprint(row, 3)?,
            body: row.try_get::<_, Option<&[u8]>>(4)?.map(Bytes::copy_from_slice),
            event_name: event_name.map(|name| codec::text_of(name).into()),
        },
        recorded_at: codec::timestamp(row.try_get(6)?),
    })
}

fn receipt(row: &Row) -> Decoded<Kept> {
    let (_, receipt) = receipts::receipt_of(row)?.ok_or("a batch has no id")?;
    Ok(Kept::Receipt(receipt))
}

fn consumed(row: &Row) -> Decoded<Kept> {
    Ok(Kept::Consumed {
        subscription: SubscriptionId::new(text(row, 0)?),
        message: codec::id_of(row.try_get(1)?)?,
        recorded_at: codec::timestamp(row.try_get(2)?),
    })
}

fn letter(row: &Row) -> Decoded<Kept> {
    subscriptions::dead_letter(row).map(Kept::DeadLetter)
}

fn snapshot(row: &Row) -> Decoded<Kept> {
    let key = SnapshotKey {
        name: Text::from(text(row, 0)?),
        version: u32::try_from(row.try_get::<_, i64>(1)?)?,
        tenant: tenant(row, 2)?,
        query: fingerprint(row, 3)?,
    };
    Ok(Kept::Snapshot(Snapshot {
        key,
        position: codec::position(row.try_get(4)?),
        taken_at: codec::timestamp(row.try_get(5)?),
        body: Bytes::copy_from_slice(row.try_get(6)?),
    }))
}
