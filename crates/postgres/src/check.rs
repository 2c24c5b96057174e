//! Looks through the whole store, and says what is not as it was written.

use std::time::Duration;

use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::store::{Direction, EventStore as _, PAGE_MAX, StoreError, StoreErrorKind};
use serde_json::value::RawValue;
use tokio_postgres::Error;

use crate::error::read_failed;
use crate::store::PostgresStore;

/// The most findings that are told.
const FINDINGS_MAX: usize = 100;

/// How long one question may take: it reads the whole log.
const QUESTION_TIME_MAX: Duration = Duration::from_secs(60 * 60);

/// The tags of an event as JSON whose texts are those of the index. The JSON of the server has no U+0000; in a column it is written as
/// U+0001 and `0`, and U+0001 as U+0001 and `1`. An even number of backslashes before an escape belongs to what stands before it.
macro_rules! tags {
    () => {
        "(CASE WHEN position('\\u000' IN e.tags) = 0 THEN e.tags ELSE regexp_replace(regexp_replace(e.tags, \
         '(?<!\\\\)((?:\\\\\\\\)*)\\\\u0001', '\\1\\\\u00011', 'g'), \
         '(?<!\\\\)((?:\\\\\\\\)*)\\\\u0000', '\\1\\\\u00010', 'g') END)::jsonb"
    };
}

/// What must find nothing: each line says what it finds.
const QUESTIONS: [(&str, &str); 8] = [
    (
        "an event's tag is not in the index",
        concat!(
            "SELECT e.position FROM events e CROSS JOIN LATERAL jsonb_array_elements(",
            tags!(),
            ") t WHERE NOT EXISTS (SELECT 1 FROM tags o \
             WHERE o.name = t ->> 0 AND o.value = t ->> 1 AND o.tenant = e.tenant AND o.position = e.position)"
        ),
    ),
    (
        "the index names a tag of an event that is not there",
        "SELECT t.position FROM tags t WHERE NOT EXISTS (SELECT 1 FROM events e WHERE e.position = t.position)",
    ),
    (
        "the form of an event is not known",
        "SELECT max(e.position) FROM events e WHERE NOT EXISTS (SELECT 1 FROM forms f \
             WHERE f.name = e.name AND f.version = e.version) GROUP BY e.name, e.version",
    ),
    (
        "a stream has not as many events as it counts",
        concat!(
            "SELECT max(e.position) FROM (SELECT position, tenant, stream_version, ",
            tags!(),
            " -> 0 AS tag FROM events e WHERE stream_version IS NOT NULL) e \
         JOIN streams s ON s.tenant = e.tenant AND s.name = e.tag ->> 0 AND s.value = e.tag ->> 1 \
         GROUP BY s.tenant, s.name, s.value, s.count HAVING count(*) <> s.count \
             OR count(DISTINCT e.stream_version) <> s.count OR max(e.stream_version) <> s.count"
        ),
    ),
    (
        "the stream of an event is not counted",
        concat!(
            "SELECT e.position FROM (SELECT position, tenant, ",
            tags!(),
            " -> 0 AS tag FROM events e WHERE e.stream_version IS NOT NULL) e \
             WHERE NOT EXISTS (SELECT 1 FROM streams s WHERE s.tenant = e.tenant AND s.name = e.tag ->> 0 \
             AND s.value = e.tag ->> 1)"
        ),
    ),
    (
        "an event was recorded before the one before it",
        "SELECT position FROM (SELECT position, recorded_at, lag(recorded_at) OVER (ORDER BY position) AS before \
             FROM events) t WHERE recorded_at < before",
    ),
    (
        "a subscription is beyond the end of the log",
        "SELECT low FROM progress WHERE low > (SELECT coalesce(max(position), 0) FROM events)",
    ),
    (
        "a projection is beyond the end of the log",
        "SELECT position FROM projections WHERE position > (SELECT coalesce(max(position), 0) FROM events)",
    ),
];

impl PostgresStore {
    /// Looks through the whole store: whether indices and counts agree with the log, whether times follow each other, and whether
    /// bodies are JSON. Returns what is wrong, at most a hundred findings; nothing when it is sound. It reads everything, and others
    /// go on. Whether the server's disk gives back what was written is the server's to check (`data_checksums`). Cancel safe.
    pub async fn check(&self) -> Result<Vec<String>, StoreError> {
        let what = "check of the store";
        let mut client = self.handle().client(what).await?;
        let mut found = self.check_events().await?;
        for (finding, sql) in QUESTIONS {
            let left = FINDINGS_MAX.saturating_sub(found.len());
            let asked = async {
                let transaction = client.build_transaction().read_only(true).start().await?;
                transaction
                    .batch_execute(&format!(
                        "SET LOCAL statement_timeout TO {}; SET LOCAL enable_seqscan TO on; \
                         SET LOCAL enable_bitmapscan TO on; SET LOCAL enable_hashjoin TO on; SET LOCAL enable_mergejoin TO on",
                        QUESTION_TIME_MAX.as_millis()
                    ))
                    .await?;
                let rows = transaction.query(&format!("{sql} LIMIT {left}"), &[]).await?;
                let places = rows.iter().map(|row| row.try_get::<_, Option<i64>>(0));
                let places = places.collect::<Result<Vec<_>, Error>>()?;
                transaction.commit().await?;
                Ok::<_, Error>(places)
            };
            match asked.await {
                Ok(places) => found.extend(
                    places.into_iter().map(|place| format!("{finding}: {}", place.unwrap_or_default())),
                ),
                // What cannot be asked is not sound, unless nobody can be asked.
                Err(error) if error.code().is_some() => found.push(format!(
                    "{finding}: it could not be asked: {}",
                    purista_core::error::chain(&error)
                )),
                Err(error) => return Err(read_failed(what)(error)),
            }
        }
        found.truncate(FINDINGS_MAX);
        Ok(found)
    }

    /// Reads every event, up to the first that does not decode.
    async fn check_events(&self) -> Result<Vec<String>, StoreError> {
        let (mut found, everything) = (Vec::new(), Query::all());
        let mut at = Position::START;
        while found.len() < FINDINGS_MAX {
            let page = match self.read(&everything, at, Direction::Forwards, PAGE_MAX).await {
                Ok(page) => page,
                Err(error) if error.kind() == StoreErrorKind::Corrupt => {
                    found.push(error.to_string());
                    break;
                }
                Err(error) => return Err(error),
            };
            let Some(last) = page.last() else { break };
            at = last.position;
            let torn = page.iter().filter(|event| serde_json::from_slice::<&RawValue>(&event.body).is_err());
            found.extend(torn.map(|event| format!("the body of an event is no JSON: {}", event.position)));
        }
        Ok(found)
    }
}
