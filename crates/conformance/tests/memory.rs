//! The memory engine keeps the duties of a store.

use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
use purista_conformance::store::StoreSystem;
use purista_core::clock::Clock;
use purista_events::memory::MemoryStore;
use purista_events::store::EventStore;

#[derive(Default)]
struct Memory(OnceLock<MemoryStore>);

impl StoreSystem for Memory {
    fn open(&self, clock: Clock) -> BoxFuture<'_, Arc<dyn EventStore>> {
        Box::pin(async move {
            let store: Arc<dyn EventStore> =
                Arc::new(self.0.get_or_init(|| MemoryStore::new(clock)).reopen());
            store
        })
    }
}

purista_conformance::store_suite!(std::future::ready(Memory::default()));
