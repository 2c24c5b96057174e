//! What a group of batches asks of the log, and what the log says: read at once, before anything is decided.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use purista_core::id::Id;
use purista_events::batch::{Batch, Condition, Receipt};
use purista_events::position::{Position, ReadToken};
use purista_events::query::{Query, TenantScope};
use purista_events::store::Direction;
use purista_events::subscriptions::ProgressChange;
use tokio_postgres::{Error, Row};

use crate::codec;
use crate::flight::{Blob, Column};
use crate::receipts::{ReceiptRow, forgotten_before};
use crate::rows::{AsRow, Broken, IdBytes, NewRow, Refusal, Rows};
use crate::selection::{Range, Select, UpTo, Value};

/// A tenant's key and a name in it.
pub(crate) type Owned = (String, String);

/// A stream: tenant, name and value, as their columns hold them.
pub(crate) type Stream<'g> = (Cow<'g, str>, Cow<'g, str>, Cow<'g, str>);

/// A key of a reply: tenant, scope and key.
pub(crate) type Key = (String, String, String);

/// What a group asks.
#[derive(Debug, Default)]
pub(crate) struct Wanted<'g> {
    pub(crate) ids: Vec<IdBytes<'g>>,
    pub(crate) streams: BTreeSet<Stream<'g>>,
    pub(crate) consumed: BTreeSet<(String, Blob)>,
    pub(crate) replies: BTreeSet<Key>,
    pub(crate) lows: BTreeSet<String>,
    pub(crate) done: BTreeSet<(String, i64)>,
    pub(crate) letters: BTreeSet<Blob>,
    pub(crate) state: BTreeSet<Owned>,
    /// Where the log ends, and what it has forgotten of keys.
    pub(crate) log: bool,
    /// Whether anything was recorded: the condition of the batch and append of these numbers, and a search for what breaks it.
    pub(crate) searches: Vec<([usize; 2], Select)>,
    /// The same for what bears one tag, which is most of it: all at once.
    pub(crate) by_tag: Rows<TagSearch<'g>>,
}

/// A search for the first event with a tag.
#[derive(Debug)]
pub(crate) struct TagSearch<'g> {
    /// Whose condition it breaks.
    pub(crate) number: [usize; 2],
    pub(crate) stream: Stream<'g>,
    /// Of one of these types, or of any.
    pub(crate) types: Option<Vec<Cow<'g, str>>>,
    /// Strictly beyond it.
    pub(crate) from: i64,
    pub(crate) up_to: i64,
}

impl AsRow for TagSearch<'_> {
    fn put(&self, row: &mut NewRow<'_>) -> Result<(), Refusal> {
        let (tenant, name, value) = &self.stream;
        row.put(tenant)?;
        row.put(name)?;
        row.put(value)?;
        row.put(&self.types)?;
        row.put(&self.from)?;
        row.put(&self.up_to)
    }
}

impl<'g> Wanted<'g> {
    /// What one batch asks, the one of this number in its group.
    pub(crate) fn add(&mut self, number: usize, batch: &'g Batch) {
        let tenant = codec::tenant_key(batch.tenant.as_deref());
        self.ids.push(IdBytes(&batch.id));
        for (of_batch, append) in batch.appends.iter().enumerate() {
            let firsts = append.events.iter().filter_map(|event| event.tags.first());
            self.streams.extend(firsts.map(|(name, value)| stream(&tenant, name, value)));
            match &append.condition {
                Condition::Stream { name, value, .. } => {
                    self.streams.insert(stream(&tenant, name, value));
                }
                Condition::Unless(query, token) => self.search([number, of_batch], query, token),
                _ => {}
            }
        }
        if let Some((subscription, message)) = &batch.consumed {
            let subscription = codec::text(subscription.as_str()).into_owned();
            self.consumed.insert((subscription, codec::id(message).into()));
        }
        if let Some(reply) = &batch.reply {
            self.replies.insert(key(&tenant, &reply.key.scope, &reply.key.key));
        }
        for ProgressChange { subscription, done, .. } in &batch.progress {
            let subscription = codec::text(subscription.as_str()).into_owned();
            self.lows.insert(subscription.clone());
            self.done.extend(done.map(|position| (subscription, codec::signed(position.number()))));
        }
        self.letters.extend(batch.forgotten_dead_letters.iter().map(|id| Blob::from(codec::id(id))));
        // A batch that records something is itself where the log ends.
        self.log |= !batch.state.is_empty() || batch.appends.iter().all(|append| append.events.is_empty());
        let keys = batch.state.iter().map(|change| codec::text(&change.key).into_owned());
        self.state.extend(keys.map(|key| (tenant.clone().into_owned(), key)));
    }

    fn search(&mut self, number: [usize; 2], query: &'g Query, token: &ReadToken) {
        let places = token.unseen().iter().map(|unseen| (unseen.after, unseen.up_to));
        for (after, up_to) in places.chain([(token.position(), Position::new(u64::MAX))]) {
            let [from, up_to] = [after, up_to].map(|position| codec::signed(position.number()));
            if self.search_by_tag(number, query, [from, up_to]) {
                continue;
            }
            let up_to = UpTo::Position(up_to);
            let range = Range { from, up_to, direction: Direction::Forwards, limit: 1 };
            let mut select = Select::positions(query, range);
            select.sql = format!(
                "SELECT e.name, e.position FROM ({}) s JOIN events e ON e.position = s.position",
                select.sql
            );
            self.searches.push((number, select));
        }
    }

    /// Takes a search whose every alternative is one tag of one tenant; says whether it is such.
    fn search_by_tag(&mut self, number: [usize; 2], query: &'g Query, [from, up_to]: [i64; 2]) -> bool {
        let TenantScope::Only(tenant) = &query.tenants else { return false };
        if query.items.is_empty() || query.items.iter().any(|item| item.tags.len() != 1) {
            return false;
        }
        let tenant = codec::tenant_key(tenant.as_deref());
        for item in &query.items {
            let types = || item.types.iter().map(|name| codec::text(name)).collect();
            self.by_tag.0.extend(item.tags.iter().map(|(name, value)| TagSearch {
                number,
                stream: stream(&tenant, name, value),
                types: (!item.types.is_empty()).then(types),
                from,
                up_to,
            }));
        }
        true
    }
}

/// A stream of the tenant with this key.
pub(crate) fn stream<'g>(tenant: &Cow<'g, str>, name: &'g str, value: &'g str) -> Stream<'g> {
    (tenant.clone(), codec::text(name), codec::text(value))
}

/// A key of the tenant with this key.
pub(crate) fn key(tenant: &str, scope: &str, key: &str) -> Key {
    (tenant.to_owned(), codec::text(scope).into_owned(), codec::text(key).into_owned())
}

/// How many events a stream has.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count {
    pub(crate) events: i64,
    /// Whether this group adds some.
    pub(crate) is_new: bool,
}

/// A row of state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) value: Option<String>,
    pub(crate) version: i64,
    pub(crate) expires_at: Option<i64>,
}

impl Entry {
    pub(crate) fn is_present(&self, now: i64) -> bool {
        self.value.is_some() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// What the log says; and, as batches are taken, what it will say.
#[derive(Debug, Default)]
pub(crate) struct Known<'g> {
    /// The position before the first event of this transaction.
    pub(crate) base: i64,
    /// The time of this transaction.
    pub(crate) now: i64,
    /// The last position.
    pub(crate) head: i64,
    pub(crate) receipts: HashMap<Id, Receipt>,
    /// All that were asked for.
    pub(crate) streams: BTreeMap<Stream<'g>, Count>,
    pub(crate) consumed: HashSet<(String, Blob)>,
    pub(crate) replies: HashSet<Key>,
    pub(crate) lows: HashMap<String, i64>,
    pub(crate) done: HashSet<(String, i64)>,
    pub(crate) letters: HashSet<Blob>,
    pub(crate) state: BTreeMap<Owned, Entry>,
    pub(crate) state_versions_forgotten: i64,
    /// What breaks the condition of a batch and append of these numbers: an event's name and place.
    pub(crate) broken: HashMap<[usize; 2], (String, i64)>,
    /// Of what there are rows that were kept long enough, and make room.
    pub(crate) expired: HashSet<About>,
}

impl<'g> Known<'g> {
    /// Takes in what every group asks.
    pub(crate) fn learn_first(
        &mut self,
        row: &Row,
        streams: BTreeSet<Stream<'g>>,
        searches: &[TagSearch<'_>],
    ) -> Result<(), Error> {
        (self.base, self.now) = (row.try_get(0)?, row.try_get(1)?);
        let before = forgotten_before(self.now);
        for row in row.try_get::<_, Option<Vec<ReceiptRow<'_>>>>(2)?.unwrap_or_default() {
            if row.recorded_at <= before {
                self.expired.insert(About::Receipts);
            } else if let Some((id, receipt)) = row.receipt() {
                self.receipts.insert(id, receipt);
            }
        }
        let counts: Vec<i64> = row.try_get::<_, Option<_>>(3)?.unwrap_or_default();
        let counted = streams.into_iter().zip(counts);
        self.streams = counted.map(|(stream, events)| (stream, Count { events, is_new: false })).collect();
        for Broken { number, name, position } in row.try_get::<_, Option<Vec<_>>>(4)?.unwrap_or_default() {
            let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
            if let Some(search) = index.and_then(|index| searches.get(index)) {
                self.broken.entry(search.number).or_insert((name, position));
            }
        }
        Ok(())
    }

    /// Takes in what a statement about this said. What was kept long enough counts as absent.
    pub(crate) fn learn(&mut self, about: About, rows: &[Row]) -> Result<(), Error> {
        let before = forgotten_before(self.now);
        for row in rows {
            match about {
                // With what every group asks.
                About::Receipts => {}
                About::Consumed => {
                    if row.try_get::<_, i64>(2)? > before {
                        self.consumed.insert((row.try_get(0)?, blob(row, 1)?));
                    } else {
                        self.expired.insert(about);
                    }
                }
                About::Replies => {
                    if row.try_get::<_, i64>(3)? > before {
                        self.replies.insert((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
                    } else {
                        self.expired.insert(about);
                    }
                }
                About::Lows => {
                    self.lows.insert(row.try_get(0)?, row.try_get(1)?);
                }
                About::Done => {
                    self.done.insert((row.try_get(0)?, row.try_get(1)?));
                }
                About::Letters => {
                    self.letters.insert(blob(row, 0)?);
                }
                About::State => {
                    let entry = Entry {
                        value: row.try_get(2)?,
                        version: row.try_get(3)?,
                        expires_at: row.try_get(4)?,
                    };
                    self.state.insert((row.try_get(0)?, row.try_get(1)?), entry);
                }
                About::Log => {
                    (self.state_versions_forgotten, self.head) = (row.try_get(0)?, row.try_get(1)?);
                }
                About::Condition(number) => {
                    self.broken.entry(number).or_insert((row.try_get(0)?, row.try_get(1)?));
                }
            }
        }
        Ok(())
    }
}

/// What a statement asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum About {
    Receipts,
    Consumed,
    Replies,
    Lows,
    Done,
    Letters,
    State,
    Log,
    Condition([usize; 2]),
}

impl About {
    /// The statement; that of a condition is its own, and that of receipts every group's.
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Self::Consumed => {
                "SELECT c.subscription, c.message, c.recorded_at FROM unnest($1::text[], $2::bytea[]) \
                 k (subscription, message) JOIN consumed c USING (subscription, message)"
            }
            Self::Replies => {
                "SELECT r.tenant, r.scope, r.key, r.recorded_at FROM unnest($1::text[], $2::text[], $3::text[]) \
                 k (tenant, scope, key) JOIN replies r USING (tenant, scope, key)"
            }
            Self::Lows => "SELECT subscription, low FROM progress WHERE subscription = ANY ($1::text[])",
            Self::Done => {
                "SELECT d.subscription, d.position FROM unnest($1::text[], $2::bigint[]) \
                 k (subscription, position) JOIN progress_done d USING (subscription, position)"
            }
            Self::Letters => "SELECT id FROM dead_letters WHERE id = ANY ($1::bytea[])",
            Self::State => {
                "SELECT s.tenant, s.key, s.value, s.version, s.expires_at FROM unnest($1::text[], $2::text[]) \
                 k (tenant, key) JOIN state s USING (tenant, key)"
            }
            Self::Log => {
                "SELECT state_versions_forgotten, (SELECT coalesce(max(position), 0) FROM events) FROM log"
            }
            Self::Receipts | Self::Condition(_) => "",
        }
    }
}

fn blob(row: &Row, column: usize) -> Result<Blob, Error> {
    row.try_get::<_, Vec<u8>>(column).map(Blob::from)
}

impl Select {
    /// The values as columns of an order.
    pub(crate) fn columns(&self) -> Vec<Column<'static>> {
        let column = |value: &Value| -> Column<'static> {
            match value.clone() {
                Value::Number(number) => Box::new(number),
                Value::Text(text) => Box::new(text),
                Value::Texts(texts) => Box::new(texts),
            }
        };
        self.values.iter().map(column).collect()
    }
}
