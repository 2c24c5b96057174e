//! What a consumer wants to be fed: a command's calls, or the messages that pass a filter.

use std::fmt;

use crate::address::Address;
use crate::message::{Message, MessageType};
use crate::text::Text;

/// How many messages one subscription handles at a time, unless it says otherwise.
pub const IN_FLIGHT_DEFAULT: usize = 64;

/// Which messages a subscription gets. Every criterion that is set must hold, compared exactly; a set criterion never
/// matches a message that lacks the field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The type of the message.
    pub kind: Option<MessageType>,
    /// One of these event names; empty is any, or none.
    pub event_names: Vec<Text>,
    /// On whose behalf.
    pub principal_id: Option<Text>,
    /// In whose part of the system.
    pub tenant_id: Option<Text>,
    /// Who made it.
    pub sender: PartyFilter,
    /// Whom it is for.
    pub receiver: PartyFilter,
}

/// The criteria for one end of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartyFilter {
    /// The service's name.
    pub service: Option<Text>,
    /// The service's version.
    pub version: Option<Text>,
    /// The command or subscription.
    pub target: Option<Text>,
    /// The process.
    pub instance: Option<Text>,
}

impl PartyFilter {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.service.is_none() && self.version.is_none() && self.target.is_none() && self.instance.is_none()
    }

    fn and(self, other: Self, end: &'static str) -> Result<Self, Contradiction> {
        let of = |what, ours, theirs| both(what, ours, theirs).map_err(|error| error.at(end));
        Ok(Self {
            service: of("service", self.service, other.service)?,
            version: of("version", self.version, other.version)?,
            target: of("target", self.target, other.target)?,
            instance: of("instance", self.instance, other.instance)?,
        })
    }

    fn matches(&self, party: Option<&crate::message::Party>) -> bool {
        if self.is_empty() {
            return true;
        }
        let Some(party) = party else { return false };
        let address = &party.address;
        holds(self.service.as_ref(), Some(address.service()))
            && holds(self.version.as_ref(), Some(address.version()))
            && holds(self.target.as_ref(), Some(address.target()))
            && self.instance.as_ref().is_none_or(|wanted| {
                party.instance.as_ref().is_some_and(|instance| *instance.text() == **wanted)
            })
    }
}

/// An empty text in a message is an absent one: PURISTA's infos bear an empty target.
fn holds(criterion: Option<&Text>, value: Option<&str>) -> bool {
    criterion.is_none_or(|wanted| value.is_some_and(|value| !value.is_empty() && wanted.as_str() == value))
}

/// One criterion of two filters.
fn both(what: &'static str, ours: Option<Text>, theirs: Option<Text>) -> Result<Option<Text>, Contradiction> {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if ours != theirs => Err(Contradiction::new(what, &ours, &theirs)),
        (ours, theirs) => Ok(ours.or(theirs)),
    }
}

fn listed(names: &[Text]) -> String {
    names.iter().map(Text::as_str).collect::<Vec<_>>().join("`, `")
}

/// Two filters that no message can pass: they set one criterion to different values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    what: String,
    first: String,
    second: String,
}

impl Contradiction {
    fn new(what: &str, first: &str, second: &str) -> Self {
        Self { what: what.to_owned(), first: first.to_owned(), second: second.to_owned() }
    }

    fn at(self, end: &str) -> Self {
        Self { what: format!("{end}'s {}", self.what), ..self }
    }
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, first, second } = self;
        write!(f, "the {what} `{first}` and the {what} `{second}`")
    }
}

impl std::error::Error for Contradiction {}

impl Filter {
    /// Events of one name.
    pub fn event(name: Text) -> Self {
        Self { event_names: vec![name], ..Self::default() }
    }

    /// Calls of one command.
    pub fn command(address: &Address) -> Self {
        let receiver = PartyFilter {
            service: Some(address.service().into()),
            version: Some(address.version().into()),
            target: Some(address.target().into()),
            instance: None,
        };
        Self { kind: Some(MessageType::Command), receiver, ..Self::default() }
    }

    /// Narrows the filter by further criteria: a message passes only if it passes both. The order does not matter.
    ///
    /// # Errors
    ///
    /// Returns what contradicts when no message can pass both, as two different tenants.
    pub fn and(self, other: Self) -> Result<Self, Contradiction> {
        let event_names = match (self.event_names, other.event_names) {
            (names, none) | (none, names) if none.is_empty() => names,
            (ours, theirs) => {
                let both: Vec<_> = ours.iter().filter(|name| theirs.contains(name)).cloned().collect();
                if both.is_empty() {
                    return Err(Contradiction::new("event", &listed(&ours), &listed(&theirs)));
                }
                both
            }
        };
        let kind = match (self.kind, other.kind) {
            (Some(ours), Some(theirs)) if ours != theirs => {
                return Err(Contradiction::new("message type", ours.as_str(), theirs.as_str()));
            }
            (ours, theirs) => ours.or(theirs),
        };
        Ok(Self {
            kind,
            event_names,
            principal_id: both("principal", self.principal_id, other.principal_id)?,
            tenant_id: both("tenant", self.tenant_id, other.tenant_id)?,
            sender: self.sender.and(other.sender, "sender")?,
            receiver: self.receiver.and(other.receiver, "receiver")?,
        })
    }

    /// Whether the message passes. Bridges ask again after decoding: the topics of brokers are lossy, so a match there is
    /// a hint.
    pub fn matches(&self, message: &Message) -> bool {
        self.kind.is_none_or(|kind| kind == message.kind)
            && (self.event_names.is_empty()
                || message.event_name.as_ref().is_some_and(|name| self.event_names.contains(name)))
            && holds(self.principal_id.as_ref(), message.principal_id.as_deref())
            && holds(self.tenant_id.as_ref(), message.tenant_id.as_deref())
            && self.sender.matches(Some(&message.sender))
            && self.receiver.matches(message.receiver.as_ref())
    }
}

/// Who gets a message when several processes run the same subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// One of them.
    #[default]
    Shared,
    /// Each of them.
    EveryInstance,
}

/// What a bridge is asked to feed.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// Names it: of a command its address, else service, version and the subscription's name. Consumers of one name share.
    pub address: Address,
    /// What it gets.
    pub filter: Filter,
    /// Who gets it.
    pub sharing: Sharing,
    /// Whether messages wait for it while nobody runs it.
    pub durable: bool,
    /// Whether a durable subscription that nobody ran before begins with the oldest message that is kept, not with the next
    /// one. A bridge whose capabilities do not say so refuses it.
    pub from_start: bool,
    /// How many messages it handles at a time, at least 1.
    pub in_flight: usize,
    /// Whether it serves a command, and so answers each message.
    pub answers: bool,
}

impl Subscription {
    /// The calls of a command. Its consumers share them; `in_flight` bounds what a broker hands over at a time.
    pub fn command(address: Address, in_flight: usize) -> Self {
        let filter = Filter::command(&address);
        Self {
            address,
            filter,
            sharing: Sharing::Shared,
            durable: false,
            from_start: false,
            in_flight: in_flight.max(1),
            answers: true,
        }
    }
}

impl fmt::Display for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.address, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Address, ServiceId};
    use crate::id::Id;
    use crate::message::Party;

    fn message() -> Message {
        let sender = Party {
            address: Address::of(ServiceId::new("User", "1"), "signUp"),
            instance: Id::parse("i1").ok(),
        };
        let mut message = Message::new(
            Id::from_random(1),
            MessageType::CustomMessage,
            0,
            sender.clone(),
            Id::from_random(2),
        );
        message.event_name = Some(Text::known("registered"));
        message.tenant_id = Some("acme".into());
        message
    }

    #[track_caller]
    fn check(filter: &Filter, matches: bool) {
        assert_eq!(filter.matches(&message()), matches, "{filter:?}");
    }

    #[test]
    fn every_set_criterion_must_hold() {
        check(&Filter::default(), true);
        check(&Filter::event(Text::known("registered")), true);
        check(
            &Filter { event_names: vec![Text::known("a"), Text::known("registered")], ..Filter::default() },
            true,
        );
        check(&Filter::event(Text::known("Registered")), false);
        check(&Filter { kind: Some(MessageType::Command), ..Filter::default() }, false);
        check(&Filter { tenant_id: Some("acme".into()), ..Filter::event("registered".into()) }, true);
        check(&Filter { tenant_id: Some("other".into()), ..Filter::event("registered".into()) }, false);
        let sender = |f: fn(&mut PartyFilter)| {
            let mut sender = PartyFilter::default();
            f(&mut sender);
            Filter { sender, ..Filter::default() }
        };
        check(&sender(|s| s.service = Some("User".into())), true);
        check(&sender(|s| s.version = Some("2".into())), false);
        check(&sender(|s| s.target = Some("signUp".into())), true);
        check(&sender(|s| s.instance = Some("i2".into())), false);
    }

    #[test]
    fn two_filters_hold_together_in_any_order_or_contradict() {
        let tenant = |tenant: &str| Filter { tenant_id: Some(tenant.into()), ..Filter::default() };
        let sender = |service: &str, version: &str| {
            let part = |text: &str| Some(text).filter(|text| !text.is_empty()).map(Into::into);
            let sender =
                PartyFilter { service: part(service), version: part(version), ..PartyFilter::default() };
            Filter { sender, ..Filter::default() }
        };
        let names = |names: &[&str]| Filter {
            event_names: names.iter().map(|name| (*name).into()).collect(),
            ..Filter::default()
        };
        let kind = |kind| Filter { kind: Some(kind), ..Filter::default() };
        for (one, other, all) in [
            (tenant("acme"), Filter::default(), tenant("acme")),
            (tenant("acme"), tenant("acme"), tenant("acme")),
            (sender("User", ""), sender("", "1"), sender("User", "1")),
            (names(&["a", "b"]), names(&["b", "c"]), names(&["b"])),
            (names(&["a", "b"]), Filter::default(), names(&["a", "b"])),
        ] {
            assert_eq!(one.clone().and(other.clone()), Ok(all.clone()));
            assert_eq!(other.and(one), Ok(all));
        }
        for (one, other, told) in [
            (tenant("acme"), tenant("other"), "the tenant `acme` and the tenant `other`"),
            (
                sender("User", "1"),
                sender("User", "2"),
                "the sender's version `1` and the sender's version `2`",
            ),
            (names(&["a", "b"]), names(&["c"]), "the event `a`, `b` and the event `c`"),
            (
                kind(MessageType::Command),
                kind(MessageType::CustomMessage),
                "the message type `command` and the message type `customMessage`",
            ),
        ] {
            assert_eq!(one.and(other).unwrap_err().to_string(), told);
        }
    }

    #[test]
    fn a_set_criterion_never_matches_an_absent_field() {
        check(&Filter { principal_id: Some("anybody".into()), ..Filter::default() }, false);
        let receiver = PartyFilter { service: Some("User".into()), ..PartyFilter::default() };
        check(&Filter { receiver, ..Filter::default() }, false);
    }
}
