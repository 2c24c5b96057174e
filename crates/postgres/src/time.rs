//! The time of the log: that of the server's clock, so that all processes record by one clock, unless a store has one of its own.

use tokio_postgres::{Client, Error};

/// What the server's clock shows, in nanoseconds since 1970.
pub(crate) const SERVER_TIME: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000";

/// Asks the server for its time.
pub(crate) async fn server_time(client: &Client) -> Result<i64, Error> {
    client.query_one(&format!("SELECT {SERVER_TIME}"), &[]).await?.try_get(0)
}
