//! How ids, times, tenants and bodies lie in columns.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;
use purista_core::id::Id;
use purista_events::position::Position;
use purista_events::subscriptions::Failure;
use rusqlite::ToSql;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};

/// Stands before a tenant whose name would be taken for "none" or for an escaped one.
const ESCAPE: char = '\u{1}';

/// A tenant as a part of keys, where `None` is the empty text.
pub(crate) fn tenant_key(tenant: Option<&str>) -> Cow<'_, str> {
    match tenant {
        None => Cow::Borrowed(""),
        Some(name) if name.is_empty() || name.starts_with(ESCAPE) => Cow::Owned(format!("{ESCAPE}{name}")),
        Some(name) => Cow::Borrowed(name),
    }
}

/// The tenant of a key.
pub(crate) fn tenant_of(key: &str) -> Option<&str> {
    match key {
        "" => None,
        _ => Some(key.strip_prefix(ESCAPE).unwrap_or(key)),
    }
}

/// An id: 16 bytes when it is ours, text when it is a peer's.
pub(crate) struct Column<T>(pub(crate) T);

impl ToSql for Column<&Id> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(id(self.0))
    }
}

pub(crate) fn id(id: &Id) -> ToSqlOutput<'_> {
    if let Some(bytes) = id.bytes() {
        return ToSqlOutput::Borrowed(ValueRef::Blob(bytes));
    }
    match id.text() {
        Cow::Borrowed(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
        Cow::Owned(text) => ToSqlOutput::Owned(text.into()),
    }
}

impl FromSql for Column<Id> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value {
            ValueRef::Blob(bytes) => {
                let bytes: [u8; 16] = bytes.try_into().map_err(|_| FromSqlError::InvalidType)?;
                Ok(Self(Id::from_random(u128::from_be_bytes(bytes))))
            }
            _ => Id::parse(value.as_str()?).map(Self).map_err(FromSqlError::other),
        }
    }
}

impl ToSql for Column<&Bytes> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(content(self.0)))
    }
}

/// Content as text where it is text, so that SQLite's own tools show it and its JSON functions read it.
pub(crate) fn content(bytes: &[u8]) -> ValueRef<'_> {
    match std::str::from_utf8(bytes) {
        Ok(_) => ValueRef::Text(bytes),
        Err(_) => ValueRef::Blob(bytes),
    }
}

impl FromSql for Column<Bytes> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_bytes().map(|bytes| Self(Bytes::copy_from_slice(bytes)))
    }
}

impl ToSql for Column<Timestamp> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(nanoseconds(self.0)))
    }
}

/// Nanoseconds since 1970; years beyond 1677 and 2262 are cut to these.
pub(crate) fn nanoseconds(time: Timestamp) -> i64 {
    let number = time.as_nanosecond();
    i64::try_from(number).unwrap_or(if number < 0 { i64::MIN } else { i64::MAX })
}

/// The time that so many nanoseconds after 1970 are.
pub(crate) fn timestamp(nanoseconds: i64) -> Timestamp {
    // Every i64 of nanoseconds is a time that jiff has.
    Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or(Timestamp::UNIX_EPOCH)
}

impl FromSql for Column<Timestamp> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(|number| Self(timestamp(number)))
    }
}

impl ToSql for Column<Position> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(signed(self.0.number())))
    }
}

impl FromSql for Column<Position> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(|number| Self(position(number)))
    }
}

pub(crate) fn position(number: i64) -> Position {
    Position::new(u64::try_from(number).unwrap_or(0))
}

/// A number as SQLite has it. What lies beyond is cut: no log is that long.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl ToSql for Column<&[Failure]> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let json = serde_json::to_string(self.0);
        json.map(ToSqlOutput::from).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
    }
}

impl FromSql for Column<Vec<Failure>> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        serde_json::from_str(value.as_str()?).map(Self).map_err(FromSqlError::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_and_none_are_told_apart() {
        for tenant in [None, Some(""), Some("a"), Some("\u{1}"), Some("\u{1}\u{1}a")] {
            assert_eq!(tenant_of(&tenant_key(tenant)), tenant);
        }
        assert_ne!(tenant_key(None), tenant_key(Some("")));
        assert_ne!(tenant_key(Some("")), tenant_key(Some("\u{1}")));
    }

    #[test]
    fn times_keep_their_nanoseconds() {
        let time = Timestamp::constant(1_735_689_600, 123_456_789);
        assert_eq!(timestamp(nanoseconds(time)), time);
        assert_eq!(nanoseconds(Timestamp::MAX), i64::MAX);
    }
}
