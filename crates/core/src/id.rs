//! Identifiers: 32 hex digits when we make them, any text up to 128 characters when a peer did.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest identifier that is read, in bytes.
pub const ID_BYTES_MAX: usize = 128;
/// How many digits an id of ours has.
pub const ID_DIGITS: usize = 32;

/// Names one message, correlation, trace or unit of work.
///
/// An id of ours is 16 random bytes, written as 32 lowercase hex digits (the form of an OpenTelemetry trace id, which
/// PURISTA uses everywhere). An id of a peer is kept and echoed as it came.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(Repr);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Repr {
    Own(Own),
    Foreign(Arc<str>),
}

/// Aligned, since ids are copied with every message: unaligned they take several times as long.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(align(8))]
struct Own([u8; 16]);

/// The text is empty, longer than [`ID_BYTES_MAX`], or holds a control character.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id is 1 to {ID_BYTES_MAX} printable characters")]
pub struct InvalidId;

impl Id {
    /// An id from 128 random bits; see [`crate::clock::Clock::random`].
    pub const fn from_random(bits: u128) -> Self {
        Self(Repr::Own(Own(bits.to_be_bytes())))
    }

    /// Reads an id; what is not in our own form is kept as text.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        if let Some(bytes) = own_form(text.as_bytes()) {
            return Ok(Self(Repr::Own(Own(bytes))));
        }
        if text.is_empty() || text.len() > ID_BYTES_MAX || text.chars().any(char::is_control) {
            return Err(InvalidId);
        }
        Ok(Self(Repr::Foreign(text.into())))
    }

    /// The 16 bytes of an id in our own form.
    pub fn bytes(&self) -> Option<&[u8; 16]> {
        match &self.0 {
            Repr::Own(Own(bytes)) => Some(bytes),
            Repr::Foreign(_) => None,
        }
    }

    /// The text without a heap allocation for ids of a peer.
    pub fn text(&self) -> Cow<'_, str> {
        match &self.0 {
            Repr::Own(Own(bytes)) => Cow::Owned(hex(bytes, &mut [0; ID_DIGITS]).to_owned()),
            Repr::Foreign(text) => Cow::Borrowed(text),
        }
    }

    /// The text without any allocation: an id of ours is written into `digits`.
    ///
    /// ```
    /// use purista_core::id::{ID_DIGITS, Id};
    /// assert_eq!(Id::from_random(10).text_in(&mut [0; ID_DIGITS]), "0000000000000000000000000000000a");
    /// ```
    pub fn text_in<'t>(&'t self, digits: &'t mut [u8; ID_DIGITS]) -> &'t str {
        match &self.0 {
            Repr::Own(Own(bytes)) => hex(bytes, digits),
            Repr::Foreign(text) => text,
        }
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Writes bytes as lowercase hex digits into `buffer`, which must hold two a byte.
pub(crate) fn hex<'b>(bytes: &[u8], buffer: &'b mut [u8]) -> &'b str {
    for (pair, byte) in buffer.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
    std::str::from_utf8(buffer).unwrap_or_default()
}

#[expect(clippy::indexing_slicing, reason = "a nibble is below 16")]
fn digit(nibble: u8) -> u8 {
    DIGITS[usize::from(nibble & 15)]
}

/// Reads exactly `2 * N` lowercase hex digits.
pub(crate) fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let (mut bytes, mut all) = ([0; N], 0);
    for (byte, [high, low]) in bytes.iter_mut().zip(text.as_chunks::<2>().0) {
        let (high, low) = (nibble(*high), nibble(*low));
        *byte = high << 4 | low;
        all |= high | low;
    }
    // Asked once for all of them: four ids are read of each message.
    (all < 16).then_some(bytes)
}

/// The value of each byte as a lowercase hex digit; what is none has one above 15.
#[expect(clippy::indexing_slicing, reason = "the compiler runs it")]
const NIBBLES: [u8; 256] = {
    let mut nibbles = [u8::MAX; 256];
    let mut value = 0;
    while value < 16 {
        nibbles[DIGITS[value as usize] as usize] = value;
        value += 1;
    }
    nibbles
};

#[expect(clippy::indexing_slicing, reason = "there is one for each byte")]
fn nibble(digit: u8) -> u8 {
    NIBBLES[usize::from(digit)]
}

fn own_form(text: &[u8]) -> Option<[u8; 16]> {
    unhex::<16>(text)
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text_in(&mut [0; ID_DIGITS]))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text_in(&mut [0; ID_DIGITS]))
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(IdText)
    }
}

/// Reads an id from where its text lies: nothing of it is copied first.
struct IdText;

impl de::Visitor<'_> for IdText {
    type Value = Id;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the text of an id")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Id, E> {
        Id::parse(text).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_ids_are_32_lowercase_hex_digits() {
        let id = Id::from_random(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!(id.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(Id::parse("0af7651916cd43dd8448eb211c80319c"), Ok(id));
    }

    #[test]
    fn foreign_ids_are_echoed_unchanged() {
        for text in ["s01-signUp", "0AF7651916CD43DD8448EB211C80319C", "ä", &"x".repeat(128)] {
            assert_eq!(Id::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "a\nb", &"x".repeat(129)] {
            assert_eq!(Id::parse(text), Err(InvalidId), "{text:?}");
        }
    }
}
