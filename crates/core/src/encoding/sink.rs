//! Where a [`Writer`] writes to: JSON, or a counter of its bytes.

use std::fmt::{self, Display};

use serde::ser::{self, Serialize, SerializeMap, Serializer};

use super::writer::Writer;

/// The most bytes that one number takes as JSON.
const NUMBER_BYTES_MAX: usize = 48;

/// A value cannot be written; the names lead to the field.
#[derive(Debug)]
pub(crate) struct Fail(Box<(Vec<String>, String)>);

impl Fail {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self(Box::new((Vec::new(), what.into())))
    }

    pub(super) fn at(mut self, name: &str) -> Self {
        self.0.0.push(name.to_owned());
        self
    }

    /// The field, from the outermost, and what is wrong.
    pub(crate) fn into_parts(self) -> (String, String) {
        let (mut names, what) = *self.0;
        names.reverse();
        (names.join("."), what)
    }
}

impl Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.1)
    }
}

impl std::error::Error for Fail {}

impl ser::Error for Fail {
    fn custom<T: Display>(what: T) -> Self {
        Self::new(what.to_string())
    }
}

impl From<serde_json::Error> for Fail {
    fn from(error: serde_json::Error) -> Self {
        Self::new(error.to_string())
    }
}

/// Where the JSON goes.
pub(crate) trait Sink: Sized {
    /// Whether shapes are hashed.
    const LEARNS: bool;
    fn len(&self) -> usize;
    fn truncate(&mut self, len: usize);
    fn raw(&mut self, json: &str);
    fn text(&mut self, text: &str) -> Result<(), Fail>;
    fn number(&mut self, number: impl Serialize) -> Result<(), Fail>;
    fn display<D: Display + ?Sized>(&mut self, value: &D) -> Result<(), Fail>;
    /// Writes the key of a map's entry, with what stands before it.
    fn key<K: Serialize + ?Sized>(writer: &mut Writer<'_, Self>, key: &K, is_first: bool)
    -> Result<(), Fail>;
}

impl Sink for &mut Vec<u8> {
    const LEARNS: bool = true;

    fn len(&self) -> usize {
        Vec::len(self)
    }

    fn truncate(&mut self, len: usize) {
        Vec::truncate(self, len);
    }

    #[inline]
    fn raw(&mut self, json: &str) {
        self.extend_from_slice(json.as_bytes());
    }

    #[inline]
    fn text(&mut self, text: &str) -> Result<(), Fail> {
        Ok(serde_json::Serializer::new(&mut **self).serialize_str(text)?)
    }

    #[inline]
    fn number(&mut self, number: impl Serialize) -> Result<(), Fail> {
        Ok(number.serialize(&mut serde_json::Serializer::new(&mut **self))?)
    }

    fn display<D: Display + ?Sized>(&mut self, value: &D) -> Result<(), Fail> {
        Ok(serde_json::Serializer::new(&mut **self).collect_str(value)?)
    }

    fn key<K: Serialize + ?Sized>(
        writer: &mut Writer<'_, Self>,
        key: &K,
        is_first: bool,
    ) -> Result<(), Fail> {
        let json = &mut **writer.sink();
        let begin = json.len();
        // serde_json alone knows how each type becomes a key. It begins an object with it, which ours has begun already.
        let mut serializer = serde_json::Serializer::new(&mut *json);
        serializer.serialize_map(None)?.serialize_key(key)?;
        if is_first {
            json.remove(begin);
        } else if let Some(brace) = json.get_mut(begin) {
            *brace = b',';
        }
        Ok(())
    }
}

/// Counts an upper bound of the bytes, and writes nothing.
#[derive(Debug, Default)]
pub(crate) struct Counter(pub(crate) usize);

impl Counter {
    /// Each byte of a text takes at most six, as an escape.
    fn add_text(&mut self, bytes: usize) {
        self.0 = self.0.saturating_add(bytes.saturating_mul(6)).saturating_add(2);
    }
}

impl fmt::Write for Counter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.add_text(text.len());
        Ok(())
    }
}

impl Sink for Counter {
    const LEARNS: bool = false;

    fn len(&self) -> usize {
        self.0
    }

    fn truncate(&mut self, len: usize) {
        self.0 = len;
    }

    fn raw(&mut self, json: &str) {
        self.0 = self.0.saturating_add(json.len());
    }

    fn text(&mut self, text: &str) -> Result<(), Fail> {
        self.add_text(text.len());
        Ok(())
    }

    fn number(&mut self, _: impl Serialize) -> Result<(), Fail> {
        self.0 = self.0.saturating_add(NUMBER_BYTES_MAX);
        Ok(())
    }

    fn display<D: Display + ?Sized>(&mut self, value: &D) -> Result<(), Fail> {
        fmt::Write::write_fmt(self, format_args!("{value}")).map_err(ser::Error::custom)
    }

    fn key<K: Serialize + ?Sized>(writer: &mut Writer<'_, Self>, key: &K, _: bool) -> Result<(), Fail> {
        writer.sink().raw("\"\":,");
        key.serialize(writer)
    }
}
