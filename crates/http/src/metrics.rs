//! What Prometheus reads: how far projections, durable subscriptions and the relay are behind the log, and who holds them back.

use std::fmt::Write as _;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderValue;
use purista_core::lag::{FollowerLag, Holder, Lags, Measured, PutAside};

use crate::response::{self, Answer, Flow, Problem};

/// Where the figures are found, when the gateway shows them.
pub(crate) const METRICS_PATH: &str = "/metrics";
/// How long measuring may take.
const MEASURING_TIME_MAX: Duration = Duration::from_secs(5);
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// One figure of each follower; `None` where it is not known.
struct Gauge {
    name: &'static str,
    help: &'static str,
    of: fn(&FollowerLag) -> Option<f64>,
}

const GAUGES: [Gauge; 5] = [
    Gauge {
        name: "purista_lag_events",
        help: "Recorded events that wait for it; of very many, those that were counted.",
        of: |lag| Some(whole(lag.events)),
    },
    Gauge {
        name: "purista_lag_is_at_least",
        help: "1 when there may be more events than purista_lag_events says.",
        of: |lag| Some(f64::from(u8::from(lag.is_at_least))),
    },
    Gauge {
        name: "purista_lag_seconds",
        help: "How long the oldest of them waits; 0 when none does.",
        of: |lag| Some(lag.behind.as_secs_f64()),
    },
    Gauge {
        name: "purista_lag_events_per_second",
        help: "How many events it took in a second of late; 0 when it is not known.",
        of: |lag| Some(lag.per_second),
    },
    Gauge {
        name: "purista_lag_caught_up_in_seconds",
        help: "When it will have caught up at that rate; missing when it cannot be said.",
        of: |lag| lag.caught_up_in.map(|left| left.as_secs_f64()),
    },
];

/// The figures, as text.
pub(crate) async fn answer(lags: &Lags, flow: &Flow) -> Answer {
    match tokio::time::timeout(MEASURING_TIME_MAX, lags.measure()).await {
        Ok(Some(lags)) => response::api_answer(StatusCode::OK, flow, Some(TEXT), text(&lags).into()),
        _ => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the store does not tell now").into_answer(flow),
    }
}

/// The text format of Prometheus, version 0.0.4.
fn text(Measured { followers: lags, holders, put_aside }: &Measured) -> String {
    let mut text = String::new();
    for Gauge { name, help, of } in &GAUGES {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for lag in lags {
            let Some(value) = of(lag) else { continue };
            let _ = writeln!(
                text,
                "{name}{{kind=\"{}\",name=\"{}\"}} {value}",
                lag.kind.as_str(),
                escaped(&lag.name)
            );
        }
    }
    hold(&mut text, holders);
    let dead_letters = "Messages that were given up and wait for an operator.";
    count(&mut text, "purista_dead_letters", dead_letters, put_aside, |one| one.dead_letters);
    let deferred = "Events that wait for another attempt, or behind one that does.";
    count(&mut text, "purista_deferred_events", deferred, put_aside, |one| one.deferred);
    text
}

fn count(text: &mut String, name: &str, help: &str, put_aside: &[PutAside], of: fn(&PutAside) -> u64) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
    for one in put_aside {
        let _ = writeln!(text, "{name}{{name=\"{}\"}} {}", escaped(&one.name), of(one));
    }
}

fn hold(text: &mut String, holders: &[Holder]) {
    let name = "purista_held_back_seconds";
    let help = "For how long a transaction is open that has written and holds everybody back; missing when none does.";
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
    for Holder { pid, prepared, user: _, application, database, state, age } in holders {
        let (application, database, state) = (escaped(application), escaped(database), escaped(state));
        // A prepared transaction has an id and no process.
        let transaction = match prepared {
            Some(gid) => format!("prepared=\"{}\"", escaped(gid)),
            None => format!("pid=\"{pid}\""),
        };
        let _ = writeln!(
            text,
            "{name}{{{transaction},application=\"{application}\",database=\"{database}\",state=\"{state}\"}} {}",
            age.as_secs_f64()
        );
    }
}

/// The value of a label: a backslash, a quotation mark and the end of a line would end it.
fn escaped(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            '\n' => escaped.push_str("\\n"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn whole(number: u64) -> f64 {
    number as f64
}
