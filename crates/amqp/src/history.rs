//! What a message that comes back bears of its past, in headers of ours.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongLongInt, ShortString};

use crate::address::text;
use crate::wire::{PERSISTENT, header};

/// How often it came back already.
pub const RETRY_ATTEMPT: &str = "x-purista-retry-attempt";
/// Each time that it came back: the attempt, the time in milliseconds since 1970, and for how long it was put aside.
pub const RETRY_HISTORY: &str = "x-purista-retry-history";
/// Why it is a dead letter.
pub const DEAD_REASON: &str = "x-purista-dead-letter-reason";
/// The queue that it came from.
pub const DEAD_QUEUE: &str = "x-purista-dead-letter-queue";
/// The attempt that was the last.
pub const DEAD_ATTEMPT: &str = "x-purista-dead-letter-attempt";
/// When it became one, in milliseconds since 1970.
pub const DEAD_TIME: &str = "x-purista-dead-letter-time";

/// The longest reason in bytes; what is longer is cut.
const REASON_BYTES_MAX: usize = 1024;
/// The longest history in bytes; beyond it only the attempt is counted.
const HISTORY_BYTES_MAX: usize = 2048;

/// Which attempt this is, from 1. What the broker hands over once more is no further attempt: most of it was waiting in a
/// process that went away, and never tried.
pub(crate) fn attempt(properties: &BasicProperties) -> u32 {
    let retried =
        properties.headers().as_ref().and_then(|headers| number(headers.inner().get(RETRY_ATTEMPT)?));
    let retried = retried.map_or(0, |retried| u32::try_from(retried.max(0)).unwrap_or(u32::MAX));
    retried.saturating_add(1)
}

fn number(value: &AMQPValue) -> Option<i64> {
    Some(match value {
        AMQPValue::LongLongInt(number) => *number,
        AMQPValue::LongInt(number) => i64::from(*number),
        AMQPValue::LongUInt(number) => i64::from(*number),
        AMQPValue::ShortInt(number) => i64::from(*number),
        AMQPValue::ShortUInt(number) => i64::from(*number),
        AMQPValue::ShortShortInt(number) => i64::from(*number),
        AMQPValue::ShortShortUInt(number) => i64::from(*number),
        _ => return None,
    })
}

/// The properties for the attempt after this one.
pub(crate) fn of_next(
    properties: &BasicProperties,
    attempt: u32,
    after: Duration,
    now_ms: u64,
) -> BasicProperties {
    let mut headers = kept_headers(properties);
    headers.insert(RETRY_ATTEMPT.into(), AMQPValue::LongLongInt(LongLongInt::from(attempt)));
    let before = header(properties, RETRY_HISTORY).unwrap_or_default();
    if before.len() < HISTORY_BYTES_MAX {
        let separator = if before.is_empty() { "" } else { "; " };
        let history =
            format!("{before}{separator}attempt {attempt} at {now_ms}, again after {} ms", after.as_millis());
        headers.insert(RETRY_HISTORY.into(), text(&history));
    }
    again(properties, headers)
}

/// The properties of a dead letter.
pub(crate) fn of_dead(
    properties: &BasicProperties,
    queue: &ShortString,
    attempt: u32,
    reason: &str,
    now_ms: u64,
) -> BasicProperties {
    let mut headers = kept_headers(properties);
    let cut = reason.floor_char_boundary(REASON_BYTES_MAX);
    headers.insert(DEAD_REASON.into(), text(reason.get(..cut).unwrap_or_default()));
    headers.insert(DEAD_QUEUE.into(), text(queue.as_str()));
    headers.insert(DEAD_ATTEMPT.into(), AMQPValue::LongLongInt(LongLongInt::from(attempt)));
    let time = LongLongInt::try_from(now_ms).unwrap_or(LongLongInt::MAX);
    headers.insert(DEAD_TIME.into(), AMQPValue::LongLongInt(time));
    again(properties, headers)
}

/// The headers without those by which a broker would route it elsewhere, or take it for one that goes in circles.
fn kept_headers(properties: &BasicProperties) -> FieldTable {
    let is_kept = |name: &str| {
        !(matches!(name, "CC" | "BCC" | "x-death" | "x-delivery-count")
            || name.starts_with("x-first-death-")
            || name.starts_with("x-last-death-"))
    };
    let mut kept = FieldTable::default();
    let Some(headers) = properties.headers() else { return kept };
    for (name, value) in headers.inner().iter().filter(|(name, _)| is_kept(name.as_str())) {
        kept.insert(name.clone(), value.clone());
    }
    kept
}

/// The same message once more, from us: without the sender's user, which the broker compares with ours, and without an
/// expiration, which would end it while it waits.
fn again(of: &BasicProperties, headers: FieldTable) -> BasicProperties {
    let mut properties = BasicProperties::default().with_headers(headers).with_delivery_mode(PERSISTENT);
    let mut carry = |value: &Option<ShortString>,
                     with: fn(BasicProperties, ShortString) -> BasicProperties| {
        if let Some(value) = value {
            properties = with(std::mem::take(&mut properties), value.clone());
        }
    };
    carry(of.content_type(), BasicProperties::with_content_type);
    carry(of.content_encoding(), BasicProperties::with_content_encoding);
    carry(of.correlation_id(), BasicProperties::with_correlation_id);
    carry(of.reply_to(), BasicProperties::with_reply_to);
    carry(of.message_id(), BasicProperties::with_message_id);
    carry(of.kind(), BasicProperties::with_type);
    carry(of.app_id(), BasicProperties::with_app_id);
    match of.timestamp() {
        Some(timestamp) => properties.with_timestamp(*timestamp),
        None => properties,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(headers: &[(&str, AMQPValue)]) -> BasicProperties {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert((*name).into(), value.clone());
        }
        BasicProperties::default().with_headers(table)
    }

    #[test]
    fn attempts_are_counted_whatever_a_peer_writes_there() {
        let counted = |value| attempt(&with(&[(RETRY_ATTEMPT, value)]));
        assert_eq!(attempt(&BasicProperties::default()), 1);
        assert_eq!(counted(AMQPValue::LongInt(2)), 3);
        assert_eq!(counted(AMQPValue::LongLongInt(i64::MAX)), u32::MAX);
        assert_eq!(counted(AMQPValue::LongLongInt(-5)), 1);
        assert_eq!(counted(text("7")), 1);
    }

    #[test]
    fn a_message_that_comes_back_knows_its_past_and_cannot_be_led_astray() {
        let stray = ["CC", "x-death", "x-first-death-queue"].map(|name| (name, text("elsewhere")));
        let first = of_next(
            &with(&stray)
                .with_user_id("somebody".into())
                .with_expiration("1".into())
                .with_message_id("m1".into()),
            1,
            Duration::from_secs(1),
            1000,
        );
        assert!(first.user_id().is_none() && first.expiration().is_none());
        assert_eq!(first.message_id().as_ref().map(ShortString::as_str), Some("m1"));
        assert_eq!(attempt(&first), 2);
        let second = of_next(&first, 2, Duration::from_secs(2), 3000);
        assert_eq!(
            header(&second, RETRY_HISTORY),
            Some("attempt 1 at 1000, again after 1000 ms; attempt 2 at 3000, again after 2000 ms")
        );
        let names: Vec<_> =
            second.headers().as_ref().unwrap().inner().keys().map(ShortString::as_str).collect();
        assert_eq!(names, [RETRY_ATTEMPT, RETRY_HISTORY]);
        let dead = of_dead(&second, &"q".into(), 3, &"ä".repeat(2000), 4000);
        assert_eq!(header(&dead, DEAD_REASON).map(str::len), Some(REASON_BYTES_MAX));
        assert_eq!(header(&dead, DEAD_QUEUE), Some("q"));
    }
}
