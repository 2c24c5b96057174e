//! Which events: by type, by tags, by tenant.

use purista_core::text::Text;

use crate::recorded::Recorded;

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

    /// Whether it selects this event: the meaning that every engine's index must agree with.
    pub fn selects<E>(&self, event: &Recorded<E>) -> bool {
        let is_of_tenant = match &self.tenants {
            TenantScope::All => true,
            TenantScope::Only(tenant) => tenant.as_deref() == event.tenant_id.as_deref(),
        };
        is_of_tenant && (self.items.is_empty() || self.items.iter().any(|item| item.selects(event)))
    }
}

impl QueryItem {
    fn selects<E>(&self, event: &Recorded<E>) -> bool {
        (self.types.is_empty() || self.types.contains(&event.name))
            && self.tags.iter().all(|(name, value)| event.tags.contains(name, value))
    }
}
