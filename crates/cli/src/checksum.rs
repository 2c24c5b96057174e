//! Checksums by which two engines are compared: of what they hold, whatever the form and the order in which they hold it.

use std::fmt::{self, Write as _};

use purista_events::kept::Kept;
use purista_events::recorded::Recorded;

/// How many there are, and the sum of what they hash to; so their order makes no difference. It is compared within one process,
/// and never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Checksum {
    pub(crate) count: u64,
    sum: u64,
}

impl Checksum {
    /// Adds an event with everything that is recorded of it.
    pub(crate) fn add_event(&mut self, event: &Recorded) {
        let mut hash = Hash::new();
        hash.number(event.position.number());
        hash.bytes(&event.body);
        hash.bytes(event.name.as_bytes());
        for (name, value) in event.tags.iter() {
            hash.bytes(name.as_bytes());
            hash.bytes(value.as_bytes());
        }
        hash.shown(&(event.version, event.stream_version, event.recorded_at));
        hash.shown(&(&event.id, &event.tenant_id, &event.cause));
        self.add(hash);
    }

    /// Adds a row of what is kept beside the events.
    pub(crate) fn add_row(&mut self, row: &Kept) {
        let mut hash = Hash::new();
        hash.shown(row);
        self.add(hash);
        if matches!(row, Kept::StateVersionsForgotten(_)) {
            // It is no key of state, and there is one in any case.
            self.count -= 1;
        }
    }

    fn add(&mut self, hash: Hash) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(hash.end());
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.sum)
    }
}

/// FNV-1a over parts, each with its length.
struct Hash(u64);

impl Hash {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.0 =
            bytes.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    }

    fn number(&mut self, number: u64) {
        self.raw(&number.to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.raw(bytes);
    }

    /// All fields of a value, as a programmer sees them: the same for equal values, and no field is forgotten.
    fn shown(&mut self, value: &impl fmt::Debug) {
        // It takes whatever it is given.
        let _ = write!(self, "{value:?};");
    }

    /// Spread over all bits, so that sums of what differs differ.
    fn end(self) -> u64 {
        let mut hash = self.0;
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^ (hash >> 31)
    }
}

impl fmt::Write for Hash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.raw(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use purista_events::kept::StateRow;

    use super::*;

    fn row(key: &str, version: u64) -> Kept {
        Kept::State(StateRow { tenant: None, key: key.to_owned(), value: None, version, expires_at: None })
    }

    fn of(rows: &[Kept]) -> Checksum {
        rows.iter().fold(Checksum::default(), |mut sum, row| {
            sum.add_row(row);
            sum
        })
    }

    #[test]
    fn order_makes_no_difference_and_everything_else_does() {
        let rows = [row("a", 1), row("b", 2), row("c", 3)];
        assert_eq!(of(&rows), of(&[rows[2].clone(), rows[0].clone(), rows[1].clone()]));
        assert_ne!(of(&rows), of(&[row("a", 2), row("b", 1), row("c", 3)]));
        assert_ne!(of(&rows), of(&rows[..2]));
    }
}
