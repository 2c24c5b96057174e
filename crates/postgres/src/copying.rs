//! Taking over the log of another store, as it is: events keep their positions, ids, times and causes, and everything that is
//! kept beside them keeps its own. What is committed afterwards lies behind all of it.
//!
//! The copy is resumable: events come in pieces, each in one transaction, and whoever goes on begins behind the last. What is
//! kept beside them is short-lived or small, and comes in one transaction in the end. Until the copy is finished nobody opens the
//! store: what would be written then would lie between the events that are still to come.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use deadpool_postgres::Pool;
use purista_core::id::Id;
use purista_core::trace::TraceContext;
use purista_events::kept::Kept;
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::recorded::Recorded;
use purista_events::store::{Direction, StoreError, StoreErrorKind};
use tokio::sync::mpsc;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Transaction};

use crate::builder::Builder;
use crate::connect::{self, Server};
pub use crate::copy_state::CopyState;
use crate::copy_state::state;
use crate::error::{change_failed, read_failed, unconnected};
use crate::event::tags_text;
use crate::flight::Blob;
use crate::locks::Locks;
use crate::opening::Opening;
use crate::store::QUEUE_WAIT;
use crate::{codec, fetch, kept, migrations, pool, write};

mod rows;

/// How many connections read what is there, beside the one that writes.
const CONNECTIONS: usize = 2;
/// How long a copy waits for one before it that was killed, whose session the server has not missed yet.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_ASKED_EVERY: Duration = Duration::from_millis(200);

/// A store into which a log is copied. One process does it at a time; nobody has the store open meanwhile.
pub struct CopyInto {
    server: Server,
    pool: Pool,
    /// Its session has the lock and writes: whoever goes on after it was killed waits until its last transaction has ended.
    client: Client,
    origin: String,
    reached: Position,
    is_finished: bool,
}

impl Builder {
    /// Opens the store for a copy of the log of this origin, makes its tables where they are missing, and goes on with the copy
    /// when it was begun before.
    ///
    /// `Invalid` when something else is in the store already, `InUse` when another process copies into it; else as
    /// [`Builder::connect`]. Cancel safe.
    pub async fn copy_into(self, origin: &str) -> Result<CopyInto, StoreError> {
        CopyInto::open(self.checked()?, origin).await
    }
}

impl CopyInto {
    async fn open(opening: Opening, origin: &str) -> Result<Self, StoreError> {
        let (server, mut client) = opening.connect().await?;
        if opening.migrates {
            migrations::migrate(&mut client, &server.schema).await?;
        }
        migrations::check_made(migrations::made(&client, &server.schema).await?)?;
        take_lock(&client, &server.schema).await?;
        let now = opening.now(&client).await?;
        migrations::enter(&mut client, origin, now, &server.schema).await?;
        let state = match state(&client).await? {
            Some(state) => state,
            None => begin(&client, origin).await?,
        };
        if state.origin != origin {
            return Err(taken(&format!("a copy of another log, {}", state.origin)));
        }
        let pool = pool::pool(&server, CONNECTIONS, QUEUE_WAIT)?;
        let CopyState { origin, reached, is_finished } = state;
        Ok(Self { server, pool, client, origin, reached, is_finished })
    }

    /// Up to where the events are there.
    pub fn reached(&self) -> Position {
        self.reached
    }

    /// Whether it was finished before: the store has gone on since, and nothing is copied into it any more.
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Which server, database and schema, for people; neither user nor password are in it.
    pub fn place(&self) -> String {
        connect::place(&self.server.config, &self.server.schema)
    }

    /// Adds events in the order of their positions, all or none of them. They lie behind those that are there.
    ///
    /// Not cancel safe: whoever drops it opens the store anew to learn what is there.
    pub async fn add_events(&mut self, events: &[Recorded]) -> Result<(), StoreError> {
        let what = "the copy of events";
        let Some(last) = events.last() else { return Ok(()) };
        let is_behind = events.first().is_some_and(|first| first.position > self.reached);
        if !is_behind || !events.is_sorted_by(|one, next| one.position < next.position) {
            let what = format!("{what}: positions do not go on from {}", self.reached);
            return Err(StoreError::new(StoreErrorKind::Invalid, what));
        }
        self.check_unfinished()?;
        let write = async {
            let transaction = self.client.transaction().await?;
            add_events(&transaction, events).await?;
            transaction.commit().await
        };
        write.await.map_err(change_failed(what))?;
        self.reached = last.position;
        Ok(())
    }

    /// Takes everything that is kept beside the events, in place of what an attempt before left; all of it or nothing.
    ///
    /// Not cancel safe in so far as nothing is there then.
    pub async fn add_kept(&mut self, pages: mpsc::Receiver<Vec<Kept>>) -> Result<(), StoreError> {
        let what = "the copy of what is kept beside the events";
        self.check_unfinished()?;
        let transaction = self.client.transaction().await.map_err(change_failed(what))?;
        rows::replace(&transaction, pages).await.map_err(change_failed(what))?;
        transaction.commit().await.map_err(change_failed(what))
    }

    /// Events that are there, after a position: to be compared with what they were.
    pub async fn events(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, StoreError> {
        let client = self.pool.get().await.map_err(unconnected("read of a page"))?;
        fetch::page(&client, &Query::all(), after, Direction::Forwards, limit).await
    }

    /// Hands on everything that is there beside the events: to be compared with what it was.
    pub async fn kept(&self, pages: mpsc::Sender<Vec<Kept>>) -> Result<(), StoreError> {
        let client = self.pool.get().await.map_err(unconnected("read of what is kept"))?;
        kept::hand_on(&client, &pages).await
    }

    /// Says that everything is there. What is committed from now on lies behind all of it: the era is raised above every position
    /// that was copied, and no time runs back.
    pub async fn finish(&mut self) -> Result<(), StoreError> {
        let what = "the end of the copy";
        self.check_unfinished()?;
        // A statement of several parts is one transaction.
        self.client.batch_execute(FINISH).await.map_err(change_failed(what))?;
        self.is_finished = true;
        Ok(())
    }

    /// Lets go of the store.
    pub async fn close(self) {
        let Self { server, pool, client, .. } = self;
        drop(client);
        pool.close();
        server.tasks.close();
        server.tasks.wait().await;
    }

    fn check_unfinished(&self) -> Result<(), StoreError> {
        if self.is_finished {
            return Err(taken(&format!("the finished copy of the log {}", self.origin)));
        }
        Ok(())
    }
}

impl std::fmt::Debug for CopyInto {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { origin, reached, is_finished, .. } = self;
        f.debug_struct("CopyInto")
            .field("origin", origin)
            .field("reached", reached)
            .field("is_finished", is_finished)
            .finish_non_exhaustive()
    }
}

const FINISH: &str = "UPDATE log SET era = greatest(era, ((SELECT coalesce(max(position), 0) FROM events) >> 14) + 1); \
     SELECT setval('log_time', greatest((SELECT last_value FROM log_time), \
         coalesce((SELECT recorded_at FROM events ORDER BY position DESC LIMIT 1), 0), \
         coalesce((SELECT max(recorded_at) FROM batches), 0))); \
     UPDATE copy SET finished_at = now(), position = (SELECT coalesce(max(position), 0) FROM events)";

fn taken(by: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Invalid, format!("in the store lies {by}"))
}

/// One process copies at a time.
async fn take_lock(client: &Client, schema: &str) -> Result<(), StoreError> {
    let what = "the lock of the copy";
    let guard = Locks::guard(&format!("{schema}\0copy"));
    let until = tokio::time::Instant::now() + LOCK_WAIT;
    loop {
        let row = client
            .query_one("SELECT pg_try_advisory_lock($1)", &[&guard])
            .await
            .map_err(read_failed(what))?;
        if row.try_get(0).map_err(read_failed(what))? {
            return Ok(());
        }
        if tokio::time::Instant::now() >= until {
            return Err(StoreError::new(StoreErrorKind::InUse, "another process copies into this store"));
        }
        tokio::time::sleep(LOCK_ASKED_EVERY).await;
    }
}

/// Begins a copy in a store in which there is nothing. From now on it is the log of this name.
async fn begin(client: &Client, origin: &str) -> Result<CopyState, StoreError> {
    let what = "the beginning of the copy";
    let tables: Vec<String> =
        TABLES.iter().map(|table| format!("('{table}', EXISTS (SELECT 1 FROM {table}))")).collect();
    let filled = format!(
        "SELECT name FROM (VALUES {}) t (name, is_filled) WHERE is_filled LIMIT 1",
        tables.join(", ")
    );
    if let Some(row) = client.query_opt(&filled, &[]).await.map_err(read_failed(what))? {
        let table: &str = row.try_get(0).map_err(read_failed(what))?;
        return Err(taken(&format!("something else already: its table `{table}` is not empty")));
    }
    let sql = "WITH named AS (UPDATE log SET origin = $1) INSERT INTO copy (origin) VALUES ($1)";
    client.execute(sql, &[&codec::text(origin)]).await.map_err(change_failed(what))?;
    Ok(CopyState { origin: origin.to_owned(), reached: Position::START, is_finished: false })
}

/// What a store holds. Nothing of it is there before a copy begins.
const TABLES: [&str; 11] = [
    "events",
    "batches",
    "replies",
    "consumed",
    "state",
    "progress",
    "parked",
    "pauses",
    "dead_letters",
    "snapshots",
    "projections",
];

const EVENTS: &str = "COPY events (position, name, version, tenant, recorded_at, id, stream_version, tags, sender_service, \
     sender_version, sender_target, sender_instance, principal, trace_id, correlation_id, causation_id, hops, body, trace) \
     FROM STDIN (FORMAT binary)";
const TAGS: &str = "COPY tags (name, value, tenant, position) FROM STDIN (FORMAT binary)";
const STREAMS: &str = "INSERT INTO streams (tenant, name, value, count) \
     SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) \
     ON CONFLICT (tenant, name, value) DO UPDATE SET count = greatest(streams.count, excluded.count)";

async fn add_events(transaction: &Transaction<'_>, events: &[Recorded]) -> Result<(), Error> {
    let types = [
        Type::INT8,
        Type::TEXT,
        Type::INT8,
        Type::TEXT,
        Type::INT8,
        Type::BYTEA,
        Type::INT8,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::BYTEA,
        Type::TEXT,
        Type::BYTEA,
        Type::BYTEA,
        Type::BYTEA,
        Type::INT2,
        Type::BYTEA,
        Type::TEXT,
    ];
    let id = |id: &Id| Blob::from(codec::id(id));
    let mut writer = pin!(BinaryCopyInWriter::new(transaction.copy_in(EVENTS).await?, &types));
    for event in events {
        let cause = &event.cause;
        let address = &cause.sender.address;
        let row: [&(dyn ToSql + Sync); 19] = [
            &codec::signed(event.position.number()),
            &codec::text(&event.name),
            &i64::from(event.version),
            &codec::tenant_key(event.tenant_id.as_deref()),
            &codec::nanoseconds(event.recorded_at),
            &id(&event.id),
            &event.stream_version.map(codec::signed),
            &tags_text(&event.tags),
            &codec::text(address.service()),
            &codec::text(address.version()),
            &codec::text(address.target()),
            &cause.sender.instance.as_ref().map(id),
            &cause.principal_id.as_deref().map(codec::text),
            &id(&cause.trace_id),
            &cause.correlation_id.as_ref().map(id),
            &cause.causation_id.as_ref().map(id),
            &i16::from(cause.hops),
            &Blob(event.body.clone()),
            &cause.trace.as_deref().map(TraceContext::to_otp),
        ];
        writer.as_mut().write(&row).await?;
    }
    writer.finish().await?;
    add_tags(transaction, events).await?;
    let forms: BTreeSet<(String, i64)> = events
        .iter()
        .map(|event| (codec::text(&event.name).into_owned(), i64::from(event.version)))
        .collect();
    let (names, versions): (Vec<String>, Vec<i64>) = forms.into_iter().unzip();
    transaction.execute(write::FORMS, &[&names, &versions]).await.map(drop)
}

/// By which tags events are found, and how many each stream has by now.
async fn add_tags(transaction: &Transaction<'_>, events: &[Recorded]) -> Result<(), Error> {
    let types = [Type::TEXT, Type::TEXT, Type::TEXT, Type::INT8];
    let mut writer = pin!(BinaryCopyInWriter::new(transaction.copy_in(TAGS).await?, &types));
    let mut streams: BTreeMap<(String, String, String), i64> = BTreeMap::new();
    for event in events {
        let tenant = codec::tenant_key(event.tenant_id.as_deref()).into_owned();
        // A tag that is there twice is found once.
        let tags: BTreeSet<(&str, &str)> = event.tags.iter().collect();
        for (name, value) in tags {
            let row: [&(dyn ToSql + Sync); 4] =
                [&codec::text(name), &codec::text(value), &tenant, &codec::signed(event.position.number())];
            writer.as_mut().write(&row).await?;
        }
        if let (Some((name, value)), Some(version)) = (event.tags.first(), event.stream_version) {
            let stream = (tenant, codec::text(name).into_owned(), codec::text(value).into_owned());
            let count = streams.entry(stream).or_default();
            *count = (*count).max(codec::signed(version));
        }
    }
    writer.finish().await?;
    let mut columns: [Vec<String>; 3] = Default::default();
    let mut counts = Vec::with_capacity(streams.len());
    for ((tenant, name, value), count) in streams {
        let [tenants, names, values] = &mut columns;
        tenants.push(tenant);
        names.push(name);
        values.push(value);
        counts.push(count);
    }
    let [tenants, names, values] = columns;
    transaction.execute(STREAMS, &[&tenants, &names, &values, &counts]).await.map(drop)
}
