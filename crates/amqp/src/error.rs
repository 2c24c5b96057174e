//! What is known of a message that was not carried.

use purista_core::bridge::{BridgeError, BridgeErrorKind};

/// An error of something that never happened.
pub(crate) fn rejected(what: impl Into<String>) -> BridgeError {
    BridgeError::new(BridgeErrorKind::Rejected, what)
}

/// An error of something that may have happened.
pub(crate) fn unknown(what: impl Into<String>) -> BridgeError {
    BridgeError::new(BridgeErrorKind::Unknown, what)
}

pub(crate) fn closed() -> BridgeError {
    rejected("the AMQP bridge is closed")
}
