//! Names of queues, and what they are bound with, as PURISTA 2.x has them.

use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use purista_core::bridge::BridgeError;
use purista_core::message::MessageType;
use purista_core::subscription::{Filter, Subscription};

use crate::error::rejected;

/// The one exchange, unless the builder says otherwise.
pub const EXCHANGE_DEFAULT: &str = "purista";
/// What begins the name of every queue, unless the builder says otherwise.
pub const PREFIX_DEFAULT: &str = "purista";
/// The longest delay of a retry: RabbitMQ counts milliseconds in 32 bits.
pub const RETRY_DELAY_MAX: Duration = Duration::from_millis(3 << 30);

/// The header by which the response to a command finds the caller's reply queue.
pub(crate) const REPLY_TO: &str = "replyTo";
/// The header of the event's name.
pub(crate) const EVENT_NAME: &str = "eventName";
/// The header of the process that a message is for; of a response it is another.
pub(crate) const RECEIVER_INSTANCE: &str = "receiverInstanceId";
/// The same of a response.
pub(crate) const RESPONSE_RECEIVER_INSTANCE: &str = "receiverServiceInstanceId";

/// The name of a command's or a shared subscription's queue; the names keep their case.
///
/// ```
/// use purista_amqp::address::queue_name;
/// use purista_core::address::{Address, ServiceId};
/// use purista_core::subscription::Subscription;
///
/// const USER: ServiceId = ServiceId::new("User", "1");
/// let command = Subscription::command(Address::of(USER, "userSignUp"), 64);
/// assert_eq!(queue_name("purista", &command), "purista.cmd.User.1.userSignUp");
/// ```
pub fn queue_name(prefix: &str, subscription: &Subscription) -> String {
    let kind = if subscription.answers { "cmd" } else { "sub" };
    let (service, version) = (subscription.address.service(), subscription.address.version());
    let dot = if prefix.is_empty() || prefix.ends_with('.') { "" } else { "." };
    format!("{prefix}{dot}{kind}.{service}.{version}.{}", subscription.address.target())
}

/// The queue in which a message waits for its next attempt: a name of ours, with a delay of [`retry_delay`].
pub(crate) fn retry_queue_name(queue: &str, delay: Duration) -> String {
    format!("{queue}.retry.{}", delay.as_millis())
}

/// The queue that keeps what cannot be handled.
pub fn dead_letter_queue_name(prefix: &str, subscription: &Subscription) -> String {
    format!("{}.dead-letter", queue_name(prefix, subscription))
}

/// The delay that a retry really gets: `after`, rounded up to 1, 2, 3, 4, 6, 8, 12, 16 … milliseconds. A queue of RabbitMQ
/// has one delay, so that free ones would leave a queue behind for each millisecond; these are 13 between 1 s and 64 s.
pub(crate) fn retry_delay(after: Duration) -> Duration {
    let wanted = u64::try_from(after.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    let power = wanted.max(1).checked_next_power_of_two().map_or(RETRY_DELAY_MAX, Duration::from_millis);
    // Three quarters of a power of two lie half-way between it and the one before.
    let between = power / 4 * 3;
    let is_enough = between >= after && between.subsec_nanos() % 1_000_000 == 0;
    if is_enough { between } else { power }.min(RETRY_DELAY_MAX)
}

/// A name as the protocol carries it, at most 255 bytes.
pub(crate) fn short(name: impl Into<String>) -> Result<ShortString, BridgeError> {
    let name = name.into();
    ShortString::try_new(name.as_str())
        .map_err(|error| rejected(format!("`{name}` is too long a name for AMQP")).with_source(error))
}

/// A text as a header.
pub(crate) fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

/// What the reply queue is bound with.
pub(crate) fn reply_binding(queue: &str) -> FieldTable {
    table(&[(REPLY_TO, queue)])
}

/// What a subscription's queue is bound with: one binding for each event's name that it asks for.
///
/// PURISTA's responses name the receiving process under another key than its subscriptions ask by, so that a filter by
/// receiving process has a binding for each.
pub(crate) fn bindings(filter: &Filter) -> Vec<FieldTable> {
    let (sender, receiver) = (&filter.sender, &filter.receiver);
    let asked = [
        ("messageType", filter.kind.map(MessageType::as_str)),
        ("senderServiceName", sender.service.as_deref()),
        ("senderServiceVersion", sender.version.as_deref()),
        ("senderServiceTarget", sender.target.as_deref()),
        ("senderInstanceId", sender.instance.as_deref()),
        ("receiverServiceName", receiver.service.as_deref()),
        ("receiverServiceVersion", receiver.version.as_deref()),
        ("receiverServiceTarget", receiver.target.as_deref()),
        ("principalId", filter.principal_id.as_deref()),
        ("tenantId", filter.tenant_id.as_deref()),
    ];
    let mut bound: Vec<Vec<(&str, &str)>> =
        vec![asked.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()];
    if let Some(instance) = receiver.instance.as_deref() {
        bound = each_with(&bound, &[(RECEIVER_INSTANCE, instance), (RESPONSE_RECEIVER_INSTANCE, instance)]);
    }
    if !filter.event_names.is_empty() {
        let names: Vec<_> = filter.event_names.iter().map(|name| (EVENT_NAME, name.as_str())).collect();
        bound = each_with(&bound, &names);
    }
    bound.iter().map(|keys| table(keys)).collect()
}

/// Each of `bound` with each of `more`.
fn each_with<'k>(
    bound: &[Vec<(&'k str, &'k str)>],
    more: &[(&'k str, &'k str)],
) -> Vec<Vec<(&'k str, &'k str)>> {
    let with = |keys: &Vec<_>, one| keys.iter().copied().chain([one]).collect();
    bound.iter().flat_map(|keys| more.iter().map(move |one| with(keys, *one))).collect()
}

fn table(keys: &[(&str, &str)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (key, value) in [("x-match", "all")].iter().chain(keys) {
        table.insert((*key).into(), text(value));
    }
    table
}

#[cfg(test)]
mod tests {
    use purista_core::address::{Address, ServiceId};

    use super::*;

    const EMAIL: ServiceId = ServiceId::new("Email", "1");

    fn keys(table: &FieldTable) -> Vec<(String, String)> {
        let value = |value: &AMQPValue| match value {
            AMQPValue::LongString(text) => text.to_string(),
            other => panic!("{other:?}"),
        };
        table.inner().iter().map(|(key, found)| (key.to_string(), value(found))).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn queues_have_puristas_names() {
        let command = Subscription::command(Address::of(EMAIL, "sendMail"), 1);
        assert_eq!(queue_name("purista", &command), "purista.cmd.Email.1.sendMail");
        assert_eq!(queue_name("other.", &command), "other.cmd.Email.1.sendMail");
        let events = Subscription { answers: false, ..command };
        assert_eq!(queue_name("purista", &events), "purista.sub.Email.1.sendMail");
        assert_eq!(dead_letter_queue_name("purista", &events), "purista.sub.Email.1.sendMail.dead-letter");
        assert_eq!(
            retry_queue_name("purista.sub.Email.1.sendMail", Duration::from_secs(2)),
            "purista.sub.Email.1.sendMail.retry.2000"
        );
    }

    #[test]
    fn a_command_is_bound_as_puristas_is() {
        let command = Filter::command(&Address::of(EMAIL, "sendMail"));
        let [bound] = bindings(&command).try_into().unwrap();
        assert_eq!(
            keys(&bound),
            pairs(&[
                ("messageType", "command"),
                ("receiverServiceName", "Email"),
                ("receiverServiceTarget", "sendMail"),
                ("receiverServiceVersion", "1"),
                ("x-match", "all")
            ])
        );
    }

    #[test]
    fn each_event_and_each_name_of_the_receiving_process_has_a_binding() {
        assert_eq!(
            bindings(&Filter::default()).iter().map(keys).collect::<Vec<_>>(),
            [pairs(&[("x-match", "all")])]
        );
        let mut filter = Filter { event_names: vec!["a".into(), "b".into()], ..Filter::default() };
        filter.receiver.instance = Some("i1".into());
        let bound: Vec<_> = bindings(&filter).iter().map(keys).collect();
        let one = |name, key| pairs(&[("eventName", name), (key, "i1"), ("x-match", "all")]);
        assert_eq!(
            bound,
            [
                one("a", "receiverInstanceId"),
                one("b", "receiverInstanceId"),
                one("a", "receiverServiceInstanceId"),
                one("b", "receiverServiceInstanceId")
            ]
        );
    }

    #[test]
    fn delays_have_few_steps_and_are_never_shorter_than_asked() {
        let steps = |wanted: &[u64]| -> Vec<_> {
            wanted
                .iter()
                .map(|ms| u64::try_from(retry_delay(Duration::from_millis(*ms)).as_millis()).unwrap())
                .collect()
        };
        assert_eq!(
            steps(&[0, 1, 2, 3, 4, 5, 7, 9, 30, 1000, 1025, 1537]),
            [1, 1, 2, 3, 4, 6, 8, 12, 32, 1024, 1536, 2048]
        );
        assert_eq!(retry_delay(Duration::from_micros(1001)), Duration::from_millis(2));
        assert_eq!(retry_delay(Duration::MAX), RETRY_DELAY_MAX);
        let all: std::collections::BTreeSet<_> =
            (1000..64_000).map(|ms| retry_delay(Duration::from_millis(ms))).collect();
        assert_eq!(all.len(), 13);
    }

    #[test]
    fn a_name_that_amqp_cannot_carry_is_refused() {
        assert!(short("a".repeat(255)).is_ok());
        assert!(short("a".repeat(256)).is_err());
    }
}
