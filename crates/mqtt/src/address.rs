//! Topics, share names and client ids: topics as PURISTA 2.x writes them.
//!
//! The parts of a topic, and what is lost in them, are told in [`purista_core::tokens`].

use std::collections::BTreeSet;
use std::fmt::Write as _;

use purista_core::address::Address;
use purista_core::id::Id;
use purista_core::message::Message;
use purista_core::subscription::{Filter, Sharing, Subscription};
use purista_core::tokens::{Dialect, snake_case};

/// The first part of every topic, unless the builder says otherwise.
pub const PREFIX_DEFAULT: &str = "purista";

/// What stands for a part that is absent, and for one of which nothing is left.
pub const ABSENT: &str = "none";

/// The share name of all commands, which PURISTA uses for all subscriptions too.
pub const SHARE_NAME: &str = "sharedpurista";

const TOPICS: Dialect = Dialect { separator: '/', any: "+", absent: ABSENT };

/// Which share names subscriptions have. Commands have PURISTA's in any case: with another one, a service of ours and one
/// of PURISTA's would both run a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ShareNames {
    /// One for each subscription, so that each gets every event.
    #[default]
    OneEach,
    /// PURISTA's one for all: subscriptions of different services to one event take it from one another. Only where a
    /// subscription shares its events with the same one of a PURISTA service.
    AsPurista,
}

/// The topic on which a message is published.
pub(crate) fn topic_of(prefix: &str, message: &Message) -> String {
    TOPICS.topic_of(prefix, message)
}

/// The topic filters of a subscription, one for each event's name that it asks for, without duplicates.
pub(crate) fn filters_of(
    prefix: &str,
    subscription: &Subscription,
    share_names: ShareNames,
) -> BTreeSet<String> {
    let topics = TOPICS.topics_of(prefix, &subscription.filter);
    match share_name(subscription, share_names) {
        None => topics,
        Some(name) => topics.into_iter().map(|topic| format!("$share/{name}/{topic}")).collect(),
    }
}

/// The topic filters that a subscription may have had, with whatever settings.
pub(crate) fn all_filters_of(prefix: &str, subscription: &Subscription) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for sharing in [Sharing::Shared, Sharing::EveryInstance] {
        let one = Subscription { sharing, ..subscription.clone() };
        for names in [ShareNames::OneEach, ShareNames::AsPurista] {
            all.append(&mut filters_of(prefix, &one, names));
        }
    }
    all
}

/// The filter for the responses to the commands of one instance.
pub(crate) fn replies_filter(prefix: &str, instance: &str) -> String {
    let receiver = purista_core::subscription::PartyFilter {
        instance: Some(instance.into()),
        ..purista_core::subscription::PartyFilter::default()
    };
    let filter = Filter { receiver, ..Filter::default() };
    TOPICS.topics_of(prefix, &filter).into_iter().next().unwrap_or_default()
}

/// The instance that sent a message, as its topic names it in snake case: the way back to a sender that its body leaves out.
pub(crate) fn sender_instance_of(prefix: &str, topic: &[u8]) -> Option<Id> {
    // The parts after the prefix: message type, principal, tenant, instance of the sender.
    const AT: usize = 3;
    let parts = std::str::from_utf8(topic).ok()?.strip_prefix(prefix)?.strip_prefix('/')?;
    let instance = parts.split('/').nth(AT).filter(|instance| *instance != ABSENT)?;
    Id::parse(instance).ok()
}

/// The topic of a command that nobody serves: what the broker says of it shows whether it says so of others.
pub(crate) fn unserved_topic(prefix: &str, instance: &str) -> String {
    let instance = snake_case(instance);
    let instance = if instance.is_empty() { ABSENT } else { &instance };
    format!("{prefix}/command/none/none/{instance}/none/none/none/none/none/none/none/none")
}

fn share_name(subscription: &Subscription, share_names: ShareNames) -> Option<String> {
    let is_own = !subscription.answers && share_names == ShareNames::OneEach;
    match subscription.sharing {
        Sharing::EveryInstance => None,
        Sharing::Shared if is_own => Some(format!("{SHARE_NAME}.{}", plain(&subscription.address))),
        Sharing::Shared => Some(SHARE_NAME.to_owned()),
    }
}

/// The client id under which the broker keeps what waits for a durable subscription.
pub(crate) fn session_of(client_id: &str, subscription: &Address) -> String {
    format!("{client_id}.{}", plain(subscription))
}

/// An address in its own case, with what a topic would read replaced by its code, so that different ones stay different.
fn plain(address: &Address) -> String {
    let mut text = String::new();
    for (part, separator) in [(address.service(), ""), (address.version(), "."), (address.target(), ".")] {
        text.push_str(separator);
        for byte in part.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) {
                text.push(char::from(byte));
            } else {
                // Writing to a text cannot fail.
                let _ = write!(text, "%{byte:02x}");
            }
        }
    }
    text
}

/// Whether a prefix may begin topics: parts of letters, digits, `-` and `_`, joined by `/`.
pub(crate) fn prefix_is_valid(prefix: &str) -> bool {
    TOPICS.prefix_is_valid(prefix)
}

#[cfg(test)]
mod tests {
    use purista_core::message::{MessageType, Party, Record};
    use purista_core::subscription::IN_FLIGHT_DEFAULT;

    use super::*;

    fn address(service: &str, target: &str) -> Address {
        let parts = purista_core::address::AddressParts {
            service: service.to_owned().into(),
            version: "1".into(),
            target: target.to_owned().into(),
        };
        parts.into()
    }

    fn message(kind: MessageType, sender: Party) -> Message {
        Message::new(Id::from_random(1), kind, 0, sender, Id::from_random(2))
    }

    fn listening(target: &str, filter: Filter, sharing: Sharing) -> Subscription {
        Subscription {
            address: address("Email", target),
            filter,
            sharing,
            durable: false,
            in_flight: IN_FLIGHT_DEFAULT,
            from_start: false,
            answers: false,
        }
    }

    #[test]
    fn a_command_an_event_and_an_info_have_puristas_topics() {
        let caller =
            Party { address: address("Caller", "main"), instance: Id::parse("callerInstance1").ok() };
        let mut command = message(MessageType::Command, caller);
        command.receiver = Some(Party::anywhere(address("User", "userSignUp")));
        command.tenant_id = Some("tenant-Two".into());
        assert_eq!(
            topic_of("purista", &command),
            "purista/command/none/tenant_two/caller_instance1/caller/1/main/none/none/user/1/user_sign_up"
        );
        let user = Party { address: address("User", ""), instance: Id::parse("userInstance1").ok() };
        assert_eq!(
            topic_of("purista", &message(MessageType::InfoServiceReady, user)),
            "purista/info_service_ready/none/none/user_instance1/user/1/none/none/none/none/none/none",
            "13 parts, where PURISTA's collapse to 12 that no subscription matches"
        );
        let mut event = message(MessageType::CustomMessage, Party::anywhere(address("Email", "sendMail")));
        event.event_name = Some("welcomeEmailSent".into());
        event.tenant_id = Some("#".into());
        assert_eq!(
            topic_of("other/app", &event),
            "other/app/custom_message/none/none/none/email/1/send_mail/welcome_email_sent/none/none/none/none"
        );
    }

    #[test]
    fn a_response_is_routed_by_its_event_unless_a_log_holds_it() {
        let mut response =
            message(MessageType::CommandSuccessResponse, Party::anywhere(address("User", "signUp")));
        response.event_name = Some("userRegistered".into());
        assert!(topic_of("purista", &response).contains("/user_registered/"));
        response.record =
            Some(Box::new(Record { origin: Some("store".into()), causation_id: None, event_version: 1 }));
        assert!(topic_of("purista", &response).contains("/sign_up/none/"));
    }

    #[test]
    fn commands_share_as_purista_does_and_each_subscription_by_itself() {
        let command = Subscription::command(address("User", "userSignUp"), 1);
        let captured = "$share/sharedpurista/purista/command/+/+/+/+/+/+/+/+/user/1/user_sign_up";
        for names in [ShareNames::OneEach, ShareNames::AsPurista] {
            assert_eq!(Vec::from_iter(filters_of("purista", &command, names)), [captured]);
        }
        let topic = "purista/+/+/+/+/+/+/+/new_user_registered/+/+/+/+";
        let events = Filter::event("newUserRegistered".into());
        let mail = listening("sendMail", events.clone(), Sharing::Shared);
        let one =
            |subscription: &Subscription, names| Vec::from_iter(filters_of("purista", subscription, names));
        assert_eq!(
            one(&mail, ShareNames::OneEach),
            [format!("$share/sharedpurista.Email.1.sendMail/{topic}")]
        );
        assert_eq!(one(&mail, ShareNames::AsPurista), [format!("$share/sharedpurista/{topic}")]);
        let everywhere = listening("cache", events, Sharing::EveryInstance);
        assert_eq!(one(&everywhere, ShareNames::OneEach), [topic]);
    }

    #[test]
    fn several_events_have_a_filter_each_without_duplicates() {
        let names = ["newUserRegistered", "new-user-registered", "userRemoved"].map(Into::into).to_vec();
        let filter = Filter { event_names: names, tenant_id: Some("acme".into()), ..Filter::default() };
        let filters = filters_of("p", &listening("a", filter, Sharing::EveryInstance), ShareNames::OneEach);
        assert_eq!(
            Vec::from_iter(filters),
            ["p/+/+/acme/+/+/+/+/new_user_registered/+/+/+/+", "p/+/+/acme/+/+/+/+/user_removed/+/+/+/+"]
        );
    }

    #[test]
    fn replies_come_to_the_instance() {
        assert_eq!(
            replies_filter("purista", "callerInstance1"),
            "purista/+/+/+/+/+/+/+/+/caller_instance1/+/+/+"
        );
    }

    #[test]
    fn the_topic_of_a_command_names_its_sender() {
        let of = |topic: &str| sender_instance_of("other/app", topic.as_bytes());
        assert_eq!(
            of("other/app/command/none/none/caller_instance1/caller/1/main/none/none/user/1/a"),
            Id::parse("caller_instance1").ok()
        );
        for topic in [
            "other/app/command/none/none/none/caller/1/main/none/none/user/1/a",
            "purista/command/a/b/c",
            "other/app/command",
            "",
        ] {
            assert_eq!(of(topic), None, "{topic}");
        }
        assert_eq!(sender_instance_of("p", b"p/command/none/none/\xff"), None);
    }

    #[test]
    fn names_that_differ_give_share_names_and_sessions_that_differ() {
        let name = |target: &str| {
            let subscription = listening(target, Filter::default(), Sharing::Shared);
            (
                share_name(&subscription, ShareNames::OneEach).unwrap(),
                session_of("email-1", &subscription.address),
            )
        };
        assert_eq!(name("a-b").1, "email-1.Email.1.a-b");
        let names = ["a-b", "aB", "a_b", "a/b", "a%2fb", "a+b", "a#b"].map(name);
        for (share, _) in &names {
            assert!(!share.contains(['/', '+', '#']), "{share}");
        }
        assert_eq!(BTreeSet::from_iter(names).len(), 7);
    }

    #[test]
    fn a_prefix_is_made_of_plain_parts() {
        for (prefix, is_valid) in
            [("purista", true), ("a/b-c", true), ("", false), ("a//b", false), ("a/+", false), ("$a", false)]
        {
            assert_eq!(prefix_is_valid(prefix), is_valid, "{prefix:?}");
        }
    }
}
