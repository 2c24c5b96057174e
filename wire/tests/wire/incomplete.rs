//! What a peer may leave out of a command, field by field, on each carrier: PURISTA's process dies of some of it, ours answers
//! or is silent on purpose.

use serde_json::{Value, json};

use crate::carrier::Carrier;
use crate::plain::{Plain, verdict};
use crate::running::Running;

/// Nobody answers, and nobody suffers.
const SILENCE: &str = "";

/// A field that is left out, and the answers on NATS, AMQP and MQTT.
type Row = (&'static str, [&'static str; 3]);

/// Fields of the body; where PURISTA answers, so do we.
#[rustfmt::skip]
const LEFT_OUT: &[Row] = &[
    ("/id", ["ok", "ok", "ok"]),
    ("/timestamp", ["ok", "ok", "ok"]),
    ("/traceId", ["ok", "ok", "ok"]),
    ("/contentType", ["ok", "ok", "ok"]),
    ("/contentEncoding", ["ok", "ok", "ok"]),
    ("/otp", ["ok", "ok", "ok"]),
    // On NATS the inbox pairs it, on AMQP the property or the queue does.
    ("/correlationId", ["ok", "ok", "400"]),
    ("/messageType", ["400", "ok", "400"]),
    ("/sender", ["ok", "ok", SILENCE]),
    ("/sender/instanceId", ["ok", "ok", SILENCE]),
    ("/sender/serviceName", ["ok", "ok", "ok"]),
    ("/sender/serviceVersion", ["ok", "ok", "ok"]),
    ("/sender/serviceTarget", ["ok", "ok", "ok"]),
    ("/receiver", ["400", "400", "400"]),
    ("/receiver/serviceTarget", [SILENCE, SILENCE, SILENCE]),
    ("/payload", ["400", "400", "400"]),
    ("/payload/payload", ["400", "400", "400"]),
    ("/payload/parameter", ["ok", "ok", "ok"]),
];

/// Fields of the body with something else in them.
#[rustfmt::skip]
const ODD: &[(&str, &str, [&str; 3])] = &[
    ("/otp", r#""no json""#, ["ok", "ok", "ok"]),
    ("/otp", r#""{\"traceparent\":\"nonsense\"}""#, ["ok", "ok", "ok"]),
    ("/unknown", r#"{"of":["somebody","else"]}"#, ["ok", "ok", "ok"]),
    ("/payload/parameter", r#"{"unknown":"1"}"#, ["ok", "ok", "ok"]),
    ("/payload/payload", r#"{"email":"nope"}"#, ["400", "400", "400"]),
    ("/tenantId", "null", ["ok", "ok", "ok"]),
    // Somebody else may serve it: a refusal from here might be faster than the answer.
    ("/receiver/serviceTarget", r#""doesNotExist""#, [SILENCE, SILENCE, SILENCE]),
    ("/receiver/serviceName", r#""Other""#, [SILENCE, SILENCE, SILENCE]),
];

fn full(plain: &mut Plain) -> Value {
    let mut full = plain.minimal();
    let more = json!({
        "id": "0af7651916cd43dd8448eb211c80319c", "timestamp": 1_795_288_901_613_u64, "traceId": "a flow",
        "contentType": "application/json", "contentEncoding": "utf-8",
        "otp": r#"{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}"#
    });
    full.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    full
}

/// Calls, and adds to the problems what is not as it shall be.
async fn check(plain: &mut Plain, what: &str, call: Value, expect: &str, problems: &mut Vec<String>) {
    let answers = plain.call(call, usize::from(expect != SILENCE)).await;
    let got: Vec<_> = answers.iter().map(verdict).collect();
    if got.join(", ") != expect {
        problems.push(format!("{what}: {got:?}, not {expect:?}: {answers:?}"));
    }
    plain.good_call().await;
}

async fn what_a_peer_leaves_out_is_made_up_or_refused<C: Carrier>() {
    let running = Running::<C>::untapped().await;
    let mut plain = Plain::on(&running.carrier).await;
    let carrier = ["nats", "amqp", "mqtt"].iter().position(|name| *name == C::NAME).unwrap();
    let mut problems = Vec::new();
    for (path, expect) in LEFT_OUT {
        let mut body = full(&mut plain);
        let (parent, name) = path.rsplit_once('/').unwrap();
        let parent = body.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        parent.remove(name).expect("there is something to leave out");
        let call = json!({"body": body.to_string()});
        check(&mut plain, path, call, expect[carrier], &mut problems).await;
    }
    for (path, value, expect) in ODD {
        let mut body = full(&mut plain);
        let (parent, name) = path.rsplit_once('/').unwrap();
        body.pointer_mut(parent).unwrap()[name] = serde_json::from_str(value).unwrap();
        let call = json!({"body": body.to_string()});
        check(&mut plain, &format!("{path} = {value}"), call, expect[carrier], &mut problems).await;
    }
    for (what, mut call, expect) in on_the_way(C::NAME) {
        call["body"] = plain.minimal().to_string().into();
        check(&mut plain, what, call, expect, &mut problems).await;
    }
    assert!(problems.is_empty(), "on {}:\n{}", C::NAME, problems.join("\n"));
}

/// What the carrier itself brings, or does not.
fn on_the_way(carrier: &str) -> Vec<(&'static str, Value, &'static str)> {
    match carrier {
        "nats" => vec![
            ("no inbox", json!({"without": ["reply"]}), SILENCE),
            ("headers", json!({"with": {"headers": {"traceparent": "00-0", "messageType": "x"}}}), "ok"),
            (
                "a subject in camel case",
                json!({"with": {"subject": "purista.command.a.b.c.d.e.f.g.h.User.1.userSignUp"}}),
                "transport 503",
            ),
            (
                "a subject of 12 parts",
                json!({"with": {"subject": "purista.command.a.b.c.d.e.f.g.user.1.user_sign_up"}}),
                "transport 503",
            ),
        ],
        "amqp" => vec![
            ("no content type", json!({"without": ["content_type"]}), "ok"),
            ("no content encoding", json!({"without": ["content_encoding"]}), "ok"),
            ("no queue for the answer", json!({"without": ["reply_to"]}), SILENCE),
            ("no message type", json!({"without": ["messageType"]}), SILENCE),
            ("no receiver", json!({"without": ["receiverServiceTarget"]}), SILENCE),
            ("a correlation of its own", json!({"with": {"properties": {"correlation_id": "mine"}}}), "ok"),
            ("another content type", json!({"with": {"properties": {"content_type": "text/plain"}}}), "ok"),
        ],
        _ => vec![
            ("at most once", json!({"with": {"qos": 0}}), "ok"),
            (
                "properties",
                json!({"with": {"properties": {"ContentType": "application/json", "CorrelationData": "mine",
                    "ResponseTopic": "elsewhere", "UserProperty": [["messageType", "command"]]}}}),
                "ok",
            ),
            (
                "a topic in camel case",
                json!({"with": {"topic": "purista/command/a/b/c/d/e/f/g/h/User/1/userSignUp"}}),
                SILENCE,
            ),
        ],
    }
}

crate::carrier::everywhere!(what_a_peer_leaves_out_is_made_up_or_refused);
