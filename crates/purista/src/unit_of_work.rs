//! What a handler wants to change, collected while it runs and committed together when it returns `Ok`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use purista_core::address::Address;
use purista_core::message::Message;
use purista_core::recording::RecordError;
use purista_core::store::{Expect, StateChange};
use purista_events::batch::Condition;
use purista_events::recorded::NewEvent;

/// The collected changes of one handler.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Events for the log.
    pub(crate) recorded: Vec<NewEvent>,
    /// Events that are published after the commit.
    pub(crate) published: Vec<Message>,
    /// Writes of state, by key: the last one counts.
    pub(crate) state: BTreeMap<String, StateChange>,
    /// The versions that reads have seen; 0 is absent.
    pub(crate) seen: BTreeMap<String, u64>,
    /// What was seen under the keys that stores had before keys were those of a service, by the key that stands for each now.
    pub(crate) seen_old: BTreeMap<String, u64>,
    /// Keys of which the handler itself says that nothing must be there.
    pub(crate) expects_absent: BTreeSet<String>,
    /// The commands that were called, and how often with the same input: a caller that runs again gets the first answers.
    pub(crate) invoked: Vec<(Address, u128)>,
    /// How many of them have kept something, or may have: each was a unit of its own, and stays when this one fails.
    pub(crate) invokes_kept: usize,
    /// What the log must still say at the commit. Boxed, since few handlers ask for it.
    pub(crate) guarded: Option<Box<Guarded>>,
}

/// What the log must still say when a unit is committed.
#[derive(Debug, Default)]
pub(crate) struct Guarded {
    pub(crate) conditions: Vec<Condition>,
    /// Whether a decision recorded the events.
    pub(crate) has_decided: bool,
}

impl Changes {
    /// Adds a condition on the log.
    pub(crate) fn guard(&mut self, condition: Condition) {
        self.guarded.get_or_insert_default().conditions.push(condition);
    }

    /// Adds a write of state; one that follows a read happens only if nobody wrote in between.
    pub(crate) fn write(&mut self, mut change: StateChange) {
        if change.expect == Expect::Absent {
            self.expects_absent.insert(change.key.clone());
        } else {
            self.expects_absent.remove(&change.key);
        }
        if change.expect == Expect::Any {
            change.expect = match self.seen.get(&change.key) {
                None => Expect::Any,
                Some(0) => Expect::Absent,
                Some(version) => Expect::Version(*version),
            };
        }
        self.state.insert(change.key.clone(), change);
    }

    /// Whether there is anything to commit; calls of other commands were units of their own.
    pub(crate) fn commits(&self) -> bool {
        !(self.recorded.is_empty() && self.published.is_empty() && self.state.is_empty())
    }

    /// Which call of this command with this input it is, from 0.
    pub(crate) fn call(&mut self, address: Address, input: u128) -> usize {
        let earlier = self.invoked.iter().filter(|call| call.0 == address && call.1 == input).count();
        self.invoked.push((address, input));
        earlier
    }
}

/// The unit of one handler. Nothing is allocated until it changes something.
#[derive(Debug, Default)]
pub(crate) struct UnitOfWork(Mutex<Unit>);

#[derive(Debug, Default)]
enum Unit {
    #[default]
    Untouched,
    Open(Box<Changes>),
    Sealed,
}

impl UnitOfWork {
    /// A unit that was begun before.
    pub(crate) fn begun(changes: Option<Box<Changes>>) -> Self {
        Self(Mutex::new(changes.map_or(Unit::Untouched, Unit::Open)))
    }

    /// Changes the unit, unless the handler has returned.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Changes) -> T) -> Result<T, UnitClosed> {
        let mut unit = self.lock();
        if let Unit::Untouched = *unit {
            *unit = Unit::Open(Box::default());
        }
        match &mut *unit {
            Unit::Open(changes) => Ok(change(changes)),
            _ => Err(UnitClosed),
        }
    }

    /// Looks at the unit; `None` when nothing was changed yet, or it is sealed.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Changes) -> T) -> Option<T> {
        match &*self.lock() {
            Unit::Open(changes) => Some(look(changes)),
            _ => None,
        }
    }

    /// Ends the unit. From now on clones of the context change nothing.
    pub(crate) fn seal(&self) -> Option<Box<Changes>> {
        match std::mem::replace(&mut *self.lock(), Unit::Sealed) {
            Unit::Open(changes) => Some(changes),
            _ => None,
        }
    }

    /// Whether nothing was changed.
    pub(crate) fn is_untouched(&mut self) -> bool {
        matches!(self.0.get_mut().unwrap_or_else(PoisonError::into_inner), Unit::Untouched)
    }

    fn lock(&self) -> MutexGuard<'_, Unit> {
        // A handler that panicked loses its unit anyway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The handler has returned, so nothing can be added to what it commits. A task that outlives its handler must invoke a
/// command of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the unit of work is closed: the handler has returned")]
pub struct UnitClosed;

/// An event was not taken into the unit of work; nothing happened.
#[derive(Debug)]
pub struct EmitError(pub(crate) EmitErrorKind);

#[derive(Debug)]
pub(crate) enum EmitErrorKind {
    Undeclared { handler: String, event: &'static str, line: String },
    Refused(RecordError),
    Closed(UnitClosed),
}

impl From<RecordError> for EmitError {
    fn from(error: RecordError) -> Self {
        Self(EmitErrorKind::Refused(error))
    }
}

impl fmt::Display for EmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            EmitErrorKind::Undeclared { handler, event, line } => {
                write!(
                    f,
                    "{handler} does not declare that it emits {event}: add `{line}` where it is registered"
                )
            }
            EmitErrorKind::Refused(error) => fmt::Display::fmt(error, f),
            EmitErrorKind::Closed(closed) => fmt::Display::fmt(closed, f),
        }
    }
}

impl std::error::Error for EmitError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            EmitErrorKind::Refused(error) => error.source(),
            _ => None,
        }
    }
}
