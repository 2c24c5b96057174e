//! Looks through the whole file, and says what is not as it was written.

use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::store::{Direction, EventStore as _, PAGE_MAX, StoreError, StoreErrorKind};
use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;

use crate::codec;
use crate::error::read_failed;
use crate::store::SqliteStore;
use crate::sums::Sums;
use crate::{file, lock};

/// The most findings that are told.
const FINDINGS_MAX: usize = 100;

/// What must find nothing: each line says what it finds. SQLite ends a text of JSON at U+0000: a tag with it is read by
/// `purista_tag`, which is given the tags, the number of one, and 0 for its name or 1 for its value.
const QUESTIONS: [(&str, &str); 8] = [
    (
        "an event's tag is not in the index",
        "SELECT e.position FROM events e, json_each(e.tags) t WHERE NOT EXISTS (SELECT 1 FROM tags o
             WHERE o.name = iif(instr(e.tags, '\\u0000'), purista_tag(e.tags, t.key, 0), t.value ->> 0)
             AND o.value = iif(instr(e.tags, '\\u0000'), purista_tag(e.tags, t.key, 1), t.value ->> 1) AND o.tenant = e.tenant AND o.position = e.position)",
    ),
    (
        "the index names a tag of an event that is not there",
        "SELECT t.position FROM tags t WHERE NOT EXISTS (SELECT 1 FROM events e WHERE e.position = t.position)",
    ),
    ("a position is missing", "SELECT max(position) FROM events HAVING max(position) <> count(*)"),
    (
        "the counted forms are not those of the events",
        "SELECT coalesce(e.newest, f.newest) FROM (SELECT name, version, count(*) AS count, max(position) AS newest FROM events
             GROUP BY name, version) AS e FULL JOIN forms f USING (name, version)
             WHERE e.count IS NOT f.count OR e.newest IS NOT f.newest",
    ),
    (
        "a stream has not as many events as it counts",
        "SELECT max(e.position) FROM streams s LEFT JOIN tags t ON t.name = s.name AND t.value = s.value AND t.tenant = s.tenant
             LEFT JOIN events e ON e.position = t.position
                 AND iif(instr(e.tags, '\\u0000'), purista_tag(e.tags, 0, 0), e.tags ->> '$[0][0]') = s.name
                 AND iif(instr(e.tags, '\\u0000'), purista_tag(e.tags, 0, 1), e.tags ->> '$[0][1]') = s.value
             GROUP BY s.tenant, s.name, s.value HAVING coalesce(max(e.stream_version), 0) <> s.count
             OR count(e.stream_version) <> s.count OR count(DISTINCT e.stream_version) <> s.count",
    ),
    (
        "the stream of an event is not counted",
        "SELECT e.position FROM events e WHERE json_array_length(e.tags) > 0 AND NOT EXISTS (SELECT 1 FROM streams s
             WHERE s.tenant = e.tenant AND s.name = iif(instr(e.tags, '\\u0000'), purista_tag(e.tags, 0, 0), e.tags ->> '$[0][0]')
                 AND s.value = iif(instr(e.tags, '\\u0000'), purista_tag(e.tags, 0, 1), e.tags ->> '$[0][1]'))",
    ),
    (
        "an event was recorded before the one before it",
        "SELECT position FROM (SELECT position, recorded_at, lag(recorded_at) OVER (ORDER BY position) AS before FROM events)
             WHERE recorded_at < before",
    ),
    ("the body of an event is no JSON", "SELECT position FROM events WHERE NOT json_valid(body)"),
];

impl SqliteStore {
    /// Looks through the whole file: its pages, the checksum of each event, and whether indices and counts agree with the log.
    /// Returns what is wrong, at most a hundred findings; nothing when it is sound. It reads everything, and others go on.
    pub async fn check(&self) -> Result<Vec<String>, StoreError> {
        let mut found = self
            .handle()
            .read(|connection| pages(connection).map_err(read_failed("check of the file")))
            .await?;
        found.extend(self.check_outside().await?);
        let (mut at, up_to) = (Position::START, *self.head().borrow());
        while at < up_to && found.len() < FINDINGS_MAX {
            match self.read(&Query::all(), at, Direction::Forwards, PAGE_MAX).await {
                Ok(events) => match events.last() {
                    Some(last) => at = last.position,
                    None => break,
                },
                // One by one around the damage.
                Err(error) if error.kind() == StoreErrorKind::Corrupt => {
                    at = self.pick(at, &mut found).await?;
                }
                Err(error) => return Err(error),
            }
        }
        self.check_folds(&mut found).await?;
        for (finding, sql) in QUESTIONS {
            let left = FINDINGS_MAX.saturating_sub(found.len());
            let asked = self
                .handle()
                .read(move |connection| ask(connection, sql, left).map_err(read_failed("check of the log")))
                .await;
            match asked {
                Ok(places) => found.extend(places.into_iter().map(|place| format!("{finding}: {place}"))),
                Err(error) => found.push(format!(
                    "{finding}: it could not be asked: {}",
                    purista_core::error::chain(&error)
                )),
            }
        }
        found.truncate(FINDINGS_MAX);
        Ok(found)
    }

    /// Compares the file with what lies outside of it: the end of the log, and, where no process owns the file, each page.
    async fn check_outside(&self) -> Result<Vec<String>, StoreError> {
        let path = self.handle().path.clone();
        let path = std::fs::canonicalize(&path).unwrap_or(path);
        self.handle()
            .read(move |connection| {
                // Read before the log is: what is acknowledged meanwhile is no loss.
                let mut sums = match Sums::load(&path, false) {
                    Ok(Some(sums)) => sums,
                    Ok(None) => return Ok(Vec::new()),
                    Err(error) => return Ok(vec![error.to_string()]),
                };
                let head = file::head_of(connection).map_err(read_failed("read of the head"))?;
                let mut found: Vec<String> = file::lost(head, sums.head()).into_iter().collect();
                let mut compared = || -> std::io::Result<Vec<String>> {
                    if lock::owner(&path)?.is_some() {
                        return Ok(Vec::new());
                    }
                    sums.compare(&path, &std::fs::File::open(&path)?)
                };
                found.extend(compared().map_err(|error| {
                    StoreError::new(StoreErrorKind::ReadFailed, "check of the pages failed")
                        .with_source(error)
                })?);
                Ok(found)
            })
            .await
    }

    /// Reads everything again as folds do, whose checksum no other read looks at; up to the first that is damaged for them alone.
    async fn check_folds(&self, found: &mut Vec<String>) -> Result<(), StoreError> {
        let everything = Query::all();
        let all = async {
            let mut view = self.read_occurrences(&everything, Position::START, &[], true).await?.1;
            while view.next_page().await?.is_some() {}
            Ok::<_, StoreError>(())
        };
        match all.await {
            Err(error) if error.kind() == StoreErrorKind::Corrupt => {
                let finding = error.to_string();
                if !found.contains(&finding) {
                    found.push(finding);
                }
                Ok(())
            }
            read => read,
        }
    }

    /// Reads a page's events one by one. Returns where it ended.
    async fn pick(&self, mut at: Position, found: &mut Vec<String>) -> Result<Position, StoreError> {
        let end = Position::new(at.number().saturating_add(PAGE_MAX as u64)).min(*self.head().borrow());
        while at < end {
            match self.read(&Query::all(), at, Direction::Forwards, 1).await {
                Err(error) if error.kind() == StoreErrorKind::Corrupt => found.push(error.to_string()),
                read => drop(read?),
            }
            at = at.next();
        }
        Ok(at)
    }
}

fn pages(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut check = connection.prepare("PRAGMA integrity_check")?;
    let mut found: Vec<String> = check.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    found.retain(|line| line != "ok");
    Ok(found)
}

/// Makes `purista_tag` known to a connection.
fn add_tag_function(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("purista_tag", 3, flags, |row| {
        let (tags, number, part): (String, u32, u32) = (row.get(0)?, row.get(1)?, row.get(2)?);
        // What is no such list has no tag, and is found by the checksum of its event.
        let tags: Vec<[String; 2]> = serde_json::from_str(&tags).unwrap_or_default();
        Ok(tags.get(number as usize).and_then(|tag| tag.get(part as usize)).cloned())
    })
}

fn ask(connection: &Connection, sql: &str, limit: usize) -> rusqlite::Result<Vec<String>> {
    add_tag_function(connection)?;
    let mut question = connection.prepare(&format!("{sql} LIMIT ?1"))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let places = question.query_map([limit], |row| row.get::<_, Option<i64>>(0))?;
    places
        .map(|place| Ok(place?.map_or("-".to_owned(), |place| codec::position(place).to_string())))
        .collect()
}
