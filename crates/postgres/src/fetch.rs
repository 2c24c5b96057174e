//! Reading events: pages, views, and what can be followed. What has to be of one moment is one statement.

use std::pin::pin;
use std::sync::LazyLock;

use deadpool_postgres::Client;
use futures_util::{StreamExt as _, TryFutureExt as _};
use jiff::Timestamp;
use purista_events::form::{Counted, Form};
use purista_events::position::{Position, ReadToken};
use purista_events::query::Query;
use purista_events::recorded::Recorded;
use purista_events::store::{Direction, FollowPage, PAGE_MAX, StoreError};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, RowStream};

use crate::error::{corrupt, read_failed};
use crate::event::{self, COLUMNS};
use crate::place::Moment;
use crate::selection::{Range, Select, UpTo, limit};
use crate::{codec, forms, horizon};

const FOLLOW: &str = "read of what follows";
static END: LazyLock<String> = LazyLock::new(horizon::end);

/// Runs a statement that is prepared once a connection.
pub(crate) async fn rows(
    client: &Client,
    sql: &str,
    values: &[&(dyn ToSql + Sync)],
    what: &'static str,
) -> Result<Vec<Row>, StoreError> {
    let statement = client.prepare_cached(sql).await.map_err(read_failed(what))?;
    client.query(&statement, values).await.map_err(read_failed(what))
}

/// The rows of a statement, as the server sends them.
pub(crate) async fn stream(
    client: &Client,
    select: &Select,
    what: &'static str,
) -> Result<RowStream, StoreError> {
    let statement = client.prepare_cached(&select.sql).await.map_err(read_failed(what))?;
    client.query_raw(&statement, select.parameters()).await.map_err(read_failed(what))
}

/// The events of a statement, taken apart while the server still sends the next.
async fn selected(client: &Client, select: &Select, what: &'static str) -> Result<Vec<Recorded>, StoreError> {
    let mut rows = pin!(stream(client, select, what).await?);
    let mut events = Vec::new();
    while let Some(row) = rows.next().await {
        event::decode_next(&row.map_err(read_failed(what))?, 0, &mut events)?;
    }
    Ok(events)
}

/// One page in either direction.
pub(crate) async fn page(
    client: &Client,
    query: &Query,
    from: Position,
    direction: Direction,
    events: usize,
) -> Result<Vec<Recorded>, StoreError> {
    let from = codec::signed(from.number());
    let range = Range { from, up_to: UpTo::End, direction, limit: limit(events) };
    selected(client, &Select::events(query, range, COLUMNS), "read of a page").await
}

/// The first page of what a query selects after a position, each of its items after one of its own, and what a decision on it
/// has seen.
pub(crate) async fn view(
    client: &Client,
    query: &Query,
    after: Position,
    each: &[Position],
) -> Result<(Vec<Recorded>, ReadToken), StoreError> {
    let from = codec::signed(after.number());
    let range = Range { from, up_to: UpTo::End, direction: Direction::Forwards, limit: limit(PAGE_MAX) };
    let select = Select::events_after(query, each, range, COLUMNS);
    let sql = format!(
        "SELECT m.snapshot, m.era, m.head, {COLUMNS} FROM (SELECT pg_current_snapshot()::text AS snapshot, era, \
         (SELECT coalesce(max(position), 0) FROM events) AS head FROM log) m \
         LEFT JOIN ({}) e ON true ORDER BY e.position",
        select.sql
    );
    let rows = rows(client, &sql, &select.parameters(), "read of a view").await?;
    let token = rows.first().ok_or_else(|| corrupt("the store has lost its name")).and_then(|row| {
        let read = |row: &Row| -> Result<Option<ReadToken>, tokio_postgres::Error> {
            Ok(Moment { snapshot: row.try_get(0)?, era: row.try_get(1)?, head: row.try_get(2)? }.token())
        };
        let token = read(row).map_err(read_failed("read of a snapshot"))?;
        token.ok_or_else(|| corrupt("a snapshot of transactions is not of the known form"))
    })?;
    Ok((event::decode_all(&rows, 3)?, token))
}

/// The page after a position of a view with this token, and the position of the last event that was looked at; `None` after the
/// last page. Since the log only grows, what its moment did not see is told by its place.
pub(crate) async fn rest(
    client: &Client,
    query: &Query,
    after: Position,
    each: &[Position],
    token: &ReadToken,
) -> Result<Option<(Vec<Recorded>, Position)>, StoreError> {
    let range = Range::between(after, UpTo::End, PAGE_MAX);
    let select = Select::events_after(query, each, range, COLUMNS);
    let mut events = selected(client, &select, "read of a page").await?;
    let last = events.last().map(|event| event.position);
    events.retain(|event| !token.is_new(event.position));
    Ok(last.filter(|last| *last <= token.position() || !events.is_empty()).map(|last| (events, last)))
}

/// The next page of what is followed, up to a position where the log could be followed before it was asked for.
pub(crate) async fn follow_to(
    client: &Client,
    query: &Query,
    from: Position,
    events_max: usize,
    head: Position,
) -> Result<FollowPage, StoreError> {
    let up_to = UpTo::Position(codec::signed(head.number()));
    let select = Select::events(query, Range::between(from, up_to, events_max), COLUMNS);
    let events = selected(client, &select, FOLLOW).await?;
    Ok(followed(events, from, events_max, head))
}

/// The next page of what is followed, as far as the server says that it can be followed.
pub(crate) async fn follow(
    client: &Client,
    query: &Query,
    from: Position,
    events_max: usize,
) -> Result<FollowPage, StoreError> {
    let select = Select::events(query, Range::followed(from, events_max), COLUMNS);
    let end = client.prepare_cached(&END).await.map_err(read_failed(FOLLOW))?;
    // Both are on their way at once, and the end is asked for first.
    let end = client.query_one(&end, &[]).map_err(read_failed(FOLLOW));
    let (end, events) = futures_util::try_join!(end, selected(client, &select, FOLLOW))?;
    let head = codec::position(end.try_get(0).map_err(read_failed(FOLLOW))?);
    Ok(followed(events, from, events_max, head))
}

/// What was selected at a moment that is later than that of the head, so that it is all that there is up to there.
fn followed(events: Vec<Recorded>, from: Position, events_max: usize, head: Position) -> FollowPage {
    let looked_up_to = match events.last() {
        // The page is full: what comes after its last event was not looked at.
        Some(last) if events.len() == events_max => last.position,
        None if events_max == 0 => from,
        last => from.max(head).max(last.map_or(from, |last| last.position)),
    };
    FollowPage { events, looked_up_to, is_caught_up: looked_up_to >= head }
}

/// How many events are selected after the first position and up to the second, looked for up to a bound.
pub(crate) async fn count(
    client: &Client,
    query: &Query,
    [after, up_to]: [Position; 2],
    at_most: u64,
) -> Result<Counted, StoreError> {
    let [from, up_to] = [after, up_to].map(|position| codec::signed(position.number()));
    let range = Range {
        from,
        up_to: UpTo::Position(up_to),
        direction: Direction::Forwards,
        limit: codec::signed(at_most.saturating_add(1)),
    };
    let select = Select::positions(query, range);
    let sql = format!("SELECT count(*) FROM ({}) s", select.sql);
    let what = "count of events";
    let rows = rows(client, &sql, &select.parameters(), what).await?;
    let found: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0)).map_err(read_failed(what))?;
    Ok(Counted::up_to(u64::try_from(found).unwrap_or(0), at_most))
}

/// The last position of all, also above the safe position.
pub(crate) async fn last_position(client: &Client) -> Result<Position, StoreError> {
    let what = "read of the last position";
    let rows = rows(client, "SELECT coalesce(max(position), 0) FROM events", &[], what).await?;
    let last: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0)).map_err(read_failed(what))?;
    Ok(codec::position(last))
}

/// When the event at a position was recorded.
pub(crate) async fn recorded_at(
    client: &Client,
    position: Position,
) -> Result<Option<Timestamp>, StoreError> {
    let what = "read of a time";
    let sql = "SELECT recorded_at FROM events WHERE position = $1";
    let rows = rows(client, sql, &[&codec::signed(position.number())], what).await?;
    let time = rows.first().map(|row| row.try_get(0)).transpose().map_err(read_failed(what))?;
    Ok(time.map(codec::timestamp))
}

/// The last position that was recorded at or before a time.
pub(crate) async fn position_at(client: &Client, time: Timestamp) -> Result<Position, StoreError> {
    let what = "search for a time";
    let rows = rows(client, "SELECT position_at($1)", &[&codec::nanoseconds(time)], what).await?;
    let found: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0)).map_err(read_failed(what))?;
    Ok(codec::position(found))
}

/// Every form that events have.
pub(crate) async fn forms(client: &Client) -> Result<Vec<Form>, StoreError> {
    let what = "read of the forms";
    let rows = rows(client, forms::SELECT, &[], what).await?;
    rows.iter().map(forms::decode).collect::<Result<_, _>>().map_err(read_failed(what))
}
