//! The start of a host: check, bind, register, open.

use std::fmt;
use std::sync::Arc;

use purista_core::bridge::{BridgeError, Consumer, Registration};
use purista_core::catalogue::Catalogue;
use purista_core::door::{DoorError, House};
use purista_core::subscription::Subscription;
use purista_events::projector::Projected;
use purista_events::store::StoreError;
use purista_events::subscriptions::SubscriptionId;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::byte_rules;
use super::checks::{self, Offer};
use super::event_types::{self, EventTypes};
use super::health::HostHealth;
use super::lagging::Lagging;
use super::running::{Parts, RunningHost};
use super::store_peers::StorePeers;
use super::{HostBuilder, announcing};
use crate::durable::{self, Durable, DurableControl};
use crate::idempotency;
use crate::listener::Listener;
use crate::projecting;
use crate::relay::Relay;
use crate::runtime::Runtime;
use crate::service::{CommandPart, Service, SubscriptionPart};

/// A host did not start, and nothing of it runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Something cannot work as it was put together; each line names a place and a remedy.
    #[error("the host cannot start:{}", Lines(.0))]
    Refused(Vec<String>),
    /// The bridge did not take a registration.
    #[error("the host cannot start: the bridge refused")]
    Bridge(#[source] BridgeError),
    /// The store did not do what was asked.
    #[error("the host cannot start: the store refused")]
    Store(#[source] StoreError),
    /// A door cannot open.
    #[error("the host cannot start: the door `{name}` cannot open")]
    Door {
        /// Which.
        name: &'static str,
        /// Why.
        #[source]
        error: DoorError,
    },
}

struct Lines<'l>(&'l [String]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| write!(f, "\n  - {line}"))
    }
}

pub(super) async fn start(mut builder: HostBuilder) -> Result<RunningHost, StartError> {
    let capabilities = builder.bridge.capabilities();
    let offer = Offer {
        capabilities: &capabilities,
        has_store: builder.store.is_some(),
        has_foreign_state: builder.state.is_some(),
        require_durable: builder.require_durable,
    };
    let catalogue =
        Catalogue { services: builder.services.iter().map(|service| service.entry.clone()).collect() };
    let mut problems = checks::problems(&builder.services, &offer);
    problems.extend(checks::equal_routes(&catalogue));
    problems.extend(builder.upcasters.problems());
    problems.extend(projecting::problems(&builder.projections, builder.store.as_ref()));
    if !problems.is_empty() {
        return Err(StartError::Refused(problems));
    }
    for warning in checks::warnings(&builder.services, &offer) {
        tracing::warn!("{warning}");
    }
    event_types::warn_of_forgotten_success_events(&builder.services);
    if !offer.has_store {
        tracing::info!(
            replies_max = idempotency::LOCAL_REPLIES_MAX,
            bytes_max = idempotency::LOCAL_REPLIES_BYTES_MAX,
            hours = idempotency::LOCAL_REPLY_TIME.as_secs() / 3_600,
            "the host has no store: idempotency keys are remembered within this process only, and forgotten when it ends"
        );
    }
    byte_rules::warn(&builder.services);

    let stop = CancellationToken::new();
    let runtime = builder.runtime(&stop);
    if builder.checks_event_types
        && let Some(store) = &runtime.store
    {
        let types = EventTypes::new(&builder.services, &builder.projections, &builder.read_by_views);
        types.warn_of_stored(&**store, &runtime.upcasters).await;
    }
    let doors = std::mem::take(&mut builder.doors);
    let services = std::mem::take(&mut builder.services);
    let projections = std::mem::take(&mut builder.projections).into_iter();
    let projections = projections.map(|projected| projected.upcasters(&runtime.upcasters)).collect();
    let mut parts = Parts::new(Arc::clone(&runtime), Arc::new(catalogue), builder.drain_timeout);
    let health = HostHealth::new(&runtime, &parts.catalogue, parts.supervisor.clone());
    parts.health = Some(health.clone());
    if !builder.allows_separate_stores {
        let with_commands = services.iter().filter(|service| !service.commands.is_empty());
        parts.store_peers = StorePeers::new(&runtime, with_commands.map(Service::id).collect());
    }
    let result = match project(&mut parts, projections).await {
        Ok(()) => bind(&mut parts, &runtime, services, builder.commands_in_flight).await,
        Err(error) => Err(error),
    };
    let result = match result {
        Ok(()) => open(&mut parts, doors, &health).await,
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        // Whatever runs already is stopped again.
        parts.stop().await;
        return Err(error);
    }
    health.set_ready(true);
    tracing::info!(
        services = parts.catalogue.services.len(),
        bridge = capabilities.name,
        store = runtime.store.is_some(),
        "the host is ready"
    );
    Ok(RunningHost::new(parts))
}

/// Projections come first: a service that reads a table finds it.
async fn project(parts: &mut Parts, projections: Vec<Projected>) -> Result<(), StartError> {
    for projected in projections {
        projected.begin().await.map_err(StartError::Store)?;
        let handle = projected.handle();
        let name = format!("projection {} {}", handle.name(), handle.version());
        parts.projections.push(handle);
        let stop = parts.stop_feeding.clone();
        let work = projected.run(stop.clone(), parts.runtime.clock.clone());
        parts.supervisor.spawn(&parts.tasks, name, stop, work);
    }
    if let Some(health) = &parts.health {
        health.watch_projections(parts.projections.clone());
    }
    Ok(())
}

async fn bind(
    parts: &mut Parts,
    runtime: &Arc<Runtime>,
    services: Vec<Service>,
    commands_in_flight: usize,
) -> Result<(), StartError> {
    watch_store_peers(parts).await?;
    let mut bound = Vec::with_capacity(services.len());
    // Every command is there before anything is consumed: the backlog of a subscription may call any of them.
    for service in services {
        let mut functions = Vec::with_capacity(service.commands.len());
        for CommandPart { entry, bind, .. } in service.commands {
            let subscription = Subscription::command(entry.address.clone(), commands_in_flight);
            let registration =
                runtime.bridge.subscribe(subscription, bind(runtime)).await.map_err(StartError::Bridge)?;
            parts.commands.push(registration);
            functions.push(entry);
        }
        bound.push((service.entry, functions, service.subscriptions));
    }
    for (entry, functions, subscriptions) in bound {
        announcing::init(runtime, entry.id).await;
        for function in &functions {
            announcing::function_added(runtime, function).await;
        }
        for part in subscriptions {
            self::subscribe(parts, runtime, part).await?;
        }
        let store_id = parts.store_peers.as_ref().and_then(|peers| peers.store_of(entry.id));
        announcing::ready(runtime, entry.id, store_id).await;
    }
    relay(parts, runtime).await
}

/// Looks for other processes with another store; before the first service announces its own, so that no reply is missed.
async fn watch_store_peers(parts: &mut Parts) -> Result<(), StartError> {
    let Some(peers) = parts.store_peers.clone() else { return Ok(()) };
    let registration = peers.subscribe().await.map_err(StartError::Bridge)?;
    parts.feeds.push((SubscriptionId::new("PuristaHost.1.storePeers"), registration));
    if let Some(health) = &parts.health {
        health.watch_store_peers(Arc::clone(&peers));
    }
    let stop = parts.stop_feeding.clone();
    parts.supervisor.spawn(&parts.tasks, "store peers".to_owned(), stop.clone(), peers.announce(stop));
    Ok(())
}

/// Where a subscription gets its messages: what this host's log holds from there, anything else from the bridge.
async fn subscribe(
    parts: &mut Parts,
    runtime: &Arc<Runtime>,
    part: SubscriptionPart,
) -> Result<(), StartError> {
    let listening = part.listening;
    let listener = (part.bind)(runtime);
    let id = SubscriptionId::of(&listening.address);
    let follows_log = listening.terms.is_durable && listening.terms.hears_recorded;
    if let Some(store) = runtime.store.as_ref().filter(|_| follows_log) {
        let control =
            Arc::new(DurableControl::new(id.clone(), durable::query(&listening, &runtime.upcasters)));
        let durable = Durable {
            listener: Arc::clone(&listener),
            runtime: Arc::clone(runtime),
            store: Arc::clone(store),
            control: Arc::clone(&control),
            stop: parts.stop_feeding.clone(),
        };
        durable.register().await.map_err(StartError::Store)?;
        parts.durables.push(control);
        let stop = parts.stop_feeding.clone();
        parts.supervisor.spawn(&parts.tasks, format!("subscription {id}"), stop, durable.run());
        // Inside the process nobody else records, so the bridge has nothing that the log has not.
        if runtime.bridge.capabilities().is_local {
            return Ok(());
        }
    }
    let consumer = Arc::clone(&listener).on_bridge(Arc::clone(runtime), id.clone());
    let registration = feed_from_bridge(runtime, &listener, Arc::clone(&consumer)).await?;
    parts.fed.push((id.clone(), consumer));
    parts.feeds.push((id, registration));
    Ok(())
}

async fn feed_from_bridge(
    runtime: &Arc<Runtime>,
    listener: &Arc<dyn Listener>,
    consumer: Arc<dyn Consumer>,
) -> Result<Registration, StartError> {
    let listening = listener.listening();
    let promised = runtime.bridge.capabilities();
    let durable = listening.terms.is_durable && promised.durable;
    let mut filter = listening.terms.filter.clone();
    if listening.terms.version.is_some() {
        // Events of older names, which the upcasters turn into these.
        filter.event_names = runtime.upcasters.stored_names(filter.event_names);
    }
    let subscription = Subscription {
        address: listening.address.clone(),
        filter,
        sharing: listening.terms.sharing,
        durable,
        // What a log holds begins there; what comes from others, as far back as the bridge can go.
        from_start: listening.terms.from_start && durable && promised.from_start,
        in_flight: listening.terms.in_flight,
        answers: false,
    };
    runtime.bridge.subscribe(subscription, consumer).await.map_err(StartError::Bridge)
}

async fn relay(parts: &mut Parts, runtime: &Arc<Runtime>) -> Result<(), StartError> {
    let Some(store) = &runtime.store else { return Ok(()) };
    let relay = Relay {
        runtime: Arc::clone(runtime),
        store: Arc::clone(store),
        stop: parts.stop_feeding.clone(),
        control: Arc::clone(&parts.relay),
        keeps_place: !runtime.bridge.capabilities().is_local,
    };
    relay.begin().await.map_err(StartError::Store)?;
    if let Some(health) = &parts.health {
        health.watch_relay(Arc::clone(&parts.relay));
    }
    parts.tasks.spawn(relay.run());
    Ok(())
}

async fn open(
    parts: &mut Parts,
    doors: Vec<Box<dyn purista_core::door::Door>>,
    health: &HostHealth,
) -> Result<(), StartError> {
    let relayed = parts.relay.relayed.subscribe();
    let fed = parts.fed.iter().map(|(id, _)| id.clone()).collect();
    let lags = Lagging::new(&parts.runtime, parts.durables.clone(), parts.projections.clone(), relayed, fed)
        .shared();
    for door in doors {
        let name = door.name();
        let house = House {
            client: parts.runtime.client.clone(),
            catalogue: Arc::clone(&parts.catalogue),
            health: health.shared(),
            lags: lags.clone(),
            stop: parts.stop_doors.clone(),
            tasks: TaskTracker::clone(&parts.tasks),
            clock: parts.runtime.clock.clone(),
        };
        // The doors serve as soon as they are open, and everything behind them is.
        health.set_ready(true);
        let open = door.open(house).await.map_err(|error| StartError::Door { name, error })?;
        tracing::info!(door = name, place = %open.place, "a door is open");
        parts.doors.push(open);
    }
    Ok(())
}
