//! How an event lies in its row.

use std::cell::RefCell;
use std::ffi::c_int;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use purista_core::address::{Address, AddressParts};
use purista_core::event::Tags;
use purista_core::id::Id;
use purista_core::message::Party;
use purista_core::text::Text;
use purista_core::trace::TraceContext;
use purista_events::recorded::{Cause, NewEvent, Recorded};
use purista_events::store::{StoreError, StoreErrorKind};
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{FromSql, FromSqlResult, ToSqlOutput, ValueRef};
use rusqlite::{Connection, Statement};

use crate::checksum;
use crate::codec::{self, Column};

/// All columns but the checksums, the whole one of which covers them in this order: the last one, which files of earlier forms
/// did not have, only where it holds something.
macro_rules! columns {
    () => {
        "position, name, tenant, recorded_at, id, version, stream_version, tags, sender_service, sender_version, \
         sender_target, sender_instance, principal, trace_id, correlation_id, causation_id, hops, body, trace"
    };
}

const COLUMNS: usize = 19;

pub(crate) const INSERT: &str = concat!(
    "INSERT INTO events (",
    columns!(),
    ", checksum, fold_checksum) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
);
/// Reads the event of a row, in the place of its columns, where the table of events is `e`. It is a function of ours, which
/// SQLite hands all columns at once: asking for them one by one costs more than finding the row. It gives NULL for no row,
/// 1 for an event that lies in [`taken`] then, and 0 for one that is not what was written.
pub(crate) const READ_EVENT: &str = "purista_event(e.position, e.name, e.tenant, e.recorded_at, e.id, e.version, e.stream_version, \
     e.tags, e.sender_service, e.sender_version, e.sender_target, e.sender_instance, e.principal, e.trace_id, \
     e.correlation_id, e.causation_id, e.hops, e.body, e.trace, e.checksum)";

thread_local! {
    /// What [`READ_EVENT`] read on this thread.
    static READING: RefCell<Reading> = RefCell::default();
}

/// Makes [`READ_EVENT`] known to a connection.
pub(crate) fn make_readable(connection: &Connection) -> rusqlite::Result<()> {
    let arguments = c_int::try_from(COLUMNS + 1).unwrap_or(-1);
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_scalar_function("purista_event", arguments, flags, |context| {
        if context.get_raw(0) == ValueRef::Null {
            return Ok(None);
        }
        Ok(Some(READING.with_borrow_mut(|reading| reading.read(context))))
    })
}

/// Forgets what was read on this thread, before the next events are.
pub(crate) fn forget() {
    READING.take();
}

/// The events that were read on this thread; and what is wrong with the one behind them, where something is.
pub(crate) fn taken() -> (Vec<Recorded>, Option<StoreError>) {
    let Reading { events, damage, .. } = READING.take();
    (events, damage)
}

/// How much memory the first events that are read share, and the most that any do. Whoever keeps one of them keeps it all.
const SHARED_BYTES: [usize; 2] = [2 * 1024, 32 * 1024];

/// Events that are read one after the other share what they have in common, and the memory of what they have not.
#[derive(Debug, Default)]
struct Reading {
    events: Vec<Recorded>,
    damage: Option<StoreError>,
    memory: BytesMut,
    size: usize,
}

impl Reading {
    /// Reads one event's row; whether it is what was written.
    fn read(&mut self, row: &Context<'_>) -> bool {
        match decode(row, self) {
            Ok(event) => self.events.push(event),
            Err(error) => self.damage = Some(error),
        }
        self.damage.is_none()
    }

    fn copied(&mut self, bytes: &[u8]) -> Bytes {
        let [least, most] = SHARED_BYTES;
        if bytes.len() > most {
            return Bytes::copy_from_slice(bytes);
        }
        if self.memory.capacity() < bytes.len() {
            self.size = (self.size * 2).clamp(least, most);
            self.memory = BytesMut::with_capacity(self.size.max(bytes.len()));
        }
        self.memory.extend_from_slice(bytes);
        self.memory.split().freeze()
    }
}

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
    let tags_json = serde_json::to_string(&tags)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let Cause { sender, principal_id, trace_id, trace, correlation_id, causation_id, hops } = &event.cause;
    let trace = trace.as_deref().map(TraceContext::to_otp);
    let columns: [ToSqlOutput<'_>; COLUMNS] = [
        place.position.into(),
        text(&event.name),
        text(place.tenant),
        place.recorded_at.into(),
        codec::id(&event.id),
        event.version.into(),
        optional(place.stream_version.map(Into::into)),
        text(&tags_json),
        text(sender.address.service()),
        text(sender.address.version()),
        text(sender.address.target()),
        optional(sender.instance.as_ref().map(codec::id)),
        optional(principal_id.as_deref().map(text)),
        codec::id(trace_id),
        optional(correlation_id.as_ref().map(codec::id)),
        optional(causation_id.as_ref().map(codec::id)),
        (*hops).into(),
        ToSqlOutput::Borrowed(codec::content(&event.body)),
        optional(trace.as_deref().map(text)),
    ];
    let values = columns.each_ref().map(|column| match column {
        ToSqlOutput::Borrowed(value) => *value,
        ToSqlOutput::Owned(value) => ValueRef::from(value),
        // No column is of any other kind.
        _ => ValueRef::Null,
    });
    let [position, name, _, _, _, version, _, tags, .., body, _] = values;
    let folded = checksum::Folded::of([position, name, version, body], Some([position, tags]));
    let checksum = whole_checksum(&values);
    for (index, column) in (1..).zip(&columns) {
        statement.raw_bind_parameter(index, column)?;
    }
    statement.raw_bind_parameter(COLUMNS + 1, checksum)?;
    statement.raw_bind_parameter(COLUMNS + 2, folded.stored())?;
    statement.raw_execute().map(drop)
}

fn whole_checksum(columns: &[ValueRef<'_>; COLUMNS]) -> u32 {
    match columns.split_last() {
        Some((ValueRef::Null, before)) => checksum::of_columns(before.iter().copied()),
        _ => checksum::of_columns(columns.iter().copied()),
    }
}

fn text(text: &str) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes()))
}

fn optional(column: Option<ToSqlOutput<'_>>) -> ToSqlOutput<'_> {
    column.unwrap_or(ToSqlOutput::Borrowed(ValueRef::Null))
}

/// Reads one event's row, and refuses it when it is not what was written. Names that the event before has, too, are
/// shared with it.
fn decode(row: &Context<'_>, reading: &mut Reading) -> Result<Recorded, StoreError> {
    let columns: [ValueRef<'_>; COLUMNS] = std::array::from_fn(|index| row.get_raw(index));
    let [position, ..] = columns;
    let corrupt = || {
        let position = position.as_i64().unwrap_or_default();
        let what = format!("the event at {position} is not what was written there");
        StoreError::new(StoreErrorKind::Corrupt, what)
    };
    if row.get_raw(COLUMNS) != ValueRef::Integer(whole_checksum(&columns).into()) {
        return Err(corrupt());
    }
    decoded(&columns, reading).map_err(|error| corrupt().with_source(error))
}

fn decoded(columns: &[ValueRef<'_>; COLUMNS], reading: &mut Reading) -> FromSqlResult<Recorded> {
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
        trace,
    ] = columns;
    let (tags, body) = (reading.copied(tags.as_bytes()?), reading.copied(body.as_bytes()?));
    let before = reading.events.last();
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
        tags: Tags::stored(tags),
        stream_version: Option::<i64>::column_result(stream_version)?
            .and_then(|version| u64::try_from(version).ok()),
        recorded_at: codec::timestamp(recorded_at.as_i64()?),
        tenant_id,
        cause: Cause {
            sender: Party { address, instance: absent_or(instance)? },
            principal_id: shared(principal, cause_before.and_then(|cause| cause.principal_id.as_ref()))?,
            trace_id: required::<Id>(trace_id)?,
            trace: trace.as_str_or_null()?.and_then(TraceContext::from_otp).map(Box::new),
            correlation_id: absent_or(correlation_id)?,
            causation_id: absent_or(causation_id)?,
            hops: FromSql::column_result(hops)?,
        },
        body,
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
