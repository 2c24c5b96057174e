//! The largest packet that a broker takes, where it does not say so: mosquitto with `message_size_limit` refuses a larger one
//! with a reason code that the client takes for a violation of the protocol, so that the connection ends.
//!
//! Which of the packets in flight was refused is known by their sizes: the largest of them was, whatever the limit is.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rumqttc::{ConnectionError, StateError};
use tokio::time::Instant;

/// Packets that are smaller are not counted: no broker is set to a limit below it.
const COUNTED_BYTES_MIN: usize = 4 << 10;
/// How long a refusal is remembered; then the next packet of its size is tried again, since an operator may have raised the
/// limit.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// The reason code "packet too large" of an acknowledgement, which the client does not know there.
const PACKET_TOO_LARGE: u8 = 0x95;

/// What the broker has refused by its size.
#[derive(Debug, Default)]
pub(crate) struct Refused(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// How many packets of each size are in flight.
    in_flight: BTreeMap<usize, usize>,
    /// The size that was refused last, and when.
    last: Option<(usize, Instant)>,
}

impl Refused {
    /// The largest packet that is worth sending now.
    pub(crate) fn most(&self) -> usize {
        let remembered = self.lock().last.filter(|(_, at)| at.elapsed() < REMEMBERED_FOR);
        remembered.map_or(usize::MAX, |(bytes, _)| bytes.saturating_sub(1))
    }

    /// Counts a packet while it is in flight.
    pub(crate) fn sends(&self, bytes: usize) -> Sent<'_> {
        let is_counted = bytes >= COUNTED_BYTES_MIN;
        if is_counted {
            *self.lock().in_flight.entry(bytes).or_default() += 1;
        }
        Sent { refused: self, bytes, is_counted, since: Instant::now() }
    }

    /// The connection ended with this error: learns from it, when it says that a packet was too large.
    pub(crate) fn learn(&self, error: &ConnectionError) {
        if !says_too_large(error) {
            return;
        }
        let mut inner = self.lock();
        if let Some(largest) = inner.in_flight.keys().next_back().copied() {
            tracing::error!(
                bytes = largest,
                "the MQTT broker refuses a message for its size; messages of this size are not sent for a minute"
            );
            inner.last = Some((largest, Instant::now()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn says_too_large(error: &ConnectionError) -> bool {
    matches!(
        error,
        ConnectionError::MqttState(StateError::Deserialization(rumqttc::mqttbytes::Error::InvalidReason(
            PACKET_TOO_LARGE
        )))
    )
}

/// A packet in flight.
#[derive(Debug)]
pub(crate) struct Sent<'r> {
    refused: &'r Refused,
    bytes: usize,
    is_counted: bool,
    since: Instant,
}

impl Sent<'_> {
    /// Whether it was refused for its size since it was sent.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.lock().last.is_some_and(|(bytes, at)| at >= self.since && self.bytes >= bytes)
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        if !self.is_counted {
            return;
        }
        let mut inner = self.refused.lock();
        if let Some(count) = inner.in_flight.get_mut(&self.bytes) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                inner.in_flight.remove(&self.bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn too_large() -> ConnectionError {
        StateError::Deserialization(rumqttc::mqttbytes::Error::InvalidReason(PACKET_TOO_LARGE)).into()
    }

    #[tokio::test(start_paused = true)]
    async fn the_largest_in_flight_was_refused_and_its_size_is_not_sent_for_a_minute() {
        let refused = Refused::default();
        assert_eq!(refused.most(), usize::MAX);
        let (small, large) = (refused.sends(10_000), refused.sends(70_000));
        refused.learn(&ConnectionError::RequestsDone);
        assert!(!large.is_refused(), "another loss says nothing of sizes");
        refused.learn(&too_large());
        assert!(large.is_refused() && !small.is_refused());
        drop((small, large));
        assert_eq!(refused.most(), 69_999);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!refused.sends(70_000).is_refused(), "it was sent after the refusal");
        tokio::time::advance(REMEMBERED_FOR).await;
        assert_eq!(refused.most(), usize::MAX, "the operator may have raised the limit");
        assert!(refused.0.lock().unwrap().in_flight.is_empty());
    }
}
