//! A view: which events, and what they add up to, as one value.

use std::fmt;

use bytes::Bytes;
use purista_core::address::name_is_valid;
use purista_core::contract::ContractError;
use purista_core::event::{Event, Tags};
use purista_core::text::Text;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::occurrence::Occurrence;
use crate::position::Position;
use crate::query::QueryItem;
use crate::upcast::{EventForm, UnreadableEvent, Upcasters};

/// Begins a view with the state before any event.
///
/// ```
/// # use garde::Validate; use schemars::JsonSchema; use serde::{Deserialize, Serialize};
/// # use purista_core::event::{Event, Tags};
/// use purista_events::view::{View, view};
/// # #[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)] #[garde(allow_unvalidated)]
/// # struct CourseDefined { capacity: u32 }
/// # #[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)] #[garde(allow_unvalidated)]
/// # struct Subscribed { student: String }
/// # impl Event for CourseDefined { const NAME: &'static str = "courseDefined"; }
/// # impl Event for Subscribed { const NAME: &'static str = "subscribed"; }
///
/// #[derive(Default)]
/// struct Seats { capacity: u32, taken: u32 }
///
/// fn seats(course: &str) -> View<Seats> {
///     view(Seats::default())
///         .tagged("course", course)
///         .on(|seats, event: CourseDefined| seats.capacity = event.capacity)
///         .on(|seats, _: Subscribed| seats.taken += 1)
/// }
/// ```
pub fn view<S>(start: S) -> View<S> {
    let (tags, folds) = (Vec::new(), Vec::new());
    View { state: start, tags, folds, up_to: Position::START, applied: 0, snapshots: None }
}

/// Which events of one tenant, and what they add up to: a start, and one closure a type of event.
///
/// It selects the events of those types that bear all its tags. Without tags it selects them all; without closures, every
/// event of its tags, which then count for a condition and change nothing.
///
/// A view is a value: the same one decides, is read now and as it was, and is tested.
pub struct View<S> {
    state: S,
    tags: Vec<(Text, Text)>,
    folds: Vec<Fold<S>>,
    /// What lies up to here is in the state.
    up_to: Position,
    /// How many events were applied behind that place.
    applied: u64,
    snapshots: Option<Box<Snapshots<S>>>,
}

/// What one type of event does to the state.
struct Fold<S> {
    name: &'static str,
    version: u32,
    apply: Box<Apply<S>>,
}

type Apply<S> = dyn Fn(&mut S, &[u8]) -> Result<(), ContractError> + Send + Sync;

/// How the state becomes a snapshot and comes back. Functions, so that a state without snapshots needs no serde.
struct Snapshots<S> {
    name: &'static str,
    version: u32,
    policy: Every,
    encode: fn(&S) -> Result<Vec<u8>, serde_json::Error>,
    decode: fn(&[u8]) -> Result<S, serde_json::Error>,
}

/// When a new snapshot of a view is kept, see [`every`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Every(u64);

/// A new snapshot whenever at least this many events were read behind the one before it.
pub const fn every(events: u64) -> Every {
    Every(if events == 0 { 1 } else { events })
}

impl<S> View<S> {
    /// Only events with this tag; of several tags, those that bear all of them.
    #[must_use]
    pub fn tagged(mut self, name: impl Into<Text>, value: impl fmt::Display) -> Self {
        self.tags.push((name.into(), value.to_string().into()));
        self
    }

    /// What an event of type `E` does to the state. A second closure for events of one name takes the place of the first.
    #[must_use]
    pub fn on<E: Event>(mut self, apply: impl Fn(&mut S, E) + Send + Sync + 'static) -> Self {
        const {
            assert!(
                name_is_valid(E::NAME),
                "an event's name is a letter, then letters, digits, `-` and `_`, at most 128"
            );
        };
        self.folds.retain(|fold| fold.name != E::NAME);
        self.folds.push(Fold {
            name: E::NAME,
            version: E::VERSION,
            apply: Box::new(move |state, json| {
                apply(state, E::decode(json)?);
                Ok(())
            }),
        });
        self
    }

    /// Keeps snapshots of the state under this name, so that a read begins behind the last one. They change nothing but the
    /// number of events that are read: any of them may be forgotten at any time.
    ///
    /// Raise `version` when the state has another form, or the closures do something else: snapshots of another version are
    /// not looked at. What the view selects belongs to the name too: two views of one name that select different events
    /// each have snapshots of their own.
    #[must_use]
    pub fn snapshot(mut self, name: &'static str, version: u32, policy: Every) -> Self
    where
        S: Serialize + DeserializeOwned,
    {
        let (encode, decode) =
            (|state: &S| serde_json::to_vec(state), |json: &[u8]| serde_json::from_slice(json));
        self.snapshots = Some(Box::new(Snapshots { name, version, policy, encode, decode }));
        self
    }
}

impl<S: fmt::Debug> fmt::Debug for View<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events: Vec<_> = self.folds.iter().map(|fold| fold.name).collect();
        let mut view = f.debug_struct("View");
        view.field("state", &self.state).field("tags", &self.tags).field("events", &events).finish()
    }
}

/// A view without the type of its state: what a reader needs of it.
pub trait AnyView: Send {
    /// What it selects.
    fn item(&self, upcasters: &Upcasters) -> QueryItem;
    /// Applies an event that bears these tags, if it selects it and has not seen it.
    fn apply(
        &mut self,
        event: &Occurrence<'_>,
        tags: &Tags,
        upcasters: &Upcasters,
    ) -> Result<(), UnreadableEvent>;
    /// Applies an event that it is known to select, if it has not seen it.
    fn apply_selected(
        &mut self,
        event: &Occurrence<'_>,
        upcasters: &Upcasters,
    ) -> Result<(), UnreadableEvent>;
    /// The forms of events that it reads.
    fn forms(&self) -> Vec<EventForm>;
    /// The name and version of its snapshots.
    fn snapshots(&self) -> Option<(&'static str, u32)>;
    /// Goes on from a snapshot that holds what lies up to this position.
    fn restore(&mut self, snapshot: &[u8], up_to: Position) -> Result<(), serde_json::Error>;
    /// Up to where its snapshot goes; the start without one.
    fn restored_up_to(&self) -> Position;
    /// The state as it is kept in a snapshot, when a new one is due.
    fn capture(&self) -> Option<Result<Bytes, serde_json::Error>>;
}

impl<S: Send + 'static> AnyView for View<S> {
    fn item(&self, upcasters: &Upcasters) -> QueryItem {
        let types = upcasters.stored_names(self.folds.iter().map(|fold| Text::known(fold.name)));
        QueryItem { types, tags: self.tags.clone() }
    }

    fn apply(
        &mut self,
        event: &Occurrence<'_>,
        tags: &Tags,
        upcasters: &Upcasters,
    ) -> Result<(), UnreadableEvent> {
        let is_tagged = self.tags.iter().all(|(name, value)| tags.contains(name, value));
        if is_tagged { self.apply_selected(event, upcasters) } else { Ok(()) }
    }

    fn apply_selected(
        &mut self,
        event: &Occurrence<'_>,
        upcasters: &Upcasters,
    ) -> Result<(), UnreadableEvent> {
        if event.position <= self.up_to {
            return Ok(());
        }
        let Self { state, folds, applied, .. } = self;
        let fold = |name: &str| folds.iter().find(|fold| fold.name == name);
        upcasters.read_occurrence(
            event,
            |name| fold(name).map(|fold| fold.version),
            |name, version, body| {
                *applied += 1;
                let result = fold(name).map_or(Ok(()), |fold| (fold.apply)(state, body));
                result.map_err(|error| {
                    UnreadableEvent::of_occurrence(event, EventForm::new(name, version), error)
                })
            },
        )
    }

    fn forms(&self) -> Vec<EventForm> {
        self.folds
            .iter()
            .map(|fold| EventForm { name: Text::known(fold.name), version: fold.version })
            .collect()
    }

    fn snapshots(&self) -> Option<(&'static str, u32)> {
        self.snapshots.as_ref().map(|snapshots| (snapshots.name, snapshots.version))
    }

    fn restore(&mut self, snapshot: &[u8], up_to: Position) -> Result<(), serde_json::Error> {
        if let Some(snapshots) = &self.snapshots {
            self.state = (snapshots.decode)(snapshot)?;
            self.up_to = up_to;
        }
        Ok(())
    }

    fn restored_up_to(&self) -> Position {
        self.up_to
    }

    fn capture(&self) -> Option<Result<Bytes, serde_json::Error>> {
        let snapshots = self.snapshots.as_ref().filter(|snapshots| self.applied >= snapshots.policy.0)?;
        Some((snapshots.encode)(&self.state).map(Bytes::from))
    }
}

/// What a decision depends on: a view, or a tuple of up to six. Whoever decides on it appends on the condition that nothing
/// that it selects was recorded meanwhile.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a boundary",
    label = "not a view, nor a tuple of views",
    note = "the first function of a decision returns `View<..>`, or a tuple of up to six"
)]
pub trait Boundary: Send + 'static {
    /// What its events add up to: the state of a view, or a tuple of states.
    type State: Send + 'static;
    /// Its views.
    fn views(&mut self) -> Vec<&mut dyn AnyView>;
    /// The state.
    fn into_state(self) -> Self::State;
}

impl<S: Send + 'static> Boundary for View<S> {
    type State = S;

    fn views(&mut self) -> Vec<&mut dyn AnyView> {
        vec![self]
    }

    fn into_state(self) -> S {
        self.state
    }
}

macro_rules! tuples {
    ($(($($part:ident)+))+) => { $(
        #[expect(non_snake_case, reason = "a part is named as its type is")]
        impl<$($part: Boundary),+> Boundary for ($($part,)+) {
            type State = ($($part::State,)+);

            fn views(&mut self) -> Vec<&mut dyn AnyView> {
                let ($($part,)+) = self;
                let mut views = Vec::new();
                $(views.extend($part.views());)+
                views
            }

            fn into_state(self) -> Self::State {
                let ($($part,)+) = self;
                ($($part.into_state(),)+)
            }
        }
    )+ };
}

tuples! { (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) }

#[cfg(test)]
mod tests;
