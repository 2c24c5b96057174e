//! Snapshots: a cache beside the log.

use bytes::Bytes;
use deadpool_postgres::Client;
use purista_core::text::Text;
use purista_events::snapshot::{Snapshot, SnapshotGroup, SnapshotKey};
use purista_events::store::StoreError;
use tokio_postgres::Row;

use crate::codec;
use crate::error::{change_failed, read_failed};
use crate::fetch::rows;

/// Keeps it, unless what is kept is as new.
pub(crate) async fn save(client: &Client, snapshot: &Snapshot) -> Result<(), StoreError> {
    let Snapshot { key, position, taken_at, body } = snapshot;
    let sql = "INSERT INTO snapshots (name, version, tenant, query, position, taken_at, body) \
               VALUES ($1, $2, $3, $4, $5, $6, $7) \
               ON CONFLICT (name, version, tenant, query) DO UPDATE SET position = excluded.position, \
               taken_at = excluded.taken_at, body = excluded.body WHERE excluded.position > snapshots.position";
    let what = "keeping a snapshot";
    let statement = client.prepare_cached(sql).await.map_err(change_failed(what))?;
    let kept = client
        .execute(
            &statement,
            &[
                &codec::text(&key.name),
                &i64::from(key.version),
                &codec::tenant_key(key.tenant.as_deref()),
                &key.query.0.as_slice(),
                &codec::signed(position.number()),
                &codec::nanoseconds(*taken_at),
                &body.as_ref(),
            ],
        )
        .await;
    kept.map(drop).map_err(change_failed(what))
}

/// The one of this key.
pub(crate) async fn read(client: &Client, key: &SnapshotKey) -> Result<Option<Snapshot>, StoreError> {
    let what = "read of a snapshot";
    let sql = "SELECT position, taken_at, body FROM snapshots \
               WHERE name = $1 AND version = $2 AND tenant = $3 AND query = $4";
    let tenant = codec::tenant_key(key.tenant.as_deref());
    let query = key.query.0.as_slice();
    let rows =
        rows(client, sql, &[&codec::text(&key.name), &i64::from(key.version), &tenant, &query], what).await?;
    let snapshot = |row: &Row| -> Result<Snapshot, tokio_postgres::Error> {
        Ok(Snapshot {
            key: key.clone(),
            position: codec::position(row.try_get(0)?),
            taken_at: codec::timestamp(row.try_get(1)?),
            body: Bytes::copy_from_slice(row.try_get(2)?),
        })
    };
    rows.first().map(snapshot).transpose().map_err(read_failed(what))
}

/// Forgets those of a name, or all. Returns how many there were.
pub(crate) async fn forget(client: &Client, name: Option<&str>) -> Result<u64, StoreError> {
    let sql = "DELETE FROM snapshots WHERE $1::text IS NULL OR name = $1";
    client.execute(sql, &[&name.map(codec::text)]).await.map_err(change_failed("forgetting snapshots"))
}

/// How many there are of each name and version.
pub(crate) async fn groups(client: &Client) -> Result<Vec<SnapshotGroup>, StoreError> {
    let what = "count of snapshots";
    let sql = "SELECT name, version, count(*), max(taken_at) FROM snapshots GROUP BY name, version ORDER BY name, version";
    let rows = rows(client, sql, &[], what).await?;
    let group = |row: &Row| -> Result<SnapshotGroup, tokio_postgres::Error> {
        Ok(SnapshotGroup {
            name: Text::from(&*codec::text_of(row.try_get(0)?)),
            version: codec::unsigned(row.try_get(1)?),
            count: u64::try_from(row.try_get::<_, i64>(2)?).unwrap_or(0),
            newest: codec::timestamp(row.try_get(3)?),
        })
    };
    rows.iter().map(group).collect::<Result<_, _>>().map_err(read_failed(what))
}
