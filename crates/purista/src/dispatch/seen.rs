//! A command where somebody looks: in a span of a trace, or in one by which the log knows the flow.

use futures_util::future::BoxFuture;
use purista_core::bridge::Outcome;
use purista_core::contract::Command;
use purista_core::error::HandlerError;
use purista_core::span::{self, Handler};
use tracing::{Instrument, Span};

use super::{Given, redeciding};
use crate::context::Context;

/// The way of a command in its span.
#[cold]
pub(super) fn dispatch<S, C, F, Fut, const DECIDES: bool>(
    context: Context<S>,
    given: Given,
) -> BoxFuture<'static, Outcome>
where
    S: Send + Sync + 'static,
    C: Command,
    F: Fn(Context<S>, C) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<C::Output, HandlerError>> + Send + 'static,
{
    let is_traced = span::is_on();
    let span = if is_traced { span_of::<S, C>(&context) } else { log_span::<S, C>(&context) };
    let handled = is_traced.then(|| span.clone());
    let dispatched: BoxFuture<'static, Outcome> = if DECIDES {
        Box::pin(redeciding::dispatch::<S, C, F, Fut>(context, given).instrument(span))
    } else {
        Box::pin(super::dispatch::<S, C, F, Fut>(context, given).instrument(span))
    };
    match handled {
        Some(span) => Box::pin(async move { continued(dispatched.await, &span) }),
        None => dispatched,
    }
}

fn log_span<S, C: Command>(context: &Context<S>) -> Span {
    let (message, command) = (context.message(), &context.place().sender.address);
    tracing::info_span!(
        "purista.command.received", otel.name = C::NAME, %command, trace_id = %message.trace_id, message_id = %message.id,
        principal_id = message.principal_id.as_deref(), tenant_id = message.tenant_id.as_deref()
    )
}

/// The span of one call, for a trace.
fn span_of<S, C: Command>(context: &Context<S>) -> Span {
    let place = context.place();
    let system = place.runtime.bridge.capabilities().name;
    let handler = Handler { address: &place.sender.address, name: C::NAME, system, is_command: true };
    span::handling(context.message(), handler, context.attempt())
}

/// Who hears the event of a reply continues from the span of the command that gave it.
fn continued(mut outcome: Outcome, span: &Span) -> Outcome {
    if let (Outcome::Reply(reply), Some(trace)) = (&mut outcome, span::of(span)) {
        reply.trace = Some(trace);
    }
    outcome
}
