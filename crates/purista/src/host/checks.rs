//! What a host refuses at its start, with reason and place: better now than at the first message.

use std::collections::BTreeMap;

use purista_core::address::name_is_valid;
use purista_core::bridge::Capabilities;
use purista_core::catalogue::Catalogue;
use purista_core::payload::{ENVELOPE_BYTES, EVENT_BYTES_MAX};
use purista_core::route::Route;
use purista_core::subscription::Sharing;

use crate::listening::{Listening, Terms};
use crate::service::Service;

/// What the host has to offer.
pub(super) struct Offer<'o> {
    pub(super) capabilities: &'o Capabilities,
    pub(super) has_store: bool,
    pub(super) has_foreign_state: bool,
    pub(super) require_durable: bool,
}

/// Everything that is wrong, each with its place and remedy; empty when the host may start.
pub(super) fn problems(services: &[Service], offer: &Offer<'_>) -> Vec<String> {
    let mut found = Vec::new();
    if offer.has_store && offer.has_foreign_state {
        found.push(
            "the host has a store and a state store: state lies in the store's own table, so that it commits with the \
             events; leave out `.state_store(..)`"
                .to_owned(),
        );
    }
    twice(services.iter().map(|service| service.id().to_string()), "service", &mut found);
    for service in services {
        names(service, &mut found);
        if !offer.has_store {
            deciders(service, &mut found);
        }
        for part in &service.subscriptions {
            subscription(&part.listening, offer, &mut found);
        }
    }
    success_events(services, &mut found);
    found
}

fn names(service: &Service, found: &mut Vec<String>) {
    let id = service.id();
    let lower = |name: &str| format!("{id}.{}", name.to_lowercase());
    twice(service.commands.iter().map(|part| lower(part.entry.address.target())), "command", found);
    twice(service.subscriptions.iter().map(|part| lower(part.listening.terms.name)), "subscription", found);
    for part in &service.commands {
        if part.belongs_to != id {
            let address = &part.entry.address;
            found.push(format!(
                "the command {address} was added to the service {id}: its contract says `SERVICE = {}`",
                part.belongs_to
            ));
        }
        if let Some(unknown) = unknown_path_parameter(part.entry.route, part.entry.parameters) {
            let address = &part.entry.address;
            found.push(format!(
                "the route of {address} has `{{{unknown}}}` in its path: add \"{unknown}\" to `PARAMETERS`"
            ));
        }
    }
    for part in &service.subscriptions {
        let name = part.listening.terms.name;
        if !name_is_valid(name) {
            found.push(format!(
                "the subscription `{name}` of {id} has no valid name: a letter, then letters, digits, `-` and `_`, at most 128"
            ));
        }
    }
}

fn deciders(service: &Service, found: &mut Vec<String>) {
    let deciders = service.commands.iter().filter(|part| part.decides);
    found.extend(deciders.map(|part| {
        format!(
            "{} decides on what is recorded, but the host has no store: give the host a `.store(..)`, or make it a plain \
             `command(..)`",
            part.entry.address
        )
    }));
}

fn unknown_path_parameter(route: Option<Route>, parameters: &[&str]) -> Option<&'static str> {
    route?.path_parameters().find(|name| !parameters.contains(name))
}

fn subscription(listening: &Listening, offer: &Offer<'_>, found: &mut Vec<String>) {
    let (address, terms) = (&listening.address, &listening.terms);
    let Capabilities { name: bridge, is_local, durable, from_start, .. } = offer.capabilities;
    found.extend(terms.contradictions.iter().map(|contradiction| {
        format!(
            "{address} asks for {contradiction}, and no message meets both: leave out one of the criteria"
        )
    }));
    if !terms.is_durable {
        if terms.from_start {
            found.push(format!("{address} says `.from_start()`, which needs `.durable()`"));
        }
        return;
    }
    if !offer.has_store && !durable {
        found.push(format!(
            "{address} is durable, but the host has no store and the {bridge} bridge keeps nothing: give the host a `.store(..)`, \
             or leave out `.durable()`"
        ));
    }
    let is_bridge_fed = !(offer.has_store && terms.hears_recorded);
    if terms.from_start && is_bridge_fed && *durable && !from_start {
        found.push(format!(
            "{address} says `.from_start()`, but the {bridge} bridge keeps nothing from before a subscription's first start: give \
             the host a `.store(..)` that records the event, use a bridge that keeps a stream, or leave out `.from_start()`"
        ));
    }
    if terms.sharing == Sharing::EveryInstance {
        found.push(format!("{address} is durable and on every instance: its progress is one, its instances are many; leave out one"));
    }
    if let Some(what) = not_recorded(terms) {
        found.push(format!(
            "{address} is durable, but {what} is not recorded: leave out that criterion, or `.durable()`"
        ));
    }
    if offer.has_store && !terms.hears_recorded && !durable {
        found.push(format!(
            "{address} is durable, but its event says `RECORDED = false` and the {bridge} bridge keeps nothing: record the event, \
             or leave out `.durable()`"
        ));
    }
    if offer.has_store && !is_local && !durable && offer.require_durable {
        found.push(format!(
            "{address} is durable, but events of other processes come over the {bridge} bridge at most once: use a durable bridge, \
             or leave out `.require_durable()`"
        ));
    }
}

/// The criterion of a durable filter that no log can answer.
fn not_recorded(terms: &Terms) -> Option<&'static str> {
    if terms.filter.kind.is_some() {
        Some("the message type")
    } else if !terms.filter.receiver.is_empty() {
        Some("the receiver")
    } else if terms.filter.event_names.is_empty() {
        Some("a message without an event's name")
    } else {
        None
    }
}

/// What is weaker than one might think, said once at the start.
pub(super) fn warnings(services: &[Service], offer: &Offer<'_>) -> Vec<String> {
    let Capabilities { name, is_local, durable, .. } = offer.capabilities;
    let is_weak = offer.has_store && !is_local && !durable;
    let weak = services
        .iter()
        .flat_map(|service| &service.subscriptions)
        .filter(|part| part.listening.terms.is_durable);
    weak.filter(|_| is_weak)
        .map(|part| {
            format!(
                "{}: events of other processes come over the {name} bridge at most once",
                part.listening.address
            )
        })
        .chain(small_limit(offer))
        .collect()
}

/// Events that may be recorded and could not be published.
fn small_limit(offer: &Offer<'_>) -> Option<String> {
    let Capabilities { name, is_local, message_bytes_max: most, .. } = offer.capabilities;
    let is_small = EVENT_BYTES_MAX.saturating_add(ENVELOPE_BYTES) > *most;
    (offer.has_store && !is_local && is_small).then(|| {
        format!(
            "the {name} bridge carries messages of at most {most} bytes, and an event may have {EVENT_BYTES_MAX}: larger ones are \
             refused when they are emitted; raise the limit of the broker to {} bytes, as `max_payload` of nats-server or \
             `max_packet_size` of mosquitto",
            EVENT_BYTES_MAX + ENVELOPE_BYTES
        )
    })
}

fn success_events(services: &[Service], found: &mut Vec<String>) {
    for service in services {
        let events = service.commands.iter().filter_map(|part| part.entry.success_event);
        twice(events.map(|event| format!("{}.{event}", service.id())), "success event", found);
    }
}

fn twice(names: impl Iterator<Item = String>, what: &str, found: &mut Vec<String>) {
    let mut counted: BTreeMap<String, usize> = BTreeMap::new();
    for name in names {
        *counted.entry(name).or_default() += 1;
    }
    found.extend(counted.into_iter().filter(|(_, count)| *count > 1).map(|(name, count)| {
        format!("the {what} {name} is there {count} times: give each a name of its own (upper and lower case count as one)")
    }));
}

/// Routes that no request can tell apart.
pub(super) fn equal_routes(catalogue: &Catalogue) -> Vec<String> {
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in catalogue.commands() {
        let Some(route) = entry.route else { continue };
        let shape = route.path().split('/').map(|part| if part.starts_with('{') { "{}" } else { part });
        let place = format!(
            "{} v{}/{}",
            route.method().as_str(),
            entry.address.version(),
            shape.collect::<Vec<_>>().join("/")
        );
        seen.entry(place).or_default().push(entry.address.to_string());
    }
    let several = seen.into_iter().filter(|(_, commands)| commands.len() > 1);
    several
        .map(|(place, commands)| {
            format!(
                "{} have the same route {place}: change the path or method of one",
                commands.join(" and ")
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use purista_core::bridge::EventBridge;
    use purista_core::in_process::InProcessBridge;

    use super::*;

    #[test]
    fn a_broker_that_takes_less_than_an_event_may_have_is_a_warning() {
        let check = |is_local: bool, message_bytes_max: usize, has_store: bool, warns: bool| {
            let capabilities =
                Capabilities { is_local, message_bytes_max, ..InProcessBridge::new().capabilities() };
            let offer = Offer {
                capabilities: &capabilities,
                has_store,
                has_foreign_state: false,
                require_durable: false,
            };
            let found = warnings(&[], &offer);
            assert_eq!(found.len(), usize::from(warns), "{found:?}");
            assert!(!warns || found[0].contains("at most 65536 bytes") && found[0].contains("max_payload"));
        };
        check(false, 64 << 10, true, true);
        check(false, 1 << 20, true, false);
        check(false, 64 << 10, false, false);
        check(true, 64 << 10, true, false);
    }
}
