//! What SQLite's errors mean to a caller of the store.

use purista_events::store::{StoreError, StoreErrorKind};
use rusqlite::ErrorCode;

/// What an error of a statement means for the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    /// It concerns the batch alone: the others go on.
    Batch(StoreErrorKind),
    /// Somebody else holds the file; later it may go.
    Busy,
    /// The disk or the file is not to be trusted any more.
    Broken,
}

/// How bad an error of the writer's connection is.
pub(crate) fn severity(error: &rusqlite::Error) -> Severity {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Severity::Batch(StoreErrorKind::NoSpace),
        Some(ErrorCode::TooBig | ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch) => {
            Severity::Batch(StoreErrorKind::Invalid)
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Severity::Busy,
        _ => Severity::Broken,
    }
}

/// The error of a read. What does not decode was not written so.
pub(crate) fn read_failed(what: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    move |error| {
        let kind = match &error {
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..) => StoreErrorKind::Corrupt,
            _ => match error.sqlite_error_code() {
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreErrorKind::Corrupt,
                _ => StoreErrorKind::ReadFailed,
            },
        };
        StoreError::new(kind, format!("{what} failed")).with_source(error)
    }
}

pub(crate) fn closed() -> StoreError {
    StoreError::new(StoreErrorKind::Closed, "the store is closed")
}

/// Why a batch was not written.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It is refused; nothing of it was written.
    Refused(StoreError),
    /// A statement failed; something of it may stand in the transaction.
    Failed(rusqlite::Error),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error)
    }
}
