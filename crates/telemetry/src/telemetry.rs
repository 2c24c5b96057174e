//! The one call at the start of a program: logs, and traces where a collector is named.

use std::io;

use purista_core::span;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::error::InitError;
use crate::logging::{self, Logging, Logs};
use crate::traces::{self, Traces};

/// What a program tells of itself, and to whom.
#[derive(Debug)]
#[must_use = "nothing is told before `init`"]
pub struct Telemetry {
    logging: Logging,
    traces: Option<Traces>,
}

impl Telemetry {
    /// What the environment says: [`Logging::from_env`] and [`Traces::from_env`].
    pub fn from_env() -> Result<Self, InitError> {
        Ok(Self { logging: Logging::from_env()?, traces: Traces::from_env()? })
    }

    /// Logs so.
    pub fn logging(mut self, logging: Logging) -> Self {
        self.logging = logging;
        self
    }

    /// Sends traces so, or none.
    pub fn traces(mut self, traces: impl Into<Option<Traces>>) -> Self {
        self.traces = traces.into();
        self
    }

    /// The name under which traces are found, where neither `OTEL_SERVICE_NAME` nor `OTEL_RESOURCE_ATTRIBUTES` gives one; else
    /// it is that of the program's file.
    pub fn service(mut self, name: &str) -> Self {
        self.traces = self.traces.map(|traces| traces.service(name));
        self
    }
}

/// Keeps logs and traces flowing. Dropped, it waits for the last of both to leave: at most [`traces::FLUSH_TIME_MAX`] for spans,
/// and a second for lines.
#[derive(Debug)]
#[must_use = "dropped at once, it would not wait for what comes last"]
pub struct Flowing {
    // In this order: what is said of the last spans is still logged.
    spans: Option<traces::Exporting>,
    logs: Logs,
}

impl Flowing {
    /// How many lines of the log were lost so far because whoever reads them did not keep up.
    pub fn lines_lost(&self) -> u64 {
        self.logs.lost()
    }

    /// How many spans were lost so far because the collector was away or did not keep up.
    pub fn spans_lost(&self) -> u64 {
        self.spans.as_ref().map_or(0, traces::Exporting::lost)
    }
}

/// Begins to log to the error output, as [`logging::init`] does, and to send traces where a collector is named.
pub fn init(telemetry: Telemetry) -> Result<Flowing, InitError> {
    let (logs, lines) = logging::into_writer(telemetry.logging, io::stderr())?;
    let Some(traces) = telemetry.traces else {
        logging::install(lines)?;
        return Ok(Flowing { spans: None, logs });
    };
    let (exporting, layer) = traces::begin(traces)?;
    logging::install(lines.with(layer))?;
    // Only now: whoever asks for the place of a span finds the layer that knows it.
    span::connect(traces::TRACER);
    Ok(Flowing { spans: Some(exporting), logs })
}
