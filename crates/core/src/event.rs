//! What an event is, and the tags by which it is found again.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::OnceLock;

use bytes::Bytes;

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
///
/// Two are equal when their names and values are, in order.
#[derive(Clone, Default)]
pub struct Tags(Repr);

type Pairs = Vec<(Cow<'static, str>, String)>;

#[derive(Clone)]
enum Repr {
    Listed(Pairs),
    /// As a store has them. Most readers of an event never ask for its tags, so they are taken apart for who does.
    Stored {
        json: Bytes,
        pairs: OnceLock<Pairs>,
    },
}

impl Default for Repr {
    fn default() -> Self {
        Self::Listed(Vec::new())
    }
}

impl Tags {
    /// No tags.
    pub const fn new() -> Self {
        Self(Repr::Listed(Vec::new()))
    }

    /// Tags as a store has them: a JSON list of pairs, which are taken apart when somebody asks for them. What is no such
    /// list has no tags; a store makes sure that it is what was written.
    pub const fn stored(json: Bytes) -> Self {
        Self(Repr::Stored { json, pairs: OnceLock::new() })
    }

    /// One tag more.
    #[must_use]
    pub fn with(self, name: impl Into<Cow<'static, str>>, value: impl fmt::Display) -> Self {
        let mut pairs = match self.0 {
            Repr::Listed(pairs) => pairs,
            Repr::Stored { .. } => self.pairs().to_vec(),
        };
        pairs.push((name.into(), value.to_string()));
        Self(Repr::Listed(pairs))
    }

    fn pairs(&self) -> &[(Cow<'static, str>, String)] {
        match &self.0 {
            Repr::Listed(pairs) => pairs,
            Repr::Stored { json, pairs } => {
                pairs.get_or_init(|| serde_json::from_slice(json).unwrap_or_default())
            }
        }
    }

    /// The tag that names the stream.
    pub fn first(&self) -> Option<(&str, &str)> {
        self.iter().next()
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs().iter().map(|(name, value)| (name.as_ref(), value.as_str()))
    }

    /// Whether this tag is among them.
    pub fn contains(&self, name: &str, value: &str) -> bool {
        self.iter().any(|tag| tag == (name, value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.pairs().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pairs().is_empty()
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for Tags {
    fn eq(&self, other: &Self) -> bool {
        self.pairs() == other.pairs()
    }
}

impl Eq for Tags {}

impl PartialOrd for Tags {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Tags {
    fn cmp(&self, other: &Self) -> Ordering {
        self.pairs().cmp(other.pairs())
    }
}

impl Hash for Tags {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.pairs().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_tags_are_those_that_were_listed() {
        let listed = Tags::new().with("user", "ada").with("no", 7);
        let stored = Tags::stored(Bytes::from_static(br#"[["user","ada"],["no","7"]]"#));
        assert_eq!(stored, listed);
        assert_eq!(stored.clone().with("a", "b"), listed.with("a", "b"));
        assert!(stored.contains("no", "7") && stored.first() == Some(("user", "ada")));
        assert!(Tags::stored(Bytes::from_static(b"[]")).is_empty());
    }
}
