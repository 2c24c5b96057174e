//! What must be so of a server before a store is opened on it: its database is in UTF-8, and a connection is one session.

use std::time::Duration;

use purista_events::store::{StoreError, StoreErrorKind};
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use crate::connect::{Server, hosts};
use crate::error::read_failed;

/// How often it is looked whether a connection keeps its session: a pool that happens to hand out the same one is found later.
const TRIES: usize = 3;
/// How long the second connection's transaction may keep the first one waiting. Where each is a session, nothing waits.
const WAITS_AT_MOST: Duration = Duration::from_secs(2);

/// Rejects a server on which a store would not work, and says what to change.
pub(crate) async fn inspect(server: &Server, client: &Client) -> Result<(), StoreError> {
    check_encoding(client).await?;
    check_sessions(server, client).await
}

async fn check_encoding(client: &Client) -> Result<(), StoreError> {
    let encoding =
        value(client, "SHOW server_encoding").await.map_err(read_failed("read of the encoding"))?;
    if encoding == "UTF8" {
        return Ok(());
    }
    let what = format!(
        "the database is in {encoding}, in which not every text can be stored: create one in UTF-8, with \
         `createdb --encoding=UTF8 --template=template0`, and move what there is with pg_dump"
    );
    Err(StoreError::new(StoreErrorKind::Invalid, what))
}

/// Leases, notifications and settings belong to a session. Behind a pool that hands out sessions by transaction, two connections of
/// ours have the same session one after the other, or one connection has two.
async fn check_sessions(server: &Server, client: &Client) -> Result<(), StoreError> {
    let other = server.open().await?;
    let failed = || read_failed("look at the session of a connection");
    for _ in 0..TRIES {
        let before = session(client).await.map_err(failed())?;
        other.simple_query("BEGIN").await.map_err(failed())?;
        let of_other = session(&other).await.map_err(failed())?;
        let mut is_one = before != of_other;
        if is_one {
            let after = tokio::time::timeout(WAITS_AT_MOST, session(client)).await;
            is_one = matches!(after, Ok(Ok(after)) if after == before);
        }
        other.simple_query("ROLLBACK").await.map_err(failed())?;
        if !is_one {
            let what = format!(
                "Postgres at {} is behind a pool that hands out sessions by transaction (pgbouncer with \
                 pool_mode=transaction), and leases belong to a session: connect to the server itself, or to a pool with \
                 pool_mode=session",
                hosts(&server.config)
            );
            return Err(StoreError::new(StoreErrorKind::Invalid, what));
        }
    }
    Ok(())
}

async fn session(client: &Client) -> Result<String, Error> {
    value(client, "SELECT pg_backend_pid()").await
}

/// What one statement answers. It is not prepared: a pool may not know it the next time.
async fn value(client: &Client, sql: &str) -> Result<String, Error> {
    let answered = client.simple_query(sql).await?;
    let value = answered.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    Ok(value.unwrap_or_default().to_owned())
}
