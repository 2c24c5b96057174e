//! What the environment says of traces: OpenTelemetry's own variables, each refused by name when it cannot be understood.

use std::collections::HashMap;
use std::time::Duration;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use opentelemetry_sdk::trace::Sampler;
use tracing_subscriber::filter::EnvFilter;

use super::{
    DELAY_DEFAULT, ENDPOINT_VARIABLE, FILTER_DEFAULT, FILTER_VARIABLE, SPANS_AT_A_TIME_MAX,
    SPANS_WAITING_MAX, TIMEOUT_DEFAULT, Traces,
};
use crate::error::InitError;

const DISABLED: &str = "OTEL_SDK_DISABLED";
const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_SHARE: &str = "OTEL_TRACES_SAMPLER_ARG";
const WAITING_MAX: &str = "OTEL_BSP_MAX_QUEUE_SIZE";
const AT_A_TIME_MAX: &str = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";
const DELAY: &str = "OTEL_BSP_SCHEDULE_DELAY";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const PROTOCOL: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const COMPRESSION: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"];
const TIMEOUT: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
const HEADERS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
const CERTIFICATES: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", CERTIFICATE];
/// The file of certificates by which the collector is trusted.
pub(super) const CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";
/// The longest queue, the largest batch: a span takes about a kilobyte.
const COUNT_MAX: usize = 1 << 20;

/// Reads all of it; a variable that is empty counts as absent, as OpenTelemetry asks.
pub(super) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Traces>, InitError> {
    let variables = Variables(|name: &str| variable(name).filter(|value| !value.trim().is_empty()));
    if variables.get(DISABLED).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    match variables.get(EXPORTER).as_deref() {
        None | Some("otlp") => {}
        Some("none") => return Ok(None),
        Some(_) => {
            return Err(InitError::traces(EXPORTER, "names no exporter of ours: write `otlp` or `none`"));
        }
    }
    let Some(endpoint) = variables.endpoint()? else { return Ok(None) };
    variables.only(
        PROTOCOL,
        "http/protobuf",
        "no protocol of ours: write `http/protobuf`, or leave it out",
    )?;
    variables.only(COMPRESSION, "none", "no compression of ours: write `none`, or leave it out")?;
    let certificates = match variables.first(CERTIFICATES) {
        None => None,
        Some((name, path)) => Some(std::fs::read(&path).map_err(|error| {
            InitError::traces(name, format!("names the file `{path}`, which cannot be read"))
                .with_source(error)
        })?),
    };
    let filter = variables.get(FILTER_VARIABLE).unwrap_or_else(|| FILTER_DEFAULT.to_owned());
    let filter = EnvFilter::try_new(&filter).map_err(|error| {
        InitError::traces(FILTER_VARIABLE, "is no filter: write it as `info` or `info,purista=debug`")
            .with_source(error)
    })?;
    let timeout = match variables.first(TIMEOUT) {
        None => TIMEOUT_DEFAULT,
        Some((name, value)) => milliseconds(name, &value)?,
    };
    let waiting_max = variables.count(WAITING_MAX, SPANS_WAITING_MAX)?;
    Ok(Some(Traces {
        endpoint,
        headers: variables.headers()?,
        certificates,
        timeout,
        sampler: variables.sampler()?,
        filter,
        service: None,
        waiting_max,
        at_a_time_max: variables.count(AT_A_TIME_MAX, SPANS_AT_A_TIME_MAX)?.min(waiting_max),
        delay: variables.get(DELAY).map_or(Ok(DELAY_DEFAULT), |value| milliseconds(DELAY, &value))?,
    }))
}

struct Variables<F>(F);

impl<F: Fn(&str) -> Option<String>> Variables<F> {
    fn get(&self, name: &str) -> Option<String> {
        (self.0)(name)
    }

    /// The form for traces alone, else that for everything.
    fn first(&self, names: [&'static str; 2]) -> Option<(&'static str, String)> {
        names.into_iter().find_map(|name| Some((name, self.get(name)?)))
    }

    fn only(&self, names: [&'static str; 2], known: &str, problem: &str) -> Result<(), InitError> {
        match self.first(names) {
            Some((name, value)) if value.trim() != known => {
                Err(InitError::traces(name, format!("is `{}`, {problem}", value.trim())))
            }
            _ => Ok(()),
        }
    }

    /// Where traces go, with the path.
    fn endpoint(&self) -> Result<Option<String>, InitError> {
        let (name, url) = match (self.get(TRACES_ENDPOINT), self.get(ENDPOINT_VARIABLE)) {
            (Some(whole), _) => (TRACES_ENDPOINT, whole.trim().to_owned()),
            (None, Some(base)) => {
                (ENDPOINT_VARIABLE, format!("{}/v1/traces", base.trim().trim_end_matches('/')))
            }
            (None, None) => return Ok(None),
        };
        // The value is not shown: it may hold a password.
        let refused = || InitError::traces(name, "is no URL of HTTP: write it as http://localhost:4318");
        let parsed: Uri = url.parse().map_err(|error| refused().with_source(error))?;
        if !matches!(parsed.scheme_str(), Some("http" | "https")) || parsed.host().is_none() {
            return Err(refused());
        }
        Ok(Some(url))
    }

    /// `name=value,name=value`, where a value may be percent-encoded. No error shows any of it.
    fn headers(&self) -> Result<HashMap<String, String>, InitError> {
        let Some((variable, text)) = self.first(HEADERS) else { return Ok(HashMap::new()) };
        let refused = || {
            InitError::traces(
                variable,
                "is no list of headers: write it as `name=value,name=value`, with `%20` for a space and `%2C` for a comma",
            )
        };
        let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| {
                let (name, value) = pair.split_once('=').ok_or_else(refused)?;
                let name = HeaderName::try_from(name.trim()).map_err(|_| refused())?;
                let value = decoded(value.trim()).ok_or_else(refused)?;
                HeaderValue::try_from(&value).map_err(|_| refused())?;
                Ok((name.as_str().to_owned(), value))
            })
            .collect()
    }

    fn sampler(&self) -> Result<Sampler, InitError> {
        let share = || {
            let Some(text) = self.get(SAMPLER_SHARE) else { return Ok(1.0) };
            let share = text.trim().parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
            share.ok_or_else(|| {
                InitError::traces(SAMPLER_SHARE, format!("is `{text}`, no share: write a number from 0 to 1"))
            })
        };
        let of_parent = |root: Sampler| Sampler::ParentBased(Box::new(root));
        Ok(match self.get(SAMPLER).as_deref().map(str::trim) {
            None | Some("parentbased_always_on") => of_parent(Sampler::AlwaysOn),
            Some("parentbased_always_off") => of_parent(Sampler::AlwaysOff),
            Some("parentbased_traceidratio") => of_parent(Sampler::TraceIdRatioBased(share()?)),
            Some("always_on") => Sampler::AlwaysOn,
            Some("always_off") => Sampler::AlwaysOff,
            Some("traceidratio") => Sampler::TraceIdRatioBased(share()?),
            Some(other) => {
                let problem = format!(
                    "is `{other}`, no sampler of ours: write `always_on`, `always_off`, `traceidratio`, or one of them \
                     behind `parentbased_`"
                );
                return Err(InitError::traces(SAMPLER, problem));
            }
        })
    }

    fn count(&self, name: &'static str, default: usize) -> Result<usize, InitError> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let count = text.trim().parse().ok().filter(|count| (1..=COUNT_MAX).contains(count));
        count.ok_or_else(|| {
            InitError::traces(name, format!("is `{text}`, no count: write a number from 1 to {COUNT_MAX}"))
        })
    }
}

fn milliseconds(name: &'static str, text: &str) -> Result<Duration, InitError> {
    text.trim()
        .parse::<u32>()
        .ok()
        .filter(|number| *number > 0)
        .map(|number| Duration::from_millis(number.into()))
        .ok_or_else(|| {
            InitError::traces(name, format!("is `{text}`, no time: write milliseconds, as `5000`"))
        })
}

/// Percent-decoded; `None` for what is not UTF-8 in that form.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit =
                || char::from(rest.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            bytes.push(digit()? << 4 | digit()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}
