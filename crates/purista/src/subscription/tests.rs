//! Criteria of a subscription add up, in whichever order they are set.

use garde::Validate;
use purista_core::subscription::PartyFilter;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
struct Happened {
    how: String,
}

impl Event for Happened {
    const NAME: &'static str = "happened";
}

type Def = SubscriptionDef<(), Happened, ()>;
type Narrow = fn(Def) -> Def;

fn of_tenant(def: Def) -> Def {
    def.of_tenant("acme")
}

fn of_principal(def: Def) -> Def {
    def.of_principal("ada")
}

fn of_sender(def: Def) -> Def {
    def.filter(Filter { sender: from("User"), ..Filter::default() })
}

fn to_receiver(def: Def) -> Def {
    def.filter(Filter { receiver: from("Mail"), ..Filter::default() })
}

fn named(def: Def) -> Def {
    def.filter(Filter::event(Text::known("happened")))
}

fn from(service: &'static str) -> PartyFilter {
    PartyFilter { service: Some(Text::known(service)), ..PartyFilter::default() }
}

/// Every order of these.
fn orders(of: &[Narrow]) -> Vec<Vec<Narrow>> {
    if of.is_empty() {
        return vec![Vec::new()];
    }
    let after = |nth: usize| {
        let mut rest = of.to_vec();
        let first = rest.remove(nth);
        orders(&rest).into_iter().map(move |rest| [vec![first], rest].concat())
    };
    (0..of.len()).flat_map(after).collect()
}

#[test]
fn no_criterion_is_lost_in_any_order_of_the_builder() {
    let all: [Narrow; 5] = [of_tenant, of_principal, of_sender, to_receiver, named];
    let expected = Filter {
        tenant_id: Some("acme".into()),
        principal_id: Some("ada".into()),
        sender: from("User"),
        receiver: from("Mail"),
        ..Filter::event(Text::known("happened"))
    };
    let orders = orders(&all);
    assert_eq!(orders.len(), 120);
    for order in orders {
        let hears = async |_: Context<()>, _: Happened| Ok(());
        let on_event: Def = order.iter().fold(subscription("hears", hears), |def, narrow| narrow(def));
        let on_filter: Def =
            order.iter().fold(listen("hears", Filter::default(), hears), |def, narrow| narrow(def));
        for terms in [on_event.terms, on_filter.terms] {
            assert_eq!(terms.filter, expected);
            assert_eq!(terms.contradictions, []);
            assert!(terms.hears_recorded, "it asks for an event by its name");
        }
    }
}

#[test]
fn a_criterion_that_is_set_twice_differently_is_a_contradiction() {
    let def = subscription("hears", async |_: Context<()>, _: Happened| Ok(()));
    let def = def.of_tenant("acme").filter(Filter { tenant_id: Some("other".into()), ..Filter::default() });
    let told: Vec<_> = def.terms.contradictions.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["the tenant `acme` and the tenant `other`"]);
    assert_eq!(def.terms.filter.tenant_id.as_deref(), Some("acme"), "never wider than before");
}
