//! Topics of 13 parts, as PURISTA 2.x writes them for brokers that route by text: subjects of NATS, topics of MQTT.
//!
//! The parts are the prefix, the message's type, principal, tenant, the sender (instance, name, version, target), the
//! event's name, and the receiver likewise. Each part but the prefix goes through [`snake_case`], which is lossy: a match on
//! a topic is a hint, and filters are asked again on the decoded message.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::id::Id;
use crate::message::{Message, MessageType, Party};
use crate::subscription::{Filter, PartyFilter};

/// How one broker writes its topics.
#[derive(Debug, Clone, Copy)]
pub struct Dialect {
    /// Between two parts.
    pub separator: char,
    /// Stands for any part, where somebody subscribes.
    pub any: &'static str,
    /// Stands for a part that is absent, and for one of which snake-casing leaves nothing.
    pub absent: &'static str,
}

impl Dialect {
    /// The topic on which a message is published.
    pub fn topic_of(&self, prefix: &str, message: &Message) -> String {
        let [sender_name, sender_version, sender_target] = party_parts(Some(&message.sender));
        let receiver = message.receiver.as_ref();
        let [receiver_name, receiver_version, receiver_target] = party_parts(receiver);
        let sender_instance = message.sender.instance.as_ref().map(Id::text);
        let receiver_instance = receiver.and_then(|party| party.instance.as_ref()).map(Id::text);
        let parts = [
            Some(message.kind.as_str()),
            message.principal_id.as_deref(),
            message.tenant_id.as_deref(),
            sender_instance.as_deref(),
            sender_name,
            sender_version,
            sender_target,
            message.routed_event(),
            receiver_instance.as_deref(),
            receiver_name,
            receiver_version,
            receiver_target,
        ];
        self.join(prefix, parts.map(|part| part.map_or(Cow::Borrowed(self.absent), |part| self.part(part))))
    }

    /// The topics of a subscription, one for each event's name that it asks for, without duplicates.
    pub fn topics_of(&self, prefix: &str, filter: &Filter) -> BTreeSet<String> {
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
            self.join(prefix, parts.map(|part| part.map_or(Cow::Borrowed(self.any), |part| self.part(part))))
        };
        if filter.event_names.is_empty() {
            return BTreeSet::from([one(None)]);
        }
        filter.event_names.iter().map(|name| one(Some(name))).collect()
    }

    /// Whether a prefix may begin topics: parts of letters, digits, `-` and `_`, joined by the separator.
    pub fn prefix_is_valid(&self, prefix: &str) -> bool {
        let is_part = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        prefix.split(self.separator).all(is_part)
    }

    fn part(&self, text: &str) -> Cow<'static, str> {
        let snake = snake_case(text);
        if snake.is_empty() { Cow::Borrowed(self.absent) } else { Cow::Owned(snake) }
    }

    fn join(&self, prefix: &str, parts: [Cow<'_, str>; 12]) -> String {
        let mut topic = prefix.to_owned();
        for part in parts {
            topic.push(self.separator);
            topic.push_str(&part);
        }
        topic
    }
}

/// Cuts a text into words and joins them in lower case by `_`, exactly as PURISTA's `convertToSnakeCase`: what is no
/// ASCII letter or digit separates words.
///
/// One case differs: of a text without any letter or digit PURISTA leaves what was there, so that a tenant `*` or `#`
/// would become a wildcard. Here nothing is left of it, and a [`Dialect`] writes its word for what is absent.
///
/// ```
/// use purista_core::tokens::snake_case;
/// assert_eq!(snake_case("userSignUp"), "user_sign_up");
/// assert_eq!(snake_case("*"), "");
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
    snake
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

#[cfg(test)]
mod tests {
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
        for text in ["", "*", ">", "+", "#", "..", "日本", " \r\n", "_"] {
            assert_eq!(snake_case(text), "", "{text:?}");
            assert_eq!(Dialect { separator: '/', any: "+", absent: "none" }.part(text), "none");
        }
    }
}
