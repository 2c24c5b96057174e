//! The messages of a durable subscription that are taken and not acknowledged, over all connections that bring them.
//!
//! A connection that is lost takes its acknowledgements with it, and the broker brings everything again that it did not hear
//! of. What is still being handled then is not handled a second time: the acknowledgement goes to the new connection. What
//! was done in the meantime is acknowledged at once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use purista_core::id::Id;

use crate::queue::Arrival;

/// What the broker calls a message that it brings again, and what the message calls itself: one of them alone may be another's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    packet: u16,
    message: Id,
}

impl Key {
    pub(crate) fn of(arrival: &Arrival, message: &Id) -> Self {
        Self { packet: arrival.raw.pkid, message: message.clone() }
    }
}

/// What to do with a message that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// Handle it.
    New,
    /// It is being handled: its end will be told to the connection that brought it last.
    InHand,
    /// It was done, and only the broker does not know.
    Done,
}

/// The table, bounded by what may be in flight.
#[derive(Debug)]
pub(crate) struct InHand {
    table: Mutex<Table>,
    done_max: usize,
}

#[derive(Debug, Default)]
struct Table {
    running: HashMap<Key, Arrival>,
    /// Those that were acknowledged last, with the number of the connection that it was told to.
    done: VecDeque<(Key, u64)>,
}

impl InHand {
    pub(crate) fn new(in_flight: usize) -> Self {
        Self { table: Mutex::default(), done_max: in_flight.max(1) }
    }

    /// Takes an arrival.
    pub(crate) fn take(&self, key: &Key, arrival: &Arrival) -> Known {
        let mut table = self.lock();
        if let Some(running) = table.running.get_mut(key)
            && running.line.number < arrival.line.number
        {
            *running = arrival.clone();
            return Known::InHand;
        }
        if table.done.iter().any(|(done, line)| done == key && *line < arrival.line.number) {
            return Known::Done;
        }
        table.running.insert(key.clone(), arrival.clone());
        Known::New
    }

    /// It is done: what the broker has to be told of. It is remembered, since the connection may be lost before the broker
    /// hears of it.
    pub(crate) fn done(&self, key: &Key) -> Option<Arrival> {
        let mut table = self.lock();
        let arrival = table.running.remove(key)?;
        if table.done.len() >= self.done_max {
            table.done.pop_front();
        }
        table.done.push_back((key.clone(), arrival.line.number));
        Some(arrival)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing in here can panic half-way, so a poisoned table is whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rumqttc::{AsyncClient, MqttOptions, Publish, QoS};
    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::line::Line;

    fn line(number: u64) -> Arc<Line> {
        let (client, _) = AsyncClient::builder(MqttOptions::new("c", "localhost")).build();
        Arc::new(Line {
            number,
            client,
            packet_bytes_max: 1,
            refused: Arc::default(),
            lost: CancellationToken::new(),
            unsubscribed: watch::channel(0).0,
        })
    }

    fn arrival(line: &Arc<Line>, pkid: u16) -> Arrival {
        let mut raw = Publish::new("t", QoS::AtLeastOnce, "x", None);
        raw.pkid = pkid;
        Arrival::new(raw, line, usize::MAX)
    }

    #[test]
    fn what_is_being_handled_when_it_comes_again_is_acknowledged_where_it_came_last() {
        let (in_hand, first, second) = (InHand::new(1), line(1), line(2));
        let key = Key::of(&arrival(&first, 7), &Id::from_random(1));
        assert_eq!(in_hand.take(&key, &arrival(&first, 7)), Known::New);
        assert_eq!(in_hand.take(&key, &arrival(&second, 7)), Known::InHand);
        assert_eq!(in_hand.done(&key).unwrap().line.number, 2);
        assert!(in_hand.done(&key).is_none(), "once");
    }

    #[test]
    fn what_was_done_when_it_comes_again_is_known_for_as_many_as_may_be_in_flight() {
        let (in_hand, first, second) = (InHand::new(2), line(1), line(2));
        let keys: Vec<_> =
            (1..=3).map(|n| Key::of(&arrival(&first, n), &Id::from_random(n.into()))).collect();
        for (key, pkid) in keys.iter().zip(1..) {
            assert_eq!(in_hand.take(key, &arrival(&first, pkid)), Known::New);
            in_hand.done(key);
        }
        let again: Vec<_> =
            keys.iter().zip(1..).map(|(key, pkid)| in_hand.take(key, &arrival(&second, pkid))).collect();
        assert_eq!(again, [Known::New, Known::Done, Known::Done]);
    }

    #[test]
    fn a_copy_over_the_same_connection_is_another_message() {
        let (in_hand, first) = (InHand::new(1), line(1));
        let id = Id::from_random(1);
        let one = Key::of(&arrival(&first, 7), &id);
        let copy = Key::of(&arrival(&first, 8), &id);
        assert_eq!(in_hand.take(&one, &arrival(&first, 7)), Known::New);
        assert_eq!(in_hand.take(&copy, &arrival(&first, 8)), Known::New);
        in_hand.done(&one);
        assert_eq!(in_hand.take(&one, &arrival(&first, 7)), Known::New, "a number that is used again");
    }
}
