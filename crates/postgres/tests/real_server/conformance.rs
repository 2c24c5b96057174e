//! The duties of a store, as the suite has them for every engine.

use std::future::{Ready, ready};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use purista_conformance::store::StoreSystem;
use purista_core::clock::Clock;
use purista_events::store::EventStore;

use crate::server::{Server, schema};

/// A schema of its own.
struct Postgres {
    schema: String,
}

impl StoreSystem for Postgres {
    fn open(&self, clock: Clock) -> BoxFuture<'_, Arc<dyn EventStore>> {
        Box::pin(async move {
            let store = Server::shared().store(&self.schema).clock(clock).own_time().connect().await;
            let store: Arc<dyn EventStore> = Arc::new(store.expect("the store opens"));
            store
        })
    }

    fn histories(&self) -> u32 {
        256
    }
}

fn system() -> Ready<Postgres> {
    ready(Postgres { schema: schema() })
}

purista_conformance::store_suite!(ignore = "needs PostgreSQL: cargo xtask test", system());
