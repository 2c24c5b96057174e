//! Positions: the number of the transaction that wrote an event, and the event's place in it, as one number.
//!
//! Sequences give their numbers before anybody knows who commits first: a reader that has seen 7 may find 6 later. The number of
//! a transaction has the same fault, but Postgres knows which numbers can still appear, and says so in every snapshot. So the
//! log is in the order of transactions, and whoever follows it reads what lies below the oldest that is still on its way.

use purista_events::position::{Position, ReadToken, Unseen};

use crate::codec;

/// How many bits the place in its transaction takes.
const PLACE_BITS: u32 = 14;

/// The most events of one transaction.
pub(crate) const PLACES_MAX: usize = (1 << PLACE_BITS) - 1;

/// The state of all transactions as one statement saw it: `xmin:xmax:running,running`, as Postgres prints it.
#[derive(Debug)]
pub(crate) struct Moment<'a> {
    pub(crate) snapshot: &'a str,
    /// What is added to the number of a transaction, see `sql/1-log.sql`.
    pub(crate) era: i64,
    /// The last position that was visible.
    pub(crate) head: i64,
}

impl Moment<'_> {
    /// What a decision of this moment has seen: everything up to the head, but for those who still wrote below it. `None` when
    /// this is no snapshot.
    pub(crate) fn token(&self) -> Option<ReadToken> {
        let running = self.snapshot.split(':').nth(2)?;
        let mut unseen = Vec::new();
        for number in running.split(',').filter(|number| !number.is_empty()) {
            let base = (self.era + number.parse::<i64>().ok()?) << PLACE_BITS;
            if base < self.head {
                let [after, up_to] = [base, base + (1 << PLACE_BITS) - 1].map(codec::position);
                unseen.push(Unseen { after, up_to });
            }
        }
        Some(ReadToken::seen_up_to(codec::position(self.head)).but_for(unseen))
    }
}

/// The positions of so many events behind a base, from this place in its transaction on.
pub(crate) fn positions(base: i64, from: usize, count: usize) -> impl Iterator<Item = Position> {
    let first = base + i64::try_from(from).unwrap_or(i64::MAX);
    (first..).take(count).map(codec::position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_still_writes_below_the_head_is_not_seen() {
        let token = |snapshot, head| Moment { snapshot, era: 0, head }.token();
        let head = (103 << PLACE_BITS) + 2;
        assert!(token("103:104:", head).unwrap().is_settled());
        let seen = token("100:105:100,102,104", head).unwrap();
        let at = |number: i64, place: i64| codec::position((number << PLACE_BITS) + place);
        for (position, is_new) in [
            (at(99, 16_383), false),
            (at(100, 1), true),
            (at(100, 16_383), true),
            (at(101, 1), false),
            (at(102, 9), true),
            (at(103, 2), false),
            (at(103, 3), true),
            (at(104, 1), true),
        ] {
            assert_eq!(seen.is_new(position), is_new, "{position}");
        }
        assert_eq!(seen.unseen().len(), 2, "what lies above the head needs no mark");
        assert!(token("nonsense", head).is_none());
    }
}
