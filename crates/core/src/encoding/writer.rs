//! The serializer of contract types: JSON without `None` members and without numbers that JSON cannot say.
//!
//! It delegates texts and numbers to `serde_json`, so that the output is the same byte for byte. Three things are its own:
//! a member of a struct whose value is `None` is left out; a number that is NaN or infinite is an error that names the
//! field, where `serde_json` writes `null`; and while it writes, it hashes the *shape* of the value (which members are
//! present, which variants, which classes of numbers and texts), by which [`super`] recognizes values it has seen.

use std::fmt::Display;

use serde::ser::{self, Serialize, Serializer};

use super::shape::{Known, mark_of, mixed};
use super::sink::{Fail, Sink};

/// How `serde_json` hands its raw values to a serializer.
const RAW_VALUE: &str = "$serde_json::private::RawValue";

/// Writes one value.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says something of its own about what was written last, or how"
)]
pub(crate) struct Writer<'k, S> {
    sink: S,
    known: &'k Known,
    /// Writes `None` members as `null`, for a type that does not read itself without them.
    writes_nulls: bool,
    /// Whether a member was left out.
    pub(crate) left_out: bool,
    /// The hash of what was written so far of the value, or of the element of a list.
    pub(crate) shape: u64,
    /// The hash of the names that lead to where the writer is.
    path: u64,
    /// Shapes of elements that are not known.
    pub(crate) fresh: Vec<u64>,
    /// Whether the last value was a `None` of its own.
    was_none: bool,
    /// Whether the next text is JSON already.
    is_raw: bool,
}

impl<'k, S: Sink> Writer<'k, S> {
    /// A writer for a type with this seed.
    pub(crate) fn new(sink: S, known: &'k Known, seed: u64, writes_nulls: bool) -> Self {
        let seed = mixed(seed, u64::from(writes_nulls));
        Self {
            sink,
            known,
            writes_nulls,
            left_out: false,
            shape: seed,
            path: seed,
            fresh: Vec::new(),
            was_none: false,
            is_raw: false,
        }
    }

    /// Where the JSON goes.
    pub(crate) fn sink(&mut self) -> &mut S {
        &mut self.sink
    }

    /// Where the JSON went.
    pub(crate) fn into_sink(self) -> S {
        self.sink
    }

    #[inline]
    fn note(&mut self, class: u64) {
        if S::LEARNS {
            self.shape = mixed(self.shape, class);
        }
    }

    /// Writes a member, unless it is `None`.
    fn member<T: Serialize + ?Sized>(
        &mut self,
        name: &str,
        mark: u64,
        value: &T,
        is_first: &mut bool,
    ) -> Result<(), Fail> {
        let before = self.sink.len();
        if !*is_first {
            self.sink.raw(",");
        }
        self.sink.text(name)?;
        self.sink.raw(":");
        let begin = self.sink.len();
        let path = self.path;
        self.note(mark);
        self.path = mixed(path, mark);
        self.was_none = false;
        value.serialize(&mut *self).map_err(|fail| fail.at(name))?;
        self.path = path;
        if self.was_none && self.sink.len() == begin + NULL.len() && !self.writes_nulls {
            self.sink.truncate(before);
            self.left_out = true;
        } else {
            *is_first = false;
        }
        Ok(())
    }

    /// Writes an element, whose shape counts by itself: a list has no other shape for each combination of its elements.
    fn element<T: Serialize + ?Sized>(&mut self, value: &T, last: &mut u64, mark: u64) -> Result<(), Fail> {
        let (shape, path) = (self.shape, self.path);
        self.path = mixed(path, mark);
        self.shape = self.path;
        value.serialize(&mut *self)?;
        if S::LEARNS && self.shape != *last {
            *last = self.shape;
            if !self.known.contains_key(&self.shape) {
                self.fresh.push(self.shape);
            }
        }
        (self.shape, self.path) = (shape, path);
        Ok(())
    }

    fn variant(&mut self, index: u32, name: &'static str) -> Result<(), Fail> {
        self.note(100 + u64::from(index));
        self.sink.raw("{");
        self.sink.text(name)?;
        self.sink.raw(":");
        Ok(())
    }

    fn integer(&mut self, is_negative: bool, magnitude: u128, number: impl Serialize) -> Result<(), Fail> {
        self.note(match magnitude {
            _ if is_negative => 10,
            0 => 11,
            1..=0x7fff_ffff => 12,
            0x8000_0000..=0x1f_ffff_ffff_ffff => 13,
            _ => 14,
        });
        self.sink.number(number)
    }

    fn float(&mut self, value: f64, number: impl Serialize) -> Result<(), Fail> {
        if !value.is_finite() {
            return Err(Fail::new("it is NaN or infinite, which JSON cannot say"));
        }
        self.note(if value < 0.0 { 20 } else { 21 + u64::from(value > 0.0) });
        self.sink.number(number)
    }

    fn compound<'w>(&'w mut self, open: &str, end: &'static str) -> Compound<'w, 'k, S> {
        self.sink.raw(open);
        Compound { writer: self, is_first: true, end, last: 0, nth: 0, flattens: false }
    }
}

const NULL: &str = "null";

/// A list, a map or a struct that is being written.
pub(crate) struct Compound<'w, 'k, S> {
    writer: &'w mut Writer<'k, S>,
    is_first: bool,
    end: &'static str,
    last: u64,
    nth: u64,
    /// Whether it is a map that stands for a struct with a flattened member.
    flattens: bool,
}

impl<S: Sink> Compound<'_, '_, S> {
    fn next(&mut self) {
        if !std::mem::take(&mut self.is_first) {
            self.writer.sink.raw(",");
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "serde asks for a result")]
    fn close(self) -> Result<(), Fail> {
        self.writer.sink.raw(self.end);
        self.writer.was_none = false;
        Ok(())
    }

    fn positional<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fail> {
        self.next();
        self.nth += 1;
        let nth = self.nth;
        self.writer.element(value, &mut self.last, nth).map_err(|fail| fail.at(&(nth - 1).to_string()))
    }
}

impl<'w, 'k, S: Sink> Serializer for &'w mut Writer<'k, S> {
    type Ok = ();
    type Error = Fail;
    type SerializeSeq = Compound<'w, 'k, S>;
    type SerializeTuple = Compound<'w, 'k, S>;
    type SerializeTupleStruct = Compound<'w, 'k, S>;
    type SerializeTupleVariant = Compound<'w, 'k, S>;
    type SerializeMap = Compound<'w, 'k, S>;
    type SerializeStruct = Compound<'w, 'k, S>;
    type SerializeStructVariant = Compound<'w, 'k, S>;

    fn serialize_bool(self, value: bool) -> Result<(), Fail> {
        self.note(1 + u64::from(value));
        self.sink.raw(if value { "true" } else { "false" });
        Ok(())
    }

    fn serialize_i8(self, value: i8) -> Result<(), Fail> {
        self.integer(value < 0, u128::from(value.unsigned_abs()), value)
    }

    fn serialize_i16(self, value: i16) -> Result<(), Fail> {
        self.integer(value < 0, u128::from(value.unsigned_abs()), value)
    }

    fn serialize_i32(self, value: i32) -> Result<(), Fail> {
        self.integer(value < 0, u128::from(value.unsigned_abs()), value)
    }

    fn serialize_i64(self, value: i64) -> Result<(), Fail> {
        self.integer(value < 0, u128::from(value.unsigned_abs()), value)
    }

    fn serialize_i128(self, value: i128) -> Result<(), Fail> {
        self.integer(value < 0, value.unsigned_abs(), value)
    }

    fn serialize_u8(self, value: u8) -> Result<(), Fail> {
        self.integer(false, u128::from(value), value)
    }

    fn serialize_u16(self, value: u16) -> Result<(), Fail> {
        self.integer(false, u128::from(value), value)
    }

    fn serialize_u32(self, value: u32) -> Result<(), Fail> {
        self.integer(false, u128::from(value), value)
    }

    fn serialize_u64(self, value: u64) -> Result<(), Fail> {
        self.integer(false, u128::from(value), value)
    }

    fn serialize_u128(self, value: u128) -> Result<(), Fail> {
        self.integer(false, value, value)
    }

    fn serialize_f32(self, value: f32) -> Result<(), Fail> {
        self.float(f64::from(value), value)
    }

    fn serialize_f64(self, value: f64) -> Result<(), Fail> {
        self.float(value, value)
    }

    fn serialize_char(self, value: char) -> Result<(), Fail> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Fail> {
        self.note(match value.len() {
            0 => 30,
            1..=64 => 31,
            _ => 32,
        });
        if std::mem::take(&mut self.is_raw) {
            self.sink.raw(value);
            return Ok(());
        }
        self.sink.text(value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Fail> {
        self.collect_seq(value)
    }

    fn serialize_none(self) -> Result<(), Fail> {
        self.note(40);
        self.sink.raw(NULL);
        self.was_none = true;
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Fail> {
        self.note(41);
        value.serialize(&mut *self)?;
        // A `None` inside of a `Some` is a `null` on purpose.
        self.was_none = false;
        Ok(())
    }

    fn serialize_unit(self) -> Result<(), Fail> {
        self.note(42);
        self.sink.raw(NULL);
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Fail> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, index: u32, variant: &'static str) -> Result<(), Fail> {
        self.note(100 + u64::from(index));
        self.sink.text(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Fail> {
        value.serialize(&mut *self)?;
        // serde reads no newtype from a member that is absent.
        self.was_none = false;
        Ok(())
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Fail> {
        self.variant(index, variant)?;
        value.serialize(&mut *self).map_err(|fail| fail.at(variant))?;
        self.sink.raw("}");
        self.was_none = false;
        Ok(())
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Compound<'w, 'k, S>, Fail> {
        self.note(50 + u64::from(len == Some(0)));
        Ok(self.compound("[", "]"))
    }

    fn serialize_tuple(self, _: usize) -> Result<Compound<'w, 'k, S>, Fail> {
        Ok(self.compound("[", "]"))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Compound<'w, 'k, S>, Fail> {
        Ok(self.compound("[", "]"))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Compound<'w, 'k, S>, Fail> {
        self.variant(index, variant)?;
        Ok(self.compound("[", "]}"))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Compound<'w, 'k, S>, Fail> {
        self.note(52 + u64::from(len == Some(0)));
        // serde writes a struct with a flattened member as a map of unknown length.
        let flattens = len.is_none();
        Ok(Compound { flattens, ..self.compound("{", "}") })
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Compound<'w, 'k, S>, Fail> {
        if name == RAW_VALUE {
            self.is_raw = true;
            return Ok(self.compound("", ""));
        }
        Ok(self.compound("{", "}"))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Compound<'w, 'k, S>, Fail> {
        self.variant(index, variant)?;
        Ok(self.compound("{", "}}"))
    }

    fn collect_str<D: Display + ?Sized>(self, value: &D) -> Result<(), Fail> {
        self.note(33);
        self.sink.display(value)
    }
}

impl<S: Sink> ser::SerializeSeq for Compound<'_, '_, S> {
    type Ok = ();
    type Error = Fail;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fail> {
        self.next();
        self.nth += 1;
        let nth = self.nth;
        // One place for all of them: they are of one type.
        self.writer.element(value, &mut self.last, 0).map_err(|fail| fail.at(&(nth - 1).to_string()))
    }

    fn end(self) -> Result<(), Fail> {
        self.close()
    }
}

macro_rules! positional {
    ($($part:ident :: $method:ident),+) => { $(
        impl<S: Sink> ser::$part for Compound<'_, '_, S> {
            type Ok = ();
            type Error = Fail;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fail> {
                self.positional(value)
            }

            fn end(self) -> Result<(), Fail> {
                self.close()
            }
        }
    )+ };
}

positional!(
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

impl<S: Sink> ser::SerializeMap for Compound<'_, '_, S> {
    type Ok = ();
    type Error = Fail;

    fn serialize_key<K: Serialize + ?Sized>(&mut self, key: &K) -> Result<(), Fail> {
        let is_first = std::mem::take(&mut self.is_first);
        S::key(self.writer, key, is_first)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fail> {
        self.writer.sink.raw(":");
        self.writer.element(value, &mut self.last, 0)
    }

    fn serialize_entry<K, T>(&mut self, key: &K, value: &T) -> Result<(), Fail>
    where
        K: Serialize + ?Sized,
        T: Serialize + ?Sized,
    {
        // The members of a struct are named by literals; a map's own keys are values.
        if self.flattens && std::any::type_name::<K>() == "str" {
            let mut name = Vec::new();
            key.serialize(&mut serde_json::Serializer::new(&mut name))?;
            let name: String = serde_json::from_slice(&name)?;
            let mark = name.bytes().fold(0, |mark, byte| mixed(mark, u64::from(byte)));
            return self.writer.member(&name, mark, value, &mut self.is_first);
        }
        self.serialize_key(key)?;
        self.serialize_value(value)
    }

    fn end(self) -> Result<(), Fail> {
        self.close()
    }
}

impl<S: Sink> ser::SerializeStruct for Compound<'_, '_, S> {
    type Ok = ();
    type Error = Fail;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Fail> {
        if self.end.is_empty() {
            return value.serialize(&mut *self.writer);
        }
        self.writer.member(name, mark_of(name), value, &mut self.is_first)
    }

    fn skip_field(&mut self, name: &'static str) -> Result<(), Fail> {
        self.writer.note(mark_of(name) ^ 1);
        Ok(())
    }

    fn end(self) -> Result<(), Fail> {
        self.close()
    }
}

impl<S: Sink> ser::SerializeStructVariant for Compound<'_, '_, S> {
    type Ok = ();
    type Error = Fail;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Fail> {
        self.writer.member(name, mark_of(name), value, &mut self.is_first)
    }

    fn end(self) -> Result<(), Fail> {
        self.close()
    }
}
