//! A database of a test's own, in a Postgres that the tests start.

use purista_servers::postgres::Postgres;

/// The address of a new database.
pub(crate) async fn database() -> String {
    // Making one is a program's work, and the other tests of this thread go on.
    let name = tokio::task::spawn_blocking(|| Postgres::shared().database()).await.unwrap();
    format!("postgres://purista:CANARY@127.0.0.1:{}/{name}", Postgres::shared().port())
}
