//! From a query to SQL: at which positions the selected events lie.
//!
//! Every item becomes one range of an index. Where all of the query is one range, one statement gives its events in the
//! index's order. Else one gives the positions in order, and the events are then fetched one by one: an ORDER BY over rows
//! with their bodies would sort the bodies.

use std::fmt::Write as _;

use purista_core::event::TAGS_MAX;
use purista_core::text::Text;
use purista_events::query::{Query, QueryItem, TenantScope};
use purista_events::store::Direction;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use crate::{codec, event, occurrence};

/// How many ranges one statement unites; SQLite's own limit is 500.
const RANGES_MAX: usize = 400;

/// What drives the search for types, or for a tag over all tenants, whose ranges in the index lie apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drive {
    /// The index: it takes what it finds and sorts it. For reads of the past.
    Index,
    /// The log itself: each event is looked at. For the last few events.
    Log,
    /// The log itself, for types as well: where most of its events are of them, the index is only a detour.
    WholeLog,
}

/// Which part of the log, and how much of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range<'r> {
    /// Strictly beyond this position.
    pub(crate) from: i64,
    /// Forwards, strictly beyond these as well: a lower bound for each item of the query. Empty is none.
    pub(crate) each: &'r [i64],
    /// Forwards, at most this position.
    pub(crate) up_to: i64,
    pub(crate) direction: Direction,
    /// `None` is everything.
    pub(crate) limit: Option<usize>,
    pub(crate) drive: Drive,
}

impl Range<'_> {
    /// The limit as SQLite has it, where -1 is none.
    pub(crate) fn limit(&self) -> i64 {
        self.limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX))
    }
}

/// Whether [`Drive::Log`] makes a difference to it: a tag is looked for over all tenants.
pub(crate) fn is_driven_by_log(query: &Query) -> bool {
    query.tenants == TenantScope::All
        && !selects_all(query)
        && query.items.iter().any(|item| !item.tags.is_empty())
}

fn selects_all(query: &Query) -> bool {
    query.items.is_empty() || query.items.iter().any(|item| item.types.is_empty() && item.tags.is_empty())
}

/// The positions of the selected events, in the range's direction.
pub(crate) fn positions(
    connection: &Connection,
    query: &Query,
    range: Range<'_>,
) -> rusqlite::Result<Vec<i64>> {
    let mut plan = Plan::new(query, range);
    if selects_all(query) && range.each.is_empty() {
        plan.everything();
    } else {
        for (index, item) in query.items.iter().enumerate() {
            plan.from = range.from.max(range.each.get(index).copied().unwrap_or_default());
            plan.item(item);
        }
    }
    let mut found: Vec<i64> = Vec::new();
    for chunk in plan.ranges.chunks(RANGES_MAX) {
        let (sql, parameters) = plan.statement(chunk);
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(parameters))?;
        while let Some(row) = rows.next()? {
            found.push(row.get(0)?);
        }
    }
    if plan.ranges.len() > RANGES_MAX {
        match range.direction {
            Direction::Forwards => found.sort_unstable(),
            Direction::Backwards => found.sort_unstable_by(|a, b| b.cmp(a)),
        }
        found.dedup();
        found.truncate(range.limit.unwrap_or(usize::MAX));
    }
    Ok(found)
}

/// The one statement that reads the selected events in the range's direction, each after the position by which it is
/// found, with its parameters. `None` where it would have to sort them.
pub(crate) fn events(query: &Query, range: Range<'_>) -> Option<(String, Vec<Value>)> {
    in_order(query, range, Gives::Events)
}

/// The same for a fold: the statement shows what it selects to the function of [`occurrence::read`], which says where it ends.
/// It gives a row only there.
pub(crate) fn occurrences(query: &Query, range: Range<'_>, with_tags: bool) -> Option<(String, Vec<Value>)> {
    in_order(query, range, Gives::Occurrences { with_tags })
}

fn in_order(query: &Query, range: Range<'_>, gives: Gives) -> Option<(String, Vec<Value>)> {
    if !range.each.is_empty() {
        return None;
    }
    let mut plan = Plan::new(query, range);
    plan.gives = gives;
    if selects_all(query) {
        plan.everything();
    } else {
        let [item] = query.items.as_slice() else { return None };
        let is_in_order = if item.tags.is_empty() {
            item.types.len() == 1 || range.drive == Drive::WholeLog
        } else {
            plan.tenant.is_some() || range.drive != Drive::Index
        };
        if !is_in_order {
            return None;
        }
        plan.item(item);
    }
    let select = plan.ranges.pop()?;
    Some((select.sql, select.parameters))
}

/// An event that is missing gives a row all the same, so that it is noticed.
const WITH_EVENT: &str =
    "FROM tags t LEFT JOIN events e ON e.position = t.position WHERE t.name = ? AND t.value = ?";

/// What a statement gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gives {
    Positions,
    /// The position by which it was found, and whether the event that lies there could be read.
    Events,
    /// Nothing but the place at which the reading ended.
    Occurrences {
        with_tags: bool,
    },
}

/// One range of an index, as a SELECT with its own parameters, or a part of one. `?` stands for the next of them.
#[derive(Default)]
struct Select {
    sql: String,
    parameters: Vec<Value>,
}

struct Plan<'r> {
    range: Range<'r>,
    /// Strictly beyond this position, for the item that is planned.
    from: i64,
    gives: Gives,
    /// The key of the tenant, when it matters.
    tenant: Option<Value>,
    ranges: Vec<Select>,
}

impl<'r> Plan<'r> {
    fn new(query: &Query, range: Range<'r>) -> Self {
        let tenant = match &query.tenants {
            TenantScope::All => None,
            TenantScope::Only(tenant) => Some(Value::Text(codec::tenant_key(tenant.as_deref()).into_owned())),
        };
        Self { range, from: range.from, gives: Gives::Positions, tenant, ranges: Vec::new() }
    }

    /// A SELECT over a table of this name, whose WHERE has begun with what finds a row: the tenant, the range, what else a row
    /// must be, and the order.
    fn finish(&mut self, found_by: Select, mut must_be: Select, table: &str) {
        let Select { mut sql, mut parameters } = found_by;
        let (beyond, order) = match self.range.direction {
            Direction::Forwards => ('>', "ASC"),
            Direction::Backwards => ('<', "DESC"),
        };
        if let Some(tenant) = &self.tenant {
            // Only the index of tags finds by it.
            let place = if table == "t" { &mut sql } else { &mut must_be.sql };
            let _ = write!(place, " AND {table}.tenant = ?");
            let place = if table == "t" { &mut parameters } else { &mut must_be.parameters };
            place.push(tenant.clone());
        }
        let _ = write!(sql, " AND {table}.position {beyond} ? AND {table}.position <= ?");
        parameters.extend([self.from, self.range.up_to].map(Value::Integer));
        match self.gives {
            Gives::Positions | Gives::Events => sql.push_str(&must_be.sql),
            Gives::Occurrences { with_tags } => {
                // In the order of its terms SQLite is free; a CASE does not show what is not selected.
                let read = occurrence::read(table, with_tags);
                let _ = write!(sql, " AND CASE WHEN true{} THEN {read} END", must_be.sql);
            }
        }
        parameters.extend(must_be.parameters);
        let _ = write!(sql, " ORDER BY {table}.position {order} LIMIT ?");
        parameters.push(Value::Integer(self.range.limit()));
        self.ranges.push(Select { sql, parameters });
    }

    /// The beginning of a SELECT over a part of the log.
    fn of_log(&self, rest: &str) -> Select {
        let sql = match self.gives {
            Gives::Positions | Gives::Occurrences { .. } => format!("SELECT e.position FROM events e {rest}"),
            Gives::Events => format!("SELECT e.position, {} FROM events e {rest}", event::READ_EVENT),
        };
        Select { sql, parameters: Vec::new() }
    }

    fn everything(&mut self) {
        self.finish(self.of_log("WHERE true"), Select::default(), "e");
    }

    fn item(&mut self, item: &QueryItem) {
        let mut tags: Vec<&(Text, Text)> = item.tags.iter().collect();
        tags.sort_unstable();
        tags.dedup();
        match tags.as_slice() {
            // No event bears so many.
            tags if tags.len() > TAGS_MAX => {}
            [] if item.types.is_empty() => self.everything(),
            [] if self.range.drive == Drive::WholeLog => self.by_log(item, &[]),
            [] => item.types.iter().for_each(|name| {
                let mut by_name = self.of_log("INDEXED BY events_by_name WHERE e.name = ?");
                by_name.parameters.push(text(name));
                self.finish(by_name, Select::default(), "e");
            }),
            tags if self.tenant.is_none() && self.range.drive != Drive::Index => self.by_log(item, tags),
            _ => self.by_tags(item),
        }
    }

    fn by_tags(&mut self, item: &QueryItem) {
        // The first tag as the query has it leads: its author put the one that says most in front.
        let Some((first, others)) = item.tags.split_first() else { return };
        let sql = match self.gives {
            Gives::Positions => "SELECT t.position FROM tags t WHERE t.name = ? AND t.value = ?".to_owned(),
            Gives::Events => format!("SELECT t.position, {} {WITH_EVENT}", event::READ_EVENT),
            Gives::Occurrences { .. } => format!("SELECT t.position {WITH_EVENT}"),
        };
        let found_by = Select { sql, parameters: vec![text(&first.0), text(&first.1)] };
        let mut must_be = Select::default();
        for (name, value) in others.iter().filter(|tag| *tag != first) {
            must_be.bears("t", name, value);
        }
        if !item.types.is_empty() {
            let (before, after) = match self.gives {
                Gives::Positions => (" AND (SELECT e.name FROM events e WHERE e.position = t.position)", ""),
                Gives::Events | Gives::Occurrences { .. } => (" AND (e.position IS NULL OR e.name", ")"),
            };
            must_be.is_of(before, &item.types, after);
        }
        self.finish(found_by, must_be, "t");
    }

    fn by_log(&mut self, item: &QueryItem, tags: &[&(Text, Text)]) {
        let mut must_be = Select::default();
        if !item.types.is_empty() {
            must_be.is_of(" AND e.name", &item.types, "");
        }
        for (name, value) in tags {
            must_be.bears("e", name, value);
        }
        self.finish(self.of_log("NOT INDEXED WHERE true"), must_be, "e");
    }

    /// One statement over several ranges.
    fn statement(&self, selects: &[Select]) -> (String, Vec<Value>) {
        let mut parameters: Vec<Value> =
            selects.iter().flat_map(|select| select.parameters.clone()).collect();
        if let [select] = selects {
            return (select.sql.clone(), parameters);
        }
        let mut sql = String::new();
        for (index, select) in selects.iter().enumerate() {
            let union = if index == 0 { "" } else { " UNION " };
            let _ = write!(sql, "{union}SELECT position FROM ({})", select.sql);
        }
        let order = if self.range.direction == Direction::Forwards { "ASC" } else { "DESC" };
        let _ = write!(sql, " ORDER BY position {order} LIMIT ?");
        parameters.push(Value::Integer(self.range.limit()));
        (sql, parameters)
    }
}

impl Select {
    /// It bears this tag.
    fn bears(&mut self, table: &str, name: &str, value: &str) {
        let _ = write!(
            self.sql,
            " AND EXISTS (SELECT 1 FROM tags o WHERE o.name = ? AND o.value = ? AND o.tenant = {table}.tenant \
             AND o.position = {table}.position)"
        );
        self.parameters.extend([text(name), text(value)]);
    }

    /// Its name is one of these.
    fn is_of(&mut self, before: &str, types: &[Text], after: &str) {
        let _ = write!(self.sql, "{before} IN ({}){after}", vec!["?"; types.len()].join(","));
        self.parameters.extend(types.iter().map(|name| text(name)));
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}
