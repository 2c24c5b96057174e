//! Everything that lies in the file beside the events, for an engine that takes the log over.

use std::sync::Arc;

use bytes::Bytes;
use purista_core::text::Text;
use purista_events::batch::{Receipt, ReplyKey, StoredReply};
use purista_events::fingerprint::Fingerprint;
use purista_events::kept::{Kept, ROWS_MAX, StateRow};
use purista_events::snapshot::SnapshotKey;
use purista_events::store::{StoreError, StoreErrorKind};
use purista_events::subscriptions::SubscriptionId;
use rusqlite::{Connection, Row};
use tokio::sync::mpsc;

use crate::codec::{self, Column};
use crate::error::read_failed;
use crate::store::SqliteStore;
use crate::{dead_letter, progress, receipts, snapshot};

impl SqliteStore {
    /// Hands on everything that is kept beside the events, page by page, as of one moment; it waits while nobody takes a page. A
    /// snapshot that is damaged counts as none. It holds one reader's thread.
    ///
    /// `Closed` when the other end goes away. Cancel safe.
    pub async fn kept(&self, pages: mpsc::Sender<Vec<Kept>>) -> Result<(), StoreError> {
        let what = "read of what is kept beside the events";
        self.handle()
            .read(move |connection| {
                let transaction = connection.transaction().map_err(read_failed(what))?;
                let mut way = Way { pages, page: Vec::new(), is_gone: false };
                hand_on(&transaction, &mut way).map_err(read_failed(what))?;
                way.send();
                if way.is_gone {
                    return Err(StoreError::new(StoreErrorKind::Closed, "nobody takes what is kept"));
                }
                Ok(())
            })
            .await
    }
}

/// The way of rows to whoever takes them.
struct Way {
    pages: mpsc::Sender<Vec<Kept>>,
    page: Vec<Kept>,
    is_gone: bool,
}

impl Way {
    fn put(&mut self, row: Kept) {
        self.page.push(row);
        if self.page.len() >= ROWS_MAX {
            self.send();
        }
    }

    fn send(&mut self) {
        let page = std::mem::take(&mut self.page);
        if !self.is_gone && !page.is_empty() {
            self.is_gone = self.pages.blocking_send(page).is_err();
        }
    }
}

type Read = fn(&Row<'_>) -> rusqlite::Result<Kept>;

/// What one statement gives.
const TABLES: [(&str, Read); 5] = [
    ("SELECT tenant, key, value, version, expires_at FROM state ORDER BY tenant, key", state),
    (
        "SELECT tenant, scope, key, fingerprint, body, event_name, recorded_at FROM replies ORDER BY number",
        reply,
    ),
    ("SELECT id, recorded_at, position, events, state_versions FROM batches ORDER BY number", receipt),
    ("SELECT subscription, message, recorded_at FROM consumed ORDER BY number", consumed),
    ("SELECT value FROM meta WHERE name = 'state_versions_forgotten'", forgotten),
];

fn hand_on(connection: &Connection, way: &mut Way) -> rusqlite::Result<()> {
    for (sql, read) in TABLES {
        each(connection, sql, way, read)?;
    }
    let names = "SELECT subscription FROM progress UNION SELECT subscription FROM parked \
                 UNION SELECT subscription FROM pauses ORDER BY 1";
    let mut names = connection.prepare(names)?;
    for name in names.query_map([], |row| row.get::<_, String>(0))? {
        let id = SubscriptionId::new(name?);
        if let Some(record) = progress::record(connection, &id)? {
            way.put(Kept::Subscription(id, record));
        }
    }
    let letters = format!("SELECT {} ORDER BY number", dead_letter::COLUMNS);
    each(connection, &letters, way, |row| dead_letter::decode(row).map(Kept::DeadLetter))?;
    let mut keys =
        connection.prepare("SELECT name, version, tenant, query FROM snapshots ORDER BY number")?;
    for key in keys.query_map([], snapshot_key)? {
        if let Some(snapshot) = snapshot::read(connection, &key?)? {
            way.put(Kept::Snapshot(snapshot));
        }
    }
    Ok(())
}

fn each(
    connection: &Connection,
    sql: &str,
    way: &mut Way,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<Kept>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        way.put(read(row)?);
        if way.is_gone {
            break;
        }
    }
    Ok(())
}

fn tenant(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Arc<str>>> {
    Ok(codec::tenant_of(row.get_ref(column)?.as_str()?).map(Arc::from))
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn state(row: &Row<'_>) -> rusqlite::Result<Kept> {
    Ok(Kept::State(StateRow {
        tenant: tenant(row, 0)?,
        key: row.get(1)?,
        value: row.get(2)?,
        version: unsigned(row.get(3)?),
        expires_at: row.get::<_, Option<Column<_>>>(4)?.map(|at| at.0),
    }))
}

fn forgotten(row: &Row<'_>) -> rusqlite::Result<Kept> {
    Ok(Kept::StateVersionsForgotten(unsigned(row.get(0)?)))
}

fn reply(row: &Row<'_>) -> rusqlite::Result<Kept> {
    Ok(Kept::Reply {
        tenant: tenant(row, 0)?,
        reply: StoredReply {
            key: ReplyKey { scope: row.get(1)?, key: row.get(2)? },
            fingerprint: Fingerprint(row.get(3)?),
            body: row.get::<_, Option<Column<Bytes>>>(4)?.map(|body| body.0),
            event_name: row.get(5)?,
        },
        recorded_at: row.get::<_, Column<_>>(6)?.0,
    })
}

fn receipt(row: &Row<'_>) -> rusqlite::Result<Kept> {
    let receipt: Receipt = receipts::decode(row, row.get::<_, Column<_>>(0)?.0, 1)?;
    Ok(Kept::Receipt(receipt))
}

fn consumed(row: &Row<'_>) -> rusqlite::Result<Kept> {
    Ok(Kept::Consumed {
        subscription: SubscriptionId::new(row.get::<_, String>(0)?),
        message: row.get::<_, Column<_>>(1)?.0,
        recorded_at: row.get::<_, Column<_>>(2)?.0,
    })
}

fn snapshot_key(row: &Row<'_>) -> rusqlite::Result<SnapshotKey> {
    Ok(SnapshotKey {
        name: Text::from(row.get::<_, String>(0)?),
        version: row.get(1)?,
        tenant: tenant(row, 2)?,
        query: Fingerprint(row.get(3)?),
    })
}
