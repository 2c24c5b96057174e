//! Spans of messages, for those who send traces to a collector.
//!
//! A message is the only link between two spans of different handlers, in one process as between several: whoever sends it
//! writes its span into [`Message::trace`], and whoever handles it continues from there. So a trace looks the same over every
//! bridge, from the log, and after a retry.
//!
//! This crate knows no collector. Whoever does ([`connect`]) says how a span is continued and what its context is; until then
//! nothing here makes a span, and [`is_on`] is one load.

use std::fmt::Display;
use std::sync::OnceLock;

use tracing::field::{Empty, display};
use tracing::{Instrument, Span, info_span};

use crate::address::Address;
use crate::bridge::{Answer, Asking, BridgeError, BridgeErrorKind, EventBridge};
use crate::id::Id;
use crate::message::{ErrorPayload, Message, MessageType};
use crate::trace::TraceContext;

/// How spans of `tracing` become those of a trace that processes share.
#[derive(Debug, Clone, Copy)]
pub struct Tracer {
    /// Makes a span the child of one elsewhere.
    pub continue_from: fn(&Span, &TraceContext),
    /// Makes a span the first of the trace with this id.
    pub begin: fn(&Span, [u8; 16]),
    /// The place of a span in its trace; `None` where it has none. From here on its parent stays as it is.
    pub context: fn(&Span) -> Option<TraceContext>,
}

static TRACER: OnceLock<Tracer> = OnceLock::new();

/// Begins to make spans for traces, until the program ends. What knows the collector calls it once, beside setting the
/// subscriber of `tracing`; whether it was the first to.
pub fn connect(tracer: Tracer) -> bool {
    TRACER.set(tracer).is_ok()
}

/// Whether spans are made for traces.
#[inline]
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// The place of the span that is entered now.
pub fn current() -> Option<TraceContext> {
    of(&Span::current())
}

/// The place of a span in its trace.
pub fn of(span: &Span) -> Option<TraceContext> {
    TRACER.get().and_then(|tracer| (tracer.context)(span))
}

/// Makes a span the child of `parent`; without one, the first of a trace that has the flow's id where that has the form of a
/// trace's, so that logs, messages and spans show one id.
pub fn follow(span: &Span, parent: Option<&TraceContext>, flow: &Id) {
    let Some(tracer) = TRACER.get() else { return };
    match (parent, flow.bytes()) {
        (Some(parent), _) => (tracer.continue_from)(span, parent),
        (None, Some(trace)) => (tracer.begin)(span, *trace),
        (None, None) => {}
    }
}

/// Says that the work of a span failed, and in which way: a status, or a short word. The text of an error is for the log, which
/// finds it under the same trace id.
#[cold]
pub fn failed(span: &Span, error_type: impl Display) {
    span.record("error.type", display(error_type)).record("otel.status_code", "ERROR");
}

/// Who handles a message.
#[derive(Debug, Clone, Copy)]
pub struct Handler<'h> {
    /// Where it is.
    pub address: &'h Address,
    /// The name of the command or of the subscription; the span has it.
    pub name: &'h str,
    /// What carries its messages, as in [`crate::bridge::Capabilities::name`].
    pub system: &'h str,
    /// Whether it answers.
    pub is_command: bool,
}

/// The span in which a message is handled, for the `attempt`th time.
pub fn handling(message: &Message, handler: Handler<'_>, attempt: u32) -> Span {
    let Handler { address, name, system, is_command } = handler;
    let operation =
        if is_command { "purista.command.received" } else { "purista.subscription.eventReceived" };
    let sender = &message.sender.address;
    let span = info_span!(
        parent: None,
        "purista.message.handled",
        otel.name = name,
        otel.kind = "consumer",
        otel.status_code = Empty,
        error.type = Empty,
        purista.traceId = %message.trace_id,
        messaging.system = system,
        messaging.operation.name = operation,
        messaging.operation.type = "process",
        messaging.destination.name = message.event_name.as_deref(),
        messaging.message.id = %message.id,
        messaging.message.conversation_id = message.correlation_id.as_ref().map(display),
        rpc.system = is_command.then_some("purista"),
        // As a signed number: others become texts on the way to the collector.
        purista.attempt = i64::from(attempt),
        purista.receiver.name = address.service(),
        purista.receiver.version = address.version(),
        purista.receiver.target = address.target(),
        purista.sender.name = sender.service(),
        purista.sender.version = sender.version(),
        purista.sender.target = sender.target(),
        purista.principalId = message.principal_id.as_deref(),
        purista.tenantId = message.tenant_id.as_deref(),
    );
    follow(&span, message.trace.as_ref(), &message.trace_id);
    span
}

/// Sends a command in a span of its own, which the message then tells of. Where no span is entered, it is a child of what
/// the message tells of already.
#[cold]
pub(crate) fn request(bridge: &dyn EventBridge, mut command: Box<Message>) -> Asking<'_> {
    let receiver = command.receiver.as_ref().map(|party| &party.address);
    let span = info_span!(
        "purista.command.invoke",
        otel.kind = "producer",
        otel.status_code = Empty,
        error.type = Empty,
        purista.traceId = %command.trace_id,
        messaging.system = bridge.capabilities().name,
        messaging.operation.name = "invoke",
        messaging.operation.type = "send",
        messaging.destination.name = receiver.map(display),
        messaging.message.id = %command.id,
        messaging.message.conversation_id = command.correlation_id.as_ref().map(display),
        rpc.system = "purista",
        purista.receiver.name = receiver.map(Address::service),
        purista.receiver.version = receiver.map(Address::version),
        purista.receiver.target = receiver.map(Address::target),
        purista.sender.name = command.sender.address.service(),
        purista.sender.version = command.sender.address.version(),
        purista.sender.target = command.sender.address.target(),
        purista.principalId = command.principal_id.as_deref(),
        purista.tenantId = command.tenant_id.as_deref(),
    );
    within(&span, command.trace.as_ref(), &command.trace_id);
    tell_of(&span, &mut command);
    let asked = span.clone();
    Asking::new(
        async move {
            let answer = bridge.request(command).await;
            if let Some(error_type) = error_type(&answer) {
                failed(&asked, error_type);
            }
            answer
        }
        .instrument(span),
    )
}

/// Sends an event in a span of its own, which the message then tells of. Not cancel safe, as the bridge's own.
pub async fn publish(bridge: &dyn EventBridge, mut message: Message) -> Result<(), BridgeError> {
    if !is_on() {
        return bridge.publish(message).await;
    }
    let sender = &message.sender.address;
    let span = info_span!(
        parent: None,
        "purista.emit.MessageToBridge",
        otel.kind = "producer",
        otel.status_code = Empty,
        error.type = Empty,
        purista.traceId = %message.trace_id,
        messaging.system = bridge.capabilities().name,
        messaging.operation.name = "publish",
        messaging.operation.type = "send",
        messaging.destination.name = message.event_name.as_deref(),
        messaging.message.id = %message.id,
        messaging.message.conversation_id = message.correlation_id.as_ref().map(display),
        purista.sender.name = sender.service(),
        purista.sender.version = sender.version(),
        purista.sender.target = sender.target(),
        purista.principalId = message.principal_id.as_deref(),
        purista.tenantId = message.tenant_id.as_deref(),
    );
    follow(&span, message.trace.as_ref(), &message.trace_id);
    tell_of(&span, &mut message);
    let published = bridge.publish(message).instrument(span.clone()).await;
    if let Err(error) = &published {
        failed(&span, kind_of(error));
    }
    published
}

/// The span of an event that a handler adds to its unit of work, and its place, with which the event is recorded. `trace` and
/// `flow` are those of the message that is handled, for handlers whose work goes on where no span is entered.
pub fn emitting(event: &str, trace: Option<&TraceContext>, flow: &Id) -> Option<TraceContext> {
    let span = info_span!(
        "purista.emitEvent",
        otel.kind = "producer",
        purista.traceId = %flow,
        messaging.operation.name = "emit",
        messaging.operation.type = "create",
        messaging.destination.name = event,
    );
    within(&span, trace, flow);
    of(&span).or_else(|| trace.cloned())
}

/// Makes a message tell of the span in which it is sent.
fn tell_of(span: &Span, message: &mut Message) {
    if let Some(context) = of(span) {
        message.trace = Some(context);
    }
}

/// A child of the span that is entered; where none is, of what the message tells of.
fn within(span: &Span, trace: Option<&TraceContext>, flow: &Id) {
    if current().is_none() {
        follow(span, trace, flow);
    }
}

fn error_type(answer: &Answer) -> Option<String> {
    match answer {
        Err(error) => Some(kind_of(error).to_owned()),
        Ok(response) if response.kind == MessageType::CommandErrorResponse => {
            let json = response.payload.bytes().ok().flatten();
            let payload = json.and_then(|json| serde_json::from_slice::<ErrorPayload>(&json).ok());
            Some(payload.map_or_else(|| "_OTHER".to_owned(), |error| error.status.code().to_string()))
        }
        Ok(_) => None,
    }
}

fn kind_of(error: &BridgeError) -> &'static str {
    match error.kind() {
        BridgeErrorKind::Rejected => "rejected",
        BridgeErrorKind::Unknown => "unknown",
        BridgeErrorKind::Timeout => "timeout",
        BridgeErrorKind::Unroutable => "unroutable",
        BridgeErrorKind::TooLarge => "too_large",
    }
}
