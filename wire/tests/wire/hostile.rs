//! Messages that are broken, too large or meant to harm: each gets an error or is dropped and counted, and after each one a
//! good call gets its answer.

use purista::ServiceId;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::carrier::{Carrier, TAP_CAPACITY};
use crate::plain::{Plain, verdict};
use crate::running::Running;
use crate::shared::{Listener, listening};

/// What may become of a hostile message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It is answered with this status, or with success (200).
    Answer(u64),
    /// It is dropped, and counted.
    Counted,
    /// It goes nowhere: the broker or the address keeps it from us.
    Nowhere,
}
use End::{Answer, Counted, Nowhere};

/// A body that is no text.
fn bytes(bytes: &[u8]) -> Value {
    let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({"hex": hex.concat()})
}

/// Bodies of which the caller cannot be read: answered where the carrier knows the way back, else counted.
fn unreadable() -> Vec<(&'static str, Value)> {
    let deep = |times: usize| format!("{}1{}", "[".repeat(times), "]".repeat(times));
    vec![
        ("nothing in it that is JSON", "no json".into()),
        ("half of an object", r#"{"messageType":"command","#.into()),
        ("a list", "[]".into()),
        ("a number", "1".into()),
        ("null", "null".into()),
        ("an empty object", "{}".into()),
        ("no UTF-8", bytes(b"{\"messageType\":\"\xff\xfe\"}")),
        ("NUL bytes", bytes(&[0; 64])),
        ("1,000 lists in one another", deep(1000).into()),
        ("100,000 lists in one another", deep(100_000).into()),
        (
            "a payload that is deep",
            format!(
                r#"{{"messageType":"command","correlationId":"c","payload":{{"payload":{}}}}}"#,
                deep(1000)
            )
            .into(),
        ),
    ]
}

/// A good command with one field changed: `(what, field, value, end)`.
fn changed() -> Vec<(&'static str, &'static str, Value, End)> {
    let long = "x".repeat(100_000);
    vec![
        ("a message type of nobody's", "/messageType", json!("stream"), Answer(400)),
        ("a message type that is a number", "/messageType", json!(7), Answer(400)),
        ("an event on a command's way", "/messageType", json!("customMessage"), Answer(400)),
        ("a receiver that is a text", "/receiver", json!("User.1.userSignUp"), Answer(400)),
        ("a payload that is a text", "/payload", json!("x"), Answer(400)),
        ("a payload that is a list", "/payload/payload", json!([1, 2]), Answer(400)),
        ("a payload of the wrong types", "/payload/payload", json!({"email": 1, "name": {}}), Answer(400)),
        ("a parameter that is a text", "/payload/parameter", json!("x"), Answer(400)),
        ("a tenant that is an object", "/tenantId", json!({"of": "mine"}), Answer(400)),
        ("a tenant that is a wildcard", "/tenantId", json!("*"), Answer(200)),
        ("a tenant that is all that follows", "/tenantId", json!(">"), Answer(200)),
        ("a tenant that is a level", "/tenantId", json!("a/+/#"), Answer(200)),
        ("a tenant with a NUL", "/tenantId", json!("a\u{0}b"), Answer(200)),
        ("a tenant with a line of the protocol", "/tenantId", json!("a\r\nPUB x 0\r\n\r\n"), Answer(200)),
        ("a principal of no characters", "/principalId", json!("\u{fffe}\u{10ffff}"), Answer(200)),
        ("a time far away", "/timestamp", json!(1e300), Answer(200)),
        ("a time before all", "/timestamp", json!(-1), Answer(200)),
        ("a time that is a text", "/timestamp", json!("now"), Answer(400)),
        ("no time left", "/ttl", json!(0), Answer(200)),
        ("more time than there is", "/ttl", json!(u64::MAX), Answer(200)),
        ("less time than none", "/ttl", json!(-1), Answer(400)),
        ("hops beyond all", "/hops", json!(255), Answer(200)),
        ("hops that are no byte", "/hops", json!(256), Answer(400)),
        ("a trace of nonsense", "/otp", json!("{\"traceparent\":\"00-00-00-00\"}"), Answer(200)),
        ("an id that is too long", "/id", json!(long), Answer(400)),
        ("a flow that is too long", "/traceId", json!(long), Answer(400)),
        ("an id that is a number", "/id", json!(7), Answer(400)),
        ("an error of its own", "/isHandledError", json!("yes"), Answer(400)),
    ]
}

struct Attack<C> {
    running: Running<C>,
    plain: Plain,
    problems: Vec<String>,
    messages: usize,
}

impl<C: Carrier> Attack<C> {
    async fn with(&mut self, what: &str, call: Value, end: End) {
        let before = (self.running.serving.dropped)();
        let answers = self.plain.call(call, usize::from(matches!(end, Answer(_)))).await;
        let got = answers.iter().map(verdict).collect::<Vec<_>>().join(", ");
        let counted = (self.running.serving.dropped)() - before;
        let is_so = match end {
            Answer(200) => got == "ok",
            Answer(status) => got == status.to_string(),
            Counted => got.is_empty() && counted == 1,
            Nowhere => got.is_empty() && counted == 0,
        };
        if !is_so {
            self.problems.push(format!("{what}: {got:?}, {counted} counted, not {end:?}"));
        }
        self.messages += 1;
        self.plain.good_call().await;
    }
}

async fn nothing_that_comes_in_stops_the_service<C: Carrier>() {
    let running = Running::<C>::untapped().await;
    let plain = Plain::on(&running.carrier).await;
    let mut attack = Attack { running, plain, problems: Vec::new(), messages: 0 };
    // On MQTT nobody knows where to answer whom.
    let end = if C::NAME == "mqtt" { Counted } else { Answer(400) };
    for (what, body) in unreadable() {
        // The header says that it is a command, so an object without anything lacks its receiver.
        attack.with(what, json!({"body": body}), end).await;
    }
    for (what, path, value, end) in changed() {
        let mut body = attack.plain.minimal();
        let (parent, name) = path.rsplit_once('/').unwrap();
        body.pointer_mut(parent).unwrap()[name] = value;
        attack.with(what, json!({"body": body.to_string()}), end).await;
    }
    for (what, call, end) in on_the_way::<C>(&mut attack.plain) {
        attack.with(what, call, end).await;
    }
    assert!(attack.problems.is_empty(), "on {}:\n{}", C::NAME, attack.problems.join("\n"));
    assert!(attack.messages >= 40, "{} hostile messages", attack.messages);
}

fn on_the_way<C: Carrier>(plain: &mut Plain) -> Vec<(&'static str, Value, End)> {
    let mut good = || plain.minimal().to_string();
    let large = format!("{{\"messageType\":\"command\",\"x\":\"{}\"}}", "x".repeat(2 << 20));
    let headers = |headers: Value| json!({"with": {"headers": headers}});
    let with = |mut call: Value, body: String| {
        call["body"] = body.into();
        call
    };
    match C::NAME {
        "nats" => vec![
            ("2 MiB", with(json!({}), large), Nowhere),
            (
                "an answer for a command's own place",
                with(
                    json!({"with": {"reply": "purista.command.a.b.c.d.e.f.g.h.user.1.user_sign_up"}}),
                    good(),
                ),
                Nowhere,
            ),
            (
                "headers of nonsense",
                with(headers(json!({"traceparent": "\u{1}", "": ""})), good()),
                Answer(200),
            ),
        ],
        "amqp" => vec![
            ("2 MiB", with(json!({}), large), Answer(413)),
            (
                "headers that are numbers",
                with(headers(json!({"tenantId": 7, "traceparent": true})), good()),
                Answer(200),
            ),
            (
                "headers that are tables",
                with(headers(json!({"traceparent": {"a": [1, null, true]}})), good()),
                Answer(200),
            ),
            ("a message type that is a number", with(headers(json!({"messageType": 7})), good()), Nowhere),
            (
                "an attempt beyond all",
                with(headers(json!({"x-purista-retry-attempt": 9_223_372_036_854_775_807_i64})), good()),
                Answer(200),
            ),
            (
                "the queue of somebody else",
                with(json!({"with": {"properties": {"reply_to": "purista.cmd.User.1.userSignUp"}}}), good()),
                Nowhere,
            ),
        ],
        _ => vec![(
            "properties of nonsense",
            with(json!({"with": {"properties": {"UserProperty": [["traceparent", "x"], ["", ""]]}}}), good()),
            Answer(200),
        )],
    }
}

/// Where an event goes that says of itself as little as will do.
fn on_an_events_way(carrier: &str) -> Value {
    let parts = ["a", "b", "c", "d", "e", "f", "new_user_registered", "g", "h", "i", "j"];
    match carrier {
        "nats" => {
            json!({"with": {"subject": format!("purista.custom_message.{}", parts.join("."))}, "without": ["reply"]})
        }
        "amqp" => json!({
            "with": {"headers": {"messageType": "customMessage", "eventName": "newUserRegistered"}},
            "without": ["receiverServiceName", "receiverServiceVersion", "receiverServiceTarget", "reply_to"]
        }),
        _ => json!({"with": {"topic": format!("purista/custom_message/{}", parts.join("/"))}}),
    }
}

async fn broken_events_are_counted_and_the_next_one_is_heard<C: Carrier>() {
    const LISTENER: ServiceId = ServiceId::new("Listener", "1");
    let running = Running::<C>::untapped().await;
    let mut plain = Plain::on(&running.carrier).await;
    let (heard, mut hearing) = mpsc::channel(TAP_CAPACITY);
    let listener = Listener { group: "", host: String::new(), heard };
    let bridge = running.carrier.bridge("listener1").await;
    let _host = listening(bridge.clone(), LISTENER, listener, false).await;
    let mut broken = unreadable();
    broken.push((
        "an event without a name",
        r#"{"messageType":"customMessage","payload":{"userId":"x"}}"#.into(),
    ));
    for (number, (what, body)) in broken.into_iter().enumerate() {
        let before = (bridge.dropped)();
        let mut call = on_an_events_way(C::NAME);
        call["body"] = body;
        assert_eq!(plain.call(call, 0).await, Vec::<Value>::new(), "{what}");
        // The good call behind it is an event as well: what is heard of it came after the broken one.
        assert_eq!(hearing.recv().await.unwrap().2, "id-of-Ada", "{what}");
        assert_eq!((bridge.dropped)(), before + 1, "{what}, number {number}");
    }
    // A message that is one, of which the payload is not the event's: it is nobody's to handle, and holds up nothing.
    let strange =
        r#"{"messageType":"customMessage","eventName":"newUserRegistered","payload":{"userId":[1]}}"#;
    let mut call = on_an_events_way(C::NAME);
    call["body"] = strange.into();
    plain.call(call, 0).await;
    assert_eq!(hearing.recv().await.unwrap().2, "id-of-Ada");
}

crate::carrier::everywhere!(
    nothing_that_comes_in_stops_the_service,
    broken_events_are_counted_and_the_next_one_is_heard
);
