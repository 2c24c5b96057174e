//! Reading events for folds: pages of occurrences.

use purista_events::occurrence::{OccurrencePage, Occurrences};
use purista_events::position::{Position, ReadToken};
use purista_events::query::{Query, TenantScope};
use purista_events::snapshot::{SnapshotKey, Snapshots};
use purista_events::store::{Direction, PAGE_MAX, StoreError, StoreErrorKind};
use rusqlite::{Connection, params_from_iter};

use crate::error::read_failed;
use crate::fetch::{self, SCANNED_MAX, at_one_moment, bounds, head};
use crate::occurrence::{self, End};
use crate::selection::{self, Drive, Range};
use crate::{codec, snapshot};

/// What one read found.
pub(crate) struct Found {
    pub(crate) events: Occurrences,
    /// Whether the page ended before the range did.
    pub(crate) is_full: bool,
    /// What is wrong with the event behind them.
    damage: Option<StoreError>,
}

/// The snapshots of these keys, the first page of what the query selects behind the snapshot of each item and after a
/// position, and the head, at one moment.
pub(crate) fn view(
    connection: &mut Connection,
    query: &Query,
    after: Position,
    keys: &[Option<SnapshotKey>],
    with_tags: bool,
) -> Result<(Snapshots, Found, ReadToken), StoreError> {
    at_one_moment(connection, "read of a view", |connection| {
        let head = head(connection).map_err(read_failed("read of the head"))?;
        let kept = snapshot::read_all(connection, keys);
        let (lowest, each) = bounds(query, &kept);
        let range = Range { each: &each, ..range(after.max(lowest), head, Drive::Index) };
        let found = read(connection, query, range, with_tags, Occurrences::default())?.sound()?;
        Ok((kept, found, ReadToken::seen_up_to(codec::position(head))))
    })
}

/// The page after a position of a view whose moment had this head.
pub(crate) fn rest(
    connection: &mut Connection,
    query: &Query,
    [after, head]: [Position; 2],
    each: &[i64],
    with_tags: bool,
) -> Result<Found, StoreError> {
    let range = Range { each, ..range(after, codec::signed(head.number()), Drive::Index) };
    at_one_moment(connection, "read of a view", |connection| {
        read(connection, query, range, with_tags, Occurrences::default())?.sound()
    })
}

/// The next page of what is followed. A damaged event ends the page before it; the next one fails, naming it.
pub(crate) fn follow(
    connection: &mut Connection,
    query: &Query,
    from: Position,
    into: Occurrences,
) -> Result<OccurrencePage, StoreError> {
    at_one_moment(connection, "read of what follows", |connection| {
        let head = head(connection).map_err(read_failed("read of the head"))?;
        let start = codec::signed(from.number());
        if start >= head {
            return Ok(OccurrencePage { events: into, looked_up_to: from });
        }
        let are_most = are_most(connection, query, head).map_err(read_failed("read of the forms"))?;
        let drive = if are_most { Drive::WholeLog } else { Drive::Log };
        let is_scan = are_most || selection::is_driven_by_log(query);
        let up_to = if is_scan { head.min(start.saturating_add(SCANNED_MAX)) } else { head };
        let found = read(connection, query, range(from, up_to, drive), false, into)?;
        let last = found.events.last();
        let looked_up_to = match (found.damage, last) {
            (Some(damage), None) => return Err(damage),
            (Some(_), Some(last)) => last,
            (None, Some(last)) if found.is_full => last,
            (None, _) => codec::position(up_to),
        };
        Ok(OccurrencePage { events: found.events, looked_up_to })
    })
}

/// Whether at least every other event of the log is of the types that are asked for.
fn are_most(connection: &Connection, query: &Query, head: i64) -> rusqlite::Result<bool> {
    let [item] = query.items.as_slice() else { return Ok(false) };
    if item.types.is_empty() || !item.tags.is_empty() || query.tenants != TenantScope::All {
        return Ok(false);
    }
    let mut count = connection.prepare_cached("SELECT coalesce(sum(count), 0) FROM forms WHERE name = ?1")?;
    let mut found = 0_i64;
    for name in &item.types {
        found += count.query_row([name.as_str()], |row| row.get::<_, i64>(0))?;
    }
    Ok(found.saturating_mul(2) >= head)
}

fn range(after: Position, up_to: i64, drive: Drive) -> Range<'static> {
    let from = codec::signed(after.number());
    Range { from, each: &[], up_to, direction: Direction::Forwards, limit: None, drive }
}

impl Found {
    /// None of it may be damaged.
    fn sound(self) -> Result<Self, StoreError> {
        self.damage.map_or(Ok(Self { damage: None, ..self }), Err)
    }
}

/// What a range holds, as far as a page has room for it, into an emptied page.
fn read(
    connection: &Connection,
    query: &Query,
    range: Range<'_>,
    with_tags: bool,
    mut into: Occurrences,
) -> Result<Found, StoreError> {
    into.clear();
    let Some((sql, parameters)) = selection::occurrences(query, range, with_tags) else {
        return read_whole(connection, query, range, into);
    };
    occurrence::begin(into, with_tags);
    let stepped = connection.prepare_cached(&sql).and_then(|mut statement| {
        let mut rows = statement.query(params_from_iter(parameters))?;
        rows.next().map(drop)
    });
    let (events, end) = occurrence::taken();
    let (is_full, damage) = match (stepped.map_err(read_failed("read of events")), end) {
        (_, Some(End::Damaged(damage))) => (false, Some(damage)),
        // A page of the file is damaged: what was read before is sound.
        (Err(error), _) if error.kind() == StoreErrorKind::Corrupt => (false, Some(error)),
        (Err(error), _) => return Err(error),
        (Ok(()), Some(End::BeforeFolds(position))) => {
            return read_whole(connection, query, Range { from: position - 1, ..range }, events);
        }
        (Ok(()), end) => (end.is_some(), None),
    };
    Ok(Found { events, is_full, damage })
}

/// The same by whole events: what no one statement gives, or was recorded by an earlier form of the file.
fn read_whole(
    connection: &Connection,
    query: &Query,
    range: Range<'_>,
    mut events: Occurrences,
) -> Result<Found, StoreError> {
    let (whole, damage) = fetch::read(connection, query, Range { limit: Some(PAGE_MAX), ..range })?;
    for event in &whole {
        events.push_recorded(event);
    }
    Ok(Found { is_full: whole.len() == PAGE_MAX, events, damage })
}
