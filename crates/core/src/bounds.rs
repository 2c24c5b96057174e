//! How long names and keys may be, the same in every store: a database cannot index a longer one, and a file could.

use std::error::Error;
use std::fmt;

use crate::address::NAME_BYTES_MAX;
use crate::event::Tags;
use crate::fault::Fault;

/// The most bytes of one tag, its name and its value together.
pub const TAG_BYTES_MAX: usize = 1_024;

/// The most bytes of a tenant's id.
pub const TENANT_BYTES_MAX: usize = 256;

/// The most bytes of a principal's id.
pub const PRINCIPAL_BYTES_MAX: usize = 256;

/// The most bytes of what an idempotency key belongs to: a principal, and the address of a command.
pub const SCOPE_BYTES_MAX: usize = PRINCIPAL_BYTES_MAX + 3 * (NAME_BYTES_MAX + 1);

/// A name or key is longer than its bound. It names the field, never the value. As the error of a handler it is 400: the caller's
/// input is at fault, and the same input never succeeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundError {
    path: Vec<String>,
    bytes: usize,
    bound: usize,
}

impl BoundError {
    /// Rejects a text of more bytes than its bound.
    ///
    /// # Errors
    ///
    /// Returns the error that names the field.
    pub fn check(field: &str, text: &str, bound: usize) -> Result<(), Self> {
        at_most(text.len(), bound, || vec![field.to_owned()])
    }

    /// Rejects tags of which one is longer than [`TAG_BYTES_MAX`].
    ///
    /// # Errors
    ///
    /// Returns the error that names the first such tag.
    pub fn check_tags(tags: &Tags) -> Result<(), Self> {
        tags.iter().try_for_each(|(name, value)| {
            at_most(name.len() + value.len(), TAG_BYTES_MAX, || {
                // The name may be what is too long.
                let shown = name.chars().take(NAME_BYTES_MAX).collect();
                vec!["tags".to_owned(), shown]
            })
        })
    }

    /// The field, as validation reports it.
    pub fn fault(&self) -> Fault {
        let Self { path, bytes, bound } = self;
        Fault { message: format!("{bytes} bytes are more than {bound}"), path: path.clone() }
    }

    /// The bound among the causes of an error.
    pub(crate) fn of<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(bound) = error.downcast_ref() {
                return Some(bound);
            }
            next = error.source();
        }
        None
    }
}

fn at_most(bytes: usize, bound: usize, path: impl FnOnce() -> Vec<String>) -> Result<(), BoundError> {
    if bytes <= bound {
        return Ok(());
    }
    Err(BoundError { path: path(), bytes, bound })
}

impl fmt::Display for BoundError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, bytes, bound } = self;
        match path.as_slice() {
            [tags, name] if tags == "tags" => write!(f, "the tag `{name}`")?,
            path => write!(f, "the {}", path.join("."))?,
        }
        write!(f, " has {bytes} bytes, at most {bound} are allowed")
    }
}

impl Error for BoundError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::HandlerError;

    #[derive(Debug, thiserror::Error)]
    #[error("an event was refused")]
    struct Refused(#[source] BoundError);

    #[test]
    fn a_bound_is_the_callers_fault_however_deep_it_lies() {
        let tags = Tags::new().with("user", "x".repeat(TAG_BYTES_MAX - 3));
        let error = BoundError::check_tags(&tags).unwrap_err();
        assert_eq!(error.to_string(), "the tag `user` has 1025 bytes, at most 1024 are allowed");
        let error = HandlerError::from(Refused(error));
        assert_eq!((error.status().code(), error.is_handled()), (400, true));
        assert!(error.public_message().contains("the tag `user`"), "{}", error.public_message());
        assert_eq!(error.data().unwrap()[0]["path"], serde_json::json!(["tags", "user"]));
        assert!(BoundError::check_tags(&Tags::new().with("user", "x".repeat(TAG_BYTES_MAX - 4))).is_ok());
    }
}
