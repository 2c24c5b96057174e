//! How far everybody is behind the log: measured when somebody asks, and at most once a second.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use purista_core::lag::{FollowerKind, FollowerLag, Holder, Lags, Measured, PutAside};
use purista_events::lag::Lag;
use purista_events::position::Position;
use purista_events::projector::ProjectionHandle;
use purista_events::query::Query;
use purista_events::store::{EventStore, StoreError};
use purista_events::subscriptions::{RELAY, SubscriptionId, SubscriptionRecord};
use tokio::sync::watch;
use tokio::time::Instant;

use super::running::RunningHost;
use crate::durable::DurableControl;
use crate::runtime::Runtime;

/// How long a measurement is told again: however many ask, the store counts no more often.
const KEPT_FOR: Duration = Duration::from_secs(1);

/// Transactions that are younger belong to every log that is written.
const HOLDS_AT_LEAST: Duration = Duration::from_secs(1);

/// Follower by follower: what it is, its name, and how far behind.
type Behind = Vec<(FollowerKind, String, Lag)>;

/// Everybody who follows the log of a host.
pub(super) struct Lagging {
    pub(super) runtime: Arc<Runtime>,
    pub(super) durables: Vec<Arc<DurableControl>>,
    pub(super) projections: Vec<ProjectionHandle>,
    pub(super) relayed: watch::Receiver<Position>,
    /// The subscriptions that a bridge feeds.
    pub(super) fed: Vec<SubscriptionId>,
    pub(super) paces: Mutex<HashMap<String, Pace>>,
    pub(super) kept: tokio::sync::Mutex<Option<(Instant, Measured)>>,
}

/// How fast one of them goes, between two measurements.
pub(super) struct Pace {
    since: Instant,
    counted: u64,
    per_second: f64,
}

impl Lagging {
    pub(super) fn new(
        runtime: &Arc<Runtime>,
        durables: Vec<Arc<DurableControl>>,
        projections: Vec<ProjectionHandle>,
        relayed: watch::Receiver<Position>,
        fed: Vec<SubscriptionId>,
    ) -> Self {
        let (runtime, paces, kept) = (Arc::clone(runtime), Mutex::default(), tokio::sync::Mutex::default());
        Self { runtime, durables, projections, relayed, fed, paces, kept }
    }

    /// For the doors.
    pub(super) fn shared(self) -> Lags {
        let lagging = Arc::new(self);
        Lags::new(move || {
            let lagging = Arc::clone(&lagging);
            Box::pin(async move {
                let found = lagging.told().await;
                if let Err(error) = &found {
                    let error = purista_core::error::chain(error);
                    tracing::warn!(error, "it cannot be told how far everybody is behind");
                }
                found.ok()
            })
        })
    }

    async fn told(&self) -> Result<Measured, StoreError> {
        // Whoever comes while it is measured waits, and is told the same.
        let mut kept = self.kept.lock().await;
        if let Some((at, lags)) = &*kept
            && at.elapsed() < KEPT_FOR
        {
            return Ok(lags.clone());
        }
        let followers = self.measure().await?.into_iter().map(told).collect();
        let (holders, put_aside) = (holders(&self.runtime).await?, self.put_aside().await?);
        let lags = Measured { followers, holders, put_aside };
        *kept = Some((Instant::now(), lags.clone()));
        Ok(lags)
    }

    /// What each subscription and the relay have put aside.
    async fn put_aside(&self) -> Result<Vec<PutAside>, StoreError> {
        let Some(store) = &self.runtime.store else { return Ok(Vec::new()) };
        let durables = self.durables.iter().map(|durable| (durable.id.clone(), durable.deferred()));
        let fed = self.fed.iter().filter(|id| self.durables.iter().all(|durable| durable.id != **id));
        let all = durables.chain(fed.map(|id| (id.clone(), 0))).chain([(SubscriptionId::new(RELAY), 0)]);
        let has_any = store.dead_letter_count(None).await? > 0;
        let mut put_aside = Vec::new();
        for (id, deferred) in all {
            let dead_letters = if has_any { store.dead_letter_count(Some(&id)).await? } else { 0 };
            let deferred = u64::try_from(deferred).unwrap_or(u64::MAX);
            put_aside.push(PutAside { name: id.to_string(), dead_letters, deferred });
        }
        Ok(put_aside)
    }

    async fn measure(&self) -> Result<Behind, StoreError> {
        let Some(store) = &self.runtime.store else { return Ok(Vec::new()) };
        let (store, now) = (&**store, self.runtime.clock.now());
        let mut lags = Vec::new();
        for durable in &self.durables {
            let name = durable.id.to_string();
            let record = store.subscription(&durable.id).await?.unwrap_or_default();
            let per_second = self.pace(&name, durable.ended());
            let lag = of_subscription(store, &durable.query, &record, now, per_second).await?;
            lags.push((FollowerKind::Subscription, name, lag));
        }
        let relayed = *self.relayed.borrow();
        // It carries every event, so its place counts them.
        let per_second = self.pace(RELAY, relayed.number());
        let lag = Lag::measure(store, &Query::all(), relayed, now, per_second).await?;
        lags.push((FollowerKind::Relay, RELAY.to_owned(), lag));
        for handle in &self.projections {
            let name = format!("{} {}", handle.name(), handle.version());
            lags.push((FollowerKind::Projection, name.clone(), handle.lag(now).await?));
            lags.extend(handle.rebuilding(now).await?.map(|lag| (FollowerKind::Rebuild, name, lag)));
        }
        Ok(lags)
    }

    /// How many it took in a second since it was last asked; 0 the first time.
    fn pace(&self, name: &str, counted: u64) -> f64 {
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Pace { since: Instant::now(), counted, per_second: 0.0 };
        let pace = paces.entry(name.to_owned()).or_insert_with(new);
        let elapsed = pace.since.elapsed();
        if elapsed >= KEPT_FOR {
            #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
            let taken = counted.saturating_sub(pace.counted) as f64;
            *pace = Pace { since: Instant::now(), counted, per_second: taken / elapsed.as_secs_f64() };
        }
        pace.per_second
    }
}

/// The transactions that block followers for longer than a commit takes.
async fn holders(runtime: &Runtime) -> Result<Vec<Holder>, StoreError> {
    let Some(store) = &runtime.store else { return Ok(Vec::new()) };
    let mut holders = store.holders().await?;
    holders.retain(|holder| holder.age >= HOLDS_AT_LEAST);
    Ok(holders)
}

/// What is finished beyond its lowest unfinished event does not wait.
async fn of_subscription(
    store: &dyn EventStore,
    query: &Query,
    record: &SubscriptionRecord,
    now: Timestamp,
    per_second: f64,
) -> Result<Lag, StoreError> {
    let progress = &record.progress;
    let mut lag = Lag::measure(store, query, progress.low, now, per_second).await?;
    if !lag.events.is_at_least {
        let done = u64::try_from(progress.done.len()).unwrap_or(u64::MAX);
        lag.events.events = lag.events.events.saturating_sub(done);
    }
    if lag.is_caught_up() {
        (lag.behind, lag.caught_up_in) = (Duration::ZERO, Some(Duration::ZERO));
    }
    Ok(lag)
}

fn told((kind, name, lag): (FollowerKind, String, Lag)) -> FollowerLag {
    let Lag { events, behind, per_second, caught_up_in, .. } = lag;
    let (events, is_at_least) = (events.events, events.is_at_least);
    FollowerLag { kind, name, events, is_at_least, behind, per_second, caught_up_in }
}

impl RunningHost {
    /// How far each durable subscription, the relay and each projection is behind the log, by name.
    pub async fn lags(&self) -> Result<Vec<(String, Lag)>, StoreError> {
        let parts = &self.parts;
        let relayed = parts.relay.relayed.subscribe();
        let lagging = Lagging::new(
            &parts.runtime,
            parts.durables.clone(),
            parts.projections.clone(),
            relayed,
            Vec::new(),
        );
        let measured = lagging.measure().await?.into_iter();
        let shown = measured.filter(|(kind, ..)| *kind != FollowerKind::Rebuild);
        Ok(shown.map(|(_, name, lag)| (name, lag)).collect())
    }

    /// The blocking transactions, the oldest first: they have written to the store's server and are open for more than a second,
    /// in a session or prepared. Until they end, nothing newer is delivered anywhere.
    pub async fn holders(&self) -> Result<Vec<Holder>, StoreError> {
        holders(&self.parts.runtime).await
    }
}

impl fmt::Debug for Lagging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lagging").finish_non_exhaustive()
    }
}
