//! CRC-32 over the columns of a row, so that a damaged event is noticed and not believed.

use rusqlite::types::ValueRef;

/// The polynomial of IEEE 802.3, reflected: the CRC-32 that zlib and PNG use.
const POLYNOMIAL: u32 = 0xedb8_8320;

/// For eight bytes at once: table `n` advances a byte over `n` more.
static TABLES: [[u32; 256]; 8] = tables();

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, which refuses an index out of bounds"
)]
const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let (mut byte, mut number) = (0, 0_u32);
    while byte < 256 {
        let mut value = number;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { value >> 1 ^ POLYNOMIAL } else { value >> 1 };
            bit += 1;
        }
        tables[0][byte] = value;
        byte += 1;
        number += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[table - 1][byte];
            tables[table][byte] = before >> 8 ^ tables[0][(before & 255) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

/// The checksum of columns, in order. Kind and length of each are part of it, so that nothing can move from one column
/// to the next unseen.
pub(crate) fn of_columns<'a>(columns: impl IntoIterator<Item = ValueRef<'a>>) -> u32 {
    let mut state = u32::MAX;
    for column in columns {
        state = match column {
            ValueRef::Null => update(state, b"n"),
            ValueRef::Integer(number) => update(update(state, b"i"), &number.to_le_bytes()),
            ValueRef::Real(number) => update(update(state, b"r"), &number.to_le_bytes()),
            ValueRef::Text(bytes) => of_bytes(state, b"t", bytes),
            ValueRef::Blob(bytes) => of_bytes(state, b"b", bytes),
        };
    }
    !state
}

fn of_bytes(state: u32, kind: &[u8], bytes: &[u8]) -> u32 {
    update(update(update(state, kind), &bytes.len().to_le_bytes()), bytes)
}

fn update(mut state: u32, bytes: &[u8]) -> u32 {
    let (eights, rest) = bytes.as_chunks::<8>();
    for &[a, b, c, d, e, f, g, h] in eights {
        let [i, j, k, l] = (u32::from_le_bytes([a, b, c, d]) ^ state).to_le_bytes();
        state = at(7, i) ^ at(6, j) ^ at(5, k) ^ at(4, l) ^ at(3, e) ^ at(2, f) ^ at(1, g) ^ at(0, h);
    }
    for byte in rest {
        let [low, ..] = state.to_le_bytes();
        state = state >> 8 ^ at(0, low ^ byte);
    }
    state
}

#[expect(clippy::indexing_slicing, reason = "the table is one of eight constants, and a byte is below 256")]
fn at(table: usize, byte: u8) -> u32 {
    TABLES[table & 7][usize::from(byte)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_crc_32_of_zlib() {
        for (text, expect) in [("", 0), ("a", 0xe8b7_be43), ("123456789", 0xcbf4_3926)] {
            assert_eq!(!update(u32::MAX, text.as_bytes()), expect, "{text}");
        }
        let long = "The quick brown fox jumps over the lazy dog";
        assert_eq!(!update(u32::MAX, long.as_bytes()), 0x414f_a339);
    }

    #[test]
    fn what_moves_between_columns_changes_it() {
        let of = |a: &str, b: &str| of_columns([ValueRef::from(a), ValueRef::from(b)]);
        assert_ne!(of("ab", "c"), of("a", "bc"));
        assert_ne!(of_columns([ValueRef::Text(b"a")]), of_columns([ValueRef::Blob(b"a")]));
        assert_ne!(of_columns([ValueRef::Null]), of_columns([]));
    }
}
