//! Snapshots: a cache, which a damaged row only makes smaller.

use bytes::Bytes;
use purista_core::text::Text;
use purista_events::snapshot::{Snapshot, SnapshotGroup, SnapshotKey, Snapshots};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::checksum;
use crate::codec::{self, Column};

fn sum(key: &SnapshotKey, tenant: &str, [position, taken_at]: [i64; 2], body: &[u8]) -> u32 {
    checksum::of_columns([
        ValueRef::Text(key.name.as_bytes()),
        ValueRef::Integer(key.version.into()),
        ValueRef::Text(tenant.as_bytes()),
        ValueRef::Blob(&key.query.0),
        ValueRef::Integer(position),
        ValueRef::Integer(taken_at),
        ValueRef::Blob(body),
    ])
}

/// Keeps it, unless what is kept is as new.
pub(crate) fn save(connection: &Connection, snapshot: &Snapshot) -> rusqlite::Result<()> {
    let Snapshot { key, position, taken_at, body } = snapshot;
    let tenant = codec::tenant_key(key.tenant.as_deref());
    let (position, taken_at) = (codec::signed(position.number()), codec::nanoseconds(*taken_at));
    connection
        .prepare_cached(
            "INSERT INTO snapshots (name, version, tenant, query, position, taken_at, checksum, body) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
             ON CONFLICT (name, version, tenant, query) DO UPDATE SET position = excluded.position, \
             taken_at = excluded.taken_at, checksum = excluded.checksum, body = excluded.body \
             WHERE excluded.position > position",
        )?
        .execute(params![
            key.name.as_str(),
            key.version,
            tenant,
            key.query.0,
            position,
            taken_at,
            sum(key, &tenant, [position, taken_at], body),
            Column(body),
        ])?;
    Ok(())
}

/// Those of these keys. One that cannot be read counts as none.
pub(crate) fn read_all(connection: &Connection, keys: &[Option<SnapshotKey>]) -> Snapshots {
    let found = |key: &SnapshotKey| read(connection, key).unwrap_or_default();
    keys.iter().map(|key| key.as_ref().and_then(found)).collect()
}

/// The one of this key. A damaged one is none.
pub(crate) fn read(connection: &Connection, key: &SnapshotKey) -> rusqlite::Result<Option<Snapshot>> {
    let tenant = codec::tenant_key(key.tenant.as_deref());
    let found = connection
        .prepare_cached(
            "SELECT position, taken_at, checksum, body FROM snapshots \
             WHERE name = ?1 AND version = ?2 AND tenant = ?3 AND query = ?4",
        )?
        .query_row(params![key.name.as_str(), key.version, tenant, key.query.0], |row| {
            let (position, taken_at, checksum): (i64, i64, u32) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let body = row.get_ref(3)?.as_bytes().map(Bytes::copy_from_slice)?;
            let is_sound = sum(key, &tenant, [position, taken_at], &body) == checksum;
            Ok(is_sound.then(|| Snapshot {
                key: key.clone(),
                position: codec::position(position),
                taken_at: codec::timestamp(taken_at),
                body,
            }))
        })
        .optional();
    match found {
        Err(rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..)) => {
            Ok(None)
        }
        found => found.map(Option::flatten),
    }
}

/// Forgets those of a name, or all. Returns how many there were.
pub(crate) fn forget(connection: &Connection, name: Option<&str>) -> rusqlite::Result<u64> {
    let count = connection
        .prepare_cached("DELETE FROM snapshots WHERE ?1 IS NULL OR name = ?1")?
        .execute(params![name])?;
    Ok(u64::try_from(count).unwrap_or(u64::MAX))
}

/// How many there are of each name and version.
pub(crate) fn groups(connection: &Connection) -> rusqlite::Result<Vec<SnapshotGroup>> {
    connection
        .prepare_cached(
            "SELECT name, version, count(*), max(taken_at) FROM snapshots GROUP BY name, version ORDER BY name, version",
        )?
        .query_map([], |row| {
            let count: i64 = row.get(2)?;
            Ok(SnapshotGroup {
                name: Text::from(row.get::<_, String>(0)?),
                version: row.get(1)?,
                count: u64::try_from(count).unwrap_or(0),
                newest: codec::timestamp(row.get(3)?),
            })
        })?
        .collect()
}
