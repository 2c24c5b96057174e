//! The duties of read models, as the suite has them for every engine.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use purista_conformance::read_models::{Counted, Raise, ReadModelSystem};
use purista_core::clock::Clock;
use purista_events::projection::Projection;
use purista_events::recorded::Recorded;
use purista_postgres::read_models::projection;
use purista_postgres::store::PostgresStore;
use purista_postgres::tx::Tx;

use crate::server::{Server, schema};

struct Postgres {
    schema: String,
}

impl ReadModelSystem for Postgres {
    type Store = PostgresStore;

    fn open(&self, clock: Clock) -> PostgresStore {
        let opening = Server::shared().store(&self.schema).clock(clock).own_time().connect();
        let opened = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(opening));
        opened.expect("the store opens")
    }

    fn counting(&self, name: &'static str, version: u32, raise: Raise) -> Projection<Tx> {
        let upsert = format!(
            "INSERT INTO {{{name}}} AS counted (thing, count) VALUES ($1, $2) \
             ON CONFLICT (thing) DO UPDATE SET count = counted.count + excluded.count"
        );
        projection(name, version)
            .set_up(move |tx| tx.create_table(name, "thing text PRIMARY KEY, count bigint NOT NULL"))
            .on(move |tx, event: Recorded<Counted>| {
                // A handler that fails has written something already.
                tx.execute(&upsert, &[&event.body.thing, &0_i64])?;
                tx.execute(&upsert, &[&event.body.thing, &raise(&event)?])?;
                Ok(())
            })
    }

    fn counts<'a>(
        &'a self,
        store: &'a PostgresStore,
        name: &'static str,
    ) -> BoxFuture<'a, BTreeMap<String, i64>> {
        Box::pin(async move {
            let rows = store.read_models().query(&format!("SELECT thing, count FROM {name}"), &[]).await;
            let rows = rows.expect("the counts are read");
            rows.iter().map(|row| (row.get(0), row.get(1))).collect()
        })
    }
}

fn system() -> Postgres {
    Postgres { schema: schema() }
}

purista_conformance::read_model_suite!(ignore = "needs PostgreSQL: cargo xtask test", system());
