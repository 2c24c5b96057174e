//! Errors for people: what went wrong, and what to do about it.

use std::error::Error;
use std::fmt;

/// Something is refused or impossible, and there is a way.
#[derive(Debug)]
pub(crate) struct Refusal {
    what: String,
    remedy: String,
}

impl Refusal {
    /// What is refused, and what helps.
    pub(crate) fn error(what: impl Into<String>, remedy: impl Into<String>) -> anyhow::Error {
        Self::new(what, remedy).into()
    }

    /// The same as a value, for the context of an error.
    pub(crate) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for Refusal {}

/// Prints an error with its causes, and the remedy where there is one.
pub(crate) fn tell(error: &anyhow::Error) {
    eprintln!("error: {}", crate::screen::plain(&format!("{error:#}")));
    if let Some(refusal) = error.downcast_ref::<Refusal>() {
        eprintln!("help: {}", crate::screen::plain(&refusal.remedy));
    }
}
