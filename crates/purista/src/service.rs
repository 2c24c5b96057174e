//! A service: commands and subscriptions around the same resources.

use std::fmt;
use std::sync::Arc;

use purista_core::address::{Address, ServiceId};
use purista_core::bridge::Consumer;
use purista_core::catalogue::{CommandEntry, EventEntry, ServiceEntry, SubscriptionEntry};
use purista_core::contract::{Command, Contract};
use purista_core::message::Party;

use crate::command::CommandDef;
use crate::context::Place;
use crate::listener::Listener;
use crate::listening::Listening;
use crate::runtime::Runtime;
use crate::subscription::SubscriptionDef;

/// Commands and subscriptions around the same resources, ready to be given to a host.
#[derive(Debug)]
pub struct Service {
    pub(crate) entry: ServiceEntry,
    pub(crate) commands: Vec<CommandPart>,
    pub(crate) subscriptions: Vec<SubscriptionPart>,
}

/// Makes a handler of what a host gives it.
type Bind<T> = Box<dyn FnOnce(&Arc<Runtime>) -> Arc<T> + Send>;

/// A command that waits for a host.
pub(crate) struct CommandPart {
    pub(crate) entry: CommandEntry,
    /// The service that the contract names.
    pub(crate) belongs_to: ServiceId,
    /// Whether it decides on what is recorded.
    pub(crate) decides: bool,
    /// The events that it declares.
    pub(crate) emits: Vec<EventEntry>,
    pub(crate) bind: Bind<dyn Consumer>,
}

/// A subscription that waits for a host.
pub(crate) struct SubscriptionPart {
    pub(crate) listening: Listening,
    /// The event type that it handles; `None` for a filter.
    pub(crate) event: Option<EventEntry>,
    pub(crate) bind: Bind<dyn Listener>,
}

impl fmt::Debug for CommandPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.entry, f)
    }
}

impl fmt::Debug for SubscriptionPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.listening, f)
    }
}

impl Service {
    /// Begins a service. Its handlers reach `resources` by `ctx.resources()`: a struct with what they need, as a mailer or a
    /// pool. `description` is one sentence for people.
    pub fn builder<S: Send + Sync + 'static>(
        id: ServiceId,
        description: &'static str,
        resources: S,
    ) -> ServiceBuilder<S> {
        let entry = ServiceEntry {
            id,
            description,
            commands: Vec::new(),
            subscriptions: Vec::new(),
            events: Vec::new(),
        };
        ServiceBuilder {
            resources: Arc::new(resources),
            service: Service { entry, commands: Vec::new(), subscriptions: Vec::new() },
        }
    }

    /// Its name and version.
    pub fn id(&self) -> ServiceId {
        self.entry.id
    }
}

/// Builds a [`Service`].
pub struct ServiceBuilder<S> {
    resources: Arc<S>,
    service: Service,
}

impl<S: Send + Sync + 'static> ServiceBuilder<S> {
    /// Serves a command.
    #[must_use]
    pub fn command<C: Command>(mut self, def: CommandDef<S, C>) -> Self {
        let (entry, decides) = (def.entry(), def.decides);
        self.service.entry.commands.push(entry.clone());
        let emits = def.emits.clone();
        self.service.entry.events.extend(emits.iter().cloned());
        let resources = Arc::clone(&self.resources);
        let bind = move |runtime: &Arc<Runtime>| -> Arc<dyn Consumer> {
            let place = Place {
                resources,
                runtime: Arc::clone(runtime),
                sender: Party {
                    address: Address::known(C::ADDRESS),
                    instance: Some(runtime.instance.clone()),
                },
                emits: def.emits.iter().map(|event| event.name).collect(),
                invokes: def.invokes,
                handler: Arc::new(()),
            };
            (def.serve)(def.steps, place)
        };
        let part = CommandPart { entry, belongs_to: C::SERVICE, decides, emits, bind: Box::new(bind) };
        self.service.commands.push(part);
        self
    }

    /// Runs a subscription.
    #[must_use]
    pub fn subscription<T: Contract, R: Contract>(mut self, def: SubscriptionDef<S, T, R>) -> Self {
        let address = Address::of(self.service.entry.id, def.terms.name);
        let listening = Listening { address: address.clone(), terms: def.terms.clone() };
        self.service.entry.subscriptions.push(SubscriptionEntry {
            address: address.clone(),
            filter: def.terms.filter.clone(),
            durable: def.terms.is_durable,
        });
        self.service.entry.events.extend(def.emits.iter().cloned());
        let (resources, heard) = (Arc::clone(&self.resources), listening.clone());
        let bind = move |runtime: &Arc<Runtime>| -> Arc<dyn Listener> {
            let place = Place {
                resources,
                runtime: Arc::clone(runtime),
                sender: Party { address, instance: Some(runtime.instance.clone()) },
                emits: def.emits.iter().map(|event| event.name).collect(),
                invokes: def.invokes,
                handler: Arc::new(()),
            };
            (def.listen)(def.steps, heard, place)
        };
        self.service.subscriptions.push(SubscriptionPart {
            listening,
            event: def.event,
            bind: Box::new(bind),
        });
        self
    }

    /// The service.
    pub fn build(self) -> Service {
        self.service
    }
}

impl<S> fmt::Debug for ServiceBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.service, f)
    }
}
