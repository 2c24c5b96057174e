//! What becomes of a message whose handler failed.

use std::time::Duration;

use purista_core::error::HandlerError;
use purista_core::message::Message;

use crate::observation::Ending;

/// What becomes of a failed message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A handled error: settled, counted with its reason.
    Final {
        reason: String,
    },
    Retry {
        after: Duration,
        reason: String,
    },
    DeadLetter {
        reason: String,
    },
    Drop {
        reason: String,
    },
    Pause {
        reason: String,
    },
}

impl Verdict {
    /// What an observer is told of a verdict.
    pub(crate) fn ending(&self, error: &HandlerError) -> Ending {
        match self {
            Self::Final { .. } => Ending::Refused(error.status().code(), error.public_message().to_owned()),
            Self::Retry { reason, .. } => Ending::Retried(reason.clone()),
            Self::DeadLetter { reason } => Ending::DeadLettered(reason.clone()),
            Self::Drop { reason } => Ending::Dropped(reason.clone()),
            Self::Pause { reason } => Ending::Paused(reason.clone()),
        }
    }

    /// Nothing fails in silence.
    pub(crate) fn log(&self, subscription: &str, message: &Message, attempt: u32) {
        let (trace_id, message_id) = (&message.trace_id, &message.id);
        match self {
            Self::Final { reason } => {
                tracing::info!(subscription, %trace_id, %message_id, attempt, reason, "a subscription refused a message");
            }
            Self::Retry { after, reason } => {
                tracing::warn!(subscription, %trace_id, %message_id, attempt, ?after, reason, "a message is tried again");
            }
            Self::DeadLetter { reason } => {
                tracing::error!(subscription, %trace_id, %message_id, attempt, reason, "a message became a dead letter");
            }
            Self::Drop { reason } => {
                tracing::warn!(subscription, %trace_id, %message_id, attempt, reason, "a message was given up");
            }
            Self::Pause { reason } => {
                tracing::error!(subscription, %trace_id, %message_id, attempt, reason, "a subscription was stopped");
            }
        }
    }
}
