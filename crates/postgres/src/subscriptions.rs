//! What is kept for durable subscriptions, as readers ask for it: progress, what is parked, pauses, dead letters.

use std::collections::BTreeSet;

use bytes::Bytes;
use deadpool_postgres::Client;
use purista_core::id::Id;
use purista_events::position::Position;
use purista_events::store::{StoreError, StoreErrorKind};
use purista_events::subscriptions::{
    DeadLetter, DeadLetterSource, Failure, Parked, Pause, Progress, SubscriptionId, SubscriptionRecord,
};
use tokio_postgres::Row;

use crate::codec;
use crate::error::{corrupt, read_failed};
use crate::fetch::rows;
use crate::receipts::forgotten_before;

pub(crate) type Decoded<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

pub(crate) fn decoded<T>(
    what: &'static str,
) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> Result<T, StoreError> {
    move |error| Err(StoreError::new(StoreErrorKind::Corrupt, format!("{what} failed")).with_source(error))
}

fn history(text: &str) -> Decoded<Vec<Failure>> {
    Ok(serde_json::from_str(text)?)
}

/// Everything that is kept for a subscription, as of one moment. `None` when that is nothing.
pub(crate) async fn record(
    client: &Client,
    id: &SubscriptionId,
) -> Result<Option<SubscriptionRecord>, StoreError> {
    let what = "read of a subscription";
    // One statement of four kinds of rows, so that all of it is of one moment.
    let sql = "SELECT 'low' AS kind, low AS position, NULL::bigint, NULL, NULL::bigint, NULL FROM progress \
               WHERE subscription = $1 \
               UNION ALL SELECT 'done', position, NULL, NULL, NULL, NULL FROM progress_done WHERE subscription = $1 \
               UNION ALL SELECT 'pause', since, NULL, NULL, NULL, reason FROM pauses WHERE subscription = $1 \
               UNION ALL SELECT 'parked', position, attempts, key, due, history FROM parked WHERE subscription = $1 \
               ORDER BY 1, 2";
    let rows = rows(client, sql, &[&codec::text(id.as_str())], what).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let mut record = SubscriptionRecord::default();
    let mut done = BTreeSet::new();
    let mut read = |row: &Row| -> Decoded<()> {
        let number: i64 = row.try_get(1)?;
        match row.try_get(0)? {
            "low" => record.progress = Progress { low: codec::position(number), done: BTreeSet::new() },
            "done" => {
                done.insert(codec::position(number));
            }
            "pause" => {
                let reason = codec::text_of(row.try_get(5)?).into_owned();
                record.pause = Some(Pause { since: codec::timestamp(number), reason });
            }
            _ => record.parked.push(parked(row, id, codec::position(number))?),
        }
        Ok(())
    };
    rows.iter().try_for_each(&mut read).or_else(decoded(what))?;
    record.progress.done = done;
    Ok(Some(record))
}

fn parked(row: &Row, id: &SubscriptionId, position: Position) -> Decoded<Parked> {
    let key: Option<&str> = row.try_get(3)?;
    Ok(Parked {
        subscription: id.clone(),
        position,
        attempts: codec::unsigned(row.try_get(2)?),
        key: key.map(|key| codec::text_of(key).into_owned()),
        due: row.try_get::<_, Option<i64>>(4)?.map(codec::timestamp),
        history: history(row.try_get(5)?)?,
    })
}

/// The names of all subscriptions that anything is kept for, in order. What is forgotten counts no more, although its rows
/// may be there still.
pub(crate) async fn names(client: &Client, now: i64) -> Result<Vec<SubscriptionId>, StoreError> {
    let what = "read of the subscriptions";
    // From name to name through the index: the table of consumed messages is long, its subscriptions are few.
    let sql = "WITH RECURSIVE fed (name) AS ( \
                   (SELECT min(subscription) FROM consumed) \
                   UNION ALL \
                   SELECT (SELECT min(subscription) FROM consumed WHERE subscription > name) FROM fed \
                   WHERE name IS NOT NULL \
               ) \
               SELECT name FROM fed WHERE EXISTS \
                   (SELECT 1 FROM consumed WHERE subscription = name AND recorded_at > $1) \
               UNION SELECT subscription FROM progress \
               UNION SELECT subscription FROM parked \
               UNION SELECT subscription FROM pauses \
               UNION SELECT subscription FROM dead_letters \
               ORDER BY 1";
    let rows = rows(client, sql, &[&forgotten_before(now)], what).await?;
    let name = |row: &Row| row.try_get(0).map(|name| SubscriptionId::new(&*codec::text_of(name)));
    rows.iter().map(name).collect::<Result<_, _>>().map_err(read_failed(what))
}

/// Dead letters, oldest first, of one subscription or of all.
pub(crate) async fn dead_letters(
    client: &Client,
    subscription: Option<&SubscriptionId>,
    limit: usize,
) -> Result<Vec<DeadLetter>, StoreError> {
    let what = "read of dead letters";
    // Two statements, so that each is one range of an index.
    let wanted = if subscription.is_some() { "subscription = $1" } else { "$1::text IS NULL" };
    let sql = format!("{LETTERS} WHERE {wanted} ORDER BY number LIMIT $2");
    let name = subscription.map(|id| codec::text(id.as_str()));
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = rows(client, &sql, &[&name, &limit], what).await?;
    rows.iter().map(dead_letter).collect::<Decoded<_>>().or_else(decoded(what))
}

/// The one of this id.
pub(crate) async fn letter(client: &Client, id: &Id) -> Result<Option<DeadLetter>, StoreError> {
    let what = "read of a dead letter";
    let rows = rows(client, &format!("{LETTERS} WHERE id = $1"), &[&codec::id(id)], what).await?;
    rows.first().map(dead_letter).transpose().or_else(decoded(what))
}

/// The columns as [`dead_letter`] reads them.
pub(crate) const LETTERS: &str =
    "SELECT id, subscription, position, message, at, reason, attempts, trace_id, history FROM dead_letters";

/// One row of [`LETTERS`].
pub(crate) fn dead_letter(row: &Row) -> Decoded<DeadLetter> {
    let position: Option<i64> = row.try_get(2)?;
    let message: Option<&[u8]> = row.try_get(3)?;
    let source = match (position, message) {
        (Some(position), _) => DeadLetterSource::Event(codec::position(position)),
        (None, Some(message)) => DeadLetterSource::Message(Bytes::copy_from_slice(message)),
        (None, None) => return Err(corrupt("a dead letter is of nothing").into()),
    };
    Ok(DeadLetter {
        id: codec::id_of(row.try_get(0)?)?,
        subscription: SubscriptionId::new(&*codec::text_of(row.try_get(1)?)),
        source,
        at: codec::timestamp(row.try_get(4)?),
        reason: codec::text_of(row.try_get(5)?).into_owned(),
        attempts: codec::unsigned(row.try_get(6)?),
        trace_id: codec::id_of(row.try_get(7)?)?,
        history: history(row.try_get(8)?)?,
    })
}
