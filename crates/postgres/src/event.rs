//! How an event lies in its row.

use std::sync::Arc;

use bytes::Bytes;
use purista_core::address::{Address, AddressParts};
use purista_core::event::Tags;
use purista_core::id::Id;
use purista_core::message::Party;
use purista_core::text::Text;
use purista_core::trace::TraceContext;
use purista_events::recorded::{Cause, Recorded};
use purista_events::store::StoreError;
use tokio_postgres::Row;

use crate::codec;
use crate::error::corrupt;

/// The columns in the order in which [`decode`] reads them, of the table of events `e`.
pub(crate) const COLUMNS: &str = "e.position, e.name, e.version, e.tenant, e.recorded_at, e.id, e.stream_version, e.tags, \
     e.sender_service, e.sender_version, e.sender_target, e.sender_instance, e.principal, e.trace_id, e.correlation_id, \
     e.causation_id, e.hops, e.body, e.trace";

/// The events of a statement's rows, whose columns begin at `first`. A row without an event gives none.
pub(crate) fn decode_all(rows: &[Row], first: usize) -> Result<Vec<Recorded>, StoreError> {
    let mut events: Vec<Recorded> = Vec::with_capacity(rows.len());
    for row in rows {
        decode_next(row, first, &mut events)?;
    }
    Ok(events)
}

/// Takes in one more row.
pub(crate) fn decode_next(row: &Row, first: usize, events: &mut Vec<Recorded>) -> Result<(), StoreError> {
    let Some(position) = row.try_get::<_, Option<i64>>(first).map_err(|error| unreadable(0, error))? else {
        return Ok(());
    };
    let event = decode(row, first, position, events.last());
    events.push(event.map_err(|error| unreadable(position, error))?);
    Ok(())
}

fn unreadable(position: i64, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    corrupt(format!("the event at {position} is not what was written there")).with_source(error)
}

type Decoded<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Reads one event. Names that the event before has, too, are shared with it.
fn decode(row: &Row, first: usize, position: i64, before: Option<&Recorded>) -> Decoded<Recorded> {
    let at = |column: usize| first + column;
    let text = |column: usize| row.try_get::<_, &str>(at(column));
    let id = |column: usize| -> Decoded<Option<Id>> {
        let bytes: Option<&[u8]> = row.try_get(at(column))?;
        Ok(bytes.map(codec::id_of).transpose()?)
    };
    let required = |column: usize| -> Decoded<Id> { id(column)?.ok_or_else(|| "an id is missing".into()) };
    let cause_before = before.map(|event| &event.cause);

    let name = codec::text_of(text(1)?);
    let known_name = before.map(|event| &event.name).filter(|known| known.as_str() == name);
    let tenant = codec::tenant_of(text(3)?);
    let tenant_before = before.and_then(|event| event.tenant_id.as_ref());
    let principal: Option<&str> = row.try_get(at(12))?;
    let principal_before = cause_before.and_then(|cause| cause.principal_id.as_ref());
    let address = [codec::text_of(text(8)?), codec::text_of(text(9)?), codec::text_of(text(10)?)];
    let hops: i16 = row.try_get(at(16))?;
    Ok(Recorded {
        position: codec::position(position),
        id: required(5)?,
        name: known_name.cloned().unwrap_or_else(|| Text::from(&*name)),
        version: u32::try_from(row.try_get::<_, i64>(at(2))?)?,
        tags: Tags::stored(Bytes::copy_from_slice(text(7)?.as_bytes())),
        stream_version: row.try_get::<_, Option<i64>>(at(6))?.map(u64::try_from).transpose()?,
        recorded_at: codec::timestamp(row.try_get(at(4))?),
        tenant_id: tenant.map(|tenant| shared(&tenant, tenant_before)),
        cause: Cause {
            sender: Party {
                address: shared_address(&address, cause_before.map(|cause| &cause.sender.address)),
                instance: id(11)?,
            },
            principal_id: principal.map(|name| shared(&codec::text_of(name), principal_before)),
            trace_id: required(13)?,
            trace: row.try_get::<_, Option<&str>>(at(18))?.and_then(TraceContext::from_otp).map(Box::new),
            correlation_id: id(14)?,
            causation_id: id(15)?,
            hops: u8::try_from(hops)?,
        },
        body: Bytes::copy_from_slice(row.try_get(at(17))?),
    })
}

fn shared(text: &str, known: Option<&Arc<str>>) -> Arc<str> {
    known.filter(|known| ***known == *text).map_or_else(|| text.into(), Arc::clone)
}

fn shared_address(parts: &[std::borrow::Cow<'_, str>; 3], before: Option<&Address>) -> Address {
    let [service, version, target] = parts;
    let is_same = |known: &&Address| {
        known.service() == service && known.version() == version && known.target() == target
    };
    before.filter(is_same).cloned().unwrap_or_else(|| {
        let owned = |part: &str| part.to_owned().into();
        AddressParts { service: owned(service), version: owned(version), target: owned(target) }.into()
    })
}

/// The tags of an event as its row holds them.
pub(crate) fn tags_text(tags: &Tags) -> String {
    let pairs: Vec<_> = tags.iter().collect();
    // Pairs of texts have a JSON in any case, and it writes U+0000 as an escape.
    serde_json::to_string(&pairs).unwrap_or_else(|_| "[]".to_owned())
}
