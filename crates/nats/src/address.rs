//! Subjects and queue groups, as PURISTA 2.x writes them.
//!
//! A subject has 13 parts: the prefix, the message's type, principal, tenant, the sender (instance, name, version, target),
//! the event's name, and the receiver likewise. Each part but the prefix goes through [`snake_case`], which is lossy: a
//! match on a subject is a hint, and filters are asked again on the decoded message.

use std::borrow::Cow;
use std::collections::BTreeSet;

use purista_core::address::Address;
use purista_core::id::Id;
use purista_core::message::{Message, MessageType, Party};
use purista_core::subscription::{Filter, PartyFilter, Sharing, Subscription};

/// The first part of every subject, unless the builder says otherwise.
pub const PREFIX_DEFAULT: &str = "purista";

/// What stands for a part that is absent, and for one of which nothing is left.
pub const ABSENT: &str = "empty";

/// Any part, in the subject of a subscription.
const ANY: &str = "*";

/// Cuts a text into words and joins them in lower case by `_`, exactly as PURISTA's `convertToSnakeCase`: what is no
/// ASCII letter or digit separates words.
///
/// One case differs: of a text without any letter or digit PURISTA leaves what was there, so that a tenant `*` or `>`
/// would become a wildcard, and an empty text an empty part, which no subscription can match. Here both are [`ABSENT`].
///
/// ```
/// use purista_nats::address::snake_case;
/// assert_eq!(snake_case("userSignUp"), "user_sign_up");
/// assert_eq!(snake_case("*"), "empty");
/// ```
pub fn snake_case(text: &str) -> String {
    let mut snake = String::with_capacity(text.len() + 8);
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let length = word(rest);
        let (word, behind) = rest.split_at(length.max(1));
        if length > 0 {
            if !snake.is_empty() {
                snake.push('_');
            }
            snake.extend(word.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        }
        rest = behind;
    }
    if snake.is_empty() { ABSENT.to_owned() } else { snake }
}

/// The length of the word at the beginning of `text`, 0 when there is none. The cases are those of PURISTA's expression
/// `[A-Z]{2,}(?=[A-Z][a-z]+[0-9]*|\b)|[A-Z]?[a-z]+[0-9]*|[A-Z]|[0-9]+`, in its order.
fn word(text: &[u8]) -> usize {
    let run = |from: usize, is: fn(&u8) -> bool| {
        text.get(from..).unwrap_or_default().iter().take_while(|byte| is(byte)).count()
    };
    let upper = run(0, u8::is_ascii_uppercase);
    if upper >= 2 {
        match text.get(upper) {
            Some(next) if next.is_ascii_lowercase() && upper >= 3 => return upper - 1,
            Some(next) if next.is_ascii_alphanumeric() || *next == b'_' => {}
            // A word ends here: at the end, or before what is no word character.
            _ => return upper,
        }
    }
    let capital = upper.min(1);
    let lower = run(capital, u8::is_ascii_lowercase);
    // A capital counts only when small letters follow it directly.
    if lower > 0 && upper <= 1 {
        return capital + lower + run(capital + lower, u8::is_ascii_digit);
    }
    if upper > 0 { 1 } else { run(0, u8::is_ascii_digit) }
}

/// The event's name by which a message is routed. A response whose event a log holds is not: the log delivers it.
pub(crate) fn routed_event(message: &Message) -> Option<&str> {
    let is_recorded = message.record.as_ref().is_some_and(|record| record.origin.is_some());
    message.event_name.as_deref().filter(|_| !(message.kind.is_response() && is_recorded))
}

/// The subject on which a message is published.
pub(crate) fn subject_of(prefix: &str, message: &Message) -> String {
    let [sender_name, sender_version, sender_target] = party_parts(Some(&message.sender));
    let receiver = message.receiver.as_ref();
    let [receiver_name, receiver_version, receiver_target] = party_parts(receiver);
    let sender_instance = message.sender.instance.as_ref().map(Id::text);
    let receiver_instance = receiver.and_then(|party| party.instance.as_ref()).map(Id::text);
    join(
        prefix,
        [
            Some(message.kind.as_str()),
            message.principal_id.as_deref(),
            message.tenant_id.as_deref(),
            sender_instance.as_deref(),
            sender_name,
            sender_version,
            sender_target,
            routed_event(message),
            receiver_instance.as_deref(),
            receiver_name,
            receiver_version,
            receiver_target,
        ]
        .map(|part| part.map_or(Cow::Borrowed(ABSENT), |part| Cow::Owned(snake_case(part)))),
    )
}

/// The subjects of a subscription, one for each event's name that it asks for, without duplicates.
pub(crate) fn subjects_of(prefix: &str, filter: &Filter) -> BTreeSet<String> {
    let one = |event: Option<&str>| {
        let [sender_instance, sender_name, sender_version, sender_target] = filter_parts(&filter.sender);
        let [receiver_instance, receiver_name, receiver_version, receiver_target] =
            filter_parts(&filter.receiver);
        let parts = [
            filter.kind.map(MessageType::as_str),
            filter.principal_id.as_deref(),
            filter.tenant_id.as_deref(),
            sender_instance,
            sender_name,
            sender_version,
            sender_target,
            event,
            receiver_instance,
            receiver_name,
            receiver_version,
            receiver_target,
        ];
        join(prefix, parts.map(|part| part.map_or(Cow::Borrowed(ANY), |part| Cow::Owned(snake_case(part)))))
    };
    if filter.event_names.is_empty() {
        return BTreeSet::from([one(None)]);
    }
    filter.event_names.iter().map(|name| one(Some(name))).collect()
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

fn party_parts(party: Option<&Party>) -> [Option<&str>; 3] {
    party.map_or([None; 3], |party| {
        let address = &party.address;
        [Some(address.service()), Some(address.version()), Some(address.target())]
    })
}

fn filter_parts(filter: &PartyFilter) -> [Option<&str>; 4] {
    [
        filter.instance.as_deref(),
        filter.service.as_deref(),
        filter.version.as_deref(),
        filter.target.as_deref(),
    ]
}

fn join(prefix: &str, parts: [Cow<'_, str>; 12]) -> String {
    let mut subject = prefix.to_owned();
    for part in parts {
        subject.push('.');
        subject.push_str(&part);
    }
    subject
}

/// Whether a prefix may begin subjects: parts of letters, digits, `-` and `_`, joined by dots.
pub(crate) fn prefix_is_valid(prefix: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    prefix.split('.').all(is_part)
}

#[cfg(test)]
mod tests {
    use purista_core::id::Id;
    use purista_core::message::Record;

    use super::*;

    #[test]
    fn words_are_cut_as_purista_cuts_them() {
        for (text, snake) in [
            ("commandSuccessResponse", "command_success_response"),
            ("userSignUp", "user_sign_up"),
            ("tenant-Two", "tenant_two"),
            ("userInstance1", "user_instance1"),
            ("UserService", "user_service"),
            ("user-service_X", "user_service_x"),
            ("HTTPServerV2", "http_server_v_2"),
            ("getOAuth2Token", "get_o_auth2_token"),
            ("ABCd", "ab_cd"),
            ("getURLs", "get_ur_ls"),
            ("HTTP_Server", "h_t_t_p_server"),
            ("ID42x", "i_d_42_x"),
            ("UserV2Service", "user_v_2_service"),
            ("$$endpoint:post:/api/v1/user", "endpoint_post_api_v1_user"),
            ("0af7651916cd43dd8448eb211c80319c", "0_af7651916_cd43_dd8448_eb211_c80319_c"),
            ("4bf92f3577b34da6a3ce929d0e0e4736", "4_bf92_f3577_b34_da6_a3_ce929_d0_e0_e4736"),
            ("user@example.com", "user_example_com"),
            ("user.created", "user_created"),
            ("Ünïcode", "n_code"),
            ("__empty__", "empty"),
            ("__none__", "none"),
            ("1", "1"),
            ("ID", "id"),
            ("ID-x", "id_x"),
            ("infoServiceFunctionAdded", "info_service_function_added"),
        ] {
            assert_eq!(snake_case(text), snake, "{text}");
        }
    }

    #[test]
    fn what_leaves_nothing_is_absent_and_never_a_wildcard() {
        for text in ["", "*", ">", "..", "日本", " \r\n", "_"] {
            assert_eq!(snake_case(text), ABSENT, "{text:?}");
        }
    }

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
        assert_eq!(routed_event(&response), Some("userRegistered"));
        response.record =
            Some(Box::new(Record { origin: Some("store".into()), causation_id: None, event_version: 1 }));
        assert_eq!(routed_event(&response), None);
        response.kind = MessageType::CustomMessage;
        assert_eq!(routed_event(&response), Some("userRegistered"), "what the log relays is routed");
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
