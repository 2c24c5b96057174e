//! Topics of 13 parts, as PURISTA 2.x writes them for brokers that route by text: subjects of NATS, topics of MQTT.
//!
//! The parts are the prefix, the message's type, principal, tenant, the sender (instance, name, version, target), the
//! event's name, and the receiver likewise. Each part but the prefix goes through [`snake_case`], which is lossy: a match on
//! a topic is a hint, and filters are asked again on the decoded message.

use std::collections::BTreeSet;

use crate::id::ID_DIGITS;
use crate::message::{Message, MessageType, Party};
use crate::subscription::{Filter, PartyFilter};

/// How much room a topic begins with, in bytes: enough for two parties with ids of ours.
const TOPIC_BYTES: usize = 256;

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
        let mut topic = Topic::new(*self, prefix, self.absent);
        topic.part(Some(message.kind.as_str()));
        topic.part(message.principal_id.as_deref());
        topic.part(message.tenant_id.as_deref());
        topic.party(Some(&message.sender));
        topic.part(message.routed_event());
        topic.party(message.receiver.as_ref());
        topic.text
    }

    /// The topics of a subscription, one for each event's name that it asks for, without duplicates.
    pub fn topics_of(&self, prefix: &str, filter: &Filter) -> BTreeSet<String> {
        let one = |event: Option<&str>| {
            let mut topic = Topic::new(*self, prefix, self.any);
            topic.part(filter.kind.map(MessageType::as_str));
            topic.part(filter.principal_id.as_deref());
            topic.part(filter.tenant_id.as_deref());
            topic.party_filter(&filter.sender);
            topic.part(event);
            topic.party_filter(&filter.receiver);
            topic.text
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
}

/// A topic that is written part by part into one text: each message that is published needs one.
struct Topic {
    dialect: Dialect,
    text: String,
    /// Stands for a part that nobody names.
    unnamed: &'static str,
}

impl Topic {
    fn new(dialect: Dialect, prefix: &str, unnamed: &'static str) -> Self {
        let mut text = String::with_capacity(TOPIC_BYTES);
        text.push_str(prefix);
        Self { dialect, text, unnamed }
    }

    fn part(&mut self, part: Option<&str>) {
        self.text.push(self.dialect.separator);
        match part {
            None => self.text.push_str(self.unnamed),
            Some(part) => {
                let before = self.text.len();
                snake_case_into(part, &mut self.text);
                if self.text.len() == before {
                    self.text.push_str(self.dialect.absent);
                }
            }
        }
    }

    fn party(&mut self, party: Option<&Party>) {
        let Some(Party { address, instance }) = party else { return self.nobody() };
        let mut digits = [0; ID_DIGITS];
        self.part(instance.as_ref().map(|instance| instance.text_in(&mut digits)));
        self.part(Some(address.service()));
        self.part(Some(address.version()));
        self.part(Some(address.target()));
    }

    fn nobody(&mut self) {
        (0..4).for_each(|_| self.part(None));
    }

    fn party_filter(&mut self, filter: &PartyFilter) {
        self.part(filter.instance.as_deref());
        self.part(filter.service.as_deref());
        self.part(filter.version.as_deref());
        self.part(filter.target.as_deref());
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
    snake_case_into(text, &mut snake);
    snake
}

/// Appends a text in snake case to what is there.
fn snake_case_into(text: &str, topic: &mut String) {
    let begin = topic.len();
    let mut at = 0;
    while at < text.len() {
        let length = word(text.as_bytes().get(at..).unwrap_or_default());
        // Words are of ASCII, so both their ends are ends of characters.
        if let Some(word) = text.get(at..at + length).filter(|word| !word.is_empty()) {
            if topic.len() > begin {
                topic.push('_');
            }
            topic.push_str(word);
        }
        at += length.max(1);
    }
    if let Some(snake) = topic.get_mut(begin..) {
        snake.make_ascii_lowercase();
    }
}

/// The length of the word at the beginning of `text`, 0 when there is none. The cases are those of PURISTA's expression
/// `[A-Z]{2,}(?=[A-Z][a-z]+[0-9]*|\b)|[A-Z]?[a-z]+[0-9]*|[A-Z]|[0-9]+`, in its order.
fn word(text: &[u8]) -> usize {
    let upper = run(text, 0, u8::is_ascii_uppercase);
    if upper >= 2 {
        match text.get(upper) {
            Some(next) if next.is_ascii_lowercase() && upper >= 3 => return upper - 1,
            Some(next) if next.is_ascii_alphanumeric() || *next == b'_' => {}
            // A word ends here: at the end, or before what is no word character.
            _ => return upper,
        }
    }
    let capital = upper.min(1);
    let lower = run(text, capital, u8::is_ascii_lowercase);
    // A capital counts only when small letters follow it directly.
    if lower > 0 && upper <= 1 {
        return capital + lower + run(text, capital + lower, u8::is_ascii_digit);
    }
    if upper > 0 { 1 } else { run(text, 0, u8::is_ascii_digit) }
}

/// How many bytes from there on are such.
fn run(text: &[u8], from: usize, is: impl Fn(&u8) -> bool) -> usize {
    text.get(from..).unwrap_or_default().iter().take_while(|byte| is(byte)).count()
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
            let mut topic = Topic::new(Dialect { separator: '/', any: "+", absent: "none" }, "p", "+");
            topic.part(Some(text));
            assert_eq!(topic.text, "p/none", "{text:?}");
        }
    }
}
