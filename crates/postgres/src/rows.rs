//! Rows as one parameter, and as one column: arrays of the row types of `sql/5-rows.sql`.
//!
//! A parameter is written field by field from what the batches hold, so that nothing is copied before it is sent.

use std::fmt;
use std::slice;

use bytes::{BufMut as _, BytesMut};
use purista_core::id::Id;
use tokio_postgres::types::{Field, FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};

use crate::codec;

pub(crate) type Refusal = Box<dyn std::error::Error + Sync + Send>;

/// What is written as a row.
pub(crate) trait AsRow {
    /// Puts its fields, in the order of the row type.
    fn put(&self, row: &mut NewRow<'_>) -> Result<(), Refusal>;
}

/// A row that is written.
pub(crate) struct NewRow<'r> {
    fields: slice::Iter<'r, Field>,
    out: &'r mut BytesMut,
}

impl NewRow<'_> {
    pub(crate) fn put(&mut self, value: &dyn ToSql) -> Result<(), Refusal> {
        let field = self.fields.next().ok_or("the row type has fewer fields")?;
        self.out.put_u32(field.type_().oid());
        measured(self.out, |out| value.to_sql_checked(field.type_(), out))
    }

    pub(crate) fn text(&mut self, text: &str) -> Result<(), Refusal> {
        self.put(&codec::text(text))
    }
}

/// Rows as one parameter.
#[derive(Debug)]
pub(crate) struct Rows<T>(pub(crate) Vec<T>);

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: AsRow + fmt::Debug> ToSql for Rows<T> {
    fn to_sql(&self, of_type: &Type, out: &mut BytesMut) -> Result<IsNull, Refusal> {
        let (of_row, fields) = row_type(of_type).ok_or("no array of rows")?;
        let dimensions = i32::from(!self.0.is_empty());
        out.put_i32(dimensions);
        // None of them is NULL.
        out.put_i32(0);
        out.put_u32(of_row.oid());
        if dimensions > 0 {
            out.put_i32(i32::try_from(self.0.len())?);
            out.put_i32(1);
        }
        for row in &self.0 {
            measured(out, |out| {
                out.put_i32(i32::try_from(fields.len())?);
                let mut new = NewRow { fields: fields.iter(), out };
                row.put(&mut new)?;
                if new.fields.next().is_some() {
                    return Err("the row type has more fields".into());
                }
                Ok(IsNull::No)
            })?;
        }
        Ok(IsNull::No)
    }

    fn accepts(of_type: &Type) -> bool {
        row_type(of_type).is_some()
    }

    to_sql_checked!();
}

/// The row type of an array, and its fields.
fn row_type(of_array: &Type) -> Option<(&Type, &[Field])> {
    let Kind::Array(of_row) = of_array.kind() else { return None };
    let Kind::Composite(fields) = of_row.kind() else { return None };
    Some((of_row, fields))
}

/// Writes a value behind its length.
fn measured(
    out: &mut BytesMut,
    write: impl FnOnce(&mut BytesMut) -> Result<IsNull, Refusal>,
) -> Result<(), Refusal> {
    let at = out.len();
    out.put_i32(-1);
    if let IsNull::No = write(out)? {
        let length = i32::try_from(out.len() - at - size_of::<i32>())?;
        let place = out.get_mut(at..at + size_of::<i32>()).ok_or("the length has no place")?;
        place.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

/// An id as its column holds it.
#[derive(Debug)]
pub(crate) struct IdBytes<'i>(pub(crate) &'i Id);

impl ToSql for IdBytes<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Refusal> {
        match self.0.bytes() {
            Some(bytes) => out.extend_from_slice(bytes),
            None => out.extend_from_slice(&codec::id(self.0)),
        }
        Ok(IsNull::No)
    }

    fn accepts(of_type: &Type) -> bool {
        *of_type == Type::BYTEA
    }

    to_sql_checked!();
}

/// A row that was read.
pub(crate) struct FoundRow<'t, 'r> {
    fields: slice::Iter<'t, Field>,
    rest: &'r [u8],
}

impl<'t, 'r> FoundRow<'t, 'r> {
    pub(crate) fn of(of_row: &'t Type, row: &'r [u8]) -> Result<Self, Refusal> {
        let Kind::Composite(fields) = of_row.kind() else { return Err("no row".into()) };
        let mut found = Self { fields: fields.iter(), rest: row };
        if usize::try_from(found.number()?)? == fields.len() { Ok(found) } else { Err("another row".into()) }
    }

    fn number(&mut self) -> Result<i32, Refusal> {
        let (number, rest) = self.rest.split_first_chunk().ok_or("a row ends early")?;
        self.rest = rest;
        Ok(i32::from_be_bytes(*number))
    }

    pub(crate) fn take<T: FromSql<'r>>(&mut self) -> Result<T, Refusal> {
        let field = self.fields.next().ok_or("the row type has fewer fields")?;
        // The number of its type, which is that of the field.
        self.number()?;
        let Ok(length) = usize::try_from(self.number()?) else { return T::from_sql_null(field.type_()) };
        let (value, rest) = self.rest.split_at_checked(length).ok_or("a row ends early")?;
        self.rest = rest;
        T::from_sql(field.type_(), value)
    }
}

/// A row of the type `found_row`: what breaks a condition.
#[derive(Debug)]
pub(crate) struct Broken {
    /// The place of its search, from 1.
    pub(crate) number: i64,
    pub(crate) name: String,
    pub(crate) position: i64,
}

impl<'r> FromSql<'r> for Broken {
    fn from_sql(of_type: &Type, row: &'r [u8]) -> Result<Self, Refusal> {
        let mut row = FoundRow::of(of_type, row)?;
        Ok(Self { number: row.take()?, name: row.take()?, position: row.take()? })
    }

    fn accepts(of_type: &Type) -> bool {
        matches!(of_type.kind(), Kind::Composite(_))
    }
}
