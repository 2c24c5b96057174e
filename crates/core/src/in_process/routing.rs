//! Who gets what: a table that is read on every message and replaced on every registration.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use futures_util::future::BoxFuture;
use rustc_hash::FxHashMap;

use super::Inner;
use super::listener::Listener;
use crate::address::Address;
use crate::bridge::{Consumer, Feed, Registration};
use crate::message::{Message, MessageType};
use crate::subscription::{Filter, Sharing, Subscription};
use crate::text::Text;

/// The table. Cloning copies pointers; it happens on registrations only.
#[derive(Default, Clone)]
pub(super) struct Routing {
    servers: FxHashMap<Address, Arc<Servers>>,
    by_event: FxHashMap<Text, Vec<Arc<Group>>>,
    /// Listeners that no event name selects.
    others: Vec<Arc<Group>>,
    has_taps: bool,
}

/// The consumers of one command, which share its calls in turn.
struct Servers {
    consumers: Vec<Arc<dyn Consumer>>,
    next: AtomicUsize,
}

/// The listeners of one subscription: one of them gets a message, or each of them is a group of its own.
pub(super) struct Group {
    name: Option<Address>,
    filter: Filter,
    listeners: Vec<Arc<Listener>>,
    next: AtomicUsize,
}

fn turn<'t, T>(next: &AtomicUsize, among: &'t [T]) -> Option<&'t T> {
    match among {
        [only] => Some(only),
        several => several.get(next.fetch_add(1, Ordering::Relaxed).checked_rem(several.len())?),
    }
}

impl Routing {
    /// The consumer whose turn it is to serve this command.
    pub(super) fn server(&self, address: &Address) -> Option<&Arc<dyn Consumer>> {
        let servers = self.servers.get(address)?;
        turn(&servers.next, &servers.consumers)
    }

    /// Whether somebody listens to commands or to responses as such.
    pub(super) fn has_taps(&self) -> bool {
        self.has_taps
    }

    pub(super) fn has_listeners(&self) -> bool {
        !self.by_event.is_empty() || !self.others.is_empty()
    }

    /// One listener of every group whose filter the message passes.
    pub(super) fn listeners(&self, message: &Message) -> impl Iterator<Item = &Arc<Listener>> {
        let named = message.event_name.as_ref().and_then(|name| self.by_event.get(name));
        let groups = named.into_iter().flatten().chain(&self.others);
        groups
            .filter(|group| group.filter.matches(message))
            .filter_map(|group| turn(&group.next, &group.listeners))
    }

    pub(super) fn with_server(&self, address: &Address, consumer: &Arc<dyn Consumer>) -> Self {
        let mut table = self.clone();
        let mut consumers =
            table.servers.get(address).map(|servers| servers.consumers.clone()).unwrap_or_default();
        consumers.push(Arc::clone(consumer));
        table.servers.insert(address.clone(), Arc::new(Servers { consumers, next: AtomicUsize::new(0) }));
        table
    }

    fn without_server(&self, address: &Address, consumer: &Arc<dyn Consumer>) -> Self {
        let mut table = self.clone();
        let mut consumers =
            table.servers.get(address).map(|servers| servers.consumers.clone()).unwrap_or_default();
        consumers.retain(|one| !Arc::ptr_eq(one, consumer));
        if consumers.is_empty() {
            table.servers.remove(address);
        } else {
            table.servers.insert(address.clone(), Arc::new(Servers { consumers, next: AtomicUsize::new(0) }));
        }
        table
    }

    pub(super) fn with_listener(&self, subscription: &Subscription, listener: &Arc<Listener>) -> Self {
        let mut table = self.clone();
        let filter = &subscription.filter;
        if filter.event_names.is_empty() {
            join(&mut table.others, subscription, listener);
        }
        for name in &filter.event_names {
            join(table.by_event.entry(name.clone()).or_default(), subscription, listener);
        }
        table.has_taps = table.others.iter().any(|group| taps(&group.filter));
        table
    }

    fn without_listener(&self, listener: &Arc<Listener>) -> Self {
        let mut table = self.clone();
        leave(&mut table.others, listener);
        for groups in table.by_event.values_mut() {
            leave(groups, listener);
        }
        table.by_event.retain(|_, groups| !groups.is_empty());
        table.has_taps = table.others.iter().any(|group| taps(&group.filter));
        table
    }
}

fn taps(filter: &Filter) -> bool {
    filter.kind.is_none_or(|kind| kind == MessageType::Command || kind.is_response())
}

fn join(groups: &mut Vec<Arc<Group>>, subscription: &Subscription, listener: &Arc<Listener>) {
    let name = (subscription.sharing == Sharing::Shared).then(|| subscription.address.clone());
    let shared = groups.iter_mut().find(|group| group.name.is_some() && group.name == name);
    match shared {
        Some(group) => {
            let mut listeners = group.listeners.clone();
            listeners.push(Arc::clone(listener));
            let filter = subscription.filter.clone();
            *group = Arc::new(Group { name, filter, listeners, next: AtomicUsize::new(0) });
        }
        None => groups.push(Arc::new(Group {
            name,
            filter: subscription.filter.clone(),
            listeners: vec![Arc::clone(listener)],
            next: AtomicUsize::new(0),
        })),
    }
}

fn leave(groups: &mut Vec<Arc<Group>>, listener: &Arc<Listener>) {
    for group in groups.iter_mut() {
        let listeners: Vec<_> =
            group.listeners.iter().filter(|one| !Arc::ptr_eq(one, listener)).cloned().collect();
        if listeners.len() != group.listeners.len() {
            let (name, filter) = (group.name.clone(), group.filter.clone());
            *group = Arc::new(Group { name, filter, listeners, next: AtomicUsize::new(0) });
        }
    }
    groups.retain(|group| !group.listeners.is_empty());
}

/// The registration of a command. Its calls run on their callers' tasks, so there is nothing to wait for when it stops.
pub(super) struct ServerFeed {
    address: Address,
    consumer: Arc<dyn Consumer>,
    bridge: Weak<Inner>,
}

impl ServerFeed {
    pub(super) fn new(address: Address, consumer: Arc<dyn Consumer>, bridge: Weak<Inner>) -> Self {
        Self { address, consumer, bridge }
    }
}

impl Feed for ServerFeed {
    fn resume(&self) {}

    fn paused(&self) -> Option<String> {
        None
    }

    fn stop(&self) -> BoxFuture<'static, ()> {
        if let Some(bridge) = self.bridge.upgrade() {
            bridge.routing.rcu(|routing| routing.without_server(&self.address, &self.consumer));
        }
        Box::pin(std::future::ready(()))
    }
}

/// The registration of a listener: the pump behind its queue.
pub(super) struct ListenerFeed {
    listener: Arc<Listener>,
    pump: Arc<Registration>,
    bridge: Weak<Inner>,
}

impl ListenerFeed {
    pub(super) fn new(listener: Arc<Listener>, pump: Registration, bridge: Weak<Inner>) -> Self {
        Self { listener, pump: Arc::new(pump), bridge }
    }
}

impl Feed for ListenerFeed {
    fn resume(&self) {
        self.pump.resume();
    }

    fn paused(&self) -> Option<String> {
        self.pump.paused()
    }

    fn stop(&self) -> BoxFuture<'static, ()> {
        if let Some(bridge) = self.bridge.upgrade() {
            bridge.routing.rcu(|routing| routing.without_listener(&self.listener));
        }
        let pump = Arc::clone(&self.pump);
        Box::pin(async move { pump.stop().await })
    }
}
