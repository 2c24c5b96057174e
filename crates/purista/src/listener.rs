//! The way of an event to its handler, up to the commit; who feeds it decides what becomes of a failure.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use purista_core::bridge::{Carried, Consumer};
use purista_core::contract::Contract;
use purista_core::error::HandlerError;
use purista_core::fault::Fault;
use purista_core::message::{Message, MessageType};
use purista_core::parameter;
use purista_core::schema::Inspector;
use purista_core::span::{self, Handler};
use purista_events::subscriptions::SubscriptionId;
use tokio::time::Instant;
use tracing::Instrument;
use tracing::level_filters::LevelFilter;

use crate::bridge_fed::BridgeFed;
use crate::context::{Context, Place};
use crate::deadline::UntilDeadline;
use crate::failure::panic_text;
use crate::guard;
use crate::hearing::{Heard, Hears};
use crate::listening::{Listening, Terms};
use crate::observed::Observed;
use crate::runtime::Runtime;
use crate::steps::HearingSteps;
use crate::unit_of_work::Changes;

/// A subscription of a running host.
pub(crate) trait Listener: Send + Sync + 'static {
    /// Runs the handler once. Nothing is committed yet; `begun` is what was changed before for the same delivery.
    fn hear(
        self: Arc<Self>,
        message: Carried,
        attempt: u32,
        begun: Option<Box<Changes>>,
    ) -> BoxFuture<'static, Heard>;

    /// Takes what a bridge brings.
    fn on_bridge(self: Arc<Self>, runtime: Arc<Runtime>, id: SubscriptionId) -> Arc<dyn Consumer>;

    fn listening(&self) -> &Listening;
}

/// A subscription with its types.
pub(crate) struct Listens<S, T: Contract, R: Contract, F> {
    handler: F,
    steps: HearingSteps<S, T, R>,
    listening: Listening,
    place: Arc<Place<S>>,
    inspector: Inspector,
}

/// Makes a listener of this handler at this place.
pub(crate) fn listen<S, T, R, F, Fut>(
    handler: F,
    steps: HearingSteps<S, T, R>,
    listening: Listening,
    place: Place<S>,
) -> Arc<dyn Listener>
where
    S: Send + Sync + 'static,
    T: Contract,
    R: Contract,
    F: Fn(Context<S>, T) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, HandlerError>> + Send + 'static,
{
    let place = Arc::new(place);
    Arc::new(Listens { handler, steps, listening, place, inspector: Inspector::of::<T>() })
}

impl<S, T, R, F, Fut> Listener for Listens<S, T, R, F>
where
    S: Send + Sync + 'static,
    T: Contract,
    R: Contract,
    F: Fn(Context<S>, T) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, HandlerError>> + Send + 'static,
{
    fn hear(
        self: Arc<Self>,
        message: Carried,
        attempt: u32,
        begun: Option<Box<Changes>>,
    ) -> BoxFuture<'static, Heard> {
        Box::pin(async move { Hears::hear(&*self, message, attempt, begun).await })
    }

    fn on_bridge(self: Arc<Self>, runtime: Arc<Runtime>, id: SubscriptionId) -> Arc<dyn Consumer> {
        Arc::new(BridgeFed::new(self, runtime, id))
    }

    fn listening(&self) -> &Listening {
        &self.listening
    }
}

impl<S, T, R, F, Fut> Hears for Listens<S, T, R, F>
where
    S: Send + Sync + 'static,
    T: Contract,
    R: Contract,
    F: Fn(Context<S>, T) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, HandlerError>> + Send + 'static,
{
    fn terms(&self) -> &Terms {
        &self.listening.terms
    }

    async fn hear(&self, message: Carried, attempt: u32, begun: Option<Box<Changes>>) -> Heard {
        // A disabled span costs nothing, an entered one a look-up at every poll. `tracing::enabled!` would be remembered by
        // filters for the next span of this thread.
        if LevelFilter::current() < LevelFilter::INFO {
            return attempted(self, message, attempt, begun).await;
        }
        if span::is_on() {
            let (address, name) = (&self.listening.address, self.listening.terms.name);
            let system = self.place.runtime.bridge.capabilities().name;
            let handler = Handler { address, name, system, is_command: false };
            let span = span::handling(&message, handler, attempt);
            let mut heard = Box::pin(attempted(self, message, attempt, begun).instrument(span.clone())).await;
            if let Err(error) = &heard.result {
                span::failed(&span, error.status().code());
            }
            heard.span = span;
            return heard;
        }
        let span = tracing::info_span!("purista.subscription.eventReceived",
            otel.name = self.listening.terms.name, subscription = %self.listening.address,
            trace_id = %message.trace_id, message_id = %message.id, attempt,
            principal_id = message.principal_id.as_deref(), tenant_id = message.tenant_id.as_deref());
        Box::pin(attempted(self, message, attempt, begun).instrument(span)).await
    }
}

async fn attempted<S, T, R, F, Fut>(
    listens: &Listens<S, T, R, F>,
    message: Carried,
    attempt: u32,
    begun: Option<Box<Changes>>,
) -> Heard
where
    S: Send + Sync + 'static,
    T: Contract,
    R: Contract,
    F: Fn(Context<S>, T) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, HandlerError>> + Send + 'static,
{
    let deadline = Instant::now() + listens.listening.terms.timeout;
    let context = Context::within(Arc::clone(&listens.place), message, deadline, attempt, begun);
    let ended = {
        let work = run(listens, &context);
        UntilDeadline::new(pin!(AssertUnwindSafe(work).catch_unwind()), deadline).await
    };
    let result = match ended {
        Some(Ok(Ok(()))) => Ok(()),
        Some(Ok(Err(error))) => Err(error),
        Some(Err(panic)) => Err(HandlerError::failed(panic_text(&*panic))),
        None => Err(HandlerError::failed("the handler did not end before the deadline")),
    };
    if context.runtime().observer.is_some() {
        return reported(context, result);
    }
    match context.untouched() {
        Ok((message, _)) => Heard::of(message, result.map(|()| None)),
        Err(context) => {
            let changes = context.unit().seal();
            Heard::of(context.into_message(), result.map(|()| changes))
        }
    }
}

/// The same, for hosts where somebody watches.
#[cold]
fn reported<S: Send + Sync + 'static>(context: Context<S>, result: Result<(), HandlerError>) -> Heard {
    let changes = context.unit().seal();
    let observed = Observed::of(&context.message().payload, changes.as_deref());
    let message = context.message().clone().into();
    Heard::of(message, result.map(|()| changes))
        .reported_to(Box::new(move |ending| observed.settled(&context, ending)))
}

async fn run<S, T, R, F, Fut>(listens: &Listens<S, T, R, F>, context: &Context<S>) -> Result<(), HandlerError>
where
    S: Send + Sync + 'static,
    T: Contract,
    R: Contract,
    F: Fn(Context<S>, T) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, HandlerError>> + Send + 'static,
{
    let steps = &listens.steps;
    let mut input: T = decoded(&listens.inspector, context.message())?;
    if let Some(transform) = &steps.transform_input {
        input = tracing::debug_span!("inputTransformation").in_scope(|| transform(input))?;
    }
    let checked = tracing::debug_span!("validatePayload").in_scope(|| input.check());
    checked.map_err(|found| unreadable(&listens.inspector, input.encode().ok().as_deref(), found))?;
    let input = if steps.before.is_empty() {
        input
    } else {
        Box::pin(guard::pass(&steps.before, context, input)).await?
    };
    let work = (listens.handler)(context.clone(), input);
    let result = work.instrument(tracing::debug_span!("functionExecution")).await?;
    tracing::debug_span!("outputValidation").in_scope(|| result.check()).map_err(|faults| {
        HandlerError::failed(format!("the result breaks its own rules: {}", text(&faults)))
    })?;
    let result = if steps.after.is_empty() {
        result
    } else {
        Box::pin(guard::pass(&steps.after, context, result)).await?
    };
    if let Some(make_event) = steps.result {
        make_event(context, result)?;
    }
    Ok(())
}

fn decoded<T: Contract>(inspector: &Inspector, message: &Message) -> Result<T, HandlerError> {
    let json = || message.payload.bytes().ok().flatten();
    if let (MessageType::Command, Some(parameter)) = (message.kind, message.parameter.as_deref()) {
        let joined = parameter::join_untyped(json().as_deref().unwrap_or(b"null"), parameter)?;
        return T::decode(&joined).map_err(|_| unreadable(inspector, Some(&joined), Vec::new()));
    }
    message.payload.value().map_err(|_| unreadable(inspector, json().as_deref(), Vec::new()))
}

/// What cannot be read today cannot be read in a minute: a dead letter at once.
#[cold]
fn unreadable(inspector: &Inspector, json: Option<&[u8]>, found: Vec<Fault>) -> HandlerError {
    let faults = inspector.inspect(json.unwrap_or(b"null"), found);
    HandlerError::dead_letter(format!("the message is not of the documented form: {}", text(&faults)))
}

fn text(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
