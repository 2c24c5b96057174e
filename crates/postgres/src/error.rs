//! What Postgres's errors mean to a caller of the store.

use std::error::Error as _;

use deadpool_postgres::PoolError;
use purista_events::store::{StoreError, StoreErrorKind};
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

/// What an error of a statement means for whoever writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    /// Somebody else was faster, or two waited for one another: the same once more.
    Again,
    /// The connection is gone.
    Lost,
    /// The server refuses it; nothing was written.
    Refused(StoreErrorKind),
}

/// How bad an error is.
pub(crate) fn severity(error: &Error) -> Severity {
    let Some(state) = error.code() else {
        // Without a code it is not the server that speaks: a value that has no form there, or a connection that is gone.
        let is_of_a_value = error.source().is_some_and(|source| !source.is::<std::io::Error>())
            && !error.is_closed()
            && error.to_string().contains("serializing parameter");
        return if is_of_a_value { Severity::Refused(StoreErrorKind::Invalid) } else { Severity::Lost };
    };
    match *state {
        SqlState::T_R_SERIALIZATION_FAILURE
        | SqlState::T_R_DEADLOCK_DETECTED
        | SqlState::UNIQUE_VIOLATION => Severity::Again,
        SqlState::ADMIN_SHUTDOWN
        | SqlState::CRASH_SHUTDOWN
        | SqlState::CANNOT_CONNECT_NOW
        | SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT => Severity::Lost,
        SqlState::DISK_FULL => Severity::Refused(StoreErrorKind::NoSpace),
        _ => Severity::Refused(match state.code().get(..2) {
            // Data exception, program limit.
            Some("22" | "54") => StoreErrorKind::Invalid,
            // A time-out, too many connections or locks, a server that only reads.
            _ => StoreErrorKind::Overloaded,
        }),
    }
}

/// What the server is at fault for, and not who wrote the statement: it is gone, full, slow or held up by others.
pub(crate) fn fault_of_the_server(error: &Error) -> Option<StoreErrorKind> {
    match severity(error) {
        Severity::Lost => Some(StoreErrorKind::Overloaded),
        Severity::Again => {
            (error.code() != Some(&SqlState::UNIQUE_VIOLATION)).then_some(StoreErrorKind::Overloaded)
        }
        Severity::Refused(kind) => {
            let class = error.code().and_then(|state| state.code().get(..2));
            matches!(class, Some("53" | "55" | "57" | "58")).then_some(kind)
        }
    }
}

/// The error of a read. What does not decode was not written so.
pub(crate) fn read_failed(what: &'static str) -> impl FnOnce(Error) -> StoreError {
    move |error| StoreError::new(StoreErrorKind::ReadFailed, format!("{what} failed")).with_source(error)
}

/// No connection could be had for a read.
pub(crate) fn unconnected(what: &'static str) -> impl FnOnce(PoolError) -> StoreError {
    move |error| match error {
        PoolError::Closed => closed(),
        error => StoreError::new(StoreErrorKind::ReadFailed, format!("{what} got no connection"))
            .with_source(error),
    }
}

pub(crate) fn closed() -> StoreError {
    StoreError::new(StoreErrorKind::Closed, "the store is closed")
}

/// A row that is not what was written there.
pub(crate) fn corrupt(what: impl Into<String>) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, what)
}

/// A change beside the batches that failed. Nothing was written, or it can be asked for again.
pub(crate) fn change_failed(what: &'static str) -> impl FnOnce(Error) -> StoreError {
    move |error| {
        let kind = match severity(&error) {
            Severity::Again => StoreErrorKind::Overloaded,
            Severity::Lost => StoreErrorKind::Unknown,
            Severity::Refused(kind) => kind,
        };
        StoreError::new(kind, format!("{what} failed")).with_source(error)
    }
}
