//! How a command ends when it does not answer with its output: what the caller sees, and what the log sees.

use std::any::Any;
use std::error::Error;

use purista_core::bridge::{BridgeError, BridgeErrorKind};
use purista_core::contract::ContractError;
use purista_core::error::{HandlerError, chain};
use purista_core::invoke_error::{InvokeError, InvokeErrorKind};
use purista_core::message::{ErrorPayload, Message};
use purista_core::status::Status;
use purista_core::store::{KeyValueError, KeyValueErrorKind};
use purista_events::reading::ReadError;
use purista_events::store::{StoreError, StoreErrorKind};
use purista_events::upcast::UnreadableEvent;
use serde_json::Value;

use crate::commit::CommitError;
use crate::observation::Ending;
use crate::unit_of_work::UnitClosed;

/// The end of a command without an output.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is said by itself in the error response, or not")]
pub(crate) struct Failure {
    status: Status,
    is_handled: bool,
    /// Nothing was written, because somebody else was faster.
    is_lost_race: bool,
    /// Whether the same command may succeed when it is sent again.
    is_transient: bool,
    /// Whether it is certain that nothing was kept.
    is_nothing_kept: bool,
    message: String,
    data: Option<Value>,
    /// For the log only.
    report: String,
}

impl Failure {
    fn hidden(status: Status, report: String) -> Self {
        Self {
            status,
            is_handled: false,
            is_lost_race: false,
            is_transient: false,
            is_nothing_kept: true,
            message: status.text().to_owned(),
            data: None,
            report,
        }
    }

    /// The deadline came before the handler had ended: nothing of it was kept.
    pub(crate) fn timed_out() -> Self {
        Self::hidden(Status::GATEWAY_TIMEOUT, "the handler did not end before the deadline".to_owned())
    }

    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Self {
        Self::hidden(Status::INTERNAL_SERVER_ERROR, panic_text(panic))
    }

    pub(crate) fn of_handler(error: &HandlerError) -> Self {
        if error.failure().is_some_and(is_away) {
            // Nothing of this unit was kept, and a later attempt may succeed.
            return Self::hidden(Status::SERVICE_UNAVAILABLE, error.report());
        }
        Self {
            status: error.status(),
            is_handled: error.is_handled(),
            is_lost_race: false,
            is_transient: error.is_transient(),
            is_nothing_kept: true,
            message: error.public_message().to_owned(),
            data: error.data().cloned(),
            report: error.report(),
        }
    }

    pub(crate) fn of_commit(error: &CommitError) -> Self {
        let report = error.to_string();
        match error {
            CommitError::LostRace(_) => Self {
                status: Status::CONFLICT,
                is_handled: true,
                is_lost_race: true,
                is_transient: true,
                is_nothing_kept: true,
                message: "somebody else changed the same thing at the same time: try again".to_owned(),
                data: None,
                report,
            },
            CommitError::TooLong(bound) => Self::of_handler(&HandlerError::from(bound.clone())),
            CommitError::Unknown(_) => {
                Self { is_nothing_kept: false, ..Self::hidden(Status::GATEWAY_TIMEOUT, report) }
            }
            _ => Self::hidden(Status::SERVICE_UNAVAILABLE, report),
        }
    }

    /// The same, of a handler whose invokes kept something: each was a unit of work of its own and stays.
    pub(crate) fn after_invokes(self, has_invoked: bool) -> Self {
        Self { is_nothing_kept: self.is_nothing_kept && !has_invoked, ..self }
    }

    pub(crate) fn payload(&self, message: &Message) -> ErrorPayload {
        ErrorPayload {
            data: self.data.clone(),
            trace_id: Some(message.trace_id.clone()),
            nothing_kept: self.is_nothing_kept,
            concurrent_change: self.is_transient,
            ..ErrorPayload::new(self.status, self.message.clone())
        }
    }

    pub(crate) fn status(&self) -> Status {
        self.status
    }

    pub(crate) fn is_handled(&self) -> bool {
        self.is_handled
    }

    pub(crate) fn is_lost_race(&self) -> bool {
        self.is_lost_race
    }

    pub(crate) fn report(&self) -> &str {
        &self.report
    }

    pub(crate) fn ending(&self) -> Ending {
        if self.is_handled {
            Ending::Refused(self.status.code(), self.message.clone())
        } else {
            Ending::Failed(self.report.clone())
        }
    }
}

/// Whether something that the handler depends on cannot be reached now: the store, the broker, or what they are to a command
/// that it invoked.
fn is_away(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    let mut is_refused_value = false;
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<StoreError>() {
            return matches!(
                error.kind(),
                StoreErrorKind::ReadFailed
                    | StoreErrorKind::Closed
                    | StoreErrorKind::Overloaded
                    | StoreErrorKind::NoSpace
            );
        }
        if let Some(error) = error.downcast_ref::<InvokeError>() {
            return error.kind() == InvokeErrorKind::Rejected
                && error.status() == Status::SERVICE_UNAVAILABLE;
        }
        if let Some(error) = error.downcast_ref::<BridgeError>() {
            return error.kind() == BridgeErrorKind::Rejected;
        }
        if let Some(ReadError::StillWritten(_)) = error.downcast_ref() {
            return true;
        }
        // The value is there and has another form than the one asked for, or the handler wrote after its end.
        if error.is::<serde_json::Error>() || error.is::<ContractError>() || error.is::<UnitClosed>() {
            return false;
        }
        // In a store of its own, as a bucket of a broker, state is reached over a network.
        is_refused_value |= error
            .downcast_ref::<KeyValueError>()
            .is_some_and(|error| error.kind() == KeyValueErrorKind::Rejected);
        next = error.source();
    }
    is_refused_value
}

/// An event of a newer form is tried again: the newer program may run soon, or in another process. Anything else is put aside
/// until this program has an upcaster more.
pub(crate) fn unreadable(error: &UnreadableEvent) -> HandlerError {
    let text = chain(error);
    if error.is_newer() { HandlerError::failed(text) } else { HandlerError::dead_letter(text) }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the handler panicked: {}", text.unwrap_or("it said nothing"))
}

#[cfg(test)]
mod tests {
    use purista_events::position::Position;

    use super::*;

    #[track_caller]
    fn check(error: impl Error + Send + Sync + 'static, status: Status) {
        assert_eq!(Failure::of_handler(&HandlerError::from(error)).status(), status);
    }

    #[test]
    fn a_handler_that_cannot_reach_its_state_or_its_events_is_503_and_any_other_failure_500() {
        let state = || KeyValueError::new(KeyValueErrorKind::Rejected, "read the bucket");
        check(state(), Status::SERVICE_UNAVAILABLE);
        check(state().with_source(std::io::Error::other("no connection")), Status::SERVICE_UNAVAILABLE);
        check(ReadError::StillWritten(Position::START), Status::SERVICE_UNAVAILABLE);
        let form = serde_json::from_str::<u8>("x").unwrap_err();
        check(state().with_source(form), Status::INTERNAL_SERVER_ERROR);
        check(KeyValueError::new(KeyValueErrorKind::InvalidKey, "too long"), Status::INTERNAL_SERVER_ERROR);
        check(std::io::Error::other("no disk"), Status::INTERNAL_SERVER_ERROR);
    }
}
