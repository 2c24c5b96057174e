//! How events of an older form are read: each step turns one stored form into newer ones, and steps compose.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use purista_core::contract::ContractError;
use purista_core::event::Event;
use purista_core::text::Text;
use serde_json::Value;

use crate::occurrence::Occurrence;
use crate::position::Position;
use crate::recorded::Recorded;

/// The form of an event: its name and the version of its fields.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventForm {
    /// The event's name.
    pub name: Text,
    /// The version.
    pub version: u32,
}

impl EventForm {
    /// The form of a contract type.
    pub const fn of<E: Event>() -> Self {
        Self { name: Text::known(E::NAME), version: E::VERSION }
    }

    /// A form by its name and version.
    pub fn new(name: impl Into<Text>, version: u32) -> Self {
        Self { name: name.into(), version }
    }
}

impl fmt::Display for EventForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} v{}", self.name, self.version)
    }
}

type Cast = dyn Fn(&[u8]) -> Result<Vec<(EventForm, Bytes)>, ContractError> + Send + Sync;

#[derive(Clone)]
struct Step {
    into: Vec<EventForm>,
    cast: Arc<Cast>,
}

/// The steps by which events of older forms become those that the program reads today. What is stored never changes.
///
/// ```
/// # use garde::Validate; use schemars::JsonSchema; use serde::{Deserialize, Serialize};
/// # use purista_core::event::Event;
/// use purista_events::upcast::Upcasters;
/// use serde_json::json;
///
/// # #[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)] #[garde(allow_unvalidated)]
/// struct UserRenamedV1 { name: String }
/// # #[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)] #[garde(allow_unvalidated)]
/// struct UserRenamed { first: String, last: String }
///
/// impl Event for UserRenamedV1 {
///     const NAME: &'static str = "userRenamed";
/// }
/// impl Event for UserRenamed {
///     const NAME: &'static str = "userRenamed";
///     const VERSION: u32 = 2;
/// }
///
/// let upcasters = Upcasters::new()
///     .upcast(|old: UserRenamedV1| {
///         let (first, last) = old.name.split_once(' ').unwrap_or((&old.name, ""));
///         UserRenamed { first: first.to_owned(), last: last.to_owned() }
///     })
///     // One event of an older program is two of today's.
///     .upcast_json("profileUpdated", 1, &[("nameChanged", 1), ("emailChanged", 1)], |json| {
///         vec![
///             ("nameChanged", 1, json!({ "name": json["name"] })),
///             ("emailChanged", 1, json!({ "email": json["email"] })),
///         ]
///     });
/// assert!(upcasters.problems().is_empty());
/// ```
#[derive(Clone, Default)]
pub struct Upcasters {
    steps: BTreeMap<EventForm, Step>,
    twice: Vec<EventForm>,
}

impl Upcasters {
    /// No steps: every event is read as it is stored.
    pub const fn new() -> Self {
        Self { steps: BTreeMap::new(), twice: Vec::new() }
    }

    /// Reads events of the form `Old` as `New`. `Old` is the struct of then, with the same name and its own version.
    #[must_use]
    pub fn upcast<Old: Event, New: Event>(self, cast: impl Fn(Old) -> New + Send + Sync + 'static) -> Self {
        let step = move |body: &[u8]| Ok(vec![(EventForm::of::<New>(), cast(Old::decode(body)?).encode()?)]);
        self.step(EventForm::of::<Old>(), vec![EventForm::of::<New>()], Arc::new(step))
    }

    /// Reads events of this form as any number of others, from JSON to JSON. `into` lists the forms that may come out, so
    /// that readers of them find what is stored under the old name; none at all forgets the event.
    #[must_use]
    pub fn upcast_json(
        self,
        name: &'static str,
        version: u32,
        into: &[(&'static str, u32)],
        cast: impl Fn(Value) -> Vec<(&'static str, u32, Value)> + Send + Sync + 'static,
    ) -> Self {
        let step = move |body: &[u8]| {
            let events = cast(serde_json::from_slice(body)?).into_iter();
            let encoded = events.map(|(name, version, json)| {
                let form = EventForm { name: Text::known(name), version };
                Ok((form, serde_json::to_vec(&json)?.into()))
            });
            encoded.collect()
        };
        let into = into.iter().map(|&(name, version)| EventForm { name: Text::known(name), version });
        self.step(EventForm { name: Text::known(name), version }, into.collect(), Arc::new(step))
    }

    fn step(mut self, from: EventForm, into: Vec<EventForm>, cast: Arc<Cast>) -> Self {
        if self.steps.insert(from.clone(), Step { into, cast }).is_some() {
            self.twice.push(from);
        }
        self
    }

    /// Everything that is wrong with the steps, each with its remedy; a host does not start with any.
    pub fn problems(&self) -> Vec<String> {
        let twice = self.twice.iter().map(|form| {
            format!("there are two upcasters of {form}: leave out one, or give the newer form a version of its own")
        });
        let cycles = self.steps.keys().filter(|form| self.leads_back(form)).map(|form| {
            format!("the upcasters lead from {form} back to {form}: each step must lead to a newer form")
        });
        let backwards = self.steps.iter().flat_map(|(from, step)| {
            let older = step.into.iter().filter(|into| into.name == from.name && into.version < from.version);
            older.map(move |into| format!("the upcaster of {from} leads back to {into}: turn it around"))
        });
        twice.chain(cycles).chain(backwards).collect()
    }

    fn leads_back(&self, form: &EventForm) -> bool {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&EventForm> = self.steps.get(form).iter().flat_map(|step| &step.into).collect();
        while let Some(reached) = next.pop() {
            if reached == form {
                return true;
            }
            if seen.insert(reached) {
                next.extend(self.steps.get(reached).iter().flat_map(|step| &step.into));
            }
        }
        false
    }

    /// The names under which events that a reader of `names` wants may be stored: those, and the older ones that become
    /// them. An empty list stays empty: it means all.
    pub fn stored_names(&self, names: impl IntoIterator<Item = Text>) -> Vec<Text> {
        let mut names: Vec<Text> = names.into_iter().collect();
        let mut looked_at = 0;
        while let Some(name) = names.get(looked_at).cloned() {
            looked_at += 1;
            for (from, step) in &self.steps {
                if step.into.iter().any(|form| form.name == name) && !names.contains(&from.name) {
                    names.push(from.name.clone());
                }
            }
        }
        names
    }

    /// Reads a stored event as its reader wants it: the one way for views, subscriptions and projections.
    ///
    /// `wanted` says in which version the reader reads events of a name, `None` that it reads none. `each` gets what the
    /// event has become, in order: itself when it is wanted as it is stored, which costs no more than that question; none,
    /// when nobody wants what it has become.
    pub fn read<E: From<UnreadableEvent>>(
        &self,
        event: &Recorded,
        wanted: impl Fn(&str) -> Option<u32>,
        mut each: impl FnMut(&Text, u32, &Bytes) -> Result<(), E>,
    ) -> Result<(), E> {
        if wanted(&event.name) == Some(event.version) {
            return each(&event.name, event.version, &event.body);
        }
        let stored = EventForm { name: event.name.clone(), version: event.version };
        self.lead_on(event.position, &stored, event.body.clone(), wanted, each)
    }

    /// The same for an event of which only the content was read.
    pub fn read_occurrence<E: From<UnreadableEvent>>(
        &self,
        event: &Occurrence<'_>,
        wanted: impl Fn(&str) -> Option<u32>,
        mut each: impl FnMut(&str, u32, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if wanted(event.name) == Some(event.version) {
            return each(event.name, event.version, event.body);
        }
        let stored = EventForm::new(event.name, event.version);
        let body = Bytes::copy_from_slice(event.body);
        self.lead_on(event.position, &stored, body, wanted, |name, version, body| each(name, version, body))
    }

    /// The same for an event that a broker delivered: it has a form, and no place in a log of ours.
    ///
    /// # Errors
    ///
    /// Returns [`UnreadableEvent`] if no step leads to the wanted version; [`UnreadableEvent::is_newer`] tells an event of a
    /// newer program from one that can never be read.
    pub fn read_delivered<E: From<UnreadableEvent>>(
        &self,
        delivered: &EventForm,
        body: Bytes,
        wanted: impl Fn(&str) -> Option<u32>,
        each: impl FnMut(&Text, u32, &Bytes) -> Result<(), E>,
    ) -> Result<(), E> {
        self.lead_on(None, delivered, body, wanted, each)
    }

    /// Step by step from the form in which the event is stored, at a position if it is of a log of ours.
    fn lead_on<E: From<UnreadableEvent>>(
        &self,
        position: impl Into<Option<Position>>,
        stored: &EventForm,
        body: Bytes,
        wanted: impl Fn(&str) -> Option<u32>,
        mut each: impl FnMut(&Text, u32, &Bytes) -> Result<(), E>,
    ) -> Result<(), E> {
        let position = position.into();
        let unreadable = |why| UnreadableEvent { stored: stored.clone(), position, why };
        let mut waiting = VecDeque::from([(stored.clone(), body)]);
        while let Some((form, body)) = waiting.pop_front() {
            let version = wanted(&form.name);
            if version == Some(form.version) {
                each(&form.name, form.version, &body)?;
            } else if let Some(step) = self.steps.get(&form) {
                let cast = (step.cast)(&body);
                let cast = cast.map_err(|error| unreadable(Why::NotOfItsForm(form.clone(), error)))?;
                if let Some((other, _)) = cast.iter().find(|(into, _)| !step.into.contains(into)) {
                    let why = Why::Undeclared { step: form, became: other.clone() };
                    return Err(unreadable(why).into());
                }
                // What it became goes before what stood behind it, so that the order stays.
                cast.into_iter().rev().for_each(|next| waiting.push_front(next));
            } else if let Some(wanted) = version {
                return Err(unreadable(Why::NoStep { from: form, wanted }).into());
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Upcasters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.steps.iter().map(|(from, step)| (from, &step.into))).finish()
    }
}

/// A stored event that its reader cannot read. It names the event's type, version and position, and the remedy.
#[derive(Debug)]
pub struct UnreadableEvent {
    stored: EventForm,
    position: Option<Position>,
    why: Why,
}

#[derive(Debug)]
enum Why {
    NotOfItsForm(EventForm, ContractError),
    NoStep { from: EventForm, wanted: u32 },
    Undeclared { step: EventForm, became: EventForm },
}

impl UnreadableEvent {
    /// Its content is not what its form says.
    pub fn not_of_its_form(event: &Recorded, form: EventForm, error: ContractError) -> Self {
        let stored = EventForm { name: event.name.clone(), version: event.version };
        Self { stored, position: Some(event.position), why: Why::NotOfItsForm(form, error) }
    }

    /// The same for an event of which only the content was read.
    pub(crate) fn of_occurrence(event: &Occurrence<'_>, form: EventForm, error: ContractError) -> Self {
        let stored = EventForm::new(event.name, event.version);
        Self { stored, position: Some(event.position), why: Why::NotOfItsForm(form, error) }
    }

    /// The form in which it is stored.
    pub fn form(&self) -> &EventForm {
        &self.stored
    }

    /// Where it lies; `None` for an event that a broker delivered.
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// Whether it is of a newer form than this program reads: the next version of the program, or another process that runs
    /// it already, can read it.
    pub fn is_newer(&self) -> bool {
        matches!(&self.why, Why::NoStep { from, wanted } if from.version > *wanted)
    }
}

impl fmt::Display for UnreadableEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stored, position, why } = self;
        match position {
            Some(position) => write!(f, "the event {stored} at position {position} cannot be read: ")?,
            None => write!(f, "the event {stored} cannot be read: ")?,
        }
        match why {
            Why::NotOfItsForm(form, _) if form == stored => write!(f, "its content is not of this form"),
            Why::NotOfItsForm(form, _) => write!(f, "what it became is not of the form {form}"),
            Why::NoStep { from: EventForm { name, version }, wanted } if version > wanted => {
                write!(
                    f,
                    "this program reads {name} v{wanted}, and v{version} is newer: run the newer program"
                )
            }
            Why::NoStep { from: EventForm { name, version }, wanted } => write!(
                f,
                "this program reads {name} v{wanted}, and nothing leads there from v{version}: add \
                 `.upcast(|old: Old| New {{ .. }})` to the host's upcasters, where `Old` is the event {name} of then with \
                 `const VERSION: u32 = {version}`"
            ),
            Why::Undeclared { step, became } => write!(
                f,
                "its upcaster turned {step} into {became}, which it does not list: add (\"{}\", {}) to its list",
                became.name, became.version
            ),
        }
    }
}

impl Error for UnreadableEvent {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.why {
            Why::NotOfItsForm(_, error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
