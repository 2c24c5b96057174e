//! How a plain function becomes a subscription's handler.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use purista_core::address::AddressParts;
use purista_core::catalogue::EventEntry;
use purista_core::contract::{Command, Contract};
use purista_core::error::HandlerError;
use purista_core::event::Event;
use purista_core::subscription::{Filter, Sharing};
use purista_core::text::Text;

use crate::context::{Context, Place};
use crate::guard::Guard;
use crate::listener::{self, Listener};
use crate::listening::{Listening, Terms};
use crate::retry::Retry;
use crate::steps::HearingSteps;

/// Makes a listener of a handler, whose own type is known only where it is given: so that a delivery finds it without a
/// pointer, and its future without an allocation.
type Listen<S, T, R> =
    Box<dyn FnOnce(HearingSteps<S, T, R>, Listening, Place<S>) -> Arc<dyn Listener> + Send>;

/// A subscription with its handler, to be given to a service. `T` is what it hears, `R` what it answers with.
pub struct SubscriptionDef<S, T: Contract, R: Contract> {
    pub(crate) listen: Listen<S, T, R>,
    pub(crate) steps: HearingSteps<S, T, R>,
    pub(crate) emits: Vec<EventEntry>,
    pub(crate) invokes: Vec<&'static AddressParts>,
    pub(crate) terms: Terms,
    /// The event type that it handles; `None` for a filter.
    pub(crate) event: Option<EventEntry>,
}

/// Makes a subscription of an async function `(Context<S>, E) -> Result<R, HandlerError>` on the event `E`.
///
/// `name` is its name among the service's; a renamed subscription is a new one, which knows nothing of the old one's
/// progress. `R` is `()` unless the result is an event, see [`SubscriptionDef::result_event`].
pub fn subscription<S, E, R, F, Fut>(name: &'static str, handler: F) -> SubscriptionDef<S, E, R>
where
    E: Event,
    R: Contract,
    S: Send + Sync + 'static,
    F: Fn(Context<S>, E) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, HandlerError>> + Send + 'static,
{
    let filter = Filter::event(Text::known(E::NAME));
    let def = SubscriptionDef::new(Terms::new(name, filter, E::RECORDED, Some(E::VERSION)), handler);
    SubscriptionDef { event: Some(EventEntry::of::<E>()), ..def }
}

/// Makes a subscription on whatever passes a filter: commands and responses on their way, or events of several names with
/// one form. Of a command, `T` is its input. It cannot be durable where the filter asks for what is not recorded.
pub fn listen<S, T, R, F, Fut>(name: &'static str, filter: Filter, handler: F) -> SubscriptionDef<S, T, R>
where
    T: Contract,
    R: Contract,
    S: Send + Sync + 'static,
    F: Fn(Context<S>, T) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, HandlerError>> + Send + 'static,
{
    let hears_events = !filter.event_names.is_empty();
    SubscriptionDef::new(Terms::new(name, filter, hears_events, None), handler)
}

impl<S, T: Contract, R: Contract> SubscriptionDef<S, T, R> {
    fn new<F, Fut>(terms: Terms, handler: F) -> Self
    where
        S: Send + Sync + 'static,
        F: Fn(Context<S>, T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, HandlerError>> + Send + 'static,
    {
        Self {
            listen: Box::new(move |steps, listening, place| {
                listener::listen(handler, steps, listening, place)
            }),
            steps: HearingSteps::default(),
            emits: Vec::new(),
            invokes: Vec::new(),
            terms,
            event: None,
        }
    }

    /// Messages wait for it while nobody runs it: at least once, in the order of each first tag. It is fed from the log of
    /// the host's store, and begins with what is recorded after its first start; see [`SubscriptionDef::from_start`].
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.terms.is_durable = true;
        self
    }

    /// Begins with the first event of the log. Without it a new subscription hears only what comes: a new mail must not go
    /// to every old customer. What a bridge brings begins as far back as its broker keeps it, where a broker keeps a stream
    /// (NATS with JetStream); without a store on any other the start is refused. It says where a subscription begins that was
    /// never run before, and nothing afterwards.
    #[must_use]
    pub fn from_start(mut self) -> Self {
        self.terms.from_start = true;
        self
    }

    /// Every process that runs it gets each message, not one of them.
    #[must_use]
    pub fn on_every_instance(mut self) -> Self {
        self.terms.sharing = Sharing::EveryInstance;
        self
    }

    /// When a failed message is tried again.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.terms.retry = retry;
        self
    }

    /// How many messages it handles at a time; 1 keeps the order of all, as far as the bridge keeps it.
    #[must_use]
    pub fn in_flight(mut self, in_flight: usize) -> Self {
        self.terms.in_flight = in_flight.max(1);
        self
    }

    /// How long one attempt may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.terms.timeout = timeout;
        self
    }

    /// Handles only messages of this tenant, in addition to all other criteria.
    #[must_use]
    pub fn of_tenant(mut self, tenant: &'static str) -> Self {
        self.terms.narrow(Filter { tenant_id: Some(Text::known(tenant)), ..Filter::default() });
        self
    }

    /// Handles only messages sent for this principal, in addition to all other criteria.
    #[must_use]
    pub fn of_principal(mut self, principal: &'static str) -> Self {
        self.terms.narrow(Filter { principal_id: Some(Text::known(principal)), ..Filter::default() });
        self
    }

    /// Handles only messages that also pass these criteria. Criteria add up in any order: a message must meet all of them.
    /// A host refuses to start if two of them contradict, as two different tenants.
    #[must_use]
    pub fn filter(mut self, criteria: Filter) -> Self {
        self.terms.narrow(criteria);
        self
    }

    /// The result is an event: it is committed together with the progress, and bears the message's trace, principal and
    /// tenant.
    #[must_use]
    pub fn result_event(mut self) -> Self
    where
        R: Event,
        S: Send + Sync + 'static,
    {
        self.steps.result = Some(Context::record);
        self.emits.push(EventEntry::of::<R>());
        self
    }

    /// Declares an event that the handler emits; one that is not declared fails when it is emitted.
    #[must_use]
    pub fn emits<E: Event>(mut self) -> Self {
        self.emits.push(EventEntry::of::<E>());
        self
    }

    /// Declares a command that the handler invokes; one that is not declared fails when it is invoked.
    #[must_use]
    pub fn invokes<C: Command>(mut self) -> Self {
        self.invokes.push(C::ADDRESS);
        self
    }

    /// Changes what it hears before it is validated.
    #[must_use]
    pub fn transform_input(
        mut self,
        transform: impl Fn(T) -> Result<T, HandlerError> + Send + Sync + 'static,
    ) -> Self {
        self.steps.transform_input = Some(Arc::new(transform));
        self
    }

    /// Checks the valid input before the handler runs.
    #[must_use]
    pub fn guard<F, Fut>(mut self, name: &'static str, check: F) -> Self
    where
        F: Fn(Context<S>, Arc<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.steps.before.push(Guard::before(name, check));
        self
    }

    /// Checks the valid result before anything is committed.
    #[must_use]
    pub fn guard_output<F, Fut>(mut self, name: &'static str, check: F) -> Self
    where
        F: Fn(Context<S>, Arc<R>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.steps.after.push(Guard::after(name, check));
        self
    }
}

impl<S, T: Contract, R: Contract> fmt::Debug for SubscriptionDef<S, T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionDef").field("terms", &self.terms).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
