//! The memory engine, wrong in one way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use purista_conformance::read_models::{Counted as Thing, Raise, ReadModelSystem};
use purista_conformance::store::StoreSystem;
use purista_core::clock::Clock;
use purista_core::error::HandlerError;
use purista_core::id::Id;
use purista_core::store::Versioned;
use purista_events::batch::{Batch, Receipt, ReplyKey, StoredReply};
use purista_events::form::{Counted, Form};
use purista_events::head::HeadWatch;
use purista_events::memory::MemoryStore;
use purista_events::memory::tables::Tables;
use purista_events::position::Position;
use purista_events::projection::{Projection, projection};
use purista_events::query::Query;
use purista_events::read_models::{Build, BuildPause, BuildRecord, Making, ReadModels, Step, Stepped};
use purista_events::recorded::Recorded;
use purista_events::snapshot::{Snapshot, SnapshotGroup, SnapshotKey, Snapshots};
use purista_events::store::{Direction, EventStore, FollowPage, StoreError};
use purista_events::subscriptions::{DeadLetter, SubscriptionId, SubscriptionRecord};
use purista_events::view_read::ViewRead;
use tokio::sync::watch;

use crate::way::{Engine, Notes, Way};

type Found<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Data that is wrong in one way, however often it is opened.
pub(crate) struct System {
    way: Arc<Way>,
    data: OnceLock<MemoryStore>,
    openings: AtomicUsize,
    notes: Arc<Notes>,
}

impl System {
    pub(crate) fn new(way: Way) -> Self {
        let (data, openings, notes) = (OnceLock::new(), AtomicUsize::new(0), Arc::default());
        Self { way: Arc::new(way), data, openings, notes }
    }

    fn opened(&self, mut clock: Clock) -> Faulty {
        if let Way::Clock(change) = &*self.way {
            clock = change(clock);
        }
        let store = self.data.get_or_init(|| MemoryStore::new(clock.clone())).reopen();
        let opening = self.openings.fetch_add(1, Ordering::Relaxed) + 1;
        let still = Arc::new(watch::Sender::new(*store.head().borrow()));
        let engine = Engine::new(store, clock, opening, Arc::clone(&self.notes));
        Faulty { engine, way: Arc::clone(&self.way), still }
    }
}

impl StoreSystem for System {
    fn open(&self, clock: Clock) -> BoxFuture<'_, Arc<dyn EventStore>> {
        Box::pin(async move { Arc::new(self.opened(clock)) as Arc<dyn EventStore> })
    }
}

impl ReadModelSystem for System {
    type Store = Faulty;

    fn open(&self, clock: Clock) -> Faulty {
        self.opened(clock)
    }

    fn counting(&self, name: &'static str, version: u32, raise: Raise) -> Projection<Tables> {
        projection(name, version).on(move |rows: &Tables, event: Recorded<Thing>| {
            let before = rows.get(name, &event.body.thing).and_then(|count| count.as_i64()).unwrap_or(0);
            rows.put(name, &event.body.thing, (before + 1).into());
            rows.put(name, &event.body.thing, (before + raise(&event)?).into());
            Ok(())
        })
    }

    fn counts<'a>(&'a self, store: &'a Faulty, name: &'static str) -> BoxFuture<'a, BTreeMap<String, i64>> {
        let rows = store.engine.store.rows(name, name).unwrap().unwrap_or_default();
        let counts = rows.into_iter().map(|(thing, count)| (thing, count.as_i64().unwrap_or(-1)));
        Box::pin(std::future::ready(counts.collect()))
    }
}

/// An open engine.
#[derive(Clone)]
pub(crate) struct Faulty {
    engine: Engine,
    way: Arc<Way>,
    /// The head as it was at the opening.
    still: Arc<watch::Sender<Position>>,
}

impl Faulty {
    fn asked(&self, query: &Query) -> Query {
        let mut query = query.clone();
        if let Way::Query(change) = &*self.way {
            change(&mut query);
        }
        query
    }

    fn told(&self, mut events: Vec<Recorded>) -> Vec<Recorded> {
        if let Way::Events(change) = &*self.way {
            change(&mut events);
        }
        events
    }

    fn reply_key(&self, mut key: ReplyKey) -> ReplyKey {
        if let Way::ReplyKey(change) = &*self.way {
            change(&mut key);
        }
        key
    }

    fn snapshot_key(&self, mut key: SnapshotKey) -> SnapshotKey {
        if let Way::SnapshotKey(change) = &*self.way {
            change(&mut key);
        }
        key
    }
}

impl EventStore for Faulty {
    fn origin(&self) -> Arc<str> {
        if let Way::Origin(tell) = &*self.way { tell(&self.engine) } else { self.engine.store.origin() }
    }

    fn commit(&self, mut batch: Batch) -> Found<'_, Receipt> {
        Box::pin(async move {
            if let Way::Commit(commit) = &*self.way {
                return commit(self.engine.clone(), batch).await;
            }
            if let Way::Batch(change) = &*self.way {
                change(&mut batch);
            }
            batch.reply =
                batch.reply.map(|reply| StoredReply { key: self.reply_key(reply.key.clone()), ..reply });
            let mut receipt = self.engine.store.commit(batch.clone()).await?;
            if let Way::Receipt(change) = &*self.way {
                change(&self.engine, &batch, &mut receipt);
            }
            Ok(receipt)
        })
    }

    fn read_view<'a>(&'a self, query: &'a Query, after: Position) -> Found<'a, ViewRead> {
        Box::pin(async move {
            if let Way::View(read) = &*self.way {
                return read(self.engine.clone(), (query.clone(), after)).await;
            }
            let mut view = self.engine.store.read_view(&self.asked(query), after).await?;
            let token = view.token.clone();
            let first = self.told(view.next_page().await?.unwrap_or_default());
            let rest = futures_util::stream::try_unfold(view, async |mut view| {
                Ok(view.next_page().await?.map(|page| (page, view)))
            });
            Ok(ViewRead::new(token, first, Some(Box::pin(rest))))
        })
    }

    fn read_view_behind<'a>(
        &'a self,
        query: &'a Query,
        keys: &'a [Option<SnapshotKey>],
    ) -> Found<'a, (Snapshots, ViewRead)> {
        Box::pin(async move {
            let mut snapshots = Vec::new();
            for key in keys {
                snapshots.push(match key {
                    Some(key) => self.snapshot(key).await?,
                    None => None,
                });
            }
            let after = Snapshot::positions(&snapshots);
            let view = match &*self.way {
                Way::BehindLatest => {
                    let latest = after.iter().copied().max().unwrap_or_default();
                    self.read_view(query, latest).await?
                }
                Way::BehindEarliest => self.read_view(query, query.lowest(&after)).await?,
                _ => self.read_view_after_each(query, &after).await?,
            };
            Ok((snapshots, view))
        })
    }

    fn read<'a>(
        &'a self,
        query: &'a Query,
        mut from: Position,
        direction: Direction,
        limit: usize,
    ) -> Found<'a, Vec<Recorded>> {
        Box::pin(async move {
            if let Way::Page(change) = &*self.way {
                change(&mut from, direction);
            }
            let page = self.engine.store.read(&self.asked(query), from, direction, limit).await?;
            Ok(self.told(page))
        })
    }

    fn follow<'a>(&'a self, query: &'a Query, from: Position, limit: usize) -> Found<'a, FollowPage> {
        Box::pin(async move {
            let mut page = self.engine.store.follow(&self.asked(query), from, limit).await?;
            page.events = self.told(page.events);
            if let Way::Follow(change) = &*self.way {
                change(&self.engine, from, &mut page);
            }
            Ok(page)
        })
    }

    fn head(&self) -> HeadWatch {
        if let Way::Head = &*self.way {
            HeadWatch::new(self.still.subscribe())
        } else {
            self.engine.store.head()
        }
    }

    fn last_position(&self) -> Found<'_, Position> {
        Box::pin(async move {
            let mut last = self.engine.store.last_position().await?;
            if let Way::LastPosition(change) = &*self.way {
                change(&mut last);
            }
            Ok(last)
        })
    }

    fn position_at(&self, mut time: Timestamp) -> Found<'_, Position> {
        if let Way::PositionAt(change) = &*self.way {
            change(&mut time);
        }
        self.engine.store.position_at(time)
    }

    fn recorded_at(&self, position: Position) -> Found<'_, Option<Timestamp>> {
        Box::pin(async move {
            let mut time = self.engine.store.recorded_at(position).await?;
            if let Way::RecordedAt(change) = &*self.way {
                change(&mut time);
            }
            Ok(time)
        })
    }

    fn count<'a>(
        &'a self,
        query: &'a Query,
        after: Position,
        up_to: Position,
        at_most: u64,
    ) -> Found<'a, Counted> {
        Box::pin(async move {
            let mut counted = self.engine.store.count(&self.asked(query), after, up_to, at_most).await?;
            if let Way::Count(change) = &*self.way {
                change(&mut counted);
            }
            Ok(counted)
        })
    }

    fn forms(&self) -> Found<'_, Vec<Form>> {
        Box::pin(async move {
            let mut forms = self.engine.store.forms().await?;
            if let Way::Forms(change) = &*self.way {
                change(&mut forms);
            }
            Ok(forms)
        })
    }

    fn snapshot<'a>(&'a self, key: &'a SnapshotKey) -> Found<'a, Option<Snapshot>> {
        Box::pin(async move { self.engine.store.snapshot(&self.snapshot_key(key.clone())).await })
    }

    fn save_snapshot(&self, mut snapshot: Snapshot) -> Found<'_, ()> {
        if let Way::SaveSnapshot(save) = &*self.way {
            return save(self.engine.clone(), snapshot);
        }
        snapshot.key = self.snapshot_key(snapshot.key);
        self.engine.store.save_snapshot(snapshot)
    }

    fn forget_snapshots<'a>(&'a self, mut name: Option<&'a str>) -> Found<'a, u64> {
        if let Way::ForgetSnapshots(change) = &*self.way {
            change(&mut name);
        }
        self.engine.store.forget_snapshots(name)
    }

    fn snapshots(&self) -> Found<'_, Vec<SnapshotGroup>> {
        self.engine.store.snapshots()
    }

    fn state<'a>(
        &'a self,
        tenant: Option<&'a str>,
        keys: &'a [String],
    ) -> Found<'a, BTreeMap<String, Versioned>> {
        Box::pin(async move {
            let mut keys = keys.to_vec();
            if let Way::StateKeys(change) = &*self.way {
                change(&mut keys);
            }
            let mut values = self.engine.store.state(tenant, &keys).await?;
            if let Way::State(change) = &*self.way {
                change(&mut values);
            }
            Ok(values)
        })
    }

    fn reply<'a>(&'a self, tenant: Option<&'a str>, key: &'a ReplyKey) -> Found<'a, Option<StoredReply>> {
        Box::pin(async move {
            let asked = self.reply_key(key.clone());
            let mut reply = self.engine.store.reply(tenant, &asked).await?;
            if let Way::Reply(change) = &*self.way {
                change(&asked, &mut reply);
            }
            Ok(reply.map(|reply| StoredReply { key: key.clone(), ..reply }))
        })
    }

    fn subscription<'a>(&'a self, id: &'a SubscriptionId) -> Found<'a, Option<SubscriptionRecord>> {
        Box::pin(async move {
            let mut record = self.engine.store.subscription(id).await?;
            if let Way::Record(change) = &*self.way {
                change(&self.engine, &mut record);
            }
            Ok(record)
        })
    }

    fn subscriptions(&self) -> Found<'_, Vec<SubscriptionId>> {
        self.engine.store.subscriptions()
    }

    fn is_consumed<'a>(&'a self, subscription: &'a SubscriptionId, message: &'a Id) -> Found<'a, bool> {
        if let Way::Consumed(look) = &*self.way {
            return look(self.engine.clone(), (subscription.clone(), message.clone()));
        }
        self.engine.store.is_consumed(subscription, message)
    }

    fn dead_letters<'a>(
        &'a self,
        subscription: Option<&'a SubscriptionId>,
        mut limit: usize,
    ) -> Found<'a, Vec<DeadLetter>> {
        Box::pin(async move {
            if let Way::Limit(change) = &*self.way {
                change(&mut limit);
            }
            let mut letters = self.engine.store.dead_letters(subscription, limit).await?;
            if let Way::DeadLetters(change) = &*self.way {
                change(&mut letters);
            }
            Ok(letters)
        })
    }

    fn poisoned(&self) -> Option<String> {
        self.engine.store.poisoned()
    }

    fn attention(&self) -> Option<String> {
        self.engine.store.attention().filter(|_| !matches!(*self.way, Way::Attention))
    }

    fn close(&self) -> Found<'_, ()> {
        if let Way::Close = &*self.way {
            return Box::pin(std::future::ready(Ok(())));
        }
        self.engine.store.close()
    }
}

impl ReadModels for Faulty {
    type Tx = Tables;

    fn builds(&self) -> Found<'_, Vec<BuildRecord>> {
        self.engine.store.builds()
    }

    fn begin<'a>(&'a self, build: &'a Build, making: Making<Tables>) -> Found<'a, Result<(), HandlerError>> {
        self.engine.store.begin(build, making)
    }

    fn step<'a>(&'a self, build: &'a Build, from: Position, step: Step<Tables>) -> Found<'a, Stepped> {
        if let Way::Step(take) = &*self.way {
            return take(self.engine.clone(), (build.clone(), from, step));
        }
        self.engine.store.step(build, from, step)
    }

    fn switch_to<'a>(&'a self, build: &'a Build) -> Found<'a, ()> {
        if let Way::Switch = &*self.way {
            return Box::pin(std::future::ready(Ok(())));
        }
        self.engine.store.switch_to(build)
    }

    fn pause_build<'a>(&'a self, build: &'a Build, pause: Option<BuildPause>) -> Found<'a, ()> {
        if let Way::Pause(change) = &*self.way {
            return change(self.engine.clone(), (build.clone(), pause));
        }
        self.engine.store.pause_build(build, pause)
    }

    fn discard<'a>(&'a self, build: &'a Build) -> Found<'a, ()> {
        if let Way::Discard = &*self.way {
            return Box::pin(std::future::ready(Ok(())));
        }
        self.engine.store.discard(build)
    }
}
