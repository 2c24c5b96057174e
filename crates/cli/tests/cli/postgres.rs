//! A database of a test's own, in a Postgres that the tests start.

#[path = "../../../postgres/tests/real_server/server.rs"]
#[expect(dead_code, reason = "the store's own tests do more with it")]
mod server;

use purista_postgres::store::PostgresStore;
use server::{Server, schema};
use tokio_postgres::Client;

/// The address of a new database.
pub(crate) async fn database() -> String {
    let (server, name) = (Server::shared(), schema());
    server.client().await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    format!("postgres://purista:CANARY@127.0.0.1:{}/{name}", server.port())
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
