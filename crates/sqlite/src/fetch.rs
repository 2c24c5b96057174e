//! Reading events: pages, views, and what can be followed.

use jiff::Timestamp;
use purista_events::form::Counted;
use purista_events::position::{Position, ReadToken};
use purista_events::query::Query;
use purista_events::recorded::Recorded;
use purista_events::snapshot::{Snapshot, SnapshotKey, Snapshots};
use purista_events::store::{Direction, FollowPage, PAGE_MAX, StoreError, StoreErrorKind};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, params_from_iter};

use crate::codec;
use crate::error::read_failed;
use crate::event;
use crate::selection::{self, Drive, Range};
use crate::snapshot;

/// How many positions one page of a search through the log itself looks at.
pub(crate) const SCANNED_MAX: i64 = 50_000;

/// The position of the last event.
pub(crate) fn head(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT coalesce(max(position), 0) FROM events")?
        .query_row([], |row| row.get(0))
}

/// The snapshots of these keys, the first page of what each item of the query selects behind its own snapshot and after a
/// position, and the head, at one moment.
pub(crate) fn view(
    connection: &mut Connection,
    query: &Query,
    after: Position,
    keys: &[Option<SnapshotKey>],
) -> Result<(Snapshots, Vec<Recorded>, ReadToken), StoreError> {
    at_one_moment(connection, "read of a view", |connection| {
        let head = head(connection).map_err(read_failed("read of the head"))?;
        let kept = snapshot::read_all(connection, keys);
        let (lowest, each) = bounds(query, &kept);
        let range = Range { each: &each, ..view_range(after.max(lowest), head) };
        let events = events(connection, query, range)?;
        Ok((kept, events, ReadToken::seen_up_to(codec::position(head))))
    })
}

/// The lowest position behind which a query is read, and one for each of its items where they differ.
pub(crate) fn bounds(query: &Query, kept: &Snapshots) -> (Position, Vec<i64>) {
    let positions = Snapshot::positions(kept);
    let lowest = query.lowest(&positions);
    let each = positions
        .iter()
        .any(|position| *position != lowest)
        .then(|| positions.iter().map(|position| codec::signed(position.number())).collect());
    (lowest, each.unwrap_or_default())
}

/// The page after a position of a view whose moment had this head.
pub(crate) fn rest(
    connection: &mut Connection,
    query: &Query,
    [after, head]: [Position; 2],
    each: &[i64],
) -> Result<Vec<Recorded>, StoreError> {
    let range = Range { each, ..view_range(after, codec::signed(head.number())) };
    at_one_moment(connection, "read of a view", |connection| events(connection, query, range))
}

fn view_range(after: Position, up_to: i64) -> Range<'static> {
    let from = codec::signed(after.number());
    Range {
        from,
        each: &[],
        up_to,
        direction: Direction::Forwards,
        limit: Some(PAGE_MAX),
        drive: Drive::Index,
    }
}

/// When the event at a position was recorded.
pub(crate) fn recorded_at(
    connection: &Connection,
    position: Position,
) -> rusqlite::Result<Option<Timestamp>> {
    connection
        .prepare_cached("SELECT recorded_at FROM events WHERE position = ?1")?
        .query_row([codec::Column(position)], |row| row.get(0).map(codec::timestamp))
        .optional()
}

/// How many events are selected after the first position and up to the second, looked for up to a bound.
pub(crate) fn count(
    connection: &Connection,
    query: &Query,
    [after, up_to]: [Position; 2],
    at_most: u64,
) -> rusqlite::Result<Counted> {
    let [from, up_to] = [after, up_to].map(|position| codec::signed(position.number()));
    let limit = usize::try_from(at_most.saturating_add(1)).unwrap_or(usize::MAX);
    let range = Range {
        from,
        each: &[],
        up_to,
        direction: Direction::Forwards,
        limit: Some(limit),
        drive: Drive::Index,
    };
    let found = selection::positions(connection, query, range)?.len();
    Ok(Counted::up_to(u64::try_from(found).unwrap_or(u64::MAX), at_most))
}

/// One page in either direction.
pub(crate) fn page(
    connection: &mut Connection,
    query: &Query,
    from: Position,
    direction: Direction,
    limit: usize,
) -> Result<Vec<Recorded>, StoreError> {
    let from = codec::signed(from.number());
    let range =
        Range { from, each: &[], up_to: i64::MAX, direction, limit: Some(limit), drive: Drive::Index };
    at_one_moment(connection, "read of a page", |connection| events(connection, query, range))
}

/// The next page of what is followed. A damaged event ends the page before it; the next one fails, naming it.
pub(crate) fn follow(
    connection: &mut Connection,
    query: &Query,
    from: Position,
    limit: usize,
) -> Result<FollowPage, StoreError> {
    at_one_moment(connection, "read of what follows", |connection| {
        let head = head(connection).map_err(read_failed("read of the head"))?;
        let start = codec::signed(from.number());
        if limit == 0 || start >= head {
            return Ok(FollowPage { events: Vec::new(), looked_up_to: from, is_caught_up: start >= head });
        }
        let scanned = if selection::is_driven_by_log(query) { SCANNED_MAX } else { i64::MAX };
        let up_to = head.min(start.saturating_add(scanned));
        let direction = Direction::Forwards;
        let range = Range { from: start, each: &[], up_to, direction, limit: Some(limit), drive: Drive::Log };
        let events = match read(connection, query, range)? {
            (events, None) => events,
            (events, Some(damage)) => {
                let Some(last) = events.last() else { return Err(damage) };
                let looked_up_to = last.position;
                return Ok(FollowPage { events, looked_up_to, is_caught_up: false });
            }
        };
        let looked_up_to = match events.last() {
            // The page is full: what comes after its last event was not looked at.
            Some(last) if events.len() == limit => codec::signed(last.position.number()),
            _ => up_to,
        };
        Ok(FollowPage {
            events,
            looked_up_to: codec::position(looked_up_to),
            is_caught_up: looked_up_to >= head,
        })
    })
}

/// The last position that was recorded at or before a time. Recorded times never run backwards, so it is found by halves.
pub(crate) fn position_at(connection: &mut Connection, time: Timestamp) -> Result<Position, StoreError> {
    at_one_moment(connection, "search for a time", |connection| {
        let found = halve(connection, codec::nanoseconds(time)).map_err(read_failed("search for a time"))?;
        Ok(codec::position(found))
    })
}

fn halve(connection: &Connection, time: i64) -> rusqlite::Result<i64> {
    let mut at_or_before = connection.prepare_cached(
        "SELECT recorded_at, position FROM events WHERE position >= ?1 ORDER BY position LIMIT 1",
    )?;
    // Everything up to `low` is old enough, everything from `high` on too young.
    let (mut low, mut high) = (0, head(connection)? + 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        let next: Option<(i64, i64)> =
            at_or_before.query_row([middle], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        match next {
            Some((recorded_at, position)) if recorded_at <= time => low = position,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// Runs several statements on one state of the file.
pub(crate) fn at_one_moment<T>(
    connection: &mut Connection,
    what: &'static str,
    read: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let moment = Moment::begin(connection).map_err(read_failed(what))?;
    let result = read(connection)?;
    drop(moment);
    Ok(result)
}

/// A transaction that only reads, by statements that are prepared once: preparing them costs as much as a small read.
struct Moment<'c>(&'c Connection);

impl<'c> Moment<'c> {
    fn begin(connection: &'c Connection) -> rusqlite::Result<Self> {
        connection.prepare_cached("BEGIN")?.execute([])?;
        Ok(Self(connection))
    }
}

impl Drop for Moment<'_> {
    fn drop(&mut self) {
        // It has nothing to lose; and where it cannot end, the next one cannot begin, and says so.
        let _ = self.0.prepare_cached("ROLLBACK").and_then(|mut end| end.execute([]));
    }
}

/// The events of a range, none of them damaged.
fn events(connection: &Connection, query: &Query, range: Range<'_>) -> Result<Vec<Recorded>, StoreError> {
    match read(connection, query, range)? {
        (events, None) => Ok(events),
        (_, Some(damage)) => Err(damage),
    }
}

/// The events of a range; or those before one that is damaged or missing, with what is wrong with it.
pub(crate) fn read(
    connection: &Connection,
    query: &Query,
    range: Range<'_>,
) -> Result<(Vec<Recorded>, Option<StoreError>), StoreError> {
    let what = "read of events";
    event::forget();
    let missing = if let Some((sql, parameters)) = selection::events(query, range) {
        read_at_once(connection, &sql, parameters)
    } else {
        let positions = selection::positions(connection, query, range).map_err(read_failed(what))?;
        read_one_by_one(connection, &positions)
    };
    let (events, damage) = event::taken();
    let missing = match missing.map_err(read_failed(what)) {
        Ok(missing) => missing.map(|position| {
            let what = format!("the event at {position} is missing, although the index names it");
            StoreError::new(StoreErrorKind::Corrupt, what)
        }),
        // A page of the file is damaged: what was read before is sound.
        Err(error) if error.kind() == StoreErrorKind::Corrupt => Some(error),
        Err(error) => return Err(error),
    };
    Ok((events, damage.or(missing)))
}

/// Ends at the first that is damaged or missing. Returns the position of one that is missing.
fn read_at_once(connection: &Connection, sql: &str, parameters: Vec<Value>) -> rusqlite::Result<Option<i64>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params_from_iter(parameters))?;
    while let Some(row) = rows.next()? {
        match row.get_ref(1)? {
            ValueRef::Null => return row.get(0),
            ValueRef::Integer(1) => {}
            _ => break,
        }
    }
    Ok(None)
}

/// The same for positions that are known.
fn read_one_by_one(connection: &Connection, positions: &[i64]) -> rusqlite::Result<Option<i64>> {
    let sql = format!("SELECT {} FROM events e WHERE e.position = ?", event::READ_EVENT);
    let mut statement = connection.prepare_cached(&sql)?;
    for position in positions {
        let is_sound: Option<bool> = statement.query_row([position], |row| row.get(0)).optional()?;
        match is_sound {
            None => return Ok(Some(*position)),
            Some(true) => {}
            Some(false) => break,
        }
    }
    Ok(None)
}
