//! The memory engine keeps the duties of read models.
#![expect(clippy::expect_used, reason = "what does not hold is a failed test")]

use std::collections::BTreeMap;
use std::sync::OnceLock;

use futures_util::future::BoxFuture;
use purista_conformance::read_models::{Counted, Raise, ReadModelSystem};
use purista_core::clock::Clock;
use purista_events::memory::MemoryStore;
use purista_events::memory::tables::Tables;
use purista_events::projection::{Projection, projection};
use purista_events::recorded::Recorded;

#[derive(Default)]
struct Memory(OnceLock<MemoryStore>);

impl ReadModelSystem for Memory {
    type Store = MemoryStore;

    fn open(&self, clock: Clock) -> MemoryStore {
        self.0.get_or_init(|| MemoryStore::new(clock)).reopen()
    }

    fn counting(&self, name: &'static str, version: u32, raise: Raise) -> Projection<Tables> {
        projection(name, version).on(move |rows: &Tables, event: Recorded<Counted>| {
            let before = rows.get(name, &event.body.thing).and_then(|count| count.as_i64()).unwrap_or(0);
            rows.put(name, &event.body.thing, before.into());
            rows.put(name, &event.body.thing, (before + raise(&event)?).into());
            Ok(())
        })
    }

    fn counts<'a>(
        &'a self,
        store: &'a MemoryStore,
        name: &'static str,
    ) -> BoxFuture<'a, BTreeMap<String, i64>> {
        let rows = store.rows(name, name).expect("rows are read").unwrap_or_default();
        let counts = rows.into_iter().map(|(thing, count)| (thing, count.as_i64().unwrap_or(-1)));
        Box::pin(std::future::ready(counts.collect()))
    }
}

purista_conformance::read_model_suite!(Memory::default());
