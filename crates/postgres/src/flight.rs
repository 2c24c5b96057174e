//! Several statements on their way to the server at once: what they cost is one way there and back.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use futures_util::poll;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Error, Row, Statement};

/// A column of bytes that copies nothing before it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Blob(pub(crate) Bytes);

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl ToSql for Blob {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(of_type: &Type) -> bool {
        *of_type == Type::BYTEA
    }

    to_sql_checked!();
}

/// One parameter: a column of many rows, as an array.
pub(crate) type Column<'g> = Box<dyn ToSql + Sync + Send + 'g>;

/// A statement with its parameters.
pub(crate) struct Order<'g> {
    pub(crate) statement: Statement,
    pub(crate) columns: Vec<Column<'g>>,
}

type Flying<'f> = Pin<Box<dyn Future<Output = Result<Vec<Row>, Error>> + Send + 'f>>;

/// Sends all of these in order, behind `BEGIN`, and gives what each answered. The first error is that of all.
pub(crate) async fn begin(client: &Client, orders: &[Order<'_>]) -> Result<Vec<Vec<Row>>, Error> {
    let mut flying = vec![simple(client, "BEGIN")];
    flying.extend(orders.iter().map(|order| query(client, order)));
    let mut answers = send(flying).await.land().await?;
    answers.remove(0);
    Ok(answers)
}

/// Sends all of these in order into a transaction that is open, and gives what each answered. The first error is that of all.
pub(crate) async fn run(client: &Client, orders: &[Order<'_>]) -> Result<Vec<Vec<Row>>, Error> {
    send(orders.iter().map(|order| query(client, order)).collect()).await.land().await
}

/// How a group ended whose writes were sent together with `COMMIT`.
pub(crate) enum End {
    /// It is durable.
    Committed,
    /// It was not committed.
    Failed(Error),
    /// The answer to `COMMIT` was lost.
    Unknown(Error),
}

/// Sends all of these in order, and then `COMMIT`.
pub(crate) async fn commit(client: &Client, orders: &[Order<'_>]) -> End {
    let sent = send(orders.iter().map(|order| query(client, order)).collect()).await;
    if let Some(error) = sent.failed {
        // Something was not even sent: without it nothing may be committed.
        return End::Failed(error);
    }
    let last = send(vec![simple(client, "COMMIT")]).await;
    if let Err(error) = sent.land().await {
        // The transaction failed before its COMMIT, which the server took for a ROLLBACK: unless the connection was lost,
        // and nobody knows how far the server came.
        return if error.code().is_some() { End::Failed(error) } else { End::Unknown(error) };
    }
    match last.land().await {
        Ok(_) => End::Committed,
        Err(error) if is_refusal(&error) => End::Failed(error),
        Err(error) => End::Unknown(error),
    }
}

/// Whether the server says that a COMMIT did not happen: it could not be serialised, or a constraint did not hold at its end.
fn is_refusal(error: &Error) -> bool {
    error
        .code()
        .is_some_and(|state| matches!(state.code().get(..2), Some("40" | "23")) && state.code() != "40003")
}

enum Waiting<'f> {
    Here(Vec<Row>),
    Flying(Flying<'f>),
}

/// What was sent, as far as it was.
struct Sent<'f> {
    rest: Vec<Waiting<'f>>,
    /// Why something was not sent, or has failed already; nothing behind it was sent.
    failed: Option<Error>,
}

impl Sent<'_> {
    /// Waits for all answers. The first error is that of all: those behind it only say that the transaction failed.
    async fn land(self) -> Result<Vec<Vec<Row>>, Error> {
        let mut answers = Vec::with_capacity(self.rest.len());
        let mut failed = None;
        for waiting in self.rest {
            match waiting {
                Waiting::Here(rows) => answers.push(rows),
                Waiting::Flying(answer) => match answer.await {
                    Ok(rows) => answers.push(rows),
                    Err(error) => failed = failed.or(Some(error)),
                },
            }
        }
        match failed.or(self.failed) {
            None => Ok(answers),
            Some(error) => Err(error),
        }
    }
}

/// Sends in order: the client sends a statement when its future is first polled.
async fn send(flying: Vec<Flying<'_>>) -> Sent<'_> {
    let mut rest = Vec::with_capacity(flying.len());
    for mut one in flying {
        match poll!(one.as_mut()) {
            Poll::Pending => rest.push(Waiting::Flying(one)),
            Poll::Ready(Ok(rows)) => rest.push(Waiting::Here(rows)),
            Poll::Ready(Err(error)) => return Sent { rest, failed: Some(error) },
        }
    }
    Sent { rest, failed: None }
}

fn query<'f>(client: &'f Client, order: &'f Order<'_>) -> Flying<'f> {
    Box::pin(async move {
        let columns: Vec<&(dyn ToSql + Sync)> = order.columns.iter().map(|column| &**column as _).collect();
        client.query(&order.statement, &columns).await
    })
}

fn simple<'f>(client: &'f Client, sql: &'static str) -> Flying<'f> {
    Box::pin(async move { client.batch_execute(sql).await.map(|()| Vec::new()) })
}
