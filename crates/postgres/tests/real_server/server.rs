//! A PostgreSQL of the test's own, with stores in it and clients of it.

use std::ops::Deref;
use std::sync::OnceLock;

use purista_postgres::builder::Builder;
use purista_postgres::store::PostgresStore;
use purista_servers::postgres::Postgres;
use tokio_util::task::TaskTracker;

pub(crate) use purista_servers::postgres::fresh_name as schema;

pub(crate) struct Server(Postgres);

impl Server {
    /// The one that most tests share; each has a schema of its own.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    pub(crate) fn start() -> Self {
        Self(Postgres::start())
    }

    pub(crate) fn start_with_options(options: &'static str) -> Self {
        Self(Postgres::start_with_options(options))
    }

    pub(crate) fn start_under_tls() -> Self {
        Self(Postgres::start_under_tls())
    }

    /// The address by way of another port, behind which somebody passes it on.
    pub(crate) fn url_at(port: u16) -> String {
        Postgres::url_at(port)
    }

    /// A store in this schema.
    pub(crate) fn store(&self, schema: &str) -> Builder {
        PostgresStore::builder(&self.url()).schema(schema)
    }

    /// A client that knows nothing of stores.
    pub(crate) async fn client(&self) -> tokio_postgres::Client {
        let connected = tokio_postgres::connect(&self.url(), tokio_postgres::NoTls).await;
        let (client, connection) = connected.expect("the server takes connections");
        // It ends with the client.
        TaskTracker::new().spawn(connection);
        client
    }
}

impl Deref for Server {
    type Target = Postgres;

    fn deref(&self) -> &Postgres {
        &self.0
    }
}
