//! What a decision may answer with: events, and the reply to its command.
//!
//! It lives beside [`Event`], because only here the compiler can see that an event is neither a tuple nor a `Vec` of them.

use crate::catalogue::EventEntry;
use crate::contract::Contract;
use crate::event::Event;
use crate::recording::{RecordError, Recording};

/// Events that are recorded together: one event, a tuple of up to six, an `Option`, a `Vec` or an array of them, and `()`,
/// which is none.
///
/// Where the events depend on what is decided, an enum implements it with one `match`:
///
/// ```
/// # use garde::Validate; use schemars::JsonSchema; use serde::{Deserialize, Serialize};
/// # use purista_core::event::Event;
/// use purista_core::catalogue::EventEntry;
/// use purista_core::decision::Events;
/// use purista_core::recording::{RecordError, Recording};
/// # #[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)] #[garde(allow_unvalidated)] struct Accepted {}
/// # #[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)] #[garde(allow_unvalidated)] struct Declined {}
/// # impl Event for Accepted { const NAME: &'static str = "accepted"; }
/// # impl Event for Declined { const NAME: &'static str = "declined"; }
///
/// enum Answer { Yes(Accepted), No(Declined) }
///
/// impl Events for Answer {
///     fn record(self, into: &mut Recording) -> Result<(), RecordError> {
///         match self {
///             Self::Yes(accepted) => accepted.record(into),
///             Self::No(declined) => declined.record(into),
///         }
///     }
///     fn entries() -> Vec<EventEntry> {
///         [Accepted::entries(), Declined::entries()].concat()
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event, nor a set of events",
    label = "not events",
    note = "a tuple, `Option`, `Vec` or array of events is; for an enum implement `Events` with one `match`"
)]
pub trait Events: Send + 'static {
    /// Checks the events and adds them, in order.
    fn record(self, into: &mut Recording) -> Result<(), RecordError>;

    /// The types of events that may be among them, for the catalogue. A type that lists none records all the same; what it
    /// records is then missing in documents that are made of the catalogue.
    fn entries() -> Vec<EventEntry>
    where
        Self: Sized,
    {
        Vec::new()
    }

    /// Answers the command with something else than the event itself: `Ok((a, b).replying(output))`.
    fn replying<O: Contract>(self, output: O) -> Replying<Self, O>
    where
        Self: Sized,
    {
        Replying { events: self, output }
    }
}

#[diagnostic::do_not_recommend]
impl<E: Event> Events for E {
    fn record(self, into: &mut Recording) -> Result<(), RecordError> {
        into.push(&self)
    }

    fn entries() -> Vec<EventEntry> {
        vec![EventEntry::of::<E>()]
    }
}

macro_rules! sequences {
    ($($sequence:ty, [$($parameters:tt)*];)+) => { $(
        impl<E: Events, $($parameters)*> Events for $sequence {
            fn record(self, into: &mut Recording) -> Result<(), RecordError> {
                self.into_iter().try_for_each(|events| events.record(into))
            }

            fn entries() -> Vec<EventEntry> {
                E::entries()
            }
        }
    )+ };
}

sequences! {
    Option<E>, [];
    Vec<E>, [];
    [E; N], [const N: usize];
}

macro_rules! tuples {
    ($(($($part:ident)*))+) => { $(
        impl<$($part: Events),*> Events for ($($part,)*) {
            #[expect(clippy::allow_attributes, reason = "the empty tuple uses neither")]
            #[allow(non_snake_case, unused_variables, reason = "a part is named as its type is")]
            fn record(self, into: &mut Recording) -> Result<(), RecordError> {
                let ($($part,)*) = self;
                $($part.record(into)?;)*
                Ok(())
            }

            fn entries() -> Vec<EventEntry> {
                let parts: Vec<Vec<EventEntry>> = vec![$($part::entries()),*];
                parts.concat()
            }
        }
    )+ };
}

tuples! { () (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) }

/// What the function of a decision answers with: events, and the reply `O` to its command.
///
/// One event that is the command's `Output` answers for itself; any events answer `()`; everything else says
/// `Ok(events.replying(output))`.
#[diagnostic::on_unimplemented(
    message = "the decision returns `{Self}`, but its command answers with `{O}`",
    label = "no reply of type `{O}` comes from this",
    note = "one event answers for itself when it is the command's `type Output`; any events answer `()`",
    note = "otherwise return `Ok(events.replying({O} {{ .. }}))`"
)]
pub trait Decision<O>: Send + 'static {
    /// Records the events, and gives the reply.
    fn settle(self, into: &mut Recording) -> Result<O, RecordError>;

    /// The types of events that may be recorded.
    fn entries() -> Vec<EventEntry>;
}

impl<E: Event> Decision<E> for E {
    fn settle(self, into: &mut Recording) -> Result<E, RecordError> {
        into.push(&self)?;
        Ok(self)
    }

    fn entries() -> Vec<EventEntry> {
        vec![EventEntry::of::<E>()]
    }
}

#[diagnostic::do_not_recommend]
impl<E: Events> Decision<()> for E {
    fn settle(self, into: &mut Recording) -> Result<(), RecordError> {
        self.record(into)
    }

    fn entries() -> Vec<EventEntry> {
        <E as Events>::entries()
    }
}

/// Events with a reply of their own, see [`Events::replying`].
#[derive(Debug, Clone)]
pub struct Replying<E, O> {
    events: E,
    output: O,
}

#[diagnostic::do_not_recommend]
impl<E: Events, O: Contract> Decision<O> for Replying<E, O> {
    fn settle(self, into: &mut Recording) -> Result<O, RecordError> {
        self.events.record(into)?;
        Ok(self.output)
    }

    fn entries() -> Vec<EventEntry> {
        E::entries()
    }
}

#[cfg(test)]
mod tests {
    use garde::Validate;
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::event::{TAGS_MAX, Tags};
    use crate::payload::EVENT_BYTES_MAX;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
    struct Renamed {
        #[garde(length(min = 1))]
        name: String,
        #[garde(skip)]
        tags: usize,
    }

    impl Event for Renamed {
        const NAME: &'static str = "renamed";
        const VERSION: u32 = 3;
        fn tags(&self) -> Tags {
            (0..self.tags).fold(Tags::new(), |tags, n| tags.with("n", n))
        }
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
    #[garde(allow_unvalidated)]
    struct Noted {
        n: u32,
    }

    impl Event for Noted {
        const NAME: &'static str = "noted";
        const RECORDED: bool = false;
    }

    fn renamed(name: &str) -> Renamed {
        Renamed { name: name.to_owned(), tags: 1 }
    }

    fn recorded<O>(decision: impl Decision<O>) -> (O, Vec<&'static str>) {
        let mut into = Recording::default();
        let output = decision.settle(&mut into).unwrap();
        (output, into.events().iter().map(|event| event.name).collect())
    }

    #[test]
    fn one_event_answers_for_itself_any_answer_nothing_and_the_rest_says_what() {
        let (output, names): (Renamed, _) = recorded(renamed("a"));
        assert_eq!((output, names), (renamed("a"), vec!["renamed"]));
        let ((), names) = recorded((renamed("a"), None::<Noted>, [Noted { n: 1 }, Noted { n: 2 }]));
        assert_eq!(names, ["renamed", "noted", "noted"]);
        let ((), names) = recorded(());
        assert!(names.is_empty());
        let (output, names): (Noted, _) = recorded(vec![renamed("a")].replying(Noted { n: 7 }));
        assert_eq!((output, names), (Noted { n: 7 }, vec!["renamed"]));
    }

    #[test]
    fn every_shape_lists_its_types() {
        fn names<O, D: Decision<O>>(_: &D) -> Vec<&'static str> {
            D::entries().iter().map(|entry| entry.name).collect()
        }
        assert_eq!(names::<Renamed, _>(&renamed("a")), ["renamed"]);
        assert_eq!(names::<(), _>(&(renamed("a"), None::<Noted>)), ["renamed", "noted"]);
        assert_eq!(names::<Noted, _>(&Vec::<Renamed>::new().replying(Noted { n: 1 })), ["renamed"]);
        assert!(names::<(), _>(&()).is_empty());
    }

    #[test]
    fn an_event_is_kept_as_it_will_be_stored() {
        let mut into = Recording::default();
        (renamed("a"), Noted { n: 1 }).record(&mut into).unwrap();
        let events = into.into_events();
        assert_eq!((events[0].version, &events[0].tags), (3, &Tags::new().with("n", 0)));
        assert_eq!(&events[0].body[..], br#"{"name":"a","tags":1}"#);
        assert_eq!((events[0].is_recorded, events[1].is_recorded), (true, false));
    }

    #[test]
    fn what_breaks_a_rule_or_a_bound_is_refused_and_named() {
        let check = |event: Renamed, part: &str| {
            let error = event.record(&mut Recording::default()).unwrap_err().to_string();
            assert!(error.contains("renamed") && error.contains(part), "{error}");
        };
        check(renamed(""), "breaks its own rules; name:");
        check(renamed(&"x".repeat(EVENT_BYTES_MAX)), "at most 262144");
        check(Renamed { name: "a".to_owned(), tags: TAGS_MAX + 1 }, "bears 17 tags");
    }
}
