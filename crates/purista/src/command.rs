//! How a plain function becomes a command's handler.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use purista_core::address::{AddressParts, name_is_valid};
use purista_core::catalogue::{CommandEntry, EventEntry};
use purista_core::contract::{Command, Contract};
use purista_core::error::HandlerError;
use purista_core::event::Event;

use crate::context::Context;
use crate::guard::Guard;
use crate::unit_of_work::EmitError;

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

pub(crate) type Handler<S, T, O> =
    Arc<dyn Fn(Context<S>, T) -> BoxFuture<'static, Result<O, HandlerError>> + Send + Sync>;
pub(crate) type Transform<T> = Arc<dyn Fn(T) -> Result<T, HandlerError> + Send + Sync>;
type Mark<S, O> = fn(&Context<S>, &O) -> Result<bool, EmitError>;

/// A command with its handler, to be given to a service.
pub struct CommandDef<S, C: Command> {
    pub(crate) handler: Handler<S, C, C::Output>,
    pub(crate) transform_input: Option<Transform<C>>,
    pub(crate) transform_output: Option<Transform<C::Output>>,
    pub(crate) before: Vec<Guard<S, C>>,
    pub(crate) after: Vec<Guard<S, C::Output>>,
    /// Marks the answer with an event, and records it; says whether it was recorded.
    pub(crate) success: Option<(&'static str, Mark<S, C::Output>)>,
    pub(crate) emits: Vec<EventEntry>,
    pub(crate) invokes: Vec<&'static AddressParts>,
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
        handler: Arc::new(move |context, input| Box::pin(handler(context, input))),
        transform_input: None,
        transform_output: None,
        before: Vec::new(),
        after: Vec::new(),
        success: None,
        emits: Vec::new(),
        invokes: Vec::new(),
    }
}

impl<S: Send + Sync + 'static, C: Command> CommandDef<S, C> {
    /// The answer is an event too: with a store it is recorded in the same commit, and whoever listens gets it.
    #[must_use]
    pub fn success_event(mut self) -> Self
    where
        C::Output: Event,
    {
        self.success = Some((<C::Output as Event>::NAME, |context, output| {
            // Without a log the response itself carries the event.
            if !C::Output::RECORDED || context.runtime().store.is_none() {
                return Ok(false);
            }
            context.record(output.clone())
        }));
        self.emits.push(EventEntry::of::<C::Output>());
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
        self.transform_input = Some(Arc::new(transform));
        self
    }

    /// Changes the output after it was validated and guarded, as to hide a part of it. A success event is what it was before.
    #[must_use]
    pub fn transform_output(
        mut self,
        transform: impl Fn(C::Output) -> Result<C::Output, HandlerError> + Send + Sync + 'static,
    ) -> Self {
        self.transform_output = Some(Arc::new(transform));
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
        self.before.push(Guard::new(name, check));
        self
    }

    /// Checks the valid output before anything is committed.
    #[must_use]
    pub fn guard_output<F, Fut>(mut self, name: &'static str, check: F) -> Self
    where
        F: Fn(Context<S>, Arc<C::Output>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.after.push(Guard::new(name, check));
        self
    }

    pub(crate) fn entry(&self) -> CommandEntry {
        let mut entry = CommandEntry::of::<C>();
        entry.success_event = self.success.map(|(name, _)| name);
        entry
    }
}

impl<S, C: Command> fmt::Debug for CommandDef<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandDef").field("name", &C::NAME).finish_non_exhaustive()
    }
}
