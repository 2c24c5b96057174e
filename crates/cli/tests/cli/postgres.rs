//! A database of a test's own, in a Postgres that the tests start.

use purista_postgres::store::PostgresStore;
use purista_servers::postgres::Postgres;
use tokio_postgres::Client;

/// The address of a new database.
pub(crate) async fn database() -> String {
    // Making one is a program's work, and the other tests of this thread go on.
    let name = tokio::task::spawn_blocking(|| Postgres::shared().database()).await.unwrap();
    format!("postgres://purista:CANARY@127.0.0.1:{}/{name}", Postgres::shared().port())
}

/// The store in it, as a program opens it.
pub(crate) async fn open(url: &str) -> PostgresStore {
    PostgresStore::connect(url).await.unwrap()
}

/// A client that knows nothing of stores.
pub(crate) async fn client(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    // It ends with the client.
    tokio_util::task::TaskTracker::new().spawn(connection);
    client
}
