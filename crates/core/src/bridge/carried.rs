//! A message as a carrier hands it over.

use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;

use crate::message::Message;
use crate::payload::Payload;

/// A message as a carrier hands it over: for one consumer alone, or the same for all who listen. Reads like the message.
#[derive(Debug, Clone)]
pub enum Carried {
    /// For this consumer alone. Boxed, so that it can become the response to itself.
    Alone(Box<Message>),
    /// For others too: nothing of it can be changed or taken away.
    Shared(Arc<Message>),
}

impl Carried {
    /// The payload: moved out where nobody else reads it, shared where somebody does.
    pub fn take_payload(&mut self) -> Payload {
        match self {
            Self::Alone(message) => std::mem::take(&mut message.payload),
            Self::Shared(message) => message.payload.clone(),
        }
    }

    /// The fields of a command that travel apart, in the same way.
    pub fn take_parameter(&mut self) -> Option<Bytes> {
        match self {
            Self::Alone(message) => message.parameter.take(),
            Self::Shared(message) => message.parameter.clone(),
        }
    }

    /// The message as one's own: a copy where others read it.
    pub fn into_own(self) -> Box<Message> {
        match self {
            Self::Alone(message) => message,
            Self::Shared(message) => Box::new(Arc::unwrap_or_clone(message)),
        }
    }
}

impl Deref for Carried {
    type Target = Message;

    fn deref(&self) -> &Message {
        match self {
            Self::Alone(message) => message,
            Self::Shared(message) => message,
        }
    }
}

impl From<Box<Message>> for Carried {
    fn from(message: Box<Message>) -> Self {
        Self::Alone(message)
    }
}

impl From<Arc<Message>> for Carried {
    fn from(message: Arc<Message>) -> Self {
        Self::Shared(message)
    }
}

impl From<Message> for Carried {
    fn from(message: Message) -> Self {
        Self::Alone(Box::new(message))
    }
}
