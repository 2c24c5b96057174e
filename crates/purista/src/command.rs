//! How a plain function becomes a command's handler.

use std::fmt;
use std::sync::Arc;

use purista_core::address::{AddressParts, name_is_valid};
use purista_core::bridge::Consumer;
use purista_core::catalogue::{CommandEntry, EventEntry};
use purista_core::contract::{Command, Contract};
use purista_core::error::HandlerError;
use purista_core::event::Event;

use crate::context::{Context, Place};
use crate::dispatch;
use crate::guard::Guard;
use crate::steps::{Steps, SuccessEvent};

/// What the function of a command returns: a future of its output, or of an error.
///
/// Nobody implements it; it is there so that the compiler can say what is wrong in words.
#[diagnostic::on_unimplemented(
    message = "a handler of this command must be an `async fn` that returns `Result<{O}, HandlerError>`",
    label = "this handler is not `async`, or returns something else",
    note = "`{O}` is the command's `type Output`; `?` turns other errors into `HandlerError`"
)]
pub trait Replies<O>: Future<Output = Result<O, HandlerError>> {}

#[diagnostic::do_not_recommend]
impl<O, Fut: Future<Output = Result<O, HandlerError>>> Replies<O> for Fut {}

/// Makes a consumer of a handler, whose own type is known only where it is given: so that a call finds it without a pointer,
/// and its future without an allocation.
type Serve<S, C> = Box<dyn FnOnce(Steps<S, C>, Place<S>) -> Arc<dyn Consumer> + Send>;

/// A command with its handler, to be given to a service.
pub struct CommandDef<S, C: Command> {
    pub(crate) serve: Serve<S, C>,
    pub(crate) steps: Steps<S, C>,
    pub(crate) emits: Vec<EventEntry>,
    pub(crate) invokes: Vec<&'static AddressParts>,
    /// Whether it decides on what is recorded, which needs a store.
    pub(crate) decides: bool,
}

/// Makes a command of an async function `(Context<S>, C) -> Result<C::Output, HandlerError>`; `S` are the resources of the
/// service that it is given to.
///
/// ```
/// # use garde::Validate; use schemars::JsonSchema; use serde::{Deserialize, Serialize};
/// use purista::command::command;
/// use purista::context::Context;
/// use purista::service::Service;
/// use purista_core::address::ServiceId;
/// use purista_core::contract::Command;
/// use purista_core::error::HandlerError;
///
/// const MATH: ServiceId = ServiceId::new("Math", "1");
///
/// #[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)]
/// struct Divide { #[garde(skip)] a: i64, #[garde(range(min = 1))] b: i64 }
///
/// #[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)]
/// #[garde(allow_unvalidated)]
/// struct Quotient { q: i64 }
///
/// impl Command for Divide {
///     const SERVICE: ServiceId = MATH;
///     const NAME: &'static str = "divide";
///     type Output = Quotient;
/// }
///
/// async fn divide(_ctx: Context<()>, input: Divide) -> Result<Quotient, HandlerError> {
///     Ok(Quotient { q: input.a / input.b })
/// }
///
/// let service = Service::builder(MATH, "Arithmetic", ()).command(command(divide)).build();
/// ```
pub fn command<S, C, F, Fut, O>(handler: F) -> CommandDef<S, C>
where
    S: Send + Sync + 'static,
    F: Fn(Context<S>, C) -> Fut + Send + Sync + 'static,
    Fut: Replies<O> + Send + 'static,
    C: Command<Output = O>,
    O: Contract,
{
    const {
        assert!(
            name_is_valid(C::NAME),
            "a command's name is a letter, then letters, digits, `-` and `_`, at most 128"
        );
    };
    CommandDef {
        serve: Box::new(move |steps, place| dispatch::serve::<_, _, _, _, false>(handler, steps, place)),
        steps: Steps::default(),
        emits: Vec::new(),
        invokes: Vec::new(),
        decides: false,
    }
}

impl<S: Send + Sync + 'static, C: Command> CommandDef<S, C> {
    /// The answer is an event too: with a store it is recorded in the same commit, and whoever listens gets it.
    #[must_use]
    pub fn success_event(mut self) -> Self
    where
        C::Output: Event,
    {
        let (name, version) = (<C::Output as Event>::NAME, <C::Output as Event>::VERSION);
        self.steps.success = Some((SuccessEvent { name, version }, Context::mark));
        if !self.emits.iter().any(|entry| entry.name == <C::Output as Event>::NAME) {
            self.emits.push(EventEntry::of::<C::Output>());
        }
        self
    }

    /// Declares an event that the handler emits; one that is not declared fails when it is emitted.
    #[must_use]
    pub fn emits<E: Event>(mut self) -> Self {
        const {
            assert!(
                name_is_valid(E::NAME),
                "an event's name is a letter, then letters, digits, `-` and `_`, at most 128"
            );
        };
        self.emits.push(EventEntry::of::<E>());
        self
    }

    /// Declares a command that the handler invokes; one that is not declared fails when it is invoked.
    #[must_use]
    pub fn invokes<D: Command>(mut self) -> Self {
        self.invokes.push(D::ADDRESS);
        self
    }

    /// Changes the input before it is validated, as to trim a text.
    #[must_use]
    pub fn transform_input(
        mut self,
        transform: impl Fn(C) -> Result<C, HandlerError> + Send + Sync + 'static,
    ) -> Self {
        self.steps.transform_input = Some(Arc::new(transform));
        self
    }

    /// Changes the output after it was validated and guarded, as to hide a part of it. A success event is what it was before.
    #[must_use]
    pub fn transform_output(
        mut self,
        transform: impl Fn(C::Output) -> Result<C::Output, HandlerError> + Send + Sync + 'static,
    ) -> Self {
        self.steps.transform_output = Some(Arc::new(transform));
        self
    }

    /// Checks the valid input before the handler runs, as who may do it. All guards run side by side; the first that refuses
    /// decides.
    #[must_use]
    pub fn guard<F, Fut>(mut self, name: &'static str, check: F) -> Self
    where
        F: Fn(Context<S>, Arc<C>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.steps.before.push(Guard::before(name, check));
        self
    }

    /// Checks the valid output before anything is committed.
    #[must_use]
    pub fn guard_output<F, Fut>(mut self, name: &'static str, check: F) -> Self
    where
        F: Fn(Context<S>, Arc<C::Output>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.steps.after.push(Guard::after(name, check));
        self
    }

    /// Lets a decision record events that its boundary does not select.
    ///
    /// By default [`crate::decide::decide`] rejects such a decision with 500, because two of them at the same time do not
    /// conflict: a rule such as "only once" would let both pass. Call this where the decision depends on other events than
    /// those it records, and where recording twice is correct. It has no effect on a command that does not decide.
    #[must_use]
    pub fn allow_unselected_events(mut self) -> Self {
        self.steps.allows_unselected_events = true;
        self
    }

    pub(crate) fn entry(&self) -> CommandEntry {
        let mut entry = CommandEntry::of::<C>();
        entry.success_event = self.steps.success.map(|(event, _)| event.name);
        entry
    }
}

impl<S, C: Command> fmt::Debug for CommandDef<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandDef").field("name", &C::NAME).finish_non_exhaustive()
    }
}
