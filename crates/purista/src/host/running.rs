//! A host that runs, and how it ends.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use purista_core::bridge::{Consumer, Registration};
use purista_core::catalogue::Catalogue;
use purista_core::client::Client;
use purista_core::door::OpenDoor;
use purista_core::health::Health;
use purista_events::projector::ProjectionHandle;
use purista_events::subscriptions::SubscriptionId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::announcing;
use super::drain::{DrainReport, RunError};
use super::health::HostHealth;
use super::signals::Signals;
use super::store_peers::StorePeers;
use super::supervisor::Supervisor;
use crate::durable::DurableControl;
use crate::relay::RelayControl;
use crate::runtime::Runtime;

/// Everything that a host runs.
pub(super) struct Parts {
    pub(super) runtime: Arc<Runtime>,
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) health: Option<HostHealth>,
    pub(super) commands: Vec<Registration>,
    pub(super) feeds: Vec<(SubscriptionId, Registration)>,
    /// What takes the messages of a bridge, by subscription.
    pub(super) fed: Vec<(SubscriptionId, Arc<dyn Consumer>)>,
    pub(super) durables: Vec<Arc<DurableControl>>,
    pub(super) projections: Vec<ProjectionHandle>,
    pub(super) doors: Vec<OpenDoor>,
    /// Where other processes may run the same services with another store.
    pub(super) store_peers: Option<Arc<StorePeers>>,
    pub(super) supervisor: Supervisor,
    pub(super) relay: Arc<RelayControl>,
    pub(super) stop_doors: CancellationToken,
    pub(super) stop_feeding: CancellationToken,
    pub(super) tasks: TaskTracker,
    drain_timeout: Duration,
}

impl Parts {
    pub(super) fn new(runtime: Arc<Runtime>, catalogue: Arc<Catalogue>, drain_timeout: Duration) -> Self {
        let tasks = runtime.tasks.clone();
        Self {
            runtime,
            catalogue,
            health: None,
            commands: Vec::new(),
            feeds: Vec::new(),
            fed: Vec::new(),
            durables: Vec::new(),
            projections: Vec::new(),
            doors: Vec::new(),
            store_peers: None,
            supervisor: Supervisor::default(),
            relay: Arc::default(),
            stop_doors: CancellationToken::new(),
            stop_feeding: CancellationToken::new(),
            tasks,
            drain_timeout,
        }
    }

    /// From the outside in: doors first, then what feeds subscriptions, then commands, the bridge, the store. Each gets what
    /// is left of the time.
    pub(super) async fn stop(mut self) -> DrainReport {
        let deadline = Instant::now() + self.drain_timeout;
        let mut unfinished = Vec::new();
        if let Some(health) = &self.health {
            health.set_ready(false);
        }
        tracing::info!(timeout = ?self.drain_timeout, "the host drains");
        for service in &self.catalogue.services {
            let _ = tokio::time::timeout_at(deadline, announcing::drain(&self.runtime, service.id)).await;
        }
        self.stop_doors.cancel();
        let doors = std::mem::take(&mut self.doors);
        let closed = futures_util::future::join_all(doors.into_iter().map(|door| door.closed));
        within(deadline, "requests at the doors", closed, &mut unfinished).await;
        self.stop_feeding.cancel();
        let feeds = futures_util::future::join_all(self.feeds.iter().map(|(_, feed)| feed.stop()));
        within(deadline, "messages of subscriptions", feeds, &mut unfinished).await;
        for service in &self.catalogue.services {
            let _ = tokio::time::timeout_at(deadline, announcing::shutdown(&self.runtime, service.id)).await;
        }
        let commands = futures_util::future::join_all(self.commands.iter().map(Registration::stop));
        within(deadline, "commands", commands, &mut unfinished).await;
        self.runtime.stop.cancel();
        self.tasks.close();
        within(deadline, "tasks", self.tasks.wait(), &mut unfinished).await;
        within(deadline, "the bridge", self.runtime.bridge.close(), &mut unfinished).await;
        if let Some(store) = &self.runtime.store {
            within(deadline, "the store", store.close(), &mut unfinished).await;
        }
        let is_complete = unfinished.is_empty();
        if is_complete {
            tracing::info!("the host has stopped");
        } else {
            tracing::error!(?unfinished, "the host has stopped before everything was finished");
        }
        DrainReport { is_complete, unfinished }
    }
}

async fn within<F: Future>(
    deadline: Instant,
    what: &'static str,
    work: F,
    unfinished: &mut Vec<&'static str>,
) {
    if tokio::time::timeout_at(deadline, work).await.is_err() {
        unfinished.push(what);
    }
}

/// A host that runs. Dropping it does not stop it in order: call [`RunningHost::stop`].
pub struct RunningHost {
    pub(super) parts: Parts,
    places: Vec<String>,
    paused: RwLock<()>,
}

impl RunningHost {
    pub(super) fn new(parts: Parts) -> Self {
        if let Some(health) = &parts.health {
            health.watch(parts.durables.clone());
        }
        let places = parts.doors.iter().map(|door| door.place.clone()).collect();
        Self { parts, places, paused: RwLock::new(()) }
    }

    /// Invokes and emits from outside of handlers.
    pub fn client(&self) -> Client {
        self.parts.runtime.client.clone()
    }

    /// What it serves.
    pub fn catalogue(&self) -> &Arc<Catalogue> {
        &self.parts.catalogue
    }

    /// How it is.
    pub fn health(&self) -> Health {
        self.parts.health.as_ref().map_or_else(
            || Health::new(|| purista_core::health::HealthReport { is_ready: false, parts: Vec::new() }),
            HostHealth::shared,
        )
    }

    /// Where its doors serve, as `http://127.0.0.1:3000`.
    pub fn places(&self) -> &[String] {
        &self.places
    }

    /// Lets a paused subscription go on, by its name as `Email.1.sendWelcomeEmail`, or a projection, by its own. `false` when there is none of that name.
    pub fn resume(&self, subscription: &str) -> bool {
        // One at a time, so that a second call does not count for the next pause.
        let _one = self.paused.write().unwrap_or_else(PoisonError::into_inner);
        let durable = self.parts.durables.iter().find(|one| one.id.as_str() == subscription);
        let feed = self.parts.feeds.iter().find(|(id, _)| id.as_str() == subscription);
        if let Some(durable) = durable {
            durable.resume();
        }
        if let Some((_, feed)) = feed {
            feed.resume();
        }
        let projections = self.parts.projections.iter().filter(|one| **one.name() == *subscription);
        let resumed = projections.map(ProjectionHandle::resume).count();
        durable.is_some() || feed.is_some() || resumed > 0
    }

    /// Stops in order: doors, subscriptions, commands, bridge, store. What is under way is finished within the drain
    /// time-out; what is not is recorded and goes on after the next start, or ends as unknown for its caller.
    pub async fn stop(self) -> DrainReport {
        self.parts.stop().await
    }

    /// Waits for SIGTERM or Ctrl-C, then stops in order. A second signal ends the waiting at once.
    ///
    /// Signals are heard from the call on, not from the first poll: whoever tells others that the host runs calls it first,
    /// and awaits it afterwards. Before the call a signal ends the process as it is.
    pub fn run(self) -> impl Future<Output = Result<(), RunError>> + Send {
        let signals = Signals::listen();
        async move {
            let mut signals = signals?;
            signals.next().await?;
            tokio::select! {
                report = self.stop() => if report.is_complete { Ok(()) } else { Err(RunError::Unfinished(report)) },
                second = signals.next() => { second?; Err(RunError::SecondSignal) }
            }
        }
    }

    #[cfg(feature = "testing")]
    pub(crate) fn durables(&self) -> &[Arc<DurableControl>] {
        &self.parts.durables
    }

    #[cfg(feature = "testing")]
    pub(crate) fn relayed(&self) -> tokio::sync::watch::Receiver<purista_events::position::Position> {
        self.parts.relay.relayed.subscribe()
    }

    pub(crate) fn runtime(&self) -> &Arc<Runtime> {
        &self.parts.runtime
    }
}

impl fmt::Debug for RunningHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningHost").field("places", &self.places).finish_non_exhaustive()
    }
}
