//! The way of a command, read from the top: receive → deadline → decode → transform → validate → guards → handler →
//! validate output → guards → transform → commit → reply.

use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use purista_core::bridge::{Consumer, Delivery, Outcome};
use purista_core::contract::{Command, Contract, ContractError};
use purista_core::error::HandlerError;
use purista_core::fault::Fault;
use purista_core::message::{Message, MessageType, Record};
use purista_core::outline::UnencodedBounds;
use purista_core::parameter::Parameters;
use purista_core::payload::{PAYLOAD_BYTES_MAX, Payload};
use purista_core::schema::Inspector;
use purista_core::sharded::Sharded;
use purista_core::span;
use purista_core::status::Status;
use purista_core::text::Text;
use purista_events::batch::{REPLY_BYTES_MAX, StoredReply};
use tracing::level_filters::LevelFilter;
use tracing::{Instrument, Span};

use crate::commit::{Beside, CommitError, commit};
use crate::context::{Context, Place};
use crate::deadline::UntilDeadline;
use crate::failure::Failure;
use crate::guard;
use crate::idempotency::{self, Claim};
use crate::observation::Ending;
use crate::observed::Observed;
use crate::steps::{Steps, SuccessEvent};
use crate::unit_of_work::Changes;

mod keyed;
mod redeciding;
mod seen;

use keyed::{claimed, kept_reply};

/// One command of a running host.
struct Serving<S, C: Command, F> {
    handler: F,
    steps: Steps<S, C>,
    inspector: Inspector,
    parameters: Parameters,
    /// What is asked of an input and an output that stay in the process.
    input_bounds: UnencodedBounds,
    output_bounds: UnencodedBounds,
}

/// What nobody ever reads: a place is made with its handler.
const NOT_OURS: &str = "the place is another handler's";

/// Feeds a command from a bridge. What a call holds on to is counted in its threads' own place. What only deciders need is
/// known to the compiler, so that other commands do not ask for it.
struct Served<S, C, F, const DECIDES: bool> {
    places: Sharded<Arc<Place<S>>>,
    serving: PhantomData<fn() -> (C, F)>,
}

/// Serves a command with this handler at this place.
pub(crate) fn serve<S, C, F, Fut, const DECIDES: bool>(
    handler: F,
    steps: Steps<S, C>,
    place: Place<S>,
) -> Arc<dyn Consumer>
where
    S: Send + Sync + 'static,
    C: Command,
    F: Fn(Context<S>, C) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<C::Output, HandlerError>> + Send + 'static,
{
    let (inspector, parameters) = (Inspector::of::<C>(), Parameters::of::<C>());
    let input_bounds = UnencodedBounds::new::<C>(PAYLOAD_BYTES_MAX);
    let output_bounds = UnencodedBounds::new::<C::Output>(PAYLOAD_BYTES_MAX);
    let serving = Serving { handler, steps, inspector, parameters, input_bounds, output_bounds };
    let place = Place { handler: Arc::new(serving), ..place };
    let places = Sharded::new(|| Arc::new(place.apart()));
    Arc::new(Served::<_, _, _, DECIDES> { places, serving: PhantomData::<fn() -> (C, F)> })
}

impl<S, C, F, Fut, const DECIDES: bool> Consumer for Served<S, C, F, DECIDES>
where
    S: Send + Sync + 'static,
    C: Command,
    F: Fn(Context<S>, C) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<C::Output, HandlerError>> + Send + 'static,
{
    fn consume(&self, delivery: Delivery) -> BoxFuture<'static, Outcome> {
        let Delivery { mut message, attempt } = delivery;
        let given =
            Given { payload: message.take_payload(), parameter: message.take_parameter().map(Box::new) };
        let context = Context::new(Arc::clone(self.places.mine()), message, attempt);
        // A disabled span costs nothing, an entered one a look-up at every poll. `tracing::enabled!` would be remembered by
        // filters for the next span of this thread.
        if LevelFilter::current() >= LevelFilter::INFO {
            return seen::dispatch::<S, C, F, Fut, DECIDES>(context, given);
        }
        if DECIDES {
            Box::pin(redeciding::dispatch::<S, C, F, Fut>(context, given))
        } else {
            Box::pin(dispatch::<S, C, F, Fut>(context, given))
        }
    }
}

/// The input of a command as its message brought it.
#[derive(Clone, Default)]
struct Given {
    payload: Payload,
    /// Boxed, since few commands have one.
    parameter: Option<Box<Bytes>>,
}

/// What a command ended with, before it is committed.
enum Ran<O> {
    Output { output: O, event_is_recorded: bool },
    Answered(Box<StoredReply>),
}

/// A run that was not cut off at the deadline, and did not panic.
type RunEnd<O> = Option<std::thread::Result<Result<Ran<O>, HandlerError>>>;

/// Neither this nor [`run`] is an `async fn`, whose future would hold what it is given twice.
#[expect(clippy::manual_async_fn, reason = "an async fn holds its arguments twice: measured in instructions")]
fn dispatch<S, C, F, Fut>(
    context: Context<S>,
    mut given: Given,
) -> impl Future<Output = Outcome> + Send + 'static
where
    S: Send + Sync + 'static,
    C: Command,
    F: Fn(Context<S>, C) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<C::Output, HandlerError>> + Send + 'static,
{
    async move {
        let Some(serving) = serving::<S, C, F>(context.place()) else {
            return Outcome::DeadLetter { reason: NOT_OURS.to_owned() };
        };
        let seen = context.runtime().observer.is_some().then(|| Box::new(given.payload.clone()));
        let deadline = context.deadline();

        let mut claim = None;
        let ran = {
            let work = run(serving, &context, &mut given, &mut claim);
            UntilDeadline::new(pin!(AssertUnwindSafe(work).catch_unwind()), deadline).await
        };
        let event = serving.steps.success.map(|(event, _)| event);
        let (ran, context) = match ran {
            Some(Ok(Ok(Ran::Output { output, event_is_recorded }))) if claim.is_none() && seen.is_none() => {
                match context.untouched() {
                    // A command that changed nothing has nothing to wait for, and becomes its own reply.
                    Ok((message, place)) => {
                        return Outcome::Reply(plain_reply(
                            event,
                            message.into_own(),
                            &place,
                            Payload::typed(output),
                        ));
                    }
                    Err(context) => (Some(Ok(Ok(Ran::Output { output, event_is_recorded }))), context),
                }
            }
            ran => (ran, context),
        };
        let changes = context.unit().seal();
        Outcome::Reply(Box::pin(settle::<S, C>(event, &context, ran, changes, claim, seen)).await)
    }
}

/// The command whose place this is.
fn serving<S: 'static, C: Command, F: 'static>(place: &Place<S>) -> Option<&Serving<S, C, F>> {
    place.handler.downcast_ref()
}

/// Commits, answers, and tells who observes.
async fn settle<S: Send + Sync + 'static, C: Command>(
    event: Option<SuccessEvent>,
    context: &Context<S>,
    ran: RunEnd<C::Output>,
    changes: Option<Box<Changes>>,
    claim: Option<Box<Claim>>,
    seen: Option<Box<Payload>>,
) -> Box<Message> {
    let observed = seen.map(|seen| Observed::of(&seen, changes.as_deref()));
    let has_invoked = changes.as_ref().is_some_and(|changes| changes.invokes_kept > 0);
    let ended = committed::<S, C>(event, context, ran, changes, claim.as_deref()).await;
    answered(context, ended.map_err(|failure| failure.after_invokes(has_invoked)), claim, observed).await
}

/// Commits what the handler did, and makes its reply.
async fn committed<S: Send + Sync + 'static, C: Command>(
    event: Option<SuccessEvent>,
    context: &Context<S>,
    ran: RunEnd<C::Output>,
    changes: Option<Box<Changes>>,
    claim: Option<&Claim>,
) -> Result<Box<Message>, Failure> {
    match ran {
        Some(Ok(Ok(Ran::Output { output, event_is_recorded }))) => {
            let payload = Payload::typed(output);
            commit_unit(event, context, &payload, changes, claim).await?;
            Ok(reply(event, context, payload, event_is_recorded))
        }
        Some(Ok(Ok(Ran::Answered(reply)))) => Ok(answered_before(context, *reply)),
        Some(Ok(Err(error))) => Err(Failure::of_handler(&error)),
        Some(Err(panic)) => Err(Failure::panicked(&*panic)),
        None => Err(Failure::timed_out()),
    }
}

/// The answer that leaves, and what observers are told.
async fn answered<S: Send + Sync + 'static>(
    context: &Context<S>,
    mut ended: Result<Box<Message>, Failure>,
    claim: Option<Box<Claim>>,
    observed: Option<Observed>,
) -> Box<Message> {
    if let (Err(_), Some(claim)) = (&ended, &claim)
        // Another process may have answered this key meanwhile: then the loser's own error ("taken") would be a lie.
        && let Some(reply) = kept_reply(context, claim).await
    {
        ended = Ok(answered_before(context, reply));
    }
    drop(claim);
    if let Some(observed) = observed {
        observed.settled(context, ended.as_ref().map_or_else(Failure::ending, |_| Ending::Done));
    }
    ended.unwrap_or_else(|failure| refused(context, &failure))
}

/// From the bytes to the output. Input and output are looked at in functions of their own, so that the future holds
/// neither while it waits.
#[expect(clippy::manual_async_fn, reason = "an async fn holds its arguments twice: measured in instructions")]
fn run<S, C, F, Fut>(
    serving: &Serving<S, C, F>,
    context: &Context<S>,
    given: &mut Given,
    claim: &mut Option<Box<Claim>>,
) -> impl Future<Output = Result<Ran<C::Output>, HandlerError>> + Send
where
    S: Send + Sync + 'static,
    C: Command,
    F: Fn(Context<S>, C) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<C::Output, HandlerError>> + Send + 'static,
{
    async move {
        let steps = &serving.steps;
        let input = prepared(serving, std::mem::take(given))?;
        let input = if context.message().idempotency_key.is_some() || !steps.before.is_empty() {
            match Box::pin(admitted(steps, context, input, claim)).await? {
                Admitted::Input(input) => input,
                Admitted::Answered(reply) => return Ok(Ran::Answered(reply)),
            }
        } else {
            input
        };
        let work = (serving.handler)(context.clone(), input);
        let output = checked(work.instrument(tracing::debug_span!("functionExecution")).await?)?;
        let output = if steps.after.is_empty() {
            output
        } else {
            Box::pin(guard::pass(&steps.after, context, output)).await?
        };
        marked(serving, context, output)
    }
}

/// Decoded, transformed, and checked against its rules.
fn prepared<S, C: Command, F>(serving: &Serving<S, C, F>, given: Given) -> Result<C, HandlerError> {
    let is_typed = given.payload.is_typed();
    let mut input: C = decoded(serving, given)?;
    if is_typed && serving.input_bounds.is_needed() {
        serving.input_bounds.check(&input).map_err(|error| beyond(&error))?;
    }
    if let Some(transform) = &serving.steps.transform_input {
        input = tracing::debug_span!("inputTransformation").in_scope(|| transform(input))?;
    }
    match tracing::debug_span!("validatePayload").in_scope(|| input.check()) {
        Ok(()) => Ok(input),
        Err(found) => Err(refuse(&serving.inspector, input.encode().ok().as_ref(), found)),
    }
}

fn checked<O: Contract>(output: O) -> Result<O, HandlerError> {
    match tracing::debug_span!("outputValidation").in_scope(|| output.check()) {
        Ok(()) => Ok(output),
        Err(faults) => Err(HandlerError::failed(broken_output(&faults))),
    }
}

/// An input that no broker would have brought: too large, or with what JSON cannot say.
#[cold]
fn beyond(error: &ContractError) -> HandlerError {
    let status = if error.is_too_large() { Status::PAYLOAD_TOO_LARGE } else { Status::BAD_REQUEST };
    HandlerError::handled(status.code(), error.to_string())
}

/// Marked with its event, transformed, and checked to be what a broker would carry.
fn marked<S, C: Command, F>(
    serving: &Serving<S, C, F>,
    context: &Context<S>,
    mut output: C::Output,
) -> Result<Ran<C::Output>, HandlerError> {
    let steps = &serving.steps;
    let event_is_recorded = match steps.success {
        Some((_, mark)) => mark(context, &output)?,
        None => false,
    };
    if let Some(transform) = &steps.transform_output {
        output = tracing::debug_span!("outputTransformation").in_scope(|| transform(output))?;
    }
    serving.output_bounds.check(&output)?;
    Ok(Ran::Output { output, event_is_recorded })
}

fn decoded<S, C: Command, F>(
    serving: &Serving<S, C, F>,
    Given { payload, parameter }: Given,
) -> Result<C, HandlerError> {
    if payload.encoded_len() > PAYLOAD_BYTES_MAX {
        let text = format!("the input has more than {PAYLOAD_BYTES_MAX} bytes");
        return Err(HandlerError::handled(Status::PAYLOAD_TOO_LARGE.code(), text));
    }
    let Some(parameter) = parameter.as_deref() else {
        if payload.is_typed() {
            return payload.take().map_err(|_| refuse(&serving.inspector, None, Vec::new()));
        }
        let Some(json) = payload.into_bytes()? else {
            return Payload::empty().take().map_err(|_| refuse(&serving.inspector, None, Vec::new()));
        };
        return C::decode(&json).map_err(|_| refuse(&serving.inspector, Some(&json), Vec::new()));
    };
    let json = payload.bytes()?.unwrap_or_else(|| Bytes::from_static(b"null"));
    let json = serving
        .parameters
        .join(&json, parameter)
        .map_err(|_| refuse(&serving.inspector, Some(&json), Vec::new()))?;
    C::decode(&json).map_err(|_| refuse(&serving.inspector, Some(&json), Vec::new()))
}

/// 400 with every field at fault: read again, off the hot path, against the schema.
#[cold]
fn refuse(inspector: &Inspector, json: Option<&Bytes>, found: Vec<Fault>) -> HandlerError {
    let json = json.map_or(&b"null"[..], |json| json);
    HandlerError::invalid(&inspector.inspect(json, found))
}

#[cold]
fn broken_output(faults: &[Fault]) -> String {
    let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
    format!("the output breaks its own rules: {}", faults.join("; "))
}

/// What becomes of an input before its handler.
enum Admitted<C> {
    Input(C),
    Answered(Box<StoredReply>),
}

/// Its key is taken, then its guards are asked; a future of its own, since most commands have neither.
async fn admitted<S, C: Command>(
    steps: &Steps<S, C>,
    context: &Context<S>,
    input: C,
    claim: &mut Option<Box<Claim>>,
) -> Result<Admitted<C>, HandlerError> {
    if let Some(reply) = claimed(context, &input, claim).await? {
        return Ok(Admitted::Answered(Box::new(reply)));
    }
    Ok(Admitted::Input(guard::pass(&steps.before, context, input).await?))
}

/// Commits what the handler wants, and the reply with it when it has a key.
async fn commit_unit<S>(
    event: Option<SuccessEvent>,
    context: &Context<S>,
    payload: &Payload,
    changes: Option<Box<Changes>>,
    claim: Option<&Claim>,
) -> Result<(), Failure> {
    let changes = changes.filter(|changes| changes.commits());
    let claim = claim.filter(|claim| changes.is_some() || !idempotency::is_derived(&claim.key.key));
    if changes.is_none() && claim.is_none() {
        return Ok(());
    }
    // What a broker or a store is to carry is encoded before the commit: what cannot be is no reply to something that was done.
    let leaves = claim.is_some() || !context.runtime().bridge.capabilities().is_local;
    let body =
        if leaves { payload.bytes().map_err(|error| Failure::of_handler(&error.into()))? } else { None };
    if body.as_ref().is_some_and(|body| body.len() > REPLY_BYTES_MAX) {
        let text = format!("the reply has more than {REPLY_BYTES_MAX} bytes");
        return Err(Failure::of_handler(&HandlerError::failed(text)));
    }
    let reply = claim.map(|claim| StoredReply {
        key: claim.key.clone(),
        fingerprint: claim.fingerprint,
        body,
        event_name: event.map(|event| event.name.into()),
    });
    let local = reply.clone().filter(|_| context.runtime().store.is_none());
    let beside = Beside { reply, deadline: Some(context.deadline()), ..Beside::default() };
    let result = commit(context.runtime(), context.message(), changes, beside).await;
    result.map_err(|error: CommitError| Failure::of_commit(&error))?;
    if let (Some(claim), Some(reply)) = (claim, local) {
        context.runtime().running.keep(claim, reply);
    }
    Ok(())
}

/// The reply to a command that changed nothing.
fn plain_reply<S>(
    event: Option<SuccessEvent>,
    mut message: Box<Message>,
    place: &Place<S>,
    payload: Payload,
) -> Box<Message> {
    let kind = MessageType::CommandSuccessResponse;
    message.turn_into_response(kind, place.runtime.clock.now_ms(), place.sender.clone(), payload);
    mark(&mut message, event);
    message
}

/// Names the event of a response, and its version where that is not the first: what is absent on the wire is version 1.
#[inline]
fn mark(message: &mut Message, event: Option<SuccessEvent>) {
    message.event_name = event.map(|event| Text::known(event.name));
    if let Some(SuccessEvent { version: version @ 2.., .. }) = event {
        let record = Record { origin: None, causation_id: None, event_version: version };
        message.record = Some(Box::new(record));
    }
}

/// The reply to a command that did its work.
fn reply<S>(
    event: Option<SuccessEvent>,
    context: &Context<S>,
    payload: Payload,
    event_is_recorded: bool,
) -> Box<Message> {
    let mut reply = response(context, payload);
    mark(&mut reply, event);
    if event_is_recorded {
        let version = event.map_or(1, |event| event.version);
        reply.record = Some(Box::new(routed_by_the_log(context, version)));
    }
    reply
}

fn response<S>(context: &Context<S>, payload: Payload) -> Box<Message> {
    let place = context.place();
    let now = place.runtime.clock.now_ms();
    let kind = MessageType::CommandSuccessResponse;
    Box::new(context.message().response(kind, now, place.sender.clone(), payload))
}

/// Marks a response whose event comes from the log: it is not routed by its event name a second time.
fn routed_by_the_log<S>(context: &Context<S>, event_version: u32) -> Record {
    let origin = context.runtime().store.as_ref().map(|store| store.origin());
    Record { origin, causation_id: None, event_version }
}

/// The first answer again. Its event went out with the first.
fn answered_before<S>(context: &Context<S>, reply: StoredReply) -> Box<Message> {
    let mut message = response(context, reply.body.map_or_else(Payload::empty, Payload::encoded));
    message.event_name = reply.event_name.map(Text::from);
    let mut record = routed_by_the_log(context, 1);
    // Without a log nothing else delivers it, and the first answer did.
    record.origin.get_or_insert_with(|| context.runtime().instance.to_string().into());
    message.record = Some(Box::new(record));
    message
}

#[cold]
fn refused<S>(context: &Context<S>, failure: &Failure) -> Box<Message> {
    span::failed(&Span::current(), failure.status().code());
    let _span = tracing::debug_span!("sendErrorResponse").entered();
    let (message, place) = (context.message(), context.place());
    if failure.is_handled() {
        tracing::debug!(command = %place.sender.address, trace_id = %message.trace_id, error = failure.report(), "refused");
    } else {
        tracing::error!(command = %place.sender.address, trace_id = %message.trace_id, error = failure.report(), "a command failed");
    }
    let now = place.runtime.clock.now_ms();
    let payload = failure.payload(message);
    Box::new(message.error_response(now, place.sender.clone(), &payload, failure.is_handled()))
}
