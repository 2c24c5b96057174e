//! Identifiers: 32 hex digits when we make them, any text up to 128 characters when a peer did.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest identifier that is read, in bytes.
pub const ID_BYTES_MAX: usize = 128;

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
            Repr::Own(Own(bytes)) => {
                let mut buffer = [0; 32];
                Cow::Owned(hex(bytes, &mut buffer).to_owned())
            }
            Repr::Foreign(text) => Cow::Borrowed(text),
        }
    }
}

/// Writes bytes as lowercase hex digits into `buffer`, which must hold two a byte.
pub(crate) fn hex<'b>(bytes: &[u8], buffer: &'b mut [u8]) -> &'b str {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in buffer.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = [digit(DIGITS, byte >> 4), digit(DIGITS, byte & 15)];
    }
    std::str::from_utf8(buffer).unwrap_or_default()
}

#[expect(clippy::indexing_slicing, reason = "a nibble is below 16")]
fn digit(digits: &[u8; 16], nibble: u8) -> u8 {
    digits[usize::from(nibble & 15)]
}

/// Reads exactly `2 * N` lowercase hex digits.
pub(crate) fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_chunks::<2>().0) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

fn own_form(text: &[u8]) -> Option<[u8; 16]> {
    unhex::<16>(text)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Own(Own(bytes)) => f.write_str(hex(bytes, &mut [0; 32])),
            Repr::Foreign(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Repr::Own(Own(bytes)) => serializer.serialize_str(hex(bytes, &mut [0; 32])),
            Repr::Foreign(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text: Cow<'de, str> = Deserialize::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
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
