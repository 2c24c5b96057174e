//! Why a command was not answered with its output.

use std::fmt;

use serde_json::Value;

use crate::bridge::{BridgeError, BridgeErrorKind};
use crate::contract::ContractError;
use crate::error::HandlerError;
use crate::id::Id;
use crate::message::{ErrorPayload, Message, MessageType};
use crate::status::Status;

/// What an invocation ended with instead of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvokeErrorKind {
    /// The handler refused on purpose; its status and text are for the caller. Nothing of it was kept.
    Handled,
    /// The handler failed; its log says why, under the trace id. Nothing of it was kept, as its response says.
    Failed,
    /// The command never ran: the input was wrong, the carrier refused it, or too much was going on.
    Rejected,
    /// Nobody serves this command; it never ran.
    Unroutable,
    /// No answer before the deadline: it may have run.
    Timeout,
    /// The answer was lost or cannot be read, or it is an error of a peer that does not say whether anything was kept: the
    /// command may have run.
    Unknown,
}

/// A command was not answered with its output. [`InvokeError::may_have_happened`] says whether to ask again under the
/// same idempotency key.
#[derive(Debug)]
pub struct InvokeError {
    kind: InvokeErrorKind,
    status: Status,
    message: String,
    data: Option<Value>,
    is_concurrent_change: bool,
    trace_id: Option<Id>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl InvokeError {
    /// An error of this kind.
    pub fn new(kind: InvokeErrorKind, status: Status, message: impl Into<String>) -> Self {
        Self {
            kind,
            status,
            message: message.into(),
            data: None,
            is_concurrent_change: false,
            trace_id: None,
            source: None,
        }
    }

    /// The error that a response tells of; `None` for a response of success.
    pub fn of_response(response: &Message) -> Option<Self> {
        if response.kind != MessageType::CommandErrorResponse {
            return None;
        }
        let json = response.payload.bytes().ok().flatten().unwrap_or_default();
        let Ok(told) = serde_json::from_slice::<ErrorPayload>(&json) else {
            let what = "the error response cannot be read";
            return Some(
                Self::new(InvokeErrorKind::Unknown, Status::INTERNAL_SERVER_ERROR, what)
                    .traced(&response.trace_id),
            );
        };
        // What a handler says on purpose is believed of every peer; that nothing was kept, only of those that say so.
        let kind = match (response.is_handled_error, told.nothing_kept, told.status) {
            (true, ..) => InvokeErrorKind::Handled,
            (false, _, Status::GATEWAY_TIMEOUT) => InvokeErrorKind::Timeout,
            (false, false, _) => InvokeErrorKind::Unknown,
            (false, true, Status::BAD_GATEWAY) => InvokeErrorKind::Unroutable,
            (false, true, Status::SERVICE_UNAVAILABLE) => InvokeErrorKind::Rejected,
            (false, true, _) => InvokeErrorKind::Failed,
        };
        let mut error = Self::new(kind, told.status, told.message).traced(&response.trace_id);
        error.data = told.data;
        error.is_concurrent_change = told.concurrent_change;
        Some(error)
    }

    pub(crate) fn undecodable(error: ContractError, trace_id: &Id) -> Self {
        let what = "the answer is not of the documented form";
        let mut made = Self::new(InvokeErrorKind::Unknown, Status::BAD_GATEWAY, what).traced(trace_id);
        made.source = Some(Box::new(error));
        made
    }

    #[must_use]
    pub(crate) fn traced(mut self, trace_id: &Id) -> Self {
        self.trace_id = Some(trace_id.clone());
        self
    }

    /// What it ended with.
    pub fn kind(&self) -> InvokeErrorKind {
        self.kind
    }

    /// The status, in HTTP's numbers.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The text of a handled error, or what is known of any other.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The details of a handled error.
    pub fn data(&self) -> Option<&Value> {
        self.data.as_ref()
    }

    /// The flow in which it happened.
    pub fn trace_id(&self) -> Option<&Id> {
        self.trace_id.as_ref()
    }

    /// Whether the command may have done its work all the same.
    pub fn may_have_happened(&self) -> bool {
        matches!(self.kind, InvokeErrorKind::Timeout | InvokeErrorKind::Unknown)
    }

    /// Whether the framework raised it because of a concurrent change: nothing was kept, and the same call may succeed when it
    /// is made again.
    pub fn is_concurrent_change(&self) -> bool {
        self.is_concurrent_change
    }

    /// Passes a handled error on to one's own caller; any other stays hidden. Without it, `?` hides both: what a callee
    /// tells its caller is not always for the caller's caller.
    ///
    /// ```
    /// # use purista_core::{error::HandlerError, invoke_error::{InvokeError, InvokeErrorKind}, status::Status};
    /// # fn callee() -> Result<(), InvokeError> {
    /// #     Err(InvokeError::new(InvokeErrorKind::Handled, Status::CONFLICT, "taken"))
    /// # }
    /// fn hidden() -> Result<(), HandlerError> { Ok(callee()?) }
    /// fn forwarded() -> Result<(), HandlerError> { callee().map_err(InvokeError::forward) }
    /// assert_eq!(hidden().unwrap_err().status().code(), 500);
    /// assert_eq!(forwarded().unwrap_err().status().code(), 409);
    /// ```
    pub fn forward(self) -> HandlerError {
        if self.kind != InvokeErrorKind::Handled {
            return HandlerError::from(self);
        }
        let mut handled = HandlerError::handled(self.status.code(), self.message);
        if self.is_concurrent_change {
            handled = handled.transient();
        }
        match self.data {
            Some(data) => handled.with_data(data),
            None => handled,
        }
    }
}

impl From<BridgeError> for InvokeError {
    fn from(error: BridgeError) -> Self {
        let (kind, status) = match error.kind() {
            BridgeErrorKind::Unroutable => (InvokeErrorKind::Unroutable, Status::BAD_GATEWAY),
            BridgeErrorKind::Timeout => (InvokeErrorKind::Timeout, Status::GATEWAY_TIMEOUT),
            BridgeErrorKind::Unknown => (InvokeErrorKind::Unknown, Status::BAD_GATEWAY),
            BridgeErrorKind::Rejected => (InvokeErrorKind::Rejected, Status::SERVICE_UNAVAILABLE),
            BridgeErrorKind::TooLarge => (InvokeErrorKind::Rejected, Status::PAYLOAD_TOO_LARGE),
        };
        let mut made = Self::new(kind, status, status.text());
        made.source = Some(Box::new(error));
        made
    }
}

impl fmt::Display for InvokeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = if self.may_have_happened() { "may have happened" } else { "did not happen" };
        write!(f, "the command was not answered: {} {} ({known})", self.status.code(), self.message)
    }
}

impl std::error::Error for InvokeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use InvokeErrorKind::{Failed, Rejected, Timeout, Unknown, Unroutable};

    use super::*;
    use crate::address::{Address, ServiceId};
    use crate::message::Party;
    use crate::payload::Payload;

    fn response(is_handled: bool, payload: &str) -> InvokeError {
        let sender = Party::anywhere(Address::of(ServiceId::new("User", "1"), "signUp"));
        let id = |number| Id::from_random(number);
        let message = Message::new(id(1), MessageType::CommandErrorResponse, 0, sender, id(2));
        let payload = Payload::encoded(payload.to_owned().into());
        let message = Message { payload, is_handled_error: is_handled, ..message };
        InvokeError::of_response(&message).unwrap()
    }

    #[test]
    fn that_nothing_was_kept_is_believed_of_a_peer_that_says_so() {
        let check = |status: u16, unmarked: InvokeErrorKind, marked: InvokeErrorKind| {
            for (mark, kind) in [("", unmarked), (r#","nothingKept":true"#, marked)] {
                let error = response(false, &format!(r#"{{"status":{status},"message":"x"{mark}}}"#));
                assert_eq!(error.kind(), kind, "{status}{mark}");
                let is_open = matches!(kind, InvokeErrorKind::Unknown | InvokeErrorKind::Timeout);
                assert_eq!(error.may_have_happened(), is_open, "{status}{mark}");
            }
        };
        check(500, Unknown, Failed);
        check(501, Unknown, Failed);
        check(502, Unknown, Unroutable);
        check(503, Unknown, Rejected);
        check(504, Timeout, Timeout);
        assert_eq!(response(false, "no JSON").kind(), Unknown);
    }

    #[test]
    fn what_a_handler_says_on_purpose_is_believed_of_every_peer() {
        let error = response(true, r#"{"status":409,"message":"taken"}"#);
        assert_eq!((error.kind(), error.may_have_happened()), (InvokeErrorKind::Handled, false));
        assert!(!error.is_concurrent_change() && !error.forward().is_transient());
        let error =
            response(true, r#"{"status":409,"message":"x","nothingKept":true,"concurrentChange":true}"#);
        assert!(error.is_concurrent_change() && error.forward().is_transient());
    }
}
