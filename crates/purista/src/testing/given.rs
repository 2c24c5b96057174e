//! Tests of decisions without a host: given these events, when this is asked, then that happens.

use std::fmt;

use purista_core::address::{Address, ServiceId};
use purista_core::contract::Command;
use purista_core::decision::{Decision, Events};
use purista_core::error::HandlerError;
use purista_core::event::Tags;
use purista_core::id::Id;
use purista_core::message::Party;
use purista_core::recording::{CheckedEvent, Recording};
use purista_core::text::Text;
use purista_events::occurrence::Occurrences;
use purista_events::position::Position;
use purista_events::recorded::{Cause, Recorded};
use purista_events::upcast::Upcasters;
use purista_events::view::Boundary;

use super::TEST_BEGINS;
use crate::decide::{Facts, Visibility};

/// Begins a test of a decision: with nothing recorded, at [`TEST_BEGINS`].
///
/// ```
/// # use garde::Validate; use schemars::JsonSchema; use serde::{Deserialize, Serialize};
/// # use purista::{Command, Event, HandlerError, ServiceId, Tags, View, view};
/// use purista::testing::given;
/// # const USER: ServiceId = ServiceId::new("User", "1");
/// # #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)] #[garde(allow_unvalidated)]
/// # struct Rename { user: String, name: String }
/// # impl Command for Rename {
/// #     const SERVICE: ServiceId = USER; const NAME: &'static str = "rename"; type Output = Renamed;
/// # }
/// # #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, Validate)] #[garde(allow_unvalidated)]
/// # struct Renamed { user: String, name: String }
/// # impl Event for Renamed {
/// #     const NAME: &'static str = "renamed";
/// #     fn tags(&self) -> Tags { Tags::new().with("user", &self.user) }
/// # }
/// # fn boundary(command: &Rename) -> View<String> {
/// #     view(String::new()).tagged("user", &command.user).on(|name, event: Renamed| *name = event.name)
/// # }
/// # fn rename(command: Rename, name: String) -> Result<Renamed, HandlerError> {
/// #     if command.name == name { return Err(HandlerError::conflict("that is the name already")); }
/// #     Ok(Renamed { user: command.user, name: command.name })
/// # }
/// # fn renamed(name: &str) -> Renamed { Renamed { user: "ada".into(), name: name.into() } }
/// # fn to(name: &str) -> Rename { Rename { user: "ada".into(), name: name.into() } }
///
/// given().event(renamed("Ada")).when(to("Countess"), boundary, rename).then(renamed("Countess"));
/// given().event(renamed("Ada")).when(to("Ada"), boundary, rename).refused(409);
/// ```
pub fn given() -> Given {
    let facts = Facts::new(TEST_BEGINS, Id::from_random(1));
    Given { past: Recording::default(), facts, allows_unselected: false }
}

/// What was recorded before, and the facts; see [`given`].
#[derive(Debug, Clone)]
#[must_use = "nothing is tested until something is asked"]
pub struct Given {
    past: Recording,
    facts: Facts,
    allows_unselected: bool,
}

impl Given {
    /// The facts that the decision is given: time, id, principal, tenant.
    pub fn at(mut self, facts: Facts) -> Self {
        self.facts = facts;
        self
    }

    /// Lets the decision record events that its boundary does not select, as
    /// [`CommandDef::allow_unselected_events`](crate::command::CommandDef::allow_unselected_events) does.
    pub fn allow_unselected_events(mut self) -> Self {
        self.allows_unselected = true;
        self
    }

    /// Events that were recorded, in order: one, a tuple, a `Vec`.
    ///
    /// # Panics
    ///
    /// When one breaks the rules of its type: such an event is never recorded.
    #[track_caller]
    pub fn event(mut self, events: impl Events) -> Self {
        if let Err(error) = events.record(&mut self.past) {
            panic!("what is given was never recorded: {error}");
        }
        self
    }

    /// Asks, with the two functions that [`crate::decide::decide`] gets.
    ///
    /// # Panics
    ///
    /// When an event that was given cannot be read by the boundary.
    #[track_caller]
    #[must_use = "say what should have happened"]
    pub fn when<C, B, D>(
        self,
        command: C,
        boundary: impl Fn(&C) -> B,
        decision: impl Fn(C, B::State) -> Result<D, HandlerError>,
    ) -> Then<C::Output>
    where
        C: Command,
        B: Boundary,
        D: Decision<C::Output>,
    {
        self.when_with(command, boundary, |command, state, _: &Facts| decision(command, state))
    }

    /// Asks, with the two functions that [`crate::decide::decide_with`] gets.
    ///
    /// # Panics
    ///
    /// When an event that was given cannot be read by the boundary.
    #[track_caller]
    #[must_use = "say what should have happened"]
    pub fn when_with<C, B, D>(
        self,
        command: C,
        boundary: impl Fn(&C) -> B,
        decision: impl Fn(C, B::State, &Facts) -> Result<D, HandlerError>,
    ) -> Then<C::Output>
    where
        C: Command,
        B: Boundary,
        D: Decision<C::Output>,
    {
        let recorded = recorded(&self.past, &self.facts);
        let mut boundary = boundary(&command);
        let upcasters = Upcasters::new();
        let mut selected = Vec::new();
        let mut occurred = Occurrences::default();
        for event in &recorded {
            occurred.push_recorded(event);
        }
        for (event, occurrence) in recorded.iter().zip(occurred.iter()) {
            for view in boundary.views() {
                if let Err(error) = view.apply(&occurrence, &event.tags, &upcasters) {
                    panic!("the boundary cannot read what is given: {}", purista_core::error::chain(&error));
                }
            }
            selected.push(boundary.views().iter().any(|view| view.item(&upcasters).selects(event)));
        }
        let items: Vec<_> = boundary.views().iter().map(|view| view.item(&upcasters)).collect();
        let visibility = Visibility::of_command(C::NAME, self.allows_unselected);
        let mut happened = Recording::default();
        let outcome = decision(command, boundary.into_state(), &self.facts).and_then(|decision| {
            let output = decision.settle(&mut happened)?;
            visibility.check(happened.events(), &items)?;
            output_is_valid(&output)?;
            Ok(output)
        });
        let past =
            recorded.iter().zip(selected).map(|(event, is_selected)| Past::of(event, is_selected)).collect();
        Then { past, outcome, happened: happened.into_events() }
    }
}

/// As on the way of a command: an output that breaks its own rules is no answer.
fn output_is_valid<O: purista_core::contract::Contract>(output: &O) -> Result<(), HandlerError> {
    output.check().map_err(|faults| {
        let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
        HandlerError::failed(format!("the output breaks its own rules: {}", faults.join("; ")))
    })
}

/// What became of it; see [`given`]. Each step ends the test in words when it is not so.
#[derive(Debug)]
pub struct Then<O> {
    past: Vec<Past>,
    outcome: Result<O, HandlerError>,
    happened: Vec<CheckedEvent>,
}

/// An event that was given, and whether the boundary selects it: the usual reason why a decision does not see it.
#[derive(Debug)]
struct Past {
    event: String,
    is_selected: bool,
}

impl Past {
    fn of(event: &Recorded, is_selected: bool) -> Self {
        Self { event: line(&event.name, event.version, &event.tags, &event.body), is_selected }
    }
}

#[expect(clippy::return_self_not_must_use, reason = "what it says may be the end of a test")]
impl<O> Then<O> {
    /// Exactly these events were recorded, in this order; `()` for none.
    ///
    /// # Panics
    ///
    /// When it was refused, or others were recorded.
    #[track_caller]
    pub fn then(self, expected: impl Events) -> Self {
        let mut recording = Recording::default();
        if let Err(error) = expected.record(&mut recording) {
            panic!("what is expected can never be recorded: {error}");
        }
        if let Err(error) = &self.outcome {
            panic!("events were expected, and it was refused: {}\n{}", error.report(), Story(&self.past));
        }
        let (expected, happened) = (lines(recording.events()), lines(&self.happened));
        assert!(
            expected == happened,
            "other events were recorded\nexpected:\n{}recorded:\n{}{}",
            Lines(&expected),
            Lines(&happened),
            Story(&self.past)
        );
        self
    }

    /// It was refused with this status, and nothing was recorded.
    ///
    /// # Panics
    ///
    /// When it was not, or with another status.
    #[track_caller]
    pub fn refused(self, status: u16) -> Self {
        match &self.outcome {
            Ok(_) => panic!(
                "a refusal with {status} was expected, and it was accepted\nrecorded:\n{}{}",
                Lines(&lines(&self.happened)),
                Story(&self.past)
            ),
            Err(error) => assert!(
                error.status().code() == status,
                "a refusal with {status} was expected, and it was {}: {}\n{}",
                error.status().code(),
                error.report(),
                Story(&self.past)
            ),
        }
        self
    }

    /// The reply.
    ///
    /// # Panics
    ///
    /// When it was refused.
    #[track_caller]
    pub fn reply(&self) -> &O {
        match &self.outcome {
            Ok(output) => output,
            Err(error) => {
                panic!("a reply was expected, and it was refused: {}\n{}", error.report(), Story(&self.past))
            }
        }
    }

    /// The refusal, to look at its text.
    ///
    /// # Panics
    ///
    /// When it was accepted.
    #[track_caller]
    pub fn refusal(&self) -> &HandlerError {
        match &self.outcome {
            Err(error) => error,
            Ok(_) => panic!(
                "a refusal was expected, and it was accepted\nrecorded:\n{}{}",
                Lines(&lines(&self.happened)),
                Story(&self.past)
            ),
        }
    }
}

const TEST: ServiceId = ServiceId::new("Test", "1");

fn recorded(past: &Recording, facts: &Facts) -> Vec<Recorded> {
    let cause = Cause {
        sender: Party::anywhere(Address::of(TEST, "given")),
        principal_id: facts.principal.clone(),
        trace_id: facts.id.clone(),
        trace: None,
        correlation_id: None,
        causation_id: None,
        hops: 0,
    };
    let mut position = Position::START;
    let events = past.events().iter().cloned();
    events
        .map(|CheckedEvent { name, version, tags, body, .. }| {
            position = position.next();
            Recorded {
                position,
                id: facts.id.clone(),
                name: Text::known(name),
                version,
                tags,
                stream_version: None,
                recorded_at: facts.now,
                tenant_id: facts.tenant.clone(),
                cause: cause.clone(),
                body,
            }
        })
        .collect()
}

fn lines(events: &[CheckedEvent]) -> Vec<String> {
    events.iter().map(|event| line(event.name, event.version, &event.tags, &event.body)).collect()
}

fn line(name: &str, version: u32, tags: &Tags, body: &[u8]) -> String {
    let tags: Vec<_> = tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{name} v{version} [{}] {}", tags.join(", "), String::from_utf8_lossy(body))
}

struct Lines<'l>(&'l [String]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("  nothing\n");
        }
        self.0.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// What was given, and what of it the boundary does not select.
struct Story<'s>(&'s [Past]);

impl fmt::Display for Story<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("given: nothing");
        }
        f.write_str("given:")?;
        self.0.iter().try_for_each(|past| {
            let note = if past.is_selected { "" } else { "   <- not selected by the boundary" };
            write!(f, "\n  {}{note}", past.event)
        })
    }
}
