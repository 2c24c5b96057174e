//! Where a duty is played: one store with a clock that the duty moves, and everything that the store holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use purista_core::id::Id;
use purista_core::store::Versioned;
use purista_events::batch::{Batch, Receipt, ReplyKey, StoredReply};
use purista_events::memory::clock::TestClock;
use purista_events::position::{Position, ReadToken};
use purista_events::query::Query;
use purista_events::recorded::{NewEvent, Recorded};
use purista_events::store::{Direction, EventStore, PAGE_MAX, StoreErrorKind};
use purista_events::subscriptions::{DeadLetter, SubscriptionId, SubscriptionRecord};

use super::StoreSystem;
use super::given::{self, Tenant};

/// How long the head may take to reach what was committed.
const HEAD_WAIT: Duration = Duration::from_secs(30);

/// Makes a system with data of its own, empty.
pub(super) type NewSystem = Box<dyn Fn() -> BoxFuture<'static, Box<dyn StoreSystem>> + Send + Sync>;

/// One system, opened.
#[expect(
    missing_debug_implementations,
    reason = "a system is the engine's own, and a duty prints what it compares"
)]
pub struct Stage {
    new_system: Arc<NewSystem>,
    system: Box<dyn StoreSystem>,
    pub(super) clock: TestClock,
    pub(super) store: Arc<dyn EventStore>,
}

/// What a query selects now, with the token of the moment.
pub(super) async fn view(store: &dyn EventStore, query: &Query) -> (Vec<Recorded>, ReadToken) {
    let view = store.read_view(query, Position::START).await.expect("a view is read");
    view.all().await.expect("all pages of a view are read")
}

/// Waits until the log can be followed up to this position; returns the head. An engine with one writer is there at once; one
/// of which several processes write waits for those that began before.
pub(super) async fn reached(store: &dyn EventStore, position: Position) -> Position {
    let mut head = store.head();
    let reached = tokio::time::timeout(HEAD_WAIT, head.wait_for(|head| *head >= position)).await;
    *reached.expect("the head reaches what was committed").expect("the store is open")
}

/// Everything that a store holds, of the names in [`given`].
#[derive(Debug, PartialEq)]
pub(super) struct Contents {
    pub(super) events: Vec<Recorded>,
    pub(super) state: BTreeMap<(Tenant, String), Versioned>,
    pub(super) replies: BTreeMap<(Tenant, ReplyKey), StoredReply>,
    pub(super) subscriptions: Vec<SubscriptionId>,
    pub(super) records: BTreeMap<SubscriptionId, SubscriptionRecord>,
    pub(super) consumed: BTreeSet<(SubscriptionId, Id)>,
    pub(super) dead_letters: Vec<DeadLetter>,
}

impl Stage {
    pub(super) async fn begin(new_system: Arc<NewSystem>) -> Self {
        let system = new_system().await;
        let clock = TestClock::new();
        let store = system.open(clock.clock()).await;
        Self { new_system, system, clock, store }
    }

    /// Another system with data of its own, and with the same clock.
    pub(super) async fn another(&self) -> Self {
        self.beside((self.new_system)().await).await
    }

    /// This other system, with the same clock.
    pub(super) async fn beside(&self, system: Box<dyn StoreSystem>) -> Self {
        let store = system.open(self.clock.clock()).await;
        Self { new_system: Arc::clone(&self.new_system), system, clock: self.clock.clone(), store }
    }

    /// How many histories are worth trying here.
    pub(super) fn histories(&self) -> u32 {
        self.system.histories()
    }

    /// Closes the store and opens its data again.
    pub(super) async fn reopen(&mut self) {
        self.store.close().await.expect("a store closes");
        self.store = self.system.open(self.clock.clock()).await;
    }

    /// Commits what must be taken, and waits until it can be followed.
    pub(super) async fn commit(&self, batch: Batch) -> Receipt {
        let receipt = self.store.commit(batch).await.expect("the batch is committed");
        reached(&*self.store, receipt.position).await;
        receipt
    }

    /// The head, when everything that is recorded can be followed.
    pub(super) async fn settled(&self) -> Position {
        let end = Position::new(u64::MAX);
        let last = self.page(&Query::all(), end, Direction::Backwards, 1).await;
        reached(&*self.store, last.first().map_or(Position::START, |event| event.position)).await
    }

    /// Appends events of no tenant.
    pub(super) async fn append(&self, events: Vec<NewEvent>) -> Receipt {
        self.commit(given::appends(events)).await
    }

    /// Commits what must be refused as this kind, and looks whether anything was written all the same. Returns what the
    /// error says.
    pub(super) async fn refuse(&self, batch: Batch, kind: StoreErrorKind) -> String {
        let before = self.contents().await;
        let head = self.settled().await;
        let error = self.store.commit(batch).await.expect_err("the batch is refused");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(!error.may_have_happened());
        assert_eq!(self.contents().await, before, "a refused batch wrote something");
        assert_eq!(*self.store.head().borrow(), head, "a refused batch moved the head");
        error.to_string()
    }

    /// What a query selects now, with the token of the moment.
    pub(super) async fn view(&self, query: &Query) -> (Vec<Recorded>, ReadToken) {
        view(&*self.store, query).await
    }

    /// All events, in order, page by page.
    pub(super) async fn events(&self) -> Vec<Recorded> {
        let mut events: Vec<Recorded> = Vec::new();
        loop {
            let from = events.last().map_or(Position::START, |event| event.position);
            let page = self.page(&Query::all(), from, Direction::Forwards, PAGE_MAX).await;
            if page.is_empty() {
                return events;
            }
            // Without this an engine that reads a page twice would be read for ever.
            assert!(page.iter().all(|event| event.position > from), "a page begins after {from}");
            events.extend(page);
        }
    }

    /// One page.
    pub(super) async fn page(
        &self,
        query: &Query,
        from: Position,
        direction: Direction,
        limit: usize,
    ) -> Vec<Recorded> {
        self.store.read(query, from, direction, limit).await.expect("a page is read")
    }

    /// Everything that a query selects, as one who follows finds it page by page.
    pub(super) async fn follow(&self, query: &Query, limit: usize) -> Vec<Recorded> {
        self.settled().await;
        let (mut found, mut from) = (Vec::new(), Position::START);
        loop {
            let page = self.store.follow(query, from, limit).await.expect("a page is followed");
            let is_further = page.looked_up_to > from;
            from = page.looked_up_to;
            found.extend(page.events);
            if page.is_caught_up {
                return found;
            }
            assert!(is_further, "following stands still at {from}");
        }
    }

    /// State of a tenant, of the keys in [`given::keys`].
    pub(super) async fn state(&self, tenant: Option<&str>) -> BTreeMap<String, Versioned> {
        self.store.state(tenant, &given::keys()).await.expect("state is read")
    }

    /// What is kept for a subscription.
    pub(super) async fn record(&self, subscription: &SubscriptionId) -> Option<SubscriptionRecord> {
        self.store.subscription(subscription).await.expect("a subscription is read")
    }

    /// Dead letters, at most a thousand.
    pub(super) async fn dead_letters(&self, subscription: Option<&SubscriptionId>) -> Vec<DeadLetter> {
        let letters = self.store.dead_letters(subscription, PAGE_MAX).await.expect("dead letters are read");
        let counted = self.store.dead_letter_count(subscription).await.expect("dead letters are counted");
        assert_eq!(usize::try_from(counted), Ok(letters.len()), "as many as there are");
        letters
    }

    /// The reply under a key.
    pub(super) async fn reply(&self, tenant: Option<&str>, key: &ReplyKey) -> Option<StoredReply> {
        self.store.reply(tenant, key).await.expect("a reply is read")
    }

    /// Whether a message was handled.
    pub(super) async fn is_consumed(&self, subscription: &SubscriptionId, message: &Id) -> bool {
        self.store.is_consumed(subscription, message).await.expect("a message is looked up")
    }

    /// Everything.
    pub(super) async fn contents(&self) -> Contents {
        let mut contents = Contents {
            events: self.events().await,
            state: BTreeMap::new(),
            replies: BTreeMap::new(),
            subscriptions: self.store.subscriptions().await.expect("subscriptions are read"),
            records: BTreeMap::new(),
            consumed: BTreeSet::new(),
            dead_letters: self.dead_letters(None).await,
        };
        contents.subscriptions.sort();
        for tenant in given::tenants() {
            let state = self.state(tenant.as_deref()).await.into_iter();
            contents.state.extend(state.map(|(key, value)| ((tenant.clone(), key), value)));
            for key in given::reply_keys() {
                let reply = self.reply(tenant.as_deref(), &key).await;
                contents.replies.extend(reply.map(|reply| ((tenant.clone(), key), reply)));
            }
        }
        for subscription in given::subscriptions() {
            for message in given::messages() {
                if self.is_consumed(&subscription, &message).await {
                    contents.consumed.insert((subscription.clone(), message));
                }
            }
            let record = self.record(&subscription).await;
            contents.records.extend(record.map(|record| (subscription, record)));
        }
        contents
    }
}
