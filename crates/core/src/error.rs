//! How a handler fails: on purpose, for the caller to read, or by accident, for the log.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use serde_json::Value;

use crate::bounds::BoundError;
use crate::fault::Fault;
use crate::status::Status;

/// Fails a handler.
///
/// A *handled* error is part of the contract: its status and text reach the caller, and it is final. Any other error
/// gets in through `?`; the caller then sees a plain 500 with the trace id, the log sees everything, and a subscription
/// tries again.
///
/// It is deliberately no [`std::error::Error`], so that `?` takes any type that is.
///
/// ```
/// use purista_core::error::HandlerError;
///
/// fn seat(text: &str, free: u32) -> Result<u32, HandlerError> {
///     let seat: u32 = text.parse()?; // hidden from the caller, retried in a subscription
///     if seat > free {
///         return Err(HandlerError::conflict("the seat is taken")); // told to the caller
///     }
///     Ok(seat)
/// }
/// assert_eq!(seat("7", 3).unwrap_err().status().code(), 409);
/// assert_eq!(seat("x", 3).unwrap_err().status().code(), 500);
/// ```
pub struct HandlerError(Box<Kind>);

enum Kind {
    Handled { status: Status, message: String, data: Option<Value>, is_transient: bool },
    Failed(Box<dyn Error + Send + Sync>),
    Settled { settlement: Settlement, reason: String },
}

/// What a subscription's handler asks for instead of the usual retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settlement {
    /// Try again after this time; it counts as an attempt.
    RetryAfter(Duration),
    /// Give up in silence: counted and logged, not kept.
    Drop,
    /// Put it aside as a dead letter at once.
    DeadLetter,
    /// Put it back and stop the whole subscription until somebody resumes it.
    Pause,
}

impl HandlerError {
    /// An error that the caller shall see. A status outside 400 to 599 becomes 500.
    pub fn handled(status: u16, message: impl Into<String>) -> Self {
        Self(Box::new(Kind::Handled {
            status: Status::of_error(status),
            message: message.into(),
            data: None,
            is_transient: false,
        }))
    }

    /// 400: the input is wrong in a way that its rules do not say.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::handled(Status::BAD_REQUEST.code(), message)
    }

    /// 401: it is not known who asks.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::handled(Status::UNAUTHORIZED.code(), message)
    }

    /// 403: who asks may not.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::handled(Status::FORBIDDEN.code(), message)
    }

    /// 404: there is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::handled(Status::NOT_FOUND.code(), message)
    }

    /// 409: it contradicts what is already so.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::handled(Status::CONFLICT.code(), message)
    }

    /// 400 with every field at fault, as `[{message, path}]`.
    pub fn invalid(faults: &[Fault]) -> Self {
        Self::bad_request("input validation failed").with_data(serde_json::json!(faults))
    }

    /// Anything that went wrong and concerns nobody outside: takes what `?` cannot, as texts and boxed errors.
    pub fn failed(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Box::new(Kind::Failed(source.into())))
    }

    /// In a subscription: try again after `delay`, which is 30 days at most; a longer one makes the message a dead letter. In a
    /// command: 500.
    pub fn retry_after(delay: Duration, reason: impl Into<String>) -> Self {
        Self::settled(Settlement::RetryAfter(delay), reason)
    }

    /// In a subscription: give this message up, counted and logged. In a command: 500.
    pub fn drop(reason: impl Into<String>) -> Self {
        Self::settled(Settlement::Drop, reason)
    }

    /// In a subscription: put this message aside as a dead letter. In a command: 500.
    pub fn dead_letter(reason: impl Into<String>) -> Self {
        Self::settled(Settlement::DeadLetter, reason)
    }

    /// In a subscription: put this message back and stop until somebody resumes. In a command: 500.
    pub fn pause(reason: impl Into<String>) -> Self {
        Self::settled(Settlement::Pause, reason)
    }

    fn settled(settlement: Settlement, reason: impl Into<String>) -> Self {
        Self(Box::new(Kind::Settled { settlement, reason: reason.into() }))
    }

    /// Adds details that the caller may read. Does nothing to an error that is not handled: its caller sees no details.
    #[must_use]
    pub fn with_data(mut self, details: Value) -> Self {
        if let Kind::Handled { data, .. } = &mut *self.0 {
            *data = Some(details);
        }
        self
    }

    /// Makes a handled error transient: a subscription that fails with it retries by its policy, as for any other failure. In a
    /// command it changes nothing. Conflicts that the framework raises are transient by themselves.
    ///
    /// ```
    /// use purista_core::error::HandlerError;
    ///
    /// assert!(!HandlerError::conflict("the seat is taken").is_transient());
    /// assert!(HandlerError::conflict("the seat is being released").transient().is_transient());
    /// ```
    #[must_use]
    pub fn transient(mut self) -> Self {
        if let Kind::Handled { is_transient, .. } = &mut *self.0 {
            *is_transient = true;
        }
        self
    }

    /// Whether it is a handled error that a subscription retries; see [`HandlerError::transient`].
    pub fn is_transient(&self) -> bool {
        matches!(*self.0, Kind::Handled { is_transient: true, .. })
    }

    /// The status that the caller sees.
    pub fn status(&self) -> Status {
        match &*self.0 {
            Kind::Handled { status, .. } => *status,
            _ => Status::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether it is meant for the caller.
    pub fn is_handled(&self) -> bool {
        matches!(*self.0, Kind::Handled { .. })
    }

    /// The text that the caller sees: the handler's own when handled, else the status' name.
    pub fn public_message(&self) -> &str {
        match &*self.0 {
            Kind::Handled { message, .. } => message,
            _ => Status::INTERNAL_SERVER_ERROR.text(),
        }
    }

    /// The details that the caller sees.
    pub fn data(&self) -> Option<&Value> {
        match &*self.0 {
            Kind::Handled { data, .. } => data.as_ref(),
            _ => None,
        }
    }

    /// What the handler of a subscription asked for.
    pub fn settlement(&self) -> Option<Settlement> {
        match &*self.0 {
            Kind::Settled { settlement, .. } => Some(*settlement),
            _ => None,
        }
    }

    /// The error that `?` passed on, which concerns nobody outside; `None` for what a handler said on purpose.
    pub fn failure(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        match &*self.0 {
            Kind::Failed(error) => Some(&**error),
            _ => None,
        }
    }

    /// Everything, with the chain of sources: for the log, never for a caller.
    pub fn report(&self) -> String {
        match &*self.0 {
            Kind::Handled { status, message, .. } => format!("{} {message}", status.code()),
            Kind::Settled { reason, .. } => reason.clone(),
            Kind::Failed(error) => chain(&**error),
        }
    }
}

/// An error and its sources in one line.
pub fn chain(error: &dyn Error) -> String {
    use fmt::Write;
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.report())
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for HandlerError {
    #[cold]
    fn from(error: E) -> Self {
        // What is too long for every store is the caller's fault, and stays so.
        if let Some(bound) = BoundError::of(&error) {
            return Self::bad_request(bound.to_string()).with_data(serde_json::json!([bound.fault()]));
        }
        Self(Box::new(Kind::Failed(Box::new(error))))
    }
}
