//! The pool of connections that readers and projections share.

use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use purista_events::store::{StoreError, StoreErrorKind};

use crate::connect::{self, Server};

/// Connections for reading and for projections; `wait` is how long a caller waits for one.
pub(crate) fn pool(server: &Server, size: usize, wait: Duration) -> Result<Pool, StoreError> {
    let settings = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(server.config.clone(), server.tls.clone(), settings);
    let greeting = server.greeting();
    let greet = Hook::async_fn(move |client: &mut deadpool_postgres::ClientWrapper, _| {
        let greeting = greeting.clone();
        Box::pin(async move { client.batch_execute(&greeting).await.map_err(HookError::Backend) })
    });
    Pool::builder(manager)
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(wait))
        .create_timeout(Some(connect::CONNECT_TIMEOUT))
        .post_create(greet)
        .build()
        .map_err(|error| {
            StoreError::new(StoreErrorKind::Invalid, "the pool of connections is not to be had")
                .with_source(error)
        })
}
