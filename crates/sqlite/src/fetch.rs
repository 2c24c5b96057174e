//! Reading events: pages, views, and what can be followed.

use jiff::Timestamp;
use purista_events::position::{Position, ReadToken};
use purista_events::query::Query;
use purista_events::recorded::Recorded;
use purista_events::store::{Direction, FollowPage, StoreError, StoreErrorKind};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::codec;
use crate::error::read_failed;
use crate::event;
use crate::selection::{self, Drive, Range};

/// How many positions one page of a search through the log itself looks at.
const SCANNED_MAX: i64 = 50_000;

/// The position of the last event.
pub(crate) fn head(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT coalesce(max(position), 0) FROM events")?
        .query_row([], |row| row.get(0))
}

/// Everything that the query selects, and the head, at one moment.
pub(crate) fn view(
    connection: &mut Connection,
    query: &Query,
) -> Result<(Vec<Recorded>, ReadToken), StoreError> {
    snapshot(connection, "read of a view", |connection| {
        let head = head(connection).map_err(read_failed("read of the head"))?;
        let range = Range {
            from: 0,
            up_to: i64::MAX,
            direction: Direction::Forwards,
            limit: None,
            drive: Drive::Index,
        };
        let events = events(connection, query, range, &mut Vec::new())?;
        Ok((events, ReadToken::seen_up_to(codec::position(head))))
    })
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
    let range = Range { from, up_to: i64::MAX, direction, limit: Some(limit), drive: Drive::Index };
    snapshot(connection, "read of a page", |connection| events(connection, query, range, &mut Vec::new()))
}

/// The next page of what is followed. A damaged event ends the page before it; the next one fails, naming it.
pub(crate) fn follow(
    connection: &mut Connection,
    query: &Query,
    from: Position,
    limit: usize,
) -> Result<FollowPage, StoreError> {
    snapshot(connection, "read of what follows", |connection| {
        let head = head(connection).map_err(read_failed("read of the head"))?;
        let start = codec::signed(from.number());
        if limit == 0 || start >= head {
            return Ok(FollowPage { events: Vec::new(), looked_up_to: from, is_caught_up: start >= head });
        }
        let scanned = if selection::is_driven_by_log(query) { SCANNED_MAX } else { i64::MAX };
        let up_to = head.min(start.saturating_add(scanned));
        let direction = Direction::Forwards;
        let range = Range { from: start, up_to, direction, limit: Some(limit), drive: Drive::Log };
        let mut read = Vec::new();
        let events = match events(connection, query, range, &mut read) {
            Ok(events) => events,
            Err(error) if error.kind() == StoreErrorKind::Corrupt && !read.is_empty() => {
                let looked_up_to = read.last().map_or(from, |event| event.position);
                return Ok(FollowPage { events: read, looked_up_to, is_caught_up: false });
            }
            Err(error) => return Err(error),
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
    snapshot(connection, "search for a time", |connection| {
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
fn snapshot<T>(
    connection: &mut Connection,
    what: &'static str,
    read: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let transaction = connection.transaction().map_err(read_failed(what))?;
    let result = read(&transaction)?;
    transaction.commit().map_err(read_failed(what))?;
    Ok(result)
}

/// The events of a range. Those before one that is damaged stay in `read`.
fn events(
    connection: &Connection,
    query: &Query,
    range: Range,
    read: &mut Vec<Recorded>,
) -> Result<Vec<Recorded>, StoreError> {
    let what = "read of events";
    if selection::is_everything(query) {
        let sql = match range.direction {
            Direction::Forwards => event::SELECT_AFTER,
            Direction::Backwards => event::SELECT_BEFORE,
        };
        let mut statement = connection.prepare_cached(sql).map_err(read_failed(what))?;
        let mut rows = statement.query(params![range.from, range.limit()]).map_err(read_failed(what))?;
        while let Some(row) = rows.next().map_err(read_failed(what))? {
            let event = event::decode(row, read.last())?;
            read.push(event);
        }
        return Ok(std::mem::take(read));
    }
    let positions = selection::positions(connection, query, range).map_err(read_failed(what))?;
    let mut statement = connection.prepare_cached(event::SELECT_ONE).map_err(read_failed(what))?;
    for position in positions {
        let mut rows = statement.query([position]).map_err(read_failed(what))?;
        let Some(row) = rows.next().map_err(read_failed(what))? else {
            let what = format!("the event at {position} is missing, although the index names it");
            return Err(StoreError::new(StoreErrorKind::Corrupt, what));
        };
        let event = event::decode(row, read.last())?;
        read.push(event);
    }
    Ok(std::mem::take(read))
}
