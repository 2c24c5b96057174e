//! Properties and bodies: how a message becomes one of MQTT 5, and back.

use bytes::Bytes;
use purista_core::bridge::{BridgeError, BridgeErrorKind, COMMAND_TIMEOUT};
use purista_core::clock::Clock;
use purista_core::id::{ID_DIGITS, Id};
use purista_core::message::{DecodeError, Message, MessageType};
use rumqttc::{Publish, PublishProperties, QoS};
use tokio::time::Instant;

use crate::address::topic_of;
use crate::link::rejected;

const JSON: &str = "application/json";
/// The longest text that MQTT can say the length of.
const TEXT_BYTES_MAX: usize = 65_535;

/// How long the broker keeps an event for those who are away, in seconds: 30 days, as PURISTA says.
pub(crate) const EVENT_EXPIRY_S: u32 = 2_592_000;

/// A message as it is published, at QoS 1 and not retained.
pub(crate) fn publication(prefix: &str, message: &Message, now: Instant) -> Result<Publish, BridgeError> {
    let failed = |error| rejected("the message cannot be encoded").with_source(error);
    let body = message.encode(now).map_err(failed)?;
    let topic = topic_of(prefix, message);
    if topic.len() > TEXT_BYTES_MAX {
        let what = format!("a topic of {} bytes is longer than MQTT's are", topic.len());
        return Err(BridgeError::new(BridgeErrorKind::TooLarge, what));
    }
    Ok(Publish::new(topic, QoS::AtLeastOnce, body, Some(properties(message, now))))
}

fn properties(message: &Message, now: Instant) -> PublishProperties {
    let mut user_properties = Vec::with_capacity(12);
    message.headers(|name, value| {
        if can_hold(value) {
            user_properties.push((name.to_owned(), value.to_owned()));
        }
    });
    let is_paired = message.kind == MessageType::Command || message.kind.is_response();
    let correlation_id = message.correlation_id.as_ref().filter(|_| is_paired);
    PublishProperties {
        content_type: Some(JSON.to_owned()),
        message_expiry_interval: Some(expiry_s(message, now)),
        correlation_data: correlation_id
            .map(|id| Bytes::copy_from_slice(id.text_in(&mut [0; ID_DIGITS]).as_bytes())),
        user_properties,
        ..PublishProperties::default()
    }
}

/// Whether a property can hold this text. One that is too long, or bears what Unicode says is no character, makes brokers end
/// the connection, with everything that is under way on it.
fn can_hold(text: &str) -> bool {
    let is_none = |c: char| matches!(u32::from(c), 0xfdd0..=0xfdef) || u32::from(c) & 0xfffe == 0xfffe;
    text.len() <= TEXT_BYTES_MAX && !text.contains(is_none)
}

/// For how long a message is of use to somebody, in whole seconds, rounded up: a command until its deadline, a response that
/// is for its caller alone as long as a command may take, whatever bears an event as long as events are kept.
fn expiry_s(message: &Message, now: Instant) -> u32 {
    let whole = |left: std::time::Duration| {
        let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        u32::try_from(seconds.max(1)).unwrap_or(u32::MAX)
    };
    match message.kind {
        MessageType::Command => {
            whole(message.deadline.map_or(COMMAND_TIMEOUT, |until| until.saturating_duration_since(now)))
        }
        kind if kind.is_response() && message.routed_event().is_none() => whole(COMMAND_TIMEOUT),
        _ => EVENT_EXPIRY_S,
    }
}

/// Reads a message. The trace context of the properties goes before the body's, as at PURISTA.
pub(crate) fn decode(raw: &Publish, clock: &Clock) -> Result<Message, DecodeError> {
    let property = |name: &str| {
        let properties = raw.properties.as_ref()?;
        properties.user_properties.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    };
    Message::decode_with_headers(&raw.payload, clock, Instant::now(), property)
}

/// The call that a response names beside its body.
pub(crate) fn correlation_id(raw: &Publish) -> Option<Id> {
    let data = raw.properties.as_ref()?.correlation_data.as_ref()?;
    Id::parse(std::str::from_utf8(data).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use purista_core::address::{Address, ServiceId};
    use purista_core::message::{Party, Record};
    use purista_core::text::Text;

    use super::*;

    fn message(kind: MessageType) -> Message {
        let sender = Party {
            address: Address::of(ServiceId::new("User", "1"), "signUp"),
            instance: Id::parse("i1").ok(),
        };
        Message::new(Id::from_random(1), kind, 0, sender, Id::from_random(2))
    }

    #[test]
    fn expiry_is_in_seconds_and_as_long_as_a_message_is_of_use() {
        let now = Instant::now();
        let mut command = message(MessageType::Command);
        assert_eq!(expiry_s(&command, now), 30, "PURISTA's own default");
        for (left_ms, seconds) in [(30_000, 30), (1_001, 2), (900, 1), (0, 1)] {
            command.deadline = Some(now + Duration::from_millis(left_ms));
            assert_eq!(expiry_s(&command, now), seconds, "{left_ms} ms");
        }
        for kind in [MessageType::CommandSuccessResponse, MessageType::CommandErrorResponse] {
            assert_eq!(expiry_s(&message(kind), now), 30, "PURISTA says 30000, which is milliseconds");
        }
        let mut response = message(MessageType::CommandSuccessResponse);
        response.event_name = Some(Text::known("registered"));
        assert_eq!(expiry_s(&response, now), 2_592_000, "PURISTA says 2592");
        response.record =
            Some(Box::new(Record { origin: Some("s".into()), causation_id: None, event_version: 1 }));
        assert_eq!(expiry_s(&response, now), 30, "its event leaves from the log");
        assert_eq!(expiry_s(&message(MessageType::CustomMessage), now), 2_592_000);
    }

    #[test]
    fn properties_are_puristas_and_only_calls_are_paired() {
        let now = Instant::now();
        let mut command = message(MessageType::Command);
        command.correlation_id = Id::parse("c-1").ok();
        let properties = properties(&command, now);
        assert_eq!(properties.content_type.as_deref(), Some("application/json"));
        assert_eq!(properties.correlation_data.as_deref(), Some(b"c-1".as_slice()));
        assert_eq!(properties.response_topic, None, "PURISTA answers by the sender alone");
        let raw = publication("purista", &command, now).unwrap();
        assert_eq!((raw.qos, raw.retain), (QoS::AtLeastOnce, false));
        assert_eq!(correlation_id(&raw), Id::parse("c-1").ok());
        let mut event = message(MessageType::CustomMessage);
        event.correlation_id = Id::parse("c-1").ok();
        assert_eq!(super::properties(&event, now).correlation_data, None);
    }

    #[test]
    fn what_a_broker_would_not_read_is_left_out() {
        let mut event = message(MessageType::CustomMessage);
        for (tenant, is_held) in [
            ("acme".to_owned(), true),
            ("日本 \u{1F600}".to_owned(), true),
            ("a".repeat(65_535), true),
            ("a".repeat(65_536), false),
            ("a\u{0}".to_owned(), false),
            ("\u{85}".to_owned(), false),
            ("\u{fffe}".to_owned(), false),
            ("\u{fdd0}".to_owned(), false),
            ("\u{10ffff}".to_owned(), false),
        ] {
            event.tenant_id = Some(tenant.as_str().into());
            let held = properties(&event, Instant::now()).user_properties;
            assert_eq!(held.iter().any(|(name, _)| name == "tenantId"), is_held, "{tenant:.20?}");
        }
        assert!(
            publication(
                "p",
                &Message { tenant_id: Some("a".repeat(65_535).into()), ..event },
                Instant::now()
            )
            .is_err()
        );
    }

    #[test]
    fn the_trace_of_the_properties_goes_first() {
        const BODY: &str = r#"{"messageType":"infoServiceReady","otp":"{\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"}"}"#;
        let clock = Clock::system();
        let parent = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
        let properties = PublishProperties {
            user_properties: vec![("traceparent".to_owned(), parent.to_owned())],
            ..PublishProperties::default()
        };
        let with = Publish::new("t", QoS::AtLeastOnce, BODY, Some(properties));
        assert_eq!(decode(&with, &clock).unwrap().trace.unwrap().to_string(), parent);
        let without = Publish::new("t", QoS::AtLeastOnce, BODY, None);
        assert!(decode(&without, &clock).unwrap().trace.unwrap().to_string().contains("b7ad6b7169203331"));
    }
}
