//! How an event lies in its row.

use std::sync::Arc;

use bytes::Bytes;
use purista_core::address::{Address, AddressParts};
use purista_core::event::Tags;
use purista_core::id::Id;
use purista_core::message::Party;
use purista_core::text::Text;
use purista_events::recorded::{Cause, NewEvent, Recorded};
use purista_events::store::{StoreError, StoreErrorKind};
use rusqlite::types::{FromSql, FromSqlResult, ToSqlOutput, ValueRef};
use rusqlite::{Row, Statement};

use crate::checksum;
use crate::codec::{self, Column};

/// All columns but the checksum, which covers them in this order.
macro_rules! columns {
    () => {
        "position, name, tenant, recorded_at, id, version, stream_version, tags, sender_service, sender_version, \
         sender_target, sender_instance, principal, trace_id, correlation_id, causation_id, hops, body"
    };
}

const COLUMNS: usize = 18;

pub(crate) const INSERT: &str =
    concat!("INSERT INTO events (", columns!(), ", checksum) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)");
pub(crate) const SELECT_ONE: &str =
    concat!("SELECT ", columns!(), ", checksum FROM events WHERE position = ?1");
pub(crate) const SELECT_AFTER: &str =
    concat!("SELECT ", columns!(), ", checksum FROM events WHERE position > ?1 ORDER BY position LIMIT ?2");
pub(crate) const SELECT_BEFORE: &str = concat!(
    "SELECT ",
    columns!(),
    ", checksum FROM events WHERE position < ?1 ORDER BY position DESC LIMIT ?2"
);

/// Where an event comes to lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) position: i64,
    /// The key of the tenant.
    pub(crate) tenant: &'a str,
    pub(crate) stream_version: Option<i64>,
    pub(crate) recorded_at: i64,
}

/// Writes one event's row.
pub(crate) fn insert(
    statement: &mut Statement<'_>,
    event: &NewEvent,
    place: Place<'_>,
) -> rusqlite::Result<()> {
    let tags: Vec<_> = event.tags.iter().collect();
    let tags = serde_json::to_string(&tags)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let Cause { sender, principal_id, trace_id, correlation_id, causation_id, hops } = &event.cause;
    let columns: [ToSqlOutput<'_>; COLUMNS] = [
        place.position.into(),
        text(&event.name),
        text(place.tenant),
        place.recorded_at.into(),
        codec::id(&event.id),
        event.version.into(),
        optional(place.stream_version.map(Into::into)),
        text(&tags),
        text(sender.address.service()),
        text(sender.address.version()),
        text(sender.address.target()),
        optional(sender.instance.as_deref().map(text)),
        optional(principal_id.as_deref().map(text)),
        codec::id(trace_id),
        optional(correlation_id.as_ref().map(codec::id)),
        optional(causation_id.as_ref().map(codec::id)),
        (*hops).into(),
        ToSqlOutput::Borrowed(codec::content(&event.body)),
    ];
    let checksum = checksum::of_columns(columns.iter().map(|column| match column {
        ToSqlOutput::Borrowed(value) => *value,
        ToSqlOutput::Owned(value) => ValueRef::from(value),
        // No column is of any other kind.
        _ => ValueRef::Null,
    }));
    for (index, column) in (1..).zip(&columns) {
        statement.raw_bind_parameter(index, column)?;
    }
    statement.raw_bind_parameter(COLUMNS + 1, checksum)?;
    statement.raw_execute().map(drop)
}

fn text(text: &str) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes()))
}

fn optional(column: Option<ToSqlOutput<'_>>) -> ToSqlOutput<'_> {
    column.unwrap_or(ToSqlOutput::Borrowed(ValueRef::Null))
}

/// Reads one event's row, and refuses it when it is not what was written. Names that the event before has, too, are
/// shared with it.
pub(crate) fn decode(row: &Row<'_>, before: Option<&Recorded>) -> Result<Recorded, StoreError> {
    let corrupt = |error: Option<rusqlite::Error>| {
        let position = row.get_ref(0).ok().and_then(|value| value.as_i64().ok()).unwrap_or_default();
        let what = format!("the event at {position} is not what was written there");
        let corrupt = StoreError::new(StoreErrorKind::Corrupt, what);
        match error {
            Some(error) => corrupt.with_source(error),
            None => corrupt,
        }
    };
    let found = |error| corrupt(Some(error));
    let mut columns = [ValueRef::Null; COLUMNS];
    for (index, column) in columns.iter_mut().enumerate() {
        *column = row.get_ref(index).map_err(found)?;
    }
    let checksum: u32 = row.get(COLUMNS).map_err(found)?;
    if checksum != checksum::of_columns(columns) {
        return Err(corrupt(None));
    }
    decoded(&columns, before)
        .map_err(|error| corrupt(Some(rusqlite::Error::ToSqlConversionFailure(error.into()))))
}

fn decoded(columns: &[ValueRef<'_>; COLUMNS], before: Option<&Recorded>) -> FromSqlResult<Recorded> {
    let &[
        position,
        name,
        tenant,
        recorded_at,
        id,
        version,
        stream_version,
        tags,
        service,
        service_version,
        target,
        instance,
        principal,
        trace_id,
        correlation_id,
        causation_id,
        hops,
        body,
    ] = columns;
    let pairs: Vec<(String, String)> =
        serde_json::from_str(tags.as_str()?).map_err(rusqlite::types::FromSqlError::other)?;
    let tags = pairs.into_iter().fold(Tags::new(), |tags, (name, value)| tags.with(name, value));
    let shared = |value: ValueRef<'_>, known: Option<&Arc<str>>| -> FromSqlResult<Option<Arc<str>>> {
        let Some(text) = value.as_str_or_null()? else { return Ok(None) };
        Ok(Some(known.filter(|known| ***known == *text).map_or_else(|| text.into(), Arc::clone)))
    };
    let cause_before = before.map(|event| &event.cause);
    let tenant_before = before.and_then(|event| event.tenant_id.as_ref());
    let tenant_id = codec::tenant_of(tenant.as_str()?).map(|tenant| {
        tenant_before.filter(|known| ***known == *tenant).map_or_else(|| tenant.into(), Arc::clone)
    });
    let name = name.as_str()?;
    let known_name = before.map(|event| &event.name).filter(|known| known.as_str() == name);
    let address = address(
        [service.as_str()?, service_version.as_str()?, target.as_str()?],
        cause_before.map(|cause| &cause.sender.address),
    );
    Ok(Recorded {
        position: codec::position(position.as_i64()?),
        id: required::<Id>(id)?,
        name: known_name.cloned().unwrap_or_else(|| Text::from(name)),
        version: FromSql::column_result(version)?,
        tags,
        stream_version: Option::<i64>::column_result(stream_version)?
            .and_then(|version| u64::try_from(version).ok()),
        recorded_at: codec::timestamp(recorded_at.as_i64()?),
        tenant_id,
        cause: Cause {
            sender: Party {
                address,
                instance: shared(instance, cause_before.and_then(|cause| cause.sender.instance.as_ref()))?,
            },
            principal_id: shared(principal, cause_before.and_then(|cause| cause.principal_id.as_ref()))?,
            trace_id: required::<Id>(trace_id)?,
            correlation_id: absent_or(correlation_id)?,
            causation_id: absent_or(causation_id)?,
            hops: FromSql::column_result(hops)?,
        },
        body: required::<Bytes>(body)?,
    })
}

fn address(parts: [&str; 3], before: Option<&Address>) -> Address {
    let [service, version, target] = parts;
    let is_same = |known: &&Address| {
        known.service() == service && known.version() == version && known.target() == target
    };
    before.filter(is_same).cloned().unwrap_or_else(|| {
        let owned = |part: &str| part.to_owned().into();
        AddressParts { service: owned(service), version: owned(version), target: owned(target) }.into()
    })
}

fn required<T>(value: ValueRef<'_>) -> FromSqlResult<T>
where
    Column<T>: FromSql,
{
    Column::<T>::column_result(value).map(|column| column.0)
}

fn absent_or(value: ValueRef<'_>) -> FromSqlResult<Option<Id>> {
    Option::<Column<Id>>::column_result(value).map(|column| column.map(|column| column.0))
}
