//! Which events are meant: by type, by tag, by tenant, and how many.

use anyhow::Context as _;
use clap::Args;
use purista_core::text::Text;
use purista_events::query::{Query, QueryItem, TenantScope};

/// Which events.
#[derive(Debug, Clone, Args)]
pub(crate) struct Selection {
    /// Only events of this type; given several times, of any of them.
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Only events with this tag; given several times, with all of them.
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = tag)]
    tags: Vec<(String, String)>,
    #[command(flatten)]
    tenant: Tenant,
}

/// Whose events.
#[derive(Debug, Clone, Args)]
pub(crate) struct Tenant {
    /// Only what belongs to this tenant.
    #[arg(long, value_name = "TENANT", conflicts_with = "no_tenant")]
    tenant: Option<String>,
    /// Only what belongs to no tenant.
    #[arg(long)]
    no_tenant: bool,
}

/// How many.
#[derive(Debug, Clone, Args)]
pub(crate) struct Limit {
    /// At most so many.
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// All of them, however many there are.
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

impl Selection {
    pub(crate) fn query(&self) -> Query {
        self.tenant.query(&self.types, &self.tags)
    }
}

impl Tenant {
    pub(crate) fn query(&self, types: &[String], tags: &[(String, String)]) -> Query {
        let tenants = match (&self.tenant, self.no_tenant) {
            (Some(tenant), _) => TenantScope::Only(Some(Text::from(tenant.as_str()))),
            (None, true) => TenantScope::Only(None),
            (None, false) => TenantScope::All,
        };
        let item = QueryItem {
            types: types.iter().map(|name| Text::from(name.as_str())).collect(),
            tags: tags.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect(),
        };
        let is_everything = item.types.is_empty() && item.tags.is_empty();
        Query { tenants, items: if is_everything { Vec::new() } else { vec![item] } }
    }
}

impl Limit {
    /// How many at most.
    pub(crate) fn most(&self) -> u64 {
        if self.all { u64::MAX } else { self.limit }
    }
}

/// Reads `name=value`; the value may hold more of `=`.
pub(crate) fn tag(text: &str) -> anyhow::Result<(String, String)> {
    let (name, value) = text.split_once('=').context("a tag is written NAME=VALUE, as in user=42")?;
    anyhow::ensure!(!name.is_empty(), "a tag has a name before `=`, as in user=42");
    Ok((name.to_owned(), value.to_owned()))
}
