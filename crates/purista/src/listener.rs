//! The way of an event to its handler, up to the commit; who feeds it decides what becomes of a failure.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use purista_core::contract::Contract;
use purista_core::error::HandlerError;
use purista_core::fault::Fault;
use purista_core::message::{Message, MessageType};
use purista_core::parameter;
use purista_core::payload::Payload;
use purista_core::schema::Inspector;
use tokio::time::Instant;
use tracing::Instrument;

use crate::context::{Context, Place};
use crate::deadline::UntilDeadline;
use crate::failure::panic_text;
use crate::guard;
use crate::observation::Ending;
use crate::observed::Observed;
use crate::subscription::{Listening, SubscriptionDef};
use crate::unit_of_work::Changes;

/// A subscription of a running host.
pub(crate) trait Listener: Send + Sync + 'static {
    /// Runs the handler once. Nothing is committed yet; `begun` is what was changed before for the same delivery.
    fn hear(
        self: Arc<Self>,
        message: Box<Message>,
        attempt: u32,
        begun: Option<Box<Changes>>,
    ) -> BoxFuture<'static, Heard>;

    fn listening(&self) -> &Listening;
}

/// What one attempt came to.
pub(crate) struct Heard {
    /// The message, without its payload.
    pub(crate) message: Box<Message>,
    /// What it was, for a dead letter.
    pub(crate) payload: Payload,
    /// What the handler did, when it succeeded; it may be nothing to commit.
    pub(crate) result: Result<Option<Box<Changes>>, HandlerError>,
    report: Option<Box<dyn FnOnce(Ending) + Send + Sync>>,
}

impl Heard {
    /// A message that no handler can be given.
    pub(crate) fn unreadable(mut message: Box<Message>) -> Self {
        let payload = std::mem::take(&mut message.payload);
        Self { message, payload, result: Ok(None), report: None }
    }

    /// Tells the observer how it was settled.
    pub(crate) fn settled(&mut self, ending: Ending) {
        if let Some(report) = self.report.take() {
            report(ending);
        }
    }
}

/// A subscription with its types.
pub(crate) struct Listens<S, T: Contract, R: Contract> {
    pub(crate) def: SubscriptionDef<S, T, R>,
    pub(crate) listening: Listening,
    pub(crate) place: Arc<Place<S>>,
    pub(crate) inspector: Inspector,
}

impl<S: Send + Sync + 'static, T: Contract, R: Contract> Listener for Listens<S, T, R> {
    fn hear(
        self: Arc<Self>,
        message: Box<Message>,
        attempt: u32,
        begun: Option<Box<Changes>>,
    ) -> BoxFuture<'static, Heard> {
        if !tracing::enabled!(tracing::Level::INFO) {
            return Box::pin(hear(self, message, attempt, begun));
        }
        // A subscription begins a trace of its own and is linked to the one that it heard of.
        let span = tracing::info_span!(
            "purista.subscription.eventReceived", otel.name = self.listening.terms.name,
            subscription = %self.listening.address, trace_id = %message.trace_id, message_id = %message.id, attempt,
            principal_id = message.principal_id.as_deref(), tenant_id = message.tenant_id.as_deref()
        );
        Box::pin(hear(self, message, attempt, begun).instrument(span))
    }

    fn listening(&self) -> &Listening {
        &self.listening
    }
}

async fn hear<S: Send + Sync + 'static, T: Contract, R: Contract>(
    listens: Arc<Listens<S, T, R>>,
    mut message: Box<Message>,
    attempt: u32,
    begun: Option<Box<Changes>>,
) -> Heard {
    let payload = std::mem::take(&mut message.payload);
    let parameter = message.parameter.take();
    let deadline = Instant::now() + listens.listening.terms.timeout;
    message.deadline = Some(deadline);
    let kept = payload.clone();
    let context = Context::going_on(Arc::clone(&listens.place), message, attempt, begun);
    let ended = {
        let work = run(&listens, &context, payload, parameter.as_deref());
        UntilDeadline::new(pin!(AssertUnwindSafe(work).catch_unwind()), deadline).await
    };
    let changes = context.unit().seal();
    let observed = context.runtime().observer.is_some().then(|| Observed::of(&kept, changes.as_deref()));
    let result = match ended {
        Some(Ok(Ok(()))) => Ok(changes),
        Some(Ok(Err(error))) => Err(error),
        Some(Err(panic)) => Err(HandlerError::failed(panic_text(&*panic))),
        None => Err(HandlerError::failed("the handler did not end before the deadline")),
    };
    let Some(observed) = observed else {
        return Heard { message: context.into_message(), payload: kept, result, report: None };
    };
    let message = Box::new(context.message().clone());
    let report = Box::new(move |ending| observed.settled(&context, ending));
    Heard { message, payload: kept, result, report: Some(report) }
}

async fn run<S: Send + Sync + 'static, T: Contract, R: Contract>(
    listens: &Listens<S, T, R>,
    context: &Context<S>,
    payload: Payload,
    parameter: Option<&[u8]>,
) -> Result<(), HandlerError> {
    let def = &listens.def;
    let mut input: T = decoded(&listens.inspector, context, payload, parameter)?;
    if let Some(transform) = &def.transform_input {
        input = tracing::debug_span!("inputTransformation").in_scope(|| transform(input))?;
    }
    let checked = tracing::debug_span!("validatePayload").in_scope(|| input.check());
    checked.map_err(|found| unreadable(&listens.inspector, input.encode().ok().as_deref(), found))?;
    let input = guard::pass(&def.before, context, input).await?;
    let result =
        (def.handler)(context.clone(), input).instrument(tracing::debug_span!("functionExecution")).await?;
    tracing::debug_span!("outputValidation").in_scope(|| result.check()).map_err(|faults| {
        HandlerError::failed(format!("the result breaks its own rules: {}", text(&faults)))
    })?;
    let result = guard::pass(&def.after, context, result).await?;
    if let Some(mark) = def.result {
        mark(context, result)?;
    }
    Ok(())
}

fn decoded<S, T: Contract>(
    inspector: &Inspector,
    context: &Context<S>,
    payload: Payload,
    parameter: Option<&[u8]>,
) -> Result<T, HandlerError> {
    let json = if payload.is_typed() { None } else { payload.bytes().ok().flatten() };
    if let (MessageType::Command, Some(parameter)) = (context.message().kind, parameter) {
        let joined = parameter::join_untyped(json.as_deref().unwrap_or(b"null"), parameter)?;
        return T::decode(&joined).map_err(|_| unreadable(inspector, Some(&joined), Vec::new()));
    }
    payload.take().map_err(|_| unreadable(inspector, json.as_deref(), Vec::new()))
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
