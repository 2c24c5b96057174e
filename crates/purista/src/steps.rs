//! What a command or a subscription does beside its handler: the steps before and after it.

use std::sync::Arc;

use purista_core::contract::{Command, Contract};
use purista_core::error::HandlerError;

use crate::context::Context;
use crate::guard::Guard;
use crate::unit_of_work::EmitError;

/// Changes a value on its way.
pub(crate) type Transform<T> = Arc<dyn Fn(T) -> Result<T, HandlerError> + Send + Sync>;

/// Marks an answer with an event, and records it; says whether it was recorded.
pub(crate) type Mark<S, O> = fn(&Context<S>, &O) -> Result<bool, EmitError>;

/// The event with which the answer to a command is marked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SuccessEvent {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
}

/// The steps before and after the handler of a command, of which most have none.
pub(crate) struct Steps<S, C: Command> {
    pub(crate) transform_input: Option<Transform<C>>,
    pub(crate) before: Vec<Guard<S, C>>,
    pub(crate) after: Vec<Guard<S, C::Output>>,
    pub(crate) success: Option<(SuccessEvent, Mark<S, C::Output>)>,
    pub(crate) transform_output: Option<Transform<C::Output>>,
    /// Whether a decision may record events that its boundary does not select.
    pub(crate) allows_unselected_events: bool,
}

impl<S, C: Command> Default for Steps<S, C> {
    fn default() -> Self {
        Self {
            transform_input: None,
            before: Vec::new(),
            after: Vec::new(),
            success: None,
            transform_output: None,
            allows_unselected_events: false,
        }
    }
}

/// Makes an event of a subscription's result.
pub(crate) type MakeEvent<S, R> = fn(&Context<S>, R) -> Result<bool, EmitError>;

/// The same for a subscription.
pub(crate) struct HearingSteps<S, T: Contract, R: Contract> {
    pub(crate) transform_input: Option<Transform<T>>,
    pub(crate) before: Vec<Guard<S, T>>,
    pub(crate) after: Vec<Guard<S, R>>,
    pub(crate) result: Option<MakeEvent<S, R>>,
}

impl<S, T: Contract, R: Contract> Default for HearingSteps<S, T, R> {
    fn default() -> Self {
        Self { transform_input: None, before: Vec::new(), after: Vec::new(), result: None }
    }
}
