//! What was made of a message when it was read, and is not in its bytes.

use tokio::time::Instant;

use super::Message;
use crate::id::Id;

/// What a reading adds to the bytes of a message: what the peer left out, and when its time is over. Whoever keeps the bytes to
/// read them once more, which is rarer than a copy of each message would be dear, keeps this with them.
///
/// ```
/// # use purista_core::{clock::Clock, message::{AsRead, Message}};
/// # use tokio::time::Instant;
/// # fn example(clock: &Clock) -> Result<(), purista_core::message::DecodeError> {
/// let json = br#"{"messageType":"customMessage","eventName":"userRegistered"}"#[..].into();
/// let first = Message::decode(&json, clock, Instant::now())?;
/// let kept = AsRead::of(&first);
///
/// let again = kept.once_more(Message::decode(&json, clock, Instant::now())?);
/// assert_eq!(again.id, first.id);
/// # Ok(())
/// # }
/// # example(&Clock::system()).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct AsRead {
    id: Id,
    trace_id: Id,
    correlation_id: Option<Id>,
    timestamp_ms: u64,
    deadline: Option<Instant>,
}

impl AsRead {
    /// What the reading of this message added.
    pub fn of(message: &Message) -> Self {
        Self {
            id: message.id.clone(),
            trace_id: message.trace_id.clone(),
            correlation_id: message.correlation_id.clone(),
            timestamp_ms: message.timestamp_ms,
            deadline: message.deadline,
        }
    }

    /// Names the message.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// Names its flow.
    pub fn trace_id(&self) -> &Id {
        &self.trace_id
    }

    /// The message as it was read first, from the same bytes read again.
    pub fn once_more(&self, message: Message) -> Message {
        let Self { id, trace_id, correlation_id, timestamp_ms, deadline } = self.clone();
        Message { id, timestamp_ms, correlation_id, trace_id, deadline, ..message }
    }
}
