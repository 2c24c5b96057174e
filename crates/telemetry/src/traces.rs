//! Which spans are sent, to which collector, and what happens while it is away.
//!
//! The variables are OpenTelemetry's own, and the protocol is OTLP over HTTP (`http/protobuf`), which every collector speaks.
//! Without an endpoint nothing is sent, no span is made, and a message costs what it cost before.
//!
//! Spans of the framework tell of messages and of work, and hold no payload; the text of an error is in the log, under the same
//! trace id. A span of your own is sent with the fields that you gave it. Events of the log are not sent.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, filter_fn};
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::error::InitError;

mod client;
mod collector;
mod settings;
mod spans;
mod worker;

pub(crate) use spans::TRACER;
pub(crate) use worker::Exporting;
pub use worker::FLUSH_TIME_MAX;

/// The variable that names the collector, as in `OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318`.
pub const ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// The variable that says which spans are sent, in the form of `RUST_LOG`: `info,purista=debug` adds the steps within each command.
pub const FILTER_VARIABLE: &str = "PURISTA_TRACES_FILTER";
/// Which spans are sent unless told otherwise: those of the framework's messages, and yours of level `INFO` and above.
pub const FILTER_DEFAULT: &str = "info";
/// How many finished spans wait at most, unless `OTEL_BSP_MAX_QUEUE_SIZE` says otherwise; what comes while so many wait is
/// lost, and counted.
pub const SPANS_WAITING_MAX: usize = 2_048;
/// How many spans go out at a time at most, unless `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` says otherwise.
pub const SPANS_AT_A_TIME_MAX: usize = 512;
/// How long a span waits at most for others to go out with, unless `OTEL_BSP_SCHEDULE_DELAY` says otherwise.
pub const DELAY_DEFAULT: Duration = Duration::from_secs(5);
/// How long the collector has to take spans, unless `OTEL_EXPORTER_OTLP_TIMEOUT` says otherwise.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Which spans are sent, and to which collector.
#[must_use = "nothing is sent before `telemetry::init`"]
pub struct Traces {
    /// With the path.
    endpoint: String,
    /// They may be secrets, and are never shown.
    headers: HashMap<String, String>,
    /// The certificates by which the collector is trusted, as PEM, beside those of the machine.
    certificates: Option<Vec<u8>>,
    timeout: Duration,
    sampler: Sampler,
    filter: EnvFilter,
    /// Where the environment gives none.
    service: Option<String>,
    waiting_max: usize,
    at_a_time_max: usize,
    delay: Duration,
}

impl Traces {
    /// What the environment says; `None` when it names no collector, or turns traces off by `OTEL_SDK_DISABLED=true` or
    /// `OTEL_TRACES_EXPORTER=none`.
    ///
    /// | variable | says |
    /// |---|---|
    /// | `OTEL_EXPORTER_OTLP_ENDPOINT` | where the collector is, as `http://localhost:4318` |
    /// | `OTEL_EXPORTER_OTLP_HEADERS` | what is sent with each request, as `authorization=Bearer%20…`; never logged |
    /// | `OTEL_EXPORTER_OTLP_CERTIFICATE` | a file of certificates (PEM) by which the collector is trusted, too |
    /// | `OTEL_EXPORTER_OTLP_TIMEOUT` | how long it has to answer, in milliseconds |
    /// | `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` | who sends |
    /// | `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG` | which share of the traces is sent, as `parentbased_traceidratio` and `0.1` |
    /// | `OTEL_BSP_MAX_QUEUE_SIZE`, `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`, `OTEL_BSP_SCHEDULE_DELAY` | the bounds |
    /// | `PURISTA_TRACES_FILTER` | which spans are sent, see [`FILTER_VARIABLE`] |
    ///
    /// Those of the exporter have forms for traces alone, as `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` (with the path), which go before.
    pub fn from_env() -> Result<Option<Self>, InitError> {
        settings::read(|name| std::env::var(name).ok())
    }

    /// The name under which traces are found, where the environment gives none.
    pub fn service(mut self, name: &str) -> Self {
        self.service = Some(name.to_owned());
        self
    }

    /// Where spans are sent, without a password.
    pub fn endpoint(&self) -> String {
        without_user(&self.endpoint)
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces")
            .field("endpoint", &self.endpoint())
            .field("headers", &self.headers.len())
            .field("sampler", &self.sampler)
            .finish_non_exhaustive()
    }
}

/// An endpoint without the part that may hold a password.
fn without_user(endpoint: &str) -> String {
    let Some((scheme, rest)) = endpoint.split_once("://") else { return String::new() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    // A query may hold a key.
    let path = path.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

/// Begins to send; the layer hands over the spans.
pub(crate) fn begin<S>(traces: Traces) -> Result<(Exporting, impl Layer<S> + Send + Sync + use<S>), InitError>
where
    S: Subscriber + for<'l> LookupSpan<'l> + Send + Sync,
{
    let resource = resource(traces.service.as_deref());
    let exporter = collector::exporter(&traces, &resource)?;
    let (exporting, processor) = worker::start(exporter, &traces).map_err(InitError::Thread)?;
    let provider = SdkTracerProvider::builder()
        .with_sampler(traces.sampler)
        .with_id_generator(spans::Ids::default())
        .with_resource(resource)
        .with_span_processor(processor)
        .build();
    // So what others have made for OpenTelemetry, as clients of databases, finds the same trace.
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    opentelemetry::global::set_tracer_provider(provider.clone());
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("purista"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        // What goes wrong is told by status and type; texts are the log's.
        .with_error_fields_to_exceptions(false)
        .with_error_records_to_exceptions(false)
        .with_error_events_to_exceptions(false)
        .with_error_events_to_status(false)
        .with_filter(traces.filter.and(filter_fn(is_no_event)));
    Ok((exporting, layer))
}

/// Events of the log are the log's alone. A bare question, as `tracing::enabled!` asks, is not refused: the answer would be
/// remembered for the next span of the thread.
fn is_no_event(metadata: &Metadata<'_>) -> bool {
    !metadata.is_event()
}

/// Who sends: the environment first.
fn resource(service: Option<&str>) -> Resource {
    let from_env = Resource::builder().build();
    let key = opentelemetry::Key::from_static_str("service.name");
    let is_named = from_env.get(&key).is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    if is_named {
        return from_env;
    }
    let program = || std::env::current_exe().ok()?.file_name()?.to_str().map(ToOwned::to_owned);
    let name = service.map(ToOwned::to_owned).or_else(program);
    Resource::builder().with_service_name(name.unwrap_or_else(|| "purista".to_owned())).build()
}

#[cfg(test)]
mod tests;
