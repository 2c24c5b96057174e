//! Which events: by type, by tags, by tenant.

use std::collections::BTreeSet;

use purista_core::event::Tags;
use purista_core::text::Text;
use uuid::Uuid;

use crate::fingerprint::Fingerprint;
use crate::position::Position;
use crate::recorded::{NewEvent, Recorded};

/// Sets fingerprints of queries apart from everything else that is named by version 5 of UUID.
const NAMESPACE: Uuid = Uuid::from_u128(0x2d5c_91f4_7a1e_4c3b_8f60_b3e9_54d7_1a08);

/// Which tenants a reader sees.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TenantScope {
    /// One tenant, or what belongs to none.
    Only(Option<Text>),
    /// All: for delivery and projections, never for a handler.
    #[default]
    All,
}

/// One alternative of a query: all its tags, and one of its types.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueryItem {
    /// Names of events, any of them; empty is all.
    pub types: Vec<Text>,
    /// Names and values of tags, all of them.
    pub tags: Vec<(Text, Text)>,
}

/// Which events. It selects what any of its items selects; a query without items selects all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// Whose.
    pub tenants: TenantScope,
    /// The alternatives.
    pub items: Vec<QueryItem>,
}

impl Query {
    /// All events of all tenants.
    pub const fn all() -> Self {
        Self { tenants: TenantScope::All, items: Vec::new() }
    }

    /// Events of these types, of all tenants.
    pub fn types(types: impl IntoIterator<Item = Text>) -> Self {
        let item = QueryItem { types: types.into_iter().collect(), tags: Vec::new() };
        Self { tenants: TenantScope::All, items: vec![item] }
    }

    /// Events with this tag, of all tenants.
    pub fn tag(name: impl Into<Text>, value: impl Into<Text>) -> Self {
        let item = QueryItem { types: Vec::new(), tags: vec![(name.into(), value.into())] };
        Self { tenants: TenantScope::All, items: vec![item] }
    }

    /// The same, of one tenant.
    #[must_use]
    pub fn of_tenant(mut self, tenant: Option<Text>) -> Self {
        self.tenants = TenantScope::Only(tenant);
        self
    }

    /// The same, or this item.
    #[must_use]
    pub fn or(mut self, item: QueryItem) -> Self {
        self.items.push(item);
        self
    }

    /// Tells this query from others without keeping it: the same for the same items, types and tags in whichever order, on
    /// every machine and in every version.
    pub fn fingerprint(&self) -> Fingerprint {
        let tenants = match &self.tenants {
            TenantScope::All => None,
            TenantScope::Only(tenant) => Some(tenant.as_deref()),
        };
        let items: BTreeSet<_> = self
            .items
            .iter()
            .map(|item| {
                let types: BTreeSet<&str> = item.types.iter().map(Text::as_str).collect();
                let tags: BTreeSet<(&str, &str)> =
                    item.tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                (types, tags)
            })
            .collect();
        // Strings in sets and pairs have a JSON in any case.
        let json = serde_json::to_vec(&(tenants.is_some(), tenants.flatten(), items)).unwrap_or_default();
        Fingerprint(Uuid::new_v5(&NAMESPACE, &json).into_bytes())
    }

    /// Whether it selects this event: the meaning that every engine's index must agree with.
    pub fn selects<E>(&self, event: &Recorded<E>) -> bool {
        self.is_met_by(event.tenant_id.as_deref(), &event.name, &event.tags)
    }

    /// Whether one of its items selects this event and the event lies after the position of the same index. An item without a
    /// position has no lower bound.
    pub fn selects_after<E>(&self, event: &Recorded<E>, after: &[Position]) -> bool {
        if self.items.is_empty() {
            return self.selects(event) && event.position > self.lowest(after);
        }
        let is_after = |index: usize| event.position > after.get(index).copied().unwrap_or_default();
        self.selects(event)
            && self.items.iter().enumerate().any(|(index, item)| is_after(index) && item.selects(event))
    }

    /// The lowest of these lower bounds, one for each item: [`Position::START`] where one is missing.
    pub fn lowest(&self, after: &[Position]) -> Position {
        if after.len() < self.items.len() {
            return Position::START;
        }
        after.iter().copied().min().unwrap_or_default()
    }

    /// Whether it will select this event of the tenant, once it is recorded.
    pub fn selects_new(&self, tenant: Option<&str>, event: &NewEvent) -> bool {
        self.is_met_by(tenant, &event.name, &event.tags)
    }

    fn is_met_by(&self, tenant: Option<&str>, name: &Text, tags: &Tags) -> bool {
        let is_of_tenant = match &self.tenants {
            TenantScope::All => true,
            TenantScope::Only(only) => only.as_deref() == tenant,
        };
        is_of_tenant && (self.items.is_empty() || self.items.iter().any(|item| item.is_met_by(name, tags)))
    }
}

impl QueryItem {
    /// Whether this item selects the event, whoever's it is.
    pub fn selects<E>(&self, event: &Recorded<E>) -> bool {
        self.is_met_by(&event.name, &event.tags)
    }

    /// Whether this item will select an event of this type with these tags, once it is recorded.
    pub fn selects_pending(&self, event: &str, tags: &Tags) -> bool {
        (self.types.is_empty() || self.names_type(event))
            && self.tags.iter().all(|(name, value)| tags.contains(name, value))
    }

    /// Whether this item lists the event type explicitly.
    pub fn names_type(&self, event: &str) -> bool {
        self.types.iter().any(|name| name.as_str() == event)
    }

    fn is_met_by(&self, event: &Text, tags: &Tags) -> bool {
        self.selects_pending(event, tags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(types: &[&str], tags: &[(&str, &str)]) -> QueryItem {
        let tags = tags.iter().map(|(name, value)| (Text::from(*name), Text::from(*value))).collect();
        QueryItem { types: types.iter().map(|name| Text::from(*name)).collect(), tags }
    }

    #[test]
    fn a_fingerprint_is_of_what_is_selected_and_not_of_its_order() {
        let one = Query::all().or(item(&["a", "b"], &[("x", "1"), ("y", "2")])).or(item(&["c"], &[]));
        let other = Query::all().or(item(&["c"], &[])).or(item(&["b", "a"], &[("y", "2"), ("x", "1")]));
        assert_eq!(one.fingerprint(), other.fingerprint());
        let different = [
            Query::all(),
            Query::all().of_tenant(None),
            Query::all().of_tenant(Some("".into())),
            Query::all().or(item(&["c"], &[])),
            Query::all().or(item(&["a", "b"], &[("x", "1"), ("y", "2")])),
            one.clone().of_tenant(None),
            Query::tag("x", "12"),
            Query::tag("x1", "2"),
        ];
        for (index, left) in different.iter().enumerate() {
            assert_ne!(left.fingerprint(), one.fingerprint());
            for right in different.iter().skip(index + 1) {
                assert_ne!(left.fingerprint(), right.fingerprint(), "{left:?} and {right:?}");
            }
        }
    }

    #[test]
    fn a_fingerprint_stays_what_it_is() {
        // Snapshots lie under it in files: another number would make all of them useless.
        let query = Query::tag("user", "ada").of_tenant(None);
        assert_eq!(format!("{:?}", query.fingerprint()), "b6b84c47d2df5d68944731b4c7fbfd74");
    }
}
