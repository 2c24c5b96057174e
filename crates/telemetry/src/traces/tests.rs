//! What the environment may say, and what happens while the collector is away.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::{Arc, Mutex};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter, SpanLinks, SpanProcessor as _};
use tokio::sync::Semaphore;

use super::*;
use crate::logging::tests::Kept;

const COLLECTOR: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318");
/// What may stand in a header, and nowhere else.
const CANARY: &str = "canary-7c1f";

fn read(variables: &[(&str, &str)]) -> Result<Option<Traces>, InitError> {
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    settings::read(|name| variables.get(name).map(|value| (*value).to_owned()))
}

fn sent(variables: &[(&str, &str)]) -> Traces {
    let variables: Vec<_> = [COLLECTOR].into_iter().chain(variables.iter().copied()).collect();
    read(&variables).unwrap().unwrap()
}

#[track_caller]
fn check_refused(variable: &str, value: &str, says: &str) {
    let error = read(&[COLLECTOR, (variable, value)]).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with(variable) && text.contains(says), "{text}");
}

#[test]
fn without_a_collector_nothing_is_sent() {
    for off in [
        &[][..],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")],
        &[("OTEL_SERVICE_NAME", "user"), ("OTEL_TRACES_SAMPLER", "no sampler")],
        &[COLLECTOR, ("OTEL_SDK_DISABLED", "TRUE")],
        &[COLLECTOR, ("OTEL_TRACES_EXPORTER", "none")],
    ] {
        assert!(read(off).unwrap().is_none(), "{off:?}");
    }
}

#[test]
fn the_endpoint_for_everything_gets_a_path_and_that_for_traces_is_taken_as_it_is() {
    assert_eq!(sent(&[]).endpoint, "http://localhost:4318/v1/traces");
    let of = |url| sent(&[("OTEL_EXPORTER_OTLP_ENDPOINT", url)]).endpoint;
    assert_eq!(of("https://collector.example/otlp/"), "https://collector.example/otlp/v1/traces");
    let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://elsewhere:1/in");
    assert_eq!(sent(&[traces]).endpoint, "http://elsewhere:1/in");
}

#[test]
fn what_cannot_be_understood_is_refused_by_name_with_what_to_write() {
    check_refused("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318", "http://localhost:4318");
    check_refused("OTEL_EXPORTER_OTLP_ENDPOINT", "no url", "http://localhost:4318");
    check_refused("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "grpc://host", "http://localhost:4318");
    check_refused("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf");
    check_refused("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip", "`none`");
    check_refused("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file", "/no/such/file");
    check_refused("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "milliseconds");
    check_refused("OTEL_TRACES_EXPORTER", "jaeger", "`otlp` or `none`");
    check_refused("OTEL_TRACES_SAMPLER", "sometimes", "`always_on`");
    check_refused("OTEL_BSP_MAX_QUEUE_SIZE", "0", "from 1 to");
    check_refused("OTEL_BSP_SCHEDULE_DELAY", "-1", "milliseconds");
    check_refused("PURISTA_TRACES_FILTER", "a=b=c", "info,purista=debug");
    let half = [COLLECTOR, ("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "2")];
    assert!(read(&half).unwrap_err().to_string().starts_with("OTEL_TRACES_SAMPLER_ARG is `2`"));
}

#[test]
fn samplers_headers_and_bounds_are_opentelemetrys() {
    let traces = sent(&[
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20a%2Cb, x-team = one"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "10"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "7"),
    ]);
    assert_eq!(format!("{:?}", traces.sampler), "ParentBased(TraceIdRatioBased(0.25))");
    assert_eq!(traces.headers["authorization"], "Bearer a,b");
    assert_eq!(traces.headers["x-team"], "one");
    assert_eq!((traces.waiting_max, traces.at_a_time_max), (10, 10));
    assert_eq!((traces.delay, traces.timeout), (Duration::from_millis(50), Duration::from_millis(7)));
}

#[test]
fn no_error_and_no_debug_shows_a_header_or_a_password() {
    for bad in [CANARY.to_owned(), format!("a b={CANARY}"), format!("a={CANARY}%"), format!("a={CANARY}%0A")]
    {
        let error = read(&[COLLECTOR, ("OTEL_EXPORTER_OTLP_HEADERS", &bad)]).unwrap_err();
        let text = format!("{error} {error:?} {:?}", error.source());
        assert!(text.contains("OTEL_EXPORTER_OTLP_HEADERS") && !text.contains(CANARY), "{text}");
    }
    let url = format!("http://user:{CANARY}@host:1/x?key={CANARY}");
    let traces = sent(&[
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &url),
        ("OTEL_EXPORTER_OTLP_HEADERS", &format!("authorization={CANARY}")),
    ]);
    assert_eq!(traces.endpoint(), "http://host:1/x");
    assert!(!format!("{traces:?}").contains(CANARY));
    let error = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("ftp://user:{CANARY}@host"))]).unwrap_err();
    assert!(!format!("{error} {error:?}").contains(CANARY));
}

/// A collector whose answers the test gives.
#[derive(Debug, Clone)]
struct Collector {
    taken: Arc<Mutex<Vec<usize>>>,
    is_away: Arc<Mutex<bool>>,
    /// One for each answer that it may give.
    answers: Arc<Semaphore>,
}

impl Collector {
    fn new(answers: usize) -> Self {
        let answers = Arc::new(Semaphore::new(answers));
        Self { taken: Arc::default(), is_away: Arc::default(), answers }
    }
}

impl SpanExporter for Collector {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.answers.acquire().await.unwrap().forget();
        if *self.is_away.lock().unwrap() {
            return Err(OTelSdkError::InternalFailure("connection refused".to_owned()));
        }
        self.taken.lock().unwrap().push(batch.len());
        Ok(())
    }
}

fn span(flags: TraceFlags) -> SpanData {
    let (trace, id) = (TraceId::from_bytes([1; 16]), SpanId::from_bytes([1; 8]));
    SpanData {
        span_context: SpanContext::new(trace, id, flags, false, TraceState::NONE),
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: "worked".into(),
        start_time: opentelemetry::time::now(),
        end_time: opentelemetry::time::now(),
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: opentelemetry::InstrumentationScope::default(),
    }
}

/// Runs a worker, and gives what it logged.
fn worked(traces: &Traces, collector: &Collector, work: impl FnOnce(&worker::Processor)) -> Vec<String> {
    let kept = Kept::default();
    let logging = crate::logging::Logging::from_env().unwrap().filter("info").unwrap().colours(false);
    let (logs, subscriber) = crate::logging::into_writer(logging, kept.clone()).unwrap();
    let (worker, waiting, processor) = worker::parts(collector.clone(), traces).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || tracing::subscriber::with_default(subscriber, || worker.run(&waiting)));
        work(&processor);
        drop(processor);
    });
    drop(logs);
    let bytes = kept.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap().lines().map(ToOwned::to_owned).collect()
}

fn end(processor: &worker::Processor, count: usize) {
    for _ in 0..count {
        processor.on_end(span(TraceFlags::SAMPLED));
    }
}

#[test]
fn spans_leave_in_batches_and_those_that_are_not_sampled_not_at_all() {
    let traces = sent(&[("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "3")]);
    let collector = Collector::new(9);
    let logged = worked(&traces, &collector, |processor| {
        end(processor, 7);
        processor.on_end(span(TraceFlags::NOT_SAMPLED));
        processor.force_flush().unwrap();
    });
    assert_eq!(*collector.taken.lock().unwrap(), [3, 3, 1]);
    assert_eq!(logged, [""; 0]);
}

#[test]
fn a_collector_that_is_away_is_told_of_once_with_what_was_lost_and_again_when_it_is_back() {
    let traces = sent(&[("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")]);
    let collector = Collector::new(99);
    let logged = worked(&traces, &collector, |processor| {
        *collector.is_away.lock().unwrap() = true;
        end(processor, 10);
        processor.force_flush().unwrap();
        *collector.is_away.lock().unwrap() = false;
        end(processor, 2);
        processor.force_flush().unwrap();
    });
    assert_eq!(*collector.taken.lock().unwrap(), [2]);
    // Five batches did not leave: the first is told of, and a flush, as at the end of a program, says how many were lost.
    let [away, lost, back] = logged.as_slice() else { panic!("{logged:?}") };
    assert!(
        away.contains(" WARN ") && away.contains("lost=2") && away.contains("connection refused"),
        "{away}"
    );
    assert!(lost.contains(" WARN ") && lost.contains("lost=10"), "{lost}");
    assert!(back.contains(" INFO ") && back.contains("lost=10"), "{back}");
}

#[test]
fn a_queue_that_is_full_stops_nobody_and_what_is_lost_is_counted() {
    let traces = sent(&[("OTEL_BSP_MAX_QUEUE_SIZE", "4"), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")]);
    let collector = Collector::new(0);
    let logged = worked(&traces, &collector, |processor| {
        // The worker holds one and waits for an answer; four wait, the others find no room.
        end(processor, 1_000);
        collector.answers.add_permits(99);
        processor.force_flush().unwrap();
    });
    let taken = collector.taken.lock().unwrap().len();
    assert!((4..=5).contains(&taken), "{taken}");
    let lost = format!("lost={}", 1_000 - taken);
    assert_eq!(logged.len(), 1, "{logged:?}");
    assert!(logged[0].contains(&lost), "{logged:?}");
}
