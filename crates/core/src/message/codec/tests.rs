//! Messages in the form of PURISTA's wire, small ones of our own.

use serde_json::{Value, json};

use super::*;

fn decode(value: &Value) -> Result<Message, DecodeError> {
    Message::decode(&Bytes::from(value.to_string()), &Clock::system(), Instant::now())
}

fn again(message: &Message) -> Value {
    serde_json::from_slice(&message.encode(Instant::now()).unwrap()).unwrap()
}

fn command() -> Value {
    json!({
        "messageType": "command", "id": "0af7651916cd43dd8448eb211c80319c", "timestamp": 1_739_800_000_000_u64,
        "correlationId": "4bf92f3577b34da6a3ce929d0e0e4736", "traceId": "a flow", "principalId": "user-1",
        "tenantId": "acme", "contentType": "application/json", "contentEncoding": "utf-8",
        "otp": "{\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"}",
        "sender": {"serviceName": "Web", "serviceVersion": "1", "serviceTarget": "$$endpoint:post", "instanceId": "i1"},
        "receiver": {"serviceName": "User", "serviceVersion": "1", "serviceTarget": "signUp"},
        "payload": {"payload": {"email": "a@b.c"}, "parameter": {"q": "1"}}
    })
}

#[test]
fn a_message_of_every_type_is_written_as_it_was_read() {
    let party =
        json!({"serviceName": "User", "serviceVersion": "1", "serviceTarget": "", "instanceId": "i2"});
    let bare = |kind: &str| {
        json!({
            "messageType": kind, "id": "x-1", "timestamp": 5, "traceId": "t", "contentType": "application/json",
            "contentEncoding": "utf-8", "otp": "{}", "sender": party
        })
    };
    let with = |mut message: Value, more: Value| {
        for (key, value) in more.as_object().unwrap() {
            message[key] = value.clone();
        }
        message
    };
    let mut messages = vec![
        command(),
        with(
            bare("commandSuccessResponse"),
            json!({"correlationId": "c", "receiver": party, "payload": [1], "eventName": "e"}),
        ),
        with(
            bare("commandErrorResponse"),
            json!({"correlationId": "c", "isHandledError": true, "payload": {"status": 404}}),
        ),
        with(bare("commandErrorResponse"), json!({"correlationId": "c", "isHandledError": false})),
        with(
            bare("customMessage"),
            json!({"eventName": "e", "payload": "text", "contentType": "text/plain"}),
        ),
        with(
            bare("customMessage"),
            json!({"eventName": "e", "origin": "s", "causationId": "m", "eventVersion": 2, "hops": 3}),
        ),
    ];
    for info in [
        "infoServiceInit",
        "infoServiceReady",
        "infoServiceNotReady",
        "infoServiceFunctionAdded",
        "infoServiceDrain",
        "infoServiceShutdown",
        "infoInvokeTimeout",
        "infoSubscriptionError",
    ] {
        messages.push(bare(info));
    }
    for message in messages {
        assert_eq!(again(&decode(&message).unwrap()), message);
    }
}

#[test]
fn absent_is_left_out_and_null_is_absent_and_unknown_is_ignored() {
    let mut message = command();
    for key in ["principalId", "tenantId", "eventName", "idempotencyKey", "ttl", "hops", "origin"] {
        message[key] = Value::Null;
    }
    message["instanceId"] = json!("stray");
    message["payload"]["payload"] = Value::Null;
    let read = decode(&message).unwrap();
    assert!(read.principal_id.is_none() && read.payload.is_empty() && read.record.is_none());
    let written = again(&read);
    assert!(written.as_object().unwrap().values().all(|value| !value.is_null()), "{written}");
    assert_eq!(written["payload"], json!({"parameter": {"q": "1"}}));
}

#[test]
fn what_a_peer_left_out_is_made_up() {
    let party =
        json!({"serviceName": "Email", "serviceVersion": "1", "serviceTarget": "x", "instanceId": "i"});
    let read =
        decode(&json!({"messageType": "customMessage", "eventName": "mailSent", "sender": party})).unwrap();
    assert!(read.id.bytes().is_some() && read.trace_id.bytes().is_some() && read.timestamp_ms > 0);
    let written = again(&read);
    assert!(
        written["otp"].as_str().unwrap().contains(&read.trace_id.to_string()),
        "the ids stand for a trace"
    );
}

#[test]
fn a_deadline_travels_as_the_milliseconds_that_are_left() {
    let now = Instant::now();
    let mut message = decode(&command()).unwrap();
    assert_eq!(message.deadline, None);
    message.deadline = Some(now + Duration::from_secs(2));
    let wire: Value =
        serde_json::from_slice(&message.encode(now + Duration::from_millis(500)).unwrap()).unwrap();
    assert_eq!(wire["ttl"], 1500);
    let read = Message::decode(&Bytes::from(wire.to_string()), &Clock::system(), now).unwrap();
    assert_eq!(read.deadline, Some(now + Duration::from_millis(1500)));
}

#[test]
fn what_is_no_message_is_refused_with_the_field() {
    let without = |key: &str| {
        let mut message = command();
        message.as_object_mut().unwrap().remove(key);
        decode(&message).unwrap_err().to_string()
    };
    assert_eq!(without("correlationId"), "a message of this type needs `correlationId`");
    assert_eq!(without("receiver"), "a message of this type needs `receiver`");
    for bad in ["", "[]", "{}", r#"{"messageType":"stream"}"#, "\u{0}", &"[".repeat(100_000)] {
        assert!(
            Message::decode(&Bytes::from(bad.to_owned()), &Clock::system(), Instant::now()).is_err(),
            "{bad:.40}"
        );
    }
}

#[test]
fn the_misspelled_sender_of_amqp_responses_is_read_alone_and_beside_the_right_one() {
    let party =
        json!({"serviceName": "User", "serviceVersion": "1", "serviceTarget": "x", "instanceId": "i"});
    let alone =
        json!({"messageType": "commandSuccessResponse", "correlationId": "c", "sennder": party.clone()});
    assert_eq!(decode(&alone).unwrap().sender.address.service(), "User");
    let mut beside = alone;
    beside["sender"] = party;
    let read = decode(&beside).unwrap();
    assert_eq!(read.sender.address.service(), "User");
    assert!(again(&read).get("sennder").is_none(), "ours spell it right");
}

#[test]
fn who_has_nothing_to_say_has_no_payload() {
    let mut response =
        decode(&json!({"messageType": "commandSuccessResponse", "correlationId": "c"})).unwrap();
    response.payload = Payload::typed(());
    assert_eq!(again(&response).get("payload"), None);
    let mut asked = decode(&command()).unwrap();
    asked.payload = Payload::typed(());
    assert_eq!(again(&asked)["payload"].get("payload"), None);
}

#[test]
fn what_is_no_json_is_not_written_into_a_message() {
    for kind in [MessageType::Command, MessageType::CustomMessage] {
        let message = |payload: &'static str, parameter: Option<&'static str>| {
            let mut message = decode(&command()).unwrap();
            message.kind = kind;
            message.payload = Payload::encoded(payload.into());
            message.parameter = parameter.map(Into::into);
            message
        };
        for broken in [r#"1},"principalId":"admin"#, r#"1,"tenantId":"other""#, "{", "", "1 2", "\u{0}"] {
            assert!(message(broken, None).encode(Instant::now()).is_err(), "{broken:?}");
        }
        if kind == MessageType::Command {
            let broken = message("1", Some(r#"{}},"tenantId":"other","x":{"a":{}"#));
            assert!(broken.encode(Instant::now()).is_err());
        }
        let blank = again(&message(" [1, 2]\n", Some(" {} ")));
        assert_eq!(blank["tenantId"], "acme");
        let written =
            if kind == MessageType::Command { &blank["payload"]["payload"] } else { &blank["payload"] };
        assert_eq!(*written, json!([1, 2]));
    }
}

#[test]
fn bytes_that_are_no_utf_8_are_no_message() {
    let mut json = command().to_string().into_bytes();
    let at = json.windows(4).position(|word| word == b"acme").unwrap();
    json[at] = 0xff;
    let error = Message::decode(&Bytes::from(json), &Clock::system(), Instant::now()).unwrap_err();
    assert!(matches!(error, DecodeError::Malformed(_)), "{error:?}");
}

#[test]
fn the_trace_of_the_headers_goes_first_and_a_broken_one_is_none() {
    let json = Bytes::from(command().to_string());
    let parent = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
    let read = |traceparent: &'static str| {
        let header = |name: &str| (name == "traceparent").then_some(traceparent);
        let read = Message::decode_with_headers(&json, &Clock::system(), Instant::now(), header).unwrap();
        read.trace.unwrap().to_string()
    };
    assert_eq!(read(parent), parent);
    assert!(read("00-broken").contains("b7ad6b7169203331"));
}

#[test]
fn the_id_of_a_header_is_that_of_a_message_whose_body_names_none() {
    let read = |json: &Value, told: &'static str| {
        let json = Bytes::from(json.to_string());
        let header = |name: &str| (name == MESSAGE_ID).then_some(told);
        let message = Message::decode_with_headers(&json, &Clock::system(), Instant::now(), header).unwrap();
        message.id.to_string()
    };
    let named = command();
    let mut nameless = named.clone();
    nameless.as_object_mut().unwrap().remove("id");
    assert_eq!(read(&named, "another"), named.get("id").unwrap().as_str().unwrap());
    assert_eq!(read(&nameless, "events-7"), "events-7");
    // What is no id is none.
    assert_ne!(read(&nameless, ""), read(&nameless, ""));
}

#[test]
fn a_time_to_live_of_a_peer_is_capped() {
    let received = Instant::now();
    let deadline = |ttl: u64| {
        let mut wire = command();
        wire["ttl"] = json!(ttl);
        let body = Bytes::from(wire.to_string());
        Message::decode(&body, &Clock::system(), received).unwrap().deadline
    };
    assert_eq!(deadline(1_500), Some(received + Duration::from_millis(1_500)));
    for longer in [3_600_001, u64::MAX] {
        assert_eq!(deadline(longer), Some(received + TTL_MAX), "{longer}");
    }
}
