//! The span of a request for a command, where traces are sent. It names the route and no path, since that may hold an input.

use purista_core::span;
use purista_core::trace::TraceContext;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::endpoint::Endpoint;
use crate::response::{Answer, Flow};

/// Answers in the span, which ends with the answer's status. It continues the trace that the request names.
pub(crate) async fn answering(span: Span, answering: impl Future<Output = Answer>) -> Answer {
    let answer = answering.instrument(span.clone()).await;
    let status = answer.status();
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span::failed(&span, status.as_str());
    }
    answer
}

/// The span of a request for this command; none where no traces are sent.
pub(crate) fn span_of(endpoint: &Endpoint, trace: Option<&TraceContext>, flow: &Flow) -> Span {
    if !span::is_on() {
        return Span::none();
    }
    let (method, route) = (endpoint.method.as_str(), &*endpoint.path);
    let span = tracing::info_span!(
        parent: None,
        "http.request",
        otel.name = %format_args!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        error.type = Empty,
        purista.traceId = %flow.id,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
    );
    span::follow(&span, trace, &flow.id);
    span
}
