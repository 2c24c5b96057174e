//! Why a store did not do what was asked: one error for the whole contract.

use std::error::Error;
use std::fmt;

/// Why a store did not do what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// A condition on the log did not hold: read and decide again. Nothing was written.
    Conflict,
    /// A key of state was not what the write expected. Nothing was written.
    StateConflict,
    /// Another reply is kept under this key. Nothing was written.
    KeyTaken,
    /// The position or message was finished before. Nothing was written.
    AlreadyDone,
    /// The deadline passed before the write began. Nothing was written.
    DeadlinePassed,
    /// Something is larger than its bound, or malformed. Nothing was written.
    Invalid,
    /// No space is left. Nothing was written.
    NoSpace,
    /// The store takes no commits: a write failed before, or it is closed. Nothing was written.
    Closed,
    /// Too much waits to be written. Nothing was written.
    Overloaded,
    /// A read failed.
    ReadFailed,
    /// What lies in the log is not what was written there.
    Corrupt,
    /// Another process, or another store of this one, owns the data: it has one writer.
    InUse,
    /// The answer was lost: it may have been written. Commit the same batch again to know.
    Unknown,
}

/// A store did not do what was asked.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// An error of this kind; `what` says what was tried.
    pub fn new(kind: StoreErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), source: None }
    }

    /// The same, with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Why.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Its cause, when it is of this type; else the error as it was.
    pub fn into_source<E: Error + 'static>(self) -> Result<E, Self> {
        let Self { kind, what, source } = self;
        match source.map(<dyn Error + Send + Sync>::downcast::<E>) {
            Some(Ok(source)) => Ok(*source),
            Some(Err(source)) => Err(Self { kind, what, source: Some(source) }),
            None => Err(Self { kind, what, source: None }),
        }
    }

    /// Whether it may have happened all the same.
    pub fn may_have_happened(&self) -> bool {
        self.kind == StoreErrorKind::Unknown
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
