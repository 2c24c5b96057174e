//! One writer: it takes what waits as one group, and commits it in one transaction, in two ways there and back.
//!
//! The first brings locks, a number, a time, and everything that the group asks; then each batch is decided on; the second
//! brings what is written, and the commit. Several lanes write side by side, each on a connection of its own.

use std::sync::Arc;
use std::time::Duration;

use purista_core::error::chain;
use purista_core::id::Id;
use purista_events::store::{StoreError, StoreErrorKind};
use tokio::time::Instant;
use tokio_postgres::{Client, Error};

use crate::connect::{FROZEN_AFTER, Server};
use crate::error::{Severity, closed, severity};
use crate::flight::{self, End};
use crate::group::{Member, Outcome, Session, Statements, Transaction};
use crate::queue::{Answer, Job};
use crate::shared::Shared;

/// How long a group waits for a connection when there is none.
const RECONNECT_WAIT: Duration = Duration::from_secs(5);
/// How long the first pause between two tries is; each is twice as long, up to the last.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(500)];
/// How often a group is tried that others were faster than.
const TRIES_MAX: u32 = 8;

pub(crate) struct Lane {
    server: Server,
    shared: Arc<Shared>,
    group_max: usize,
    connection: Option<Connection>,
}

/// A connection with what is prepared on it.
struct Connection {
    client: Client,
    statements: Statements,
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
            let batches = group.len();
            self.serve(group).await;
            shared.queue.answered(batches);
        }
    }

    /// Commits a group and answers each of its batches.
    async fn serve(&mut self, group: Vec<Job>) {
        let answers = match self.commit(&group).await {
            Ok(answers) => answers,
            Err(error) if group.len() > 1 && is_of_one_batch(&error) => return self.one_by_one(group).await,
            Err(error) => group.iter().map(|job| Err(refusal(&job.batch.id, &error))).collect(),
        };
        for (job, answer) in group.into_iter().zip(answers) {
            // Whoever waited may be gone; the commit stays.
            let _ = job.answer.send(answer);
        }
    }

    /// One of them is at fault: each by itself, so that the others have their own end.
    async fn one_by_one(&mut self, group: Vec<Job>) {
        for job in group {
            let alone = [job];
            let committed = self.commit(&alone).await;
            let [job] = alone;
            let answer = match committed {
                Ok(mut answers) => answers.pop().unwrap_or_else(|| Err(closed())),
                Err(error) => Err(refusal(&job.batch.id, &error)),
            };
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
                let client = self.server.connect(None).await?;
                // Each statement has one plan that is good for groups of all sizes, since an index leads to every row; otherwise
                // small groups have theirs made anew each time, which takes longer than what is planned.
                // A writer that stands still inside a transaction holds everybody's locks: its session ends soon.
                let settings = format!(
                    "SET plan_cache_mode TO force_generic_plan; SET idle_in_transaction_session_timeout TO {}",
                    FROZEN_AFTER.min(self.server.timeouts.statement).as_millis()
                );
                client.batch_execute(&settings).await?;
                let mut connection = Connection { client, statements: Statements::new() };
                connection.session(&self.server.schema).prepare_all().await?;
                connection
            }
        };
        Ok(self.connection.insert(connection))
    }
}

/// Whether what a batch holds is at fault. A server that is gone, full or held up refuses all of them alike.
fn is_of_one_batch(error: &Error) -> bool {
    severity(error) == Severity::Refused(StoreErrorKind::Invalid)
}

/// What a batch is told that was not committed.
fn refusal(id: &Id, error: &Error) -> StoreError {
    let (kind, why) = match severity(error) {
        Severity::Again => (StoreErrorKind::Overloaded, "others were faster each time"),
        Severity::Lost => (StoreErrorKind::Overloaded, "Postgres cannot be reached"),
        Severity::Refused(kind) => (kind, "Postgres refused it"),
    };
    StoreError::new(kind, format!("commit of {id} failed: {why}")).with_source(chain(error))
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
    fn session<'c>(&'c mut self, schema: &'c str) -> Session<'c> {
        Session { client: &self.client, statements: &mut self.statements, schema }
    }

    async fn attempt(
        &mut self,
        schema: &str,
        shared: &Shared,
        group: &[Job],
    ) -> Result<Vec<Answer>, Failure> {
        let members: Vec<Member<'_>> =
            group.iter().map(|job| (&job.batch, job.state_texts.as_slice())).collect();
        let mut session = self.session(schema);
        let decided = session.decide(shared, &members, Transaction::Begins).await;
        let Outcome { answers, orders, head, forms } = match decided {
            Ok(outcome) => outcome,
            Err(error) => return Err(self.taken_back(error).await),
        };
        if orders.is_empty() {
            self.client.batch_execute("ROLLBACK").await.map_err(Failure::Refused)?;
            return Ok(answers);
        }
        match flight::commit(&self.client, &orders).await {
            End::Committed => {
                shared.forms.add(forms);
                shared.committed(head);
                Ok(answers)
            }
            End::Failed(error) => Err(self.taken_back(error).await),
            End::Unknown(error) => Err(Failure::Unknown(error, answers)),
        }
    }

    /// Where the connection is well it is used again, and the transaction must not be open then.
    async fn taken_back(&self, error: Error) -> Failure {
        let _ = self.client.batch_execute("ROLLBACK").await;
        Failure::Refused(error)
    }
}
