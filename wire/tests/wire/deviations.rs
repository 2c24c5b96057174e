//! In what our messages differ from PURISTA's, as data: one line each, tied to the row of the document that gives the reason.

use serde_json::Value;

use crate::compared::is_of_kind;

/// The document for people, of which each line here is a part.
const DOCUMENT: &str = include_str!("../../../docs/wire-deviations.md");

/// One difference that is on purpose.
#[derive(Debug)]
pub(crate) struct Deviation {
    pub(crate) carriers: &'static [&'static str],
    of: Of,
    /// The field; a `*` at its end stands for all below it.
    path: &'static str,
    theirs: Side,
    ours: Side,
    /// Words of the row in the document.
    row: &'static str,
}

/// Which messages.
#[derive(Debug, Clone, Copy)]
enum Of {
    All,
    Commands,
    /// Commands that a handler sends.
    NestedCommands,
    /// What a message that is no call from outside causes, or is caused by.
    Caused,
    /// Events of handlers.
    Events,
    /// Events that are a subscription's result.
    Results,
    /// The same, where what caused it names a principal and a tenant.
    ResultsForTenants,
    /// Responses.
    Responses,
    /// Responses that bear an event.
    Marked,
    /// Responses that bear none.
    Unmarked,
    /// Infos that add a function.
    Functions,
    /// Infos of a whole service, without a target.
    ServiceInfos,
    Step(&'static str),
}

/// What one side has there.
#[derive(Debug, Clone, Copy)]
enum Side {
    Nothing,
    Text(&'static str),
    Number(u64),
    /// A value of this kind.
    Kind(&'static str),
    Anything,
}

const ALL: &[&str] = &["nats", "amqp", "mqtt"];
const NATS: &[&str] = &["nats"];
const AMQP: &[&str] = &["amqp"];
const MQTT: &[&str] = &["mqtt"];
const NATS_MQTT: &[&str] = &["nats", "mqtt"];
const AMQP_MQTT: &[&str] = &["amqp", "mqtt"];

const fn extra(
    carriers: &'static [&'static str],
    of: Of,
    path: &'static str,
    kind: &'static str,
    row: &'static str,
) -> Deviation {
    Deviation { carriers, of, path, theirs: Side::Nothing, ours: Side::Kind(kind), row }
}

const fn other(
    carriers: &'static [&'static str],
    of: Of,
    path: &'static str,
    theirs: Side,
    ours: Side,
    row: &'static str,
) -> Deviation {
    Deviation { carriers, of, path, theirs, ours, row }
}

const EVENTS: &str = "results of subscriptions bear";
const OTP: &str = "`otp` of a message without a technical trace";
const SCHEMAS: &str = "schemas in `infoServiceFunctionAdded`";
const INPUT: &str = "body.payload.expose.inputPayload.*";
const OUTPUT: &str = "body.payload.expose.outputPayload.*";
const NUMBER: Side = Side::Text("number");
const INTEGER: Side = Side::Text("integer");

#[rustfmt::skip]
pub(crate) const DEVIATIONS: &[Deviation] = &[
    extra(ALL, Of::Commands, "body.ttl", "count", "`ttl` on commands"),
    extra(ALL, Of::Caused, "body.hops", "count", "`hops` on what other messages caused"),
    extra(ALL, Of::NestedCommands, "body.idempotencyKey", "text", "`idempotencyKey` on commands"),
    extra(ALL, Of::Step("s12"), "body.traceId", "id", "`traceId` may be a peer's text"),
    extra(ALL, Of::Events, "body.correlationId", "id", "`correlationId` and `causationId` on events"),
    extra(ALL, Of::Events, "body.causationId", "id", "`correlationId` and `causationId` on events"),
    extra(ALL, Of::Step("s01-recorded"), "body.origin", "text", "`origin`, `causationId` and `eventVersion`"),
    extra(ALL, Of::Results, "body.traceId", "text", EVENTS),
    extra(NATS_MQTT, Of::Results, "body.id", "id", EVENTS),
    extra(NATS_MQTT, Of::Results, "body.timestamp", "ms", EVENTS),
    extra(ALL, Of::ResultsForTenants, "body.principalId", "text", EVENTS),
    extra(ALL, Of::ResultsForTenants, "body.tenantId", "text", EVENTS),
    extra(AMQP_MQTT, Of::ResultsForTenants, "headers.principalId", "text", EVENTS),
    extra(AMQP_MQTT, Of::ResultsForTenants, "headers.tenantId", "text", EVENTS),
    other(NATS, Of::ResultsForTenants, "subject.2", Side::Text("empty"), Side::Text("principal_one"), EVENTS),
    other(NATS, Of::ResultsForTenants, "subject.3", Side::Text("empty"), Side::Text("tenant_two"), EVENTS),
    other(MQTT, Of::ResultsForTenants, "topic.2", Side::Text("none"), Side::Text("principal_one"), EVENTS),
    other(MQTT, Of::ResultsForTenants, "topic.3", Side::Text("none"), Side::Text("tenant_two"), EVENTS),
    other(ALL, Of::All, "body.otp", Side::Text("<otp>"), Side::Text("{}"), OTP),
    other(ALL, Of::All, "headers.traceparent", Side::Text("<traceparent>"), Side::Nothing, OTP),
    other(AMQP, Of::Responses, "body.sennder.*", Side::Anything, Side::Nothing, "the response's sender key is `sender`"),
    extra(ALL, Of::Responses, "body.payload.nothingKept", "true", "`nothingKept` in the payload of an error response"),
    other(ALL, Of::Functions, INPUT, Side::Nothing, Side::Anything, SCHEMAS),
    other(ALL, Of::Functions, OUTPUT, Side::Nothing, Side::Anything, SCHEMAS),
    other(ALL, Of::Functions, INPUT, NUMBER, INTEGER, SCHEMAS),
    other(ALL, Of::Functions, OUTPUT, NUMBER, INTEGER, SCHEMAS),
    other(ALL, Of::Functions, "body.payload.expose.parameter.*", Side::Anything, Side::Nothing, SCHEMAS),
    extra(NATS, Of::Commands, "headers.*", "text", "requests and results of subscriptions have headers"),
    extra(NATS, Of::Results, "headers.*", "text", "requests and results of subscriptions have headers"),
    other(NATS, Of::ServiceInfos, "subject.7", Side::Text(""), Side::Text("empty"), "a subject part of which snake-casing leaves nothing"),
    other(MQTT, Of::ServiceInfos, "topic.7", Side::Text(""), Side::Text("none"), "a topic always has 13 parts"),
    other(MQTT, Of::Unmarked, "properties.messageExpiryInterval", Side::Number(30_000), Side::Number(30), "a response for its caller alone expires"),
    other(MQTT, Of::Step("s01-recorded"), "properties.messageExpiryInterval", Side::Number(30_000), Side::Number(30), "a response for its caller alone expires"),
    other(MQTT, Of::Marked, "properties.messageExpiryInterval", Side::Number(2592), Side::Number(2_592_000), "a response for its caller alone expires"),
];

impl Deviation {
    /// Whether it speaks of this field of this message.
    pub(crate) fn concerns(&self, carrier: &str, step: &str, theirs: &Value, path: &str) -> bool {
        let is_here = match self.path.strip_suffix('*') {
            Some(beginning) => path.starts_with(beginning),
            None => path == self.path,
        };
        is_here && self.carriers.contains(&carrier) && self.of.is(step, theirs)
    }

    pub(crate) fn allows(&self, theirs: Option<&Value>, ours: Option<&Value>) -> bool {
        self.theirs.is(theirs) && self.ours.is(ours)
    }
}

impl Of {
    fn is(self, step: &str, message: &Value) -> bool {
        let body = &message["body"];
        let text = |at: &str| body.pointer(at).and_then(Value::as_str).unwrap_or_default();
        let kind = text("/messageType");
        let sender = text("/sender/serviceName");
        let is_result = kind == "customMessage" && text("/sender/serviceTarget") == "sendWelcomeEmail";
        match self {
            Self::All => true,
            Self::Commands => kind == "command",
            Self::NestedCommands => kind == "command" && sender == "Email",
            Self::Caused => sender == "Email" || kind == "customMessage" && sender == "User",
            Self::Events => kind == "customMessage" && sender != "Caller",
            Self::Results => is_result,
            Self::ResultsForTenants => is_result && step == "s02",
            Self::Responses => kind.ends_with("Response"),
            Self::Marked => kind.ends_with("Response") && !text("/eventName").is_empty(),
            Self::Unmarked => kind.ends_with("Response") && text("/eventName").is_empty(),
            Self::Functions => kind == "infoServiceFunctionAdded",
            Self::ServiceInfos => kind.starts_with("info") && text("/sender/serviceTarget").is_empty(),
            Self::Step(name) => step == name,
        }
    }
}

impl Side {
    fn is(self, value: Option<&Value>) -> bool {
        match (self, value) {
            (Self::Nothing, value) => value.is_none(),
            (Self::Text(text), Some(value)) => value == text,
            (Self::Number(number), Some(value)) => value.as_u64() == Some(number),
            (Self::Kind(kind), Some(value)) => is_of_kind(kind, value),
            (Self::Anything, _) => true,
            (_, None) => false,
        }
    }
}

#[test]
fn every_deviation_is_a_row_of_the_document() {
    let rows: Vec<&str> = DOCUMENT.lines().filter(|line| line.starts_with("| ")).collect();
    for rule in DEVIATIONS {
        let cells =
            rows.iter().filter(|row| row.split(" | ").next().is_some_and(|what| what.contains(rule.row)));
        assert_eq!(cells.count(), 1, "one row of docs/wire-deviations.md begins with this: {rule:?}");
    }
}
