//! Which parts run in this process: all of them, or some, with the others in processes of their own.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::bail;
use clap::ValueEnum;

/// One part of the program. It does not know whether the others run beside it or elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Part {
    /// The page and the API
    Http,
    /// Accounts: answers sign-ups
    User,
    /// Mails: hears of sign-ups and writes to people
    Email,
}

impl Part {
    /// What nobody does where this part runs nowhere.
    fn is_missed(self) -> &'static str {
        match self {
            Self::Http => "nobody could sign up",
            Self::User => "nobody would answer a sign-up",
            Self::Email => "nobody would write the mails",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::User => "user",
            Self::Email => "email",
        }
    }
}

/// The parts of this process, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts(BTreeSet<Part>);

impl Parts {
    /// Those that are named, all of them when none is.
    pub(crate) fn of(named: &[Part]) -> Self {
        let named = if named.is_empty() { Part::value_variants() } else { named };
        Self(named.iter().copied().collect())
    }

    pub(crate) fn run(&self, part: Part) -> bool {
        self.0.contains(&part)
    }

    pub(crate) fn are_all(&self) -> bool {
        self.0.len() == Part::value_variants().len()
    }

    /// Refuses what would hear nobody and be heard by nobody.
    pub(crate) fn check_without_bridge(&self) -> anyhow::Result<()> {
        let Some(missed) = Part::value_variants().iter().find(|part| !self.run(**part)) else {
            return Ok(());
        };
        bail!(
            "--run {} needs --bridge, which leads to the other parts: without it {}. Say where a broker is, as \
             --bridge nats://127.0.0.1:4222, or leave out --run",
            self.joined(","),
            missed.is_missed()
        )
    }

    /// Their names, with something between.
    pub(crate) fn joined(&self, between: &str) -> String {
        self.0.iter().map(|part| part.name()).collect::<Vec<_>>().join(between)
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.joined(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(named: &[Part], joined: &str, refused: Option<&str>) {
        let parts = Parts::of(named);
        assert_eq!(parts.joined(","), joined);
        let error = parts.check_without_bridge().err().map(|error| error.to_string());
        match refused {
            None => assert_eq!(error, None),
            Some(why) => assert!(error.as_ref().is_some_and(|error| error.contains(why)), "{error:?}"),
        }
    }

    #[test]
    fn some_parts_need_a_bridge_to_the_others() {
        check(&[], "http,user,email", None);
        check(&[Part::Email, Part::User, Part::Http, Part::User], "http,user,email", None);
        check(&[Part::Email], "email", Some("--run email needs --bridge"));
        check(&[Part::User, Part::Email], "user,email", Some("nobody could sign up"));
        check(&[Part::Email, Part::Http], "http,email", Some("nobody would answer a sign-up"));
        check(&[Part::Http, Part::User], "http,user", Some("nobody would write the mails"));
    }
}
