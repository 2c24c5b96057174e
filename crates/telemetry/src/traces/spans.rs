//! Spans of `tracing` in a trace that goes on from process to process.

use std::cell::Cell;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use purista_core::span::Tracer;
use purista_core::trace::TraceContext;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// What the framework asks of spans.
pub(crate) const TRACER: Tracer = Tracer { continue_from, begin, context };

thread_local! {
    /// The id of the trace that the next span without a parent begins on this thread.
    static NEXT_TRACE: Cell<Option<TraceId>> = const { Cell::new(None) };
}

fn continue_from(span: &Span, parent: &TraceContext) {
    let (trace, id, flags) = parent.parts();
    let state: TraceState = parent.state().and_then(|state| state.parse().ok()).unwrap_or_default();
    let (trace, id) = (TraceId::from_bytes(trace), SpanId::from_bytes(id));
    let parent = SpanContext::new(trace, id, TraceFlags::new(flags), true, state);
    // A span that is not sent has no parent either.
    let _ = span.set_parent(Context::new().with_remote_span_context(parent));
}

fn begin(span: &Span, trace: [u8; 16]) {
    if span.set_parent(Context::new()).is_ok() {
        NEXT_TRACE.set(Some(TraceId::from_bytes(trace)));
        let _ = span.context();
        NEXT_TRACE.set(None);
    }
}

fn context(span: &Span) -> Option<TraceContext> {
    let context = span.context();
    let span = context.span();
    let place = span.span_context();
    let (trace, id) = (place.trace_id().to_bytes(), place.span_id().to_bytes());
    TraceContext::of_parts(trace, id, place.trace_flags().to_u8(), Some(&place.trace_state().header()))
}

/// Makes ids at random, save that of a trace that is begun with an id of its own.
#[derive(Debug, Default)]
pub(crate) struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        NEXT_TRACE.take().filter(|id| *id != TraceId::INVALID).unwrap_or_else(|| self.0.new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        self.0.new_span_id()
    }
}
