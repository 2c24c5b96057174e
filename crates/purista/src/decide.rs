//! How two pure functions become a command's handler: what it depends on, and what is decided.

use std::sync::Arc;

use jiff::Timestamp;
use purista_core::address::name_is_valid;
use purista_core::contract::Command;
use purista_core::decision::Decision;
use purista_core::error::HandlerError;
use purista_core::id::Id;
use purista_core::recording::Recording;
use purista_events::batch::Condition;
use purista_events::reading::Moment;
use purista_events::view::Boundary;

use crate::command::CommandDef;
use crate::context::Context;
use crate::dispatch;
use crate::steps::Steps;

mod visibility;

pub(crate) use visibility::Visibility;

/// What a decision may know beside its command and its state.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Facts {
    /// The time of day.
    pub now: Timestamp,
    /// A new id, another one for each attempt: for what the decision brings into being.
    pub id: Id,
    /// On whose behalf.
    pub principal: Option<Arc<str>>,
    /// In whose part of the system.
    pub tenant: Option<Arc<str>>,
}

impl Facts {
    /// The facts of a test: a time and an id, on nobody's behalf.
    pub const fn new(now: Timestamp, id: Id) -> Self {
        Self { now, id, principal: None, tenant: None }
    }

    /// On behalf of this principal.
    #[must_use]
    pub fn of_principal(mut self, principal: &str) -> Self {
        self.principal = Some(principal.into());
        self
    }

    /// In this tenant's part of the system.
    #[must_use]
    pub fn of_tenant(mut self, tenant: &str) -> Self {
        self.tenant = Some(tenant.into());
        self
    }
}

/// Makes a command of two plain functions: `boundary` says which events the decision depends on, and `decision` what
/// happens, given what those events add up to. Neither is `async`, neither sees the outside, so both are tested as they are;
/// see `purista::testing::given` (feature `testing`).
///
/// The boundary is read in the message's tenant, and what is decided is recorded on the condition that nothing was added to
/// it meanwhile. If something was, it is read and decided again, up to 8 times and until the deadline; then the caller gets
/// 409. So `decision` runs more than once, and nothing else has to be locked.
///
/// Everything else of a command is as with [`crate::command::command`]: validation, guards, transforms, a success event, an
/// idempotency key. The events need not be declared: those that the type of the decision names are in the catalogue, and
/// what an enum of yours does not list (see [`purista_core::decision::Events::entries`]) is recorded all the same.
///
/// At least one of the events of a decision must be selected by its boundary, otherwise it fails with 500 and records nothing:
/// a concurrent decision would not see it, so a rule such as "only once" would let both pass. The usual cause is an event
/// without the tag that the boundary selects by. [`CommandDef::allow_unselected_events`] turns the check off.
///
/// A decision answers with its one event when that is the command's `Output`; any events answer `()`; everything else says
/// `Ok(events.replying(output))`.
///
/// ```
/// # use garde::Validate; use schemars::JsonSchema; use serde::{Deserialize, Serialize};
/// # use purista::{Command, Event, HandlerError, Service, ServiceId, Tags};
/// use purista::decide::decide;
/// use purista_events::view::{View, view};
///
/// # const USER: ServiceId = ServiceId::new("User", "1");
/// # #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)] #[garde(allow_unvalidated)]
/// # struct Rename { user_id: String, name: String }
/// # impl Command for Rename {
/// #     const SERVICE: ServiceId = USER; const NAME: &'static str = "rename"; type Output = Renamed;
/// # }
/// # #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, Validate)] #[garde(allow_unvalidated)]
/// # struct Renamed { user_id: String, name: String }
/// # impl Event for Renamed {
/// #     const NAME: &'static str = "renamed";
/// #     fn tags(&self) -> Tags { Tags::new().with("user", &self.user_id) }
/// # }
/// fn current_name(command: &Rename) -> View<String> {
///     view(String::new()).tagged("user", &command.user_id).on(|name, event: Renamed| *name = event.name)
/// }
///
/// fn rename(command: Rename, name: String) -> Result<Renamed, HandlerError> {
///     if command.name == name {
///         return Err(HandlerError::conflict("that is the name already"));
///     }
///     Ok(Renamed { user_id: command.user_id, name: command.name })
/// }
///
/// let service = Service::builder(USER, "Names", ()).command(decide(current_name, rename)).build();
/// ```
pub fn decide<S, C, B, D, V, F>(boundary: V, decision: F) -> CommandDef<S, C>
where
    S: Send + Sync + 'static,
    C: Command,
    B: Boundary,
    D: Decision<C::Output>,
    V: Fn(&C) -> B + Send + Sync + 'static,
    F: Fn(C, B::State) -> Result<D, HandlerError> + Send + Sync + 'static,
{
    decide_with(boundary, move |command, state, _: &Facts| decision(command, state))
}

/// The same as [`decide`] for a decision that depends on time, or brings something new into being: it gets the [`Facts`].
pub fn decide_with<S, C, B, D, V, F>(boundary: V, decision: F) -> CommandDef<S, C>
where
    S: Send + Sync + 'static,
    C: Command,
    B: Boundary,
    D: Decision<C::Output>,
    V: Fn(&C) -> B + Send + Sync + 'static,
    F: Fn(C, B::State, &Facts) -> Result<D, HandlerError> + Send + Sync + 'static,
{
    const {
        assert!(
            name_is_valid(C::NAME),
            "a command's name is a letter, then letters, digits, `-` and `_`, at most 128"
        );
    };
    let serve = move |steps: Steps<S, C>, place| {
        let visibility = Visibility::of_command(C::NAME, steps.allows_unselected_events);
        let functions = Arc::new((boundary, decision, visibility));
        let handler = move |context: Context<S>, command: C| {
            let functions = Arc::clone(&functions);
            async move {
                let (boundary, decision, visibility) = &*functions;
                let seen = context.look(boundary(&command), Moment::Now).await?;
                let mut recording = Recording::default();
                let output = decision(command, seen.state, &context.facts())?.settle(&mut recording)?;
                if let Some(Condition::Unless(query, _)) = &seen.condition {
                    visibility.check(recording.events(), &query.items)?;
                }
                context.decided(recording, seen.condition)?;
                Ok(output)
            }
        };
        dispatch::serve::<_, _, _, _, true>(handler, steps, place)
    };
    CommandDef {
        serve: Box::new(serve),
        steps: Steps::default(),
        emits: <D as Decision<C::Output>>::entries(),
        invokes: Vec::new(),
        decides: true,
    }
}
