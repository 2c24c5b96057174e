//! A receiver of OpenTelemetry's traces, in Python, which decodes them by OpenTelemetry's own definitions.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// How long a receiver may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long spans may take that are waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A span as the receiver took it. Ids are lowercase hex digits.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "OpenTelemetry's names, each says what it is")]
pub struct Span {
    pub trace: String,
    pub id: String,
    pub parent: Option<String>,
    /// The header `tracestate`.
    pub state: String,
    pub name: String,
    /// `server`, `producer`, `consumer`, `internal`, `client`.
    pub kind: String,
    /// `unset`, `ok`, `error`.
    pub status: String,
    /// The text of an error.
    pub message: String,
    pub begun_ns: u64,
    pub ended_ns: u64,
    /// How many.
    pub events: u32,
    /// The traces that it is linked to.
    pub links: Vec<String>,
    pub attributes: BTreeMap<String, Value>,
    /// What is known of who sent it.
    pub resource: BTreeMap<String, Value>,
    /// The header of the request that brought it.
    pub authorization: Option<String>,
}

impl Span {
    /// The name of the service that sent it.
    pub fn service(&self) -> &str {
        self.resource.get("service.name").and_then(Value::as_str).unwrap_or_default()
    }

    /// An attribute that is a text; an empty one where it is none.
    pub fn text(&self, attribute: &str) -> &str {
        self.attributes.get(attribute).and_then(Value::as_str).unwrap_or_default()
    }
}

/// A receiver of traces at a free port.
#[derive(Debug)]
pub struct OtlpReceiver {
    lines: Lines<BufReader<ChildStdout>>,
    port: u16,
    spans: Vec<Span>,
    _process: Child,
}

impl OtlpReceiver {
    /// Starts one.
    pub async fn start() -> Self {
        Self::start_at(0).await
    }

    /// Starts one at this port.
    pub async fn start_at(port: u16) -> Self {
        let python = std::env::var_os("PURISTA_PYTHON")
            .expect("PURISTA_PYTHON names a python3 with opentelemetry-proto; `cargo xtask test` sets it");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/otlp_receiver.py");
        let mut process = Command::new(python)
            .args([script, &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the Python of `cargo xtask test` starts");
        let mut lines = BufReader::new(process.stdout.take().expect("its output is piped")).lines();
        let ready = tokio::time::timeout(START_TIMEOUT, lines.next_line()).await;
        let ready = ready.expect("the receiver starts in time").expect("its output can be read");
        let port = ready.as_deref().and_then(|line| line.strip_prefix("ready ")?.parse().ok());
        let port = port.expect("it says its port: cargo xtask test installs opentelemetry-proto");
        Self { lines, port, spans: Vec::new(), _process: process }
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` is to be.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All spans so far, once they are what is waited for.
    pub async fn until(&mut self, what: &str, are: impl Fn(&[Span]) -> bool) -> &[Span] {
        let waiting = async {
            while !are(&self.spans) {
                let line = self.lines.next_line().await.expect("its output can be read");
                let line = line.expect("the receiver runs");
                let span = serde_json::from_str(&line);
                self.spans.push(span.unwrap_or_else(|error| panic!("{error}: {line}")));
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "no sign of {what} among the spans: {:#?}", self.spans);
        &self.spans
    }
}
