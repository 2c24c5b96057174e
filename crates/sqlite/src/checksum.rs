//! CRC-32 over the columns of a row, so that a damaged event is noticed and not believed.

use std::cell::RefCell;

use crc32fast::Hasher;
use rusqlite::types::ValueRef;

thread_local! {
    /// Where columns are laid end to end: one long run is summed up several times as fast as many short ones.
    static LAID_OUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// From how many bytes on a column is summed up where it lies.
const LONG_BYTES: usize = 4 * 1024;

/// The checksum of columns, in order. Kind and length of each are part of it, so that nothing can move from one column
/// to the next unseen.
pub(crate) fn of_columns<'a>(columns: impl IntoIterator<Item = ValueRef<'a>>) -> u32 {
    LAID_OUT.with_borrow_mut(|laid_out| {
        laid_out.clear();
        let mut sum = Hasher::new();
        for column in columns {
            match column {
                ValueRef::Null => laid_out.push(b'n'),
                ValueRef::Integer(number) => number_into(laid_out, b'i', number.to_le_bytes()),
                ValueRef::Real(number) => number_into(laid_out, b'r', number.to_le_bytes()),
                ValueRef::Text(bytes) => bytes_into(laid_out, &mut sum, b't', bytes),
                ValueRef::Blob(bytes) => bytes_into(laid_out, &mut sum, b'b', bytes),
            }
        }
        sum.update(laid_out);
        sum.finalize()
    })
}

/// The checksums of what a fold reads, in one column: of an event's content, and of its tags, which few folds ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Folded {
    content: u32,
    tags: u32,
}

impl Folded {
    /// Of position, name, version and body; and of position and tags, where they are at hand.
    pub(crate) fn of<'a>(content: [ValueRef<'a>; 4], tags: Option<[ValueRef<'a>; 2]>) -> Self {
        Self { content: of_columns(content), tags: tags.map_or(0, of_columns) }
    }

    /// As it lies in its column.
    pub(crate) fn stored(self) -> i64 {
        (u64::from(self.tags) << 32 | u64::from(self.content)).cast_signed()
    }

    /// Whether it is what the column says, the tags as far as they were asked for.
    pub(crate) fn is_that_of(self, stored: i64, with_tags: bool) -> bool {
        let asked = if with_tags { u64::MAX } else { u64::from(u32::MAX) };
        (self.stored() ^ stored).cast_unsigned() & asked == 0
    }
}

fn number_into(laid_out: &mut Vec<u8>, kind: u8, number: [u8; 8]) {
    laid_out.push(kind);
    laid_out.extend_from_slice(&number);
}

fn bytes_into(laid_out: &mut Vec<u8>, sum: &mut Hasher, kind: u8, bytes: &[u8]) {
    number_into(laid_out, kind, (bytes.len() as u64).to_le_bytes());
    if bytes.len() < LONG_BYTES {
        laid_out.extend_from_slice(bytes);
    } else {
        sum.update(laid_out);
        sum.update(bytes);
        laid_out.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_crc_32_of_the_columns_end_to_end() {
        for length in [0, 1, LONG_BYTES - 1, LONG_BYTES, 3 * LONG_BYTES] {
            let text = "t".repeat(length);
            let columns =
                [ValueRef::Integer(7), ValueRef::Null, ValueRef::Text(text.as_bytes()), ValueRef::Real(0.5)];
            let mut bytes = b"i\x07\0\0\0\0\0\0\0nt".to_vec();
            bytes.extend((length as u64).to_le_bytes());
            bytes.extend(text.bytes());
            bytes.push(b'r');
            bytes.extend(0.5_f64.to_le_bytes());
            assert_eq!(of_columns(columns), of_zlib(&bytes), "{length}");
        }
        assert_eq!(of_zlib(b"123456789"), 0xcbf4_3926);
    }

    /// The CRC-32 that zlib and PNG use, bit by bit.
    fn of_zlib(bytes: &[u8]) -> u32 {
        let mut state = u32::MAX;
        for byte in bytes {
            state ^= u32::from(*byte);
            for _ in 0..8 {
                state = if state & 1 == 1 { state >> 1 ^ 0xedb8_8320 } else { state >> 1 };
            }
        }
        !state
    }

    #[test]
    fn what_moves_between_columns_changes_it() {
        let of = |a: &str, b: &str| of_columns([ValueRef::from(a), ValueRef::from(b)]);
        assert_ne!(of("ab", "c"), of("a", "bc"));
        assert_ne!(of_columns([ValueRef::Text(b"a")]), of_columns([ValueRef::Blob(b"a")]));
        assert_ne!(of_columns([ValueRef::Null]), of_columns([]));
    }
}
