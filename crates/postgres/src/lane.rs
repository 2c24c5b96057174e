//! One writer: it takes what waits as one group, and commits it in one transaction, in two ways there and back.
//!
//! The first brings locks, a number, a time, and everything that the group asks; then each batch is decided on; the second
//! brings what is written, and the commit. Several lanes write side by side, each on a connection of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use purista_events::store::{StoreError, StoreErrorKind};
use tokio::time::Instant;
use tokio_postgres::{Client, Error, Statement};

use crate::codec;
use crate::connect::Server;
use crate::decision::Decided;
use crate::error::{Severity, severity};
use crate::flight::{self, Column, End, Order};
use crate::horizon::HEAD;
use crate::known::{About, Known, Wanted};
use crate::locks::Locks;
use crate::queue::{Answer, Job};
use crate::receipts::forgotten_before;
use crate::shared::Shared;
use crate::write;

/// How long a group waits for a connection when there is none.
const RECONNECT_WAIT: Duration = Duration::from_secs(5);
/// How long the first pause between two tries is; each is twice as long, up to the last.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(500)];
/// How often a group is tried that others were faster than.
const TRIES_MAX: u32 = 8;
/// The most statements that a connection keeps prepared.
const STATEMENTS_MAX: usize = 512;

const TAKE_LOCKS: &str = "SELECT take_locks($1::bigint[], $2::boolean[])";
const WRITE_BEGINS: &str = "SELECT base, recorded_at FROM write_begins($1::bigint, $2::bigint)";

pub(crate) struct Lane {
    server: Server,
    shared: Arc<Shared>,
    group_max: usize,
    connection: Option<Connection>,
}

/// A connection with what is prepared on it.
struct Connection {
    client: Client,
    statements: HashMap<String, Statement>,
}

/// Why a group was not committed.
enum Failure {
    /// It was not; this is why.
    Refused(Error),
    /// It may have been.
    Unknown(Error, Vec<Answer>),
}

impl Lane {
    pub(crate) fn new(server: Server, shared: Arc<Shared>, group_max: usize) -> Self {
        Self { server, shared, group_max, connection: None }
    }

    /// Writes until the queue is closed and empty.
    pub(crate) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        while let Some(group) = shared.queue.group(self.group_max).await {
            self.serve(group).await;
        }
    }

    /// Commits a group and answers each of its batches.
    async fn serve(&mut self, group: Vec<Job>) {
        let answers = match self.commit(&group).await {
            Ok(answers) => answers,
            Err(error) if group.len() == 1 => vec![Err(refusal(&group, error))],
            Err(_) => {
                // One of them is at fault: each by itself, so that the others have their own end.
                for job in group {
                    let alone = [job];
                    let answer = self.commit(&alone).await;
                    let answer =
                        answer.map_or_else(|error| Some(Err(refusal(&alone, error))), |mut one| one.pop());
                    let [job] = alone;
                    answer.map(|answer| job.answer.send(answer));
                }
                return;
            }
        };
        for (job, answer) in group.into_iter().zip(answers) {
            // Whoever waited may be gone; the commit stays.
            let _ = job.answer.send(answer);
        }
    }

    /// Tries until it is committed, or one of them is at fault.
    async fn commit(&mut self, group: &[Job]) -> Result<Vec<Answer>, Error> {
        let until = Instant::now() + RECONNECT_WAIT;
        let mut tries = 0;
        loop {
            tries += 1;
            let (schema, shared) = (self.server.schema.clone(), Arc::clone(&self.shared));
            let failure = match self.connected().await {
                Ok(connection) => match connection.attempt(&schema, &shared, group).await {
                    Ok(answers) => return Ok(answers),
                    Err(failure) => failure,
                },
                Err(error) => Failure::Refused(error),
            };
            match failure {
                Failure::Unknown(error, answers) => {
                    self.connection = None;
                    return Ok(unknown(answers, &error));
                }
                Failure::Refused(error) => {
                    // A session that failed half-way may hold what it should not: it ends.
                    let severity = severity(&error);
                    if severity != Severity::Again {
                        self.connection = None;
                    }
                    let is_over = match severity {
                        Severity::Again => tries >= TRIES_MAX,
                        Severity::Lost => Instant::now() >= until,
                        Severity::Refused(_) => true,
                    };
                    if is_over {
                        return Err(error);
                    }
                    tracing::debug!(%error, tries, "a group of batches is tried again");
                    let pause = PAUSES[0].saturating_mul(1 << tries.min(8));
                    tokio::time::sleep(pause.min(PAUSES[1])).await;
                }
            }
        }
    }

    async fn connected(&mut self) -> Result<&mut Connection, Error> {
        let connection = match self.connection.take() {
            Some(connection) if !connection.client.is_closed() => connection,
            _ => {
                let mut connection =
                    Connection { client: self.server.connect(None).await?, statements: HashMap::new() };
                connection.prepare_all().await?;
                connection
            }
        };
        Ok(self.connection.insert(connection))
    }
}

/// What a batch alone is told that the server refuses.
fn refusal(group: &[Job], error: Error) -> StoreError {
    let id = group.first().map(|job| job.batch.id.to_string()).unwrap_or_default();
    let (kind, why) = match severity(&error) {
        Severity::Again => (StoreErrorKind::Overloaded, "others were faster each time"),
        Severity::Lost => (StoreErrorKind::Overloaded, "Postgres cannot be reached"),
        Severity::Refused(kind) => (kind, "Postgres refused it"),
    };
    StoreError::new(kind, format!("commit of {id} failed: {why}")).with_source(error)
}

/// The answers to a group whose commit may have happened: what was refused is refused in either case.
fn unknown(answers: Vec<Answer>, error: &Error) -> Vec<Answer> {
    let lost = |answer: Answer| match answer {
        Ok(receipt) if !receipt.is_repeated => {
            let what = format!("the answer to the commit of {} was lost: {error}", receipt.id);
            Err(StoreError::new(StoreErrorKind::Unknown, what))
        }
        answer => answer,
    };
    answers.into_iter().map(lost).collect()
}

impl Connection {
    /// Prepares what every group needs, all at once.
    async fn prepare_all(&mut self) -> Result<(), Error> {
        let about = [
            About::Receipts,
            About::Streams,
            About::Consumed,
            About::Replies,
            About::Lows,
            About::Done,
            About::Letters,
            About::State,
            About::Log,
        ];
        let texts =
            about.into_iter().map(About::sql).chain(write::ALL).chain([TAKE_LOCKS, WRITE_BEGINS, HEAD]);
        let texts: Vec<&'static str> = texts.collect();
        let prepared =
            futures_util::future::try_join_all(texts.iter().map(|sql| self.client.prepare(sql))).await?;
        self.statements.extend(texts.into_iter().map(str::to_owned).zip(prepared));
        Ok(())
    }

    async fn order(&mut self, sql: &str, columns: Vec<Column>) -> Result<Order, Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(Order { statement: statement.clone(), columns });
        }
        let statement = self.client.prepare(sql).await?;
        if self.statements.len() < STATEMENTS_MAX {
            self.statements.insert(sql.to_owned(), statement.clone());
        }
        Ok(Order { statement, columns })
    }

    async fn attempt(
        &mut self,
        schema: &str,
        shared: &Shared,
        group: &[Job],
    ) -> Result<Vec<Answer>, Failure> {
        let (mut known, answers_before) = self.look(schema, shared, group).await.map_err(Failure::Refused)?;
        shared.time.at_least(known.now);
        let mut decided = Decided::default();
        let mut answers = answers_before;
        for (number, job) in group.iter().enumerate() {
            answers.push(decided.batch(&mut known, number, &job.batch, &job.state_texts));
        }
        if decided.is_empty() {
            self.client.batch_execute("ROLLBACK").await.map_err(Failure::Refused)?;
            return Ok(answers);
        }
        let forms = decided
            .events
            .iter()
            .map(|(event, _)| (codec::text(&event.name).into_owned(), i64::from(event.version)));
        let forms = shared.forms.unknown(forms.collect());
        let writings = write::writings(&decided, &known, &forms, forgotten_before(known.now));
        let mut orders = Vec::with_capacity(writings.len());
        for (sql, columns) in writings {
            orders.push(self.order(sql, columns).await.map_err(Failure::Refused)?);
        }
        let after = self.order(HEAD, Vec::new()).await.map_err(Failure::Refused)?;
        match flight::commit(&self.client, &orders, &after).await {
            End::Committed(head) => {
                shared.forms.add(forms);
                shared.committed(known.head, head.ok().as_deref());
                Ok(answers)
            }
            End::Failed(error) => {
                // Where the connection is well it is used again, and the transaction must not be open then.
                let _ = self.client.batch_execute("ROLLBACK").await;
                Err(Failure::Refused(error))
            }
            End::Unknown(error) => Err(Failure::Unknown(error, answers)),
        }
    }

    /// Begins to write, and reads what the group asks.
    async fn look(
        &mut self,
        schema: &str,
        shared: &Shared,
        group: &[Job],
    ) -> Result<(Known, Vec<Answer>), Error> {
        let (mut wanted, mut locks) = (Wanted::default(), Locks::new(schema));
        for (number, job) in group.iter().enumerate() {
            wanted.add(number, &job.batch);
            locks.add(&job.batch);
        }
        let (keys, are_exclusive) = locks.columns();
        let clock: i64 = shared.time.now();
        let mut orders = vec![
            self.order(TAKE_LOCKS, vec![Box::new(keys), Box::new(are_exclusive)]).await?,
            self.order(WRITE_BEGINS, vec![Box::new(clock), Box::new(Locks::guard(schema))]).await?,
        ];
        let mut about = Vec::new();
        for (asked, columns) in questions(&wanted) {
            orders.push(self.order(asked.sql(), columns).await?);
            about.push(asked);
        }
        for (number, select) in &wanted.searches {
            orders.push(self.order(&select.sql, select.columns()).await?);
            about.push(About::Condition(*number));
        }
        let answered = flight::begin(&self.client, &orders).await;
        let answered = match answered {
            Ok(answered) => answered,
            Err(error) => {
                let _ = self.client.batch_execute("ROLLBACK").await;
                return Err(error);
            }
        };
        let mut known = Known::default();
        let mut answered = answered.iter().skip(1);
        if let Some(row) = answered.next().and_then(|rows| rows.first()) {
            (known.base, known.now) = (row.try_get(0)?, row.try_get(1)?);
        }
        let before = forgotten_before(known.now);
        for (about, rows) in about.iter().zip(answered) {
            known.learn(about, rows, before)?;
        }
        Ok((known, Vec::with_capacity(group.len())))
    }
}

/// What is asked beside conditions. The log itself comes last: what it has forgotten of a key is known then, where the key's row
/// is gone.
fn questions(wanted: &Wanted) -> Vec<(About, Vec<Column>)> {
    fn column<T>(rows: impl IntoIterator<Item = T>) -> Column
    where
        Vec<T>: tokio_postgres::types::ToSql + Sync + Send + 'static,
    {
        Box::new(rows.into_iter().collect::<Vec<T>>())
    }
    let threes = |keys: &std::collections::BTreeSet<(String, String, String)>| -> Vec<Column> {
        vec![
            column(keys.iter().map(|(one, ..)| one.clone())),
            column(keys.iter().map(|(_, two, _)| two.clone())),
            column(keys.iter().map(|(.., three)| three.clone())),
        ]
    };
    let mut questions = vec![(About::Receipts, vec![column(wanted.ids.iter().cloned())])];
    if !wanted.streams.is_empty() {
        questions.push((About::Streams, threes(&wanted.streams)));
    }
    if !wanted.consumed.is_empty() {
        let subscriptions = column(wanted.consumed.iter().map(|(subscription, _)| subscription.clone()));
        let messages = column(wanted.consumed.iter().map(|(_, message)| message.clone()));
        questions.push((About::Consumed, vec![subscriptions, messages]));
    }
    if !wanted.replies.is_empty() {
        questions.push((About::Replies, threes(&wanted.replies)));
    }
    if !wanted.lows.is_empty() {
        questions.push((About::Lows, vec![column(wanted.lows.iter().cloned())]));
    }
    if !wanted.done.is_empty() {
        let subscriptions = column(wanted.done.iter().map(|(subscription, _)| subscription.clone()));
        let positions = column(wanted.done.iter().map(|(_, position)| *position));
        questions.push((About::Done, vec![subscriptions, positions]));
    }
    if !wanted.letters.is_empty() {
        questions.push((About::Letters, vec![column(wanted.letters.iter().cloned())]));
    }
    if !wanted.state.is_empty() {
        let tenants = column(wanted.state.iter().map(|(tenant, _)| tenant.clone()));
        let keys = column(wanted.state.iter().map(|(_, key)| key.clone()));
        questions.push((About::State, vec![tenants, keys]));
    }
    questions.push((About::Log, Vec::new()));
    questions
}
