//! What an event is, and the tags by which it is found again.

use std::borrow::Cow;
use std::fmt;

use crate::contract::Contract;

/// The most tags that one event bears.
pub const TAGS_MAX: usize = 16;

/// Something that happened. Who emits it does not know who listens.
///
/// ```
/// use purista_core::event::{Event, Tags};
/// # use garde::Validate; use schemars::JsonSchema; use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
/// #[serde(rename_all = "camelCase")]
/// #[garde(allow_unvalidated)]
/// pub struct UserRenamed {
///     user_id: String,
///     name: String,
/// }
///
/// impl Event for UserRenamed {
///     const NAME: &'static str = "userRenamed";
///     fn tags(&self) -> Tags {
///         Tags::new().with("user", &self.user_id)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "must implement `Event`",
    note = "write `impl Event for {Self} {{ const NAME: &'static str = \"..\"; }}`"
)]
pub trait Event: Contract {
    /// Its name in the whole system: a letter, then letters, digits, `-` and `_`.
    const NAME: &'static str;
    /// The version of its form; raise it when old readers would misread the new form.
    const VERSION: u32 = 1;
    /// Whether a host with a store records it. An event that is not recorded is published after the commit, once, and
    /// is lost when the process dies in between.
    const RECORDED: bool = true;
    /// By what it is found: the first tag names its stream, in which order is kept.
    fn tags(&self) -> Tags {
        Tags::new()
    }
}

/// Names and values by which an event is found; the first one names its stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tags(Vec<(Cow<'static, str>, String)>);

impl Tags {
    /// No tags.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// One tag more.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl fmt::Display) -> Self {
        self.0.push((name.into(), value.to_string()));
        self
    }

    /// The tag that names the stream.
    pub fn first(&self) -> Option<(&str, &str)> {
        self.iter().next()
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.as_str()))
    }

    /// Whether this tag is among them.
    pub fn contains(&self, name: &str, value: &str) -> bool {
        self.iter().any(|tag| tag == (name, value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
