//! Subjects and queue groups, as PURISTA 2.x writes them.
//!
//! The parts of a subject, and what is lost in them, are told in [`purista_core::tokens`].

use std::collections::BTreeSet;

use purista_core::address::Address;
use purista_core::message::{Message, MessageType};
use purista_core::subscription::{Filter, Sharing, Subscription};
use purista_core::tokens::{Dialect, snake_case};

/// The first part of every subject, unless the builder says otherwise.
pub const PREFIX_DEFAULT: &str = "purista";

/// What stands for a part that is absent, and for one of which nothing is left.
pub const ABSENT: &str = "empty";

const SUBJECTS: Dialect = Dialect { separator: '.', any: "*", absent: ABSENT };

/// The subject on which a message is published.
pub(crate) fn subject_of(prefix: &str, message: &Message) -> String {
    SUBJECTS.topic_of(prefix, message)
}

/// The subjects of a subscription, one for each event's name that it asks for, without duplicates.
pub(crate) fn subjects_of(prefix: &str, filter: &Filter) -> BTreeSet<String> {
    SUBJECTS.topics_of(prefix, filter)
}

/// The queue group by which the processes of one subscription share its messages.
pub(crate) fn queue_group(prefix: &str, subscription: &Subscription) -> Option<String> {
    (subscription.sharing == Sharing::Shared).then(|| group(prefix, &subscription.address))
}

/// In the case of the names, not in snake case; then in capitals.
fn group(prefix: &str, address: &Address) -> String {
    let text = format!("{prefix}_queue_{}_{}_{}", address.service(), address.version(), address.target());
    // A name with a blank in it, which only a peer can have, would end the protocol's line.
    text.to_uppercase().split_whitespace().collect::<Vec<_>>().join("_")
}

/// The subjects that a stream keeps: those of events, by themselves or on the answer to a command.
pub(crate) fn event_subjects(prefix: &str) -> [String; 2] {
    [MessageType::CustomMessage, MessageType::CommandSuccessResponse]
        .map(|kind| format!("{prefix}.{}.>", snake_case(kind.as_str())))
}

/// The name under which a stream keeps the place of a subscription. Dots and the like would end it: what is no letter, digit,
/// `-` or `_` is written as its bytes in hex, so that no two subscriptions share a place.
pub(crate) fn durable_name(address: &Address) -> String {
    let part = |text: &str| {
        text.bytes().fold(String::new(), |name, byte| match byte {
            b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                name + char::from(byte).encode_utf8(&mut [0; 4])
            }
            _ => format!("{name}%{byte:02x}"),
        })
    };
    [address.service(), address.version(), address.target()].map(part).join("_")
}

/// Whether a prefix may begin subjects: parts of letters, digits, `-` and `_`, joined by dots.
pub(crate) fn prefix_is_valid(prefix: &str) -> bool {
    SUBJECTS.prefix_is_valid(prefix)
}

#[cfg(test)]
mod tests {
    use purista_core::id::Id;
    use purista_core::message::{Party, Record};

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

    #[test]
    fn a_command_an_event_and_an_info_have_puristas_subjects() {
        let caller =
            Party { address: address("Caller", "main"), instance: Id::parse("callerInstance1").ok() };
        let mut command = message(MessageType::Command, caller);
        command.receiver = Some(Party::anywhere(address("User", "userSignUp")));
        assert_eq!(
            subject_of("purista", &command),
            "purista.command.empty.empty.caller_instance1.caller.1.main.empty.empty.user.1.user_sign_up"
        );
        let user = Party { address: address("User", ""), instance: Id::parse("userInstance1").ok() };
        let ready = message(MessageType::InfoServiceReady, user);
        assert_eq!(
            subject_of("purista", &ready),
            "purista.info_service_ready.empty.empty.user_instance1.user.1.empty.empty.empty.empty.empty.empty"
        );
        let mut event = message(MessageType::CustomMessage, Party::anywhere(address("Email", "sendMail")));
        event.event_name = Some("welcomeEmailSent".into());
        event.tenant_id = Some("*".into());
        assert_eq!(
            subject_of("other.app", &event),
            "other.app.custom_message.empty.empty.empty.email.1.send_mail.welcome_email_sent.empty.empty.empty.empty"
        );
    }

    #[test]
    fn a_response_is_routed_by_its_event_unless_a_log_holds_it() {
        let mut response =
            message(MessageType::CommandSuccessResponse, Party::anywhere(address("User", "signUp")));
        response.event_name = Some("userRegistered".into());
        assert!(subject_of("purista", &response).contains(".user_registered."));
        response.record = Some(Box::new(Record { origin: None, causation_id: None, event_version: 2 }));
        assert_eq!(response.routed_event(), Some("userRegistered"));
        response.record =
            Some(Box::new(Record { origin: Some("store".into()), causation_id: None, event_version: 1 }));
        assert_eq!(response.routed_event(), None);
        response.kind = MessageType::CustomMessage;
        assert_eq!(response.routed_event(), Some("userRegistered"), "what the log relays is routed");
    }

    #[test]
    fn a_subscription_has_wildcards_for_what_it_does_not_ask() {
        let command = Subscription::command(address("User", "userSignUp"), 1);
        let subjects = subjects_of("purista", &command.filter);
        assert_eq!(Vec::from_iter(subjects), ["purista.command.*.*.*.*.*.*.*.*.user.1.user_sign_up"]);
        assert_eq!(queue_group("purista", &command).as_deref(), Some("PURISTA_QUEUE_USER_1_USERSIGNUP"));

        let names = ["newUserRegistered", "new-user-registered", "userRemoved"].map(Into::into).to_vec();
        let events = Filter { event_names: names, tenant_id: Some("acme".into()), ..Filter::default() };
        assert_eq!(
            Vec::from_iter(subjects_of("purista", &events)),
            [
                "purista.*.*.acme.*.*.*.*.new_user_registered.*.*.*.*",
                "purista.*.*.acme.*.*.*.*.user_removed.*.*.*.*"
            ]
        );
    }

    #[test]
    fn the_place_of_a_subscription_has_a_name_of_its_own() {
        assert_eq!(durable_name(&address("Email", "sendWelcomeEmail")), "Email_1_sendWelcomeEmail");
        let names = ["a.b", "a_b", "a b", "a*b", "a>b", "aB", "ä"]
            .map(|target| durable_name(&address("Email", target)));
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
        assert!(names.iter().all(|name| !name.contains(['.', '*', '>', ' ', '/'])), "{names:?}");
    }

    #[test]
    fn a_prefix_is_made_of_plain_parts() {
        for (prefix, is_valid) in
            [("purista", true), ("a.b-c", true), ("", false), ("a..b", false), ("a.*", false), ("a b", false)]
        {
            assert_eq!(prefix_is_valid(prefix), is_valid, "{prefix:?}");
        }
    }
}
