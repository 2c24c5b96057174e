//! A query as SQL: which positions it selects. Each of its items is one range of an index, in order, so that a page costs what
//! it holds, and not what the log holds.

use std::fmt::Write as _;

use purista_core::event::TAGS_MAX;
use purista_core::text::Text;
use purista_events::position::Position;
use purista_events::query::{Query, QueryItem, TenantScope};
use purista_events::store::Direction;
use tokio_postgres::types::ToSql;

use crate::codec;
use crate::horizon::HORIZON;

/// Up to where.
#[derive(Debug, Clone, Copy)]
pub(crate) enum UpTo {
    /// This position.
    Position(i64),
    /// Everything that can be seen.
    End,
    /// What can no longer be overtaken, at the moment of the statement.
    Horizon,
}

/// A part of the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    /// Strictly beyond it.
    pub(crate) from: i64,
    pub(crate) up_to: UpTo,
    pub(crate) direction: Direction,
    /// The most that is looked for.
    pub(crate) limit: i64,
}

impl Range {
    /// How its positions are sorted.
    fn order(self) -> &'static str {
        if self.direction == Direction::Forwards { "ASC" } else { "DESC" }
    }

    /// What follows a position, as far as it can no longer be overtaken.
    pub(crate) fn followed(from: Position, events_max: usize) -> Self {
        Self::between(from, UpTo::Horizon, events_max)
    }

    /// What follows a position.
    pub(crate) fn between(from: Position, up_to: UpTo, events_max: usize) -> Self {
        Self {
            from: codec::signed(from.number()),
            up_to,
            direction: Direction::Forwards,
            limit: limit(events_max),
        }
    }
}

/// A number of events as a parameter.
pub(crate) fn limit(events: usize) -> i64 {
    i64::try_from(events).unwrap_or(i64::MAX)
}

/// A value of a parameter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Number(i64),
    Text(String),
    Texts(Vec<String>),
}

impl Value {
    fn parameter(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Number(number) => number,
            Self::Text(text) => text,
            Self::Texts(texts) => texts,
        }
    }
}

/// A SELECT of positions with its parameters. It is empty when nothing can be selected.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Select {
    pub(crate) sql: String,
    pub(crate) values: Vec<Value>,
}

impl Select {
    /// The positions that a query selects in a range, at most as many as its limit, in its order. The parameters begin at $1.
    pub(crate) fn positions(query: &Query, range: Range) -> Self {
        Self::positions_after(query, &[], range)
    }

    /// The same, each item of the query strictly beyond a position of its own as well.
    pub(crate) fn positions_after(query: &Query, each: &[Position], range: Range) -> Self {
        let mut writing = Writing::of(query, range);
        let everything = QueryItem::default();
        let items = if query.items.is_empty() { std::slice::from_ref(&everything) } else { &query.items };
        let mut selects: Vec<String> = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let own = each.get(index).map_or(0, |position| codec::signed(position.number()));
            writing.range.from = range.from.max(own);
            selects.extend(writing.item(item));
        }
        let sql = match selects.as_slice() {
            [] => "SELECT position FROM events WHERE false".to_owned(),
            [select] => select.clone(),
            selects => {
                let union: Vec<String> = selects.iter().map(|select| format!("({select})")).collect();
                let (order, limit) = (range.order(), writing.number(range.limit));
                format!("{} ORDER BY position {order} LIMIT {limit}", union.join(" UNION "))
            }
        };
        Self { sql, values: writing.values }
    }

    /// The events that a query selects in a range, in its order, with these columns of the table `e`. Where everything is
    /// selected their own table is read in order; else an index says where they are.
    pub(crate) fn events(query: &Query, range: Range, columns: &str) -> Self {
        Self::events_after(query, &[], range, columns)
    }

    /// The same, each item of the query strictly beyond a position of its own as well.
    pub(crate) fn events_after(query: &Query, each: &[Position], range: Range, columns: &str) -> Self {
        let is_everything = |item: &QueryItem| item.tags.is_empty() && item.types.is_empty();
        if query.items.is_empty() || (each.is_empty() && query.items.iter().any(is_everything)) {
            let mut writing = Writing::of(query, range);
            let sql = writing.by_log(columns);
            return Self { sql, values: writing.values };
        }
        let mut select = Self::positions_after(query, each, range);
        select.sql = format!(
            "SELECT {columns} FROM ({}) s JOIN events e ON e.position = s.position ORDER BY s.position {}",
            select.sql,
            range.order()
        );
        select
    }

    /// The values as the client takes them.
    pub(crate) fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.values.iter().map(Value::parameter).collect()
    }
}

struct Writing {
    range: Range,
    tenant: Option<String>,
    values: Vec<Value>,
}

impl Writing {
    fn of(query: &Query, range: Range) -> Self {
        let tenant = match &query.tenants {
            TenantScope::All => None,
            TenantScope::Only(tenant) => Some(codec::tenant_key(tenant.as_deref()).into_owned()),
        };
        Self { range, tenant, values: Vec::new() }
    }

    fn item(&mut self, item: &QueryItem) -> Option<String> {
        let mut tags: Vec<&(Text, Text)> = item.tags.iter().collect();
        tags.sort_unstable();
        tags.dedup();
        // No event bears more.
        if tags.len() > TAGS_MAX {
            return None;
        }
        Some(match (item.tags.first(), item.types.as_slice()) {
            (Some(first), types) => self.by_tags(first, &tags, types),
            (None, []) => self.by_log("e.position"),
            (None, types) => self.by_types(types),
        })
    }

    fn by_log(&mut self, columns: &str) -> String {
        let mut sql = format!("SELECT {columns} FROM events e WHERE true");
        self.finish(&mut sql, "e");
        sql
    }

    fn by_types(&mut self, types: &[Text]) -> String {
        let types = self.types(types);
        let mut of_form =
            "SELECT e.position FROM events e WHERE e.name = f.name AND e.version = f.version".to_owned();
        self.finish(&mut of_form, "e");
        let (order, limit) = (self.range.order(), self.number(self.range.limit));
        format!(
            "SELECT p.position FROM forms f CROSS JOIN LATERAL ({of_form}) p WHERE f.name = ANY ({types}) \
             ORDER BY p.position {order} LIMIT {limit}"
        )
    }

    fn by_tags(&mut self, first: &(Text, Text), all: &[&(Text, Text)], types: &[Text]) -> String {
        // The first tag as the query has it leads: its author put the one that says most in front.
        let [name, value] = [self.text(&first.0), self.text(&first.1)];
        let mut sql = format!("SELECT t.position FROM tags t WHERE t.name = {name} AND t.value = {value}");
        for (name, value) in all.iter().filter(|tag| **tag != first).copied() {
            let [name, value] = [self.text(name), self.text(value)];
            let _ = write!(
                sql,
                " AND EXISTS (SELECT 1 FROM tags o WHERE o.name = {name} AND o.value = {value} \
                 AND o.tenant = t.tenant AND o.position = t.position)"
            );
        }
        if !types.is_empty() {
            let types = self.types(types);
            let _ = write!(
                sql,
                " AND EXISTS (SELECT 1 FROM events o WHERE o.position = t.position AND o.name = ANY ({types}))"
            );
        }
        self.finish(&mut sql, "t");
        sql
    }

    /// What holds for every item: tenant, range, order and limit.
    fn finish(&mut self, sql: &mut String, table: &str) {
        if let Some(tenant) = self.tenant.clone() {
            let tenant = self.value(Value::Text(tenant), "text");
            let _ = write!(sql, " AND {table}.tenant = {tenant}");
        }
        let from = self.number(self.range.from);
        let beyond = if self.range.direction == Direction::Forwards { ">" } else { "<" };
        let _ = write!(sql, " AND {table}.position {beyond} {from}");
        match self.range.up_to {
            UpTo::End => {}
            UpTo::Position(position) => {
                let position = self.number(position);
                let _ = write!(sql, " AND {table}.position <= {position}");
            }
            UpTo::Horizon => {
                let _ = write!(sql, " AND {table}.position < {HORIZON}");
            }
        }
        let (order, limit) = (self.range.order(), self.number(self.range.limit));
        let _ = write!(sql, " ORDER BY {table}.position {order} LIMIT {limit}");
    }

    fn types(&mut self, types: &[Text]) -> String {
        let types = types.iter().map(|name| codec::text(name).into_owned()).collect();
        self.value(Value::Texts(types), "text[]")
    }

    fn text(&mut self, text: &str) -> String {
        self.value(Value::Text(codec::text(text).into_owned()), "text")
    }

    fn number(&mut self, number: i64) -> String {
        self.value(Value::Number(number), "bigint")
    }

    /// The parameter of a value; one that is there already is used again.
    fn value(&mut self, value: Value, of_type: &str) -> String {
        let known = self.values.iter().position(|known| matches!(known, Value::Number(_)) && *known == value);
        let number = known.unwrap_or_else(|| {
            self.values.push(value);
            self.values.len() - 1
        });
        format!("${}::{of_type}", number + 1)
    }
}
