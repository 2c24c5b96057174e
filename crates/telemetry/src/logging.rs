//! What is logged and in which form, and the one call that begins it.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::panic::PanicHookInfo;

use purista_core::clock::Clock;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, Registry};

use crate::error::InitError;
use crate::line::{Line, LineFields};
use crate::outlet::Outlet;

pub use crate::variables::{FILTER_VARIABLE, FORMAT_VARIABLE};

/// What is logged unless told otherwise.
pub const FILTER_DEFAULT: &str = "info";

/// Crates that log what they send and receive, by the first part of their targets; see [`Logging::client_details`].
pub const CLIENT_LIBRARIES: [&str; 9] = [
    "async_nats",
    "lapin",
    "amq_protocol",
    "rumqttc",
    "tokio_postgres",
    "hyper",
    "hyper_util",
    "h2",
    "rustls",
];

/// What the fields of a span are called that name the flow: for logs, and as an attribute of a trace's span.
const TRACE_ID: [&str; 2] = ["trace_id", "purista.traceId"];

/// What a line looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// For people: time, level, trace id, where, what.
    #[default]
    Text,
    /// For machines: the same as one JSON object a line.
    Json,
}

/// What is logged and in which form.
#[derive(Debug)]
#[must_use = "nothing is logged before `init`"]
pub struct Logging {
    filter: EnvFilter,
    format: Format,
    colours: bool,
    logs_client_details: bool,
}

impl Logging {
    /// What the environment says: [`FILTER_VARIABLE`], [`FORMAT_VARIABLE`]; colours when the error output is a terminal and
    /// `NO_COLOR` is not set.
    pub fn from_env() -> Result<Self, InitError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let format = match variable(FORMAT_VARIABLE).as_deref() {
            None | Some("text") => Format::Text,
            Some("json") => Format::Json,
            Some(other) => return Err(InitError::UnknownFormat(other.to_owned())),
        };
        let filter = variable(FILTER_VARIABLE).unwrap_or_else(|| FILTER_DEFAULT.to_owned());
        let colours = io::stderr().is_terminal() && variable("NO_COLOR").is_none();
        Self { filter: EnvFilter::default(), format, colours, logs_client_details: false }.filter(&filter)
    }

    /// Logs what passes this filter, as `info,purista=debug`.
    pub fn filter(mut self, filter: &str) -> Result<Self, InitError> {
        self.filter = EnvFilter::try_new(filter)
            .map_err(|source| InitError::NoFilter { text: filter.to_owned(), source })?;
        Ok(self)
    }

    /// Whether the libraries that talk to brokers, databases and HTTP peers log below `info`, where the filter asks for it.
    ///
    /// By default they do not, whatever the filter says: at `debug` and `trace` they log messages, parameters and headers as
    /// they are, and with them payloads and credentials. The libraries are those of [`CLIENT_LIBRARIES`].
    pub fn client_details(mut self, logs_client_details: bool) -> Self {
        self.logs_client_details = logs_client_details;
        self
    }

    /// Lines of this form.
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// Whether text is coloured.
    pub fn colours(mut self, colours: bool) -> Self {
        self.colours = colours;
        self
    }
}

/// Keeps logs flowing. Dropped, it waits a moment for the last lines to be written.
#[derive(Debug)]
#[must_use = "dropped at once, it would not wait for the last lines"]
pub struct Logs(Outlet);

impl Logs {
    /// How many lines were lost so far because whoever reads them did not keep up.
    pub fn lost(&self) -> u64 {
        self.0.lost()
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// Begins to log to the error output, for the whole program; panics become lines of the log, too. For programs that send no
/// traces; [`crate::telemetry::init`] does both.
pub fn init(logging: Logging) -> Result<Logs, InitError> {
    let (logs, subscriber) = into_writer(logging, io::stderr())?;
    install(subscriber)?;
    Ok(logs)
}

/// Makes it the program's subscriber.
pub(crate) fn install(subscriber: impl Subscriber + Send + Sync) -> Result<(), InitError> {
    tracing::subscriber::set_global_default(subscriber).map_err(|_| InitError::Twice)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Rust's own hook writes the text as it is, line breaks included, and waits for whoever reads it.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let text = panic.payload_as_str().unwrap_or("no text");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(place, "a thread panicked: {text}");
    // Dozens of frames in one line hide the line before them; they are there for those who ask.
    if tracing::enabled!(Level::DEBUG) {
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            tracing::debug!(place, %backtrace, "the backtrace of a panic");
        }
    }
}

pub(crate) fn into_writer(
    logging: Logging,
    writer: impl Write + Send + 'static,
) -> Result<(Logs, impl Subscriber + Send + Sync + for<'l> LookupSpan<'l>), InitError> {
    let outlet = Outlet::into_writer(writer).map_err(InitError::Thread)?;
    let lines = Lines {
        format: logging.format,
        colours: logging.colours,
        clock: Clock::system(),
        outlet: outlet.clone(),
    };
    let logs_client_details = logging.logs_client_details;
    let is_logged = filter_fn(move |metadata| logs_client_details || !holds_client_details(metadata));
    let filter = logging.filter.and(is_logged.with_max_level_hint(LevelFilter::TRACE));
    Ok((Logs(outlet), Registry::default().with(lines.with_filter(filter))))
}

fn holds_client_details(metadata: &Metadata<'_>) -> bool {
    let library = metadata.target().split("::").next().unwrap_or_default();
    *metadata.level() > Level::INFO && CLIENT_LIBRARIES.contains(&library)
}

/// Makes each event a line.
struct Lines {
    format: Format,
    colours: bool,
    clock: Clock,
    outlet: Outlet,
}

/// The flow that a span belongs to, kept beside the span.
struct TraceId(String);

impl<S: Subscriber + for<'l> LookupSpan<'l>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let mut found = FindTraceId(None);
        attributes.record(&mut found);
        if let (Some(trace_id), Some(span)) = (found.0, ctx.span(id)) {
            span.extensions_mut().insert(TraceId(trace_id));
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let mut fields = LineFields::default();
        event.record(&mut fields);
        if fields.trace_id.is_none() {
            fields.trace_id = ctx
                .event_scope(event)
                .into_iter()
                .flatten()
                .find_map(|span| span.extensions().get::<TraceId>().map(|trace_id| trace_id.0.clone()));
        }
        let line = Line { time: format!("{:.6}", self.clock.now()), metadata: event.metadata(), fields };
        self.outlet.send(match self.format {
            Format::Text => line.text(self.colours),
            Format::Json => line.json(),
        });
    }
}

struct FindTraceId(Option<String>);

impl Visit for FindTraceId {
    fn record_str(&mut self, field: &Field, value: &str) {
        if TRACE_ID.contains(&field.name()) {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if TRACE_ID.contains(&field.name()) {
            self.0 = Some(format!("{value:?}"));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
