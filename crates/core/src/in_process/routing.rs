//! Who gets what: a table that is read on every message and replaced on every registration.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use futures_util::future::BoxFuture;
use rustc_hash::FxHashMap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Inner;
use super::listener::Listener;
use crate::address::Address;
use crate::bridge::{Consumer, Feed, InHand};
use crate::message::{Message, MessageType};
use crate::pump::Control;
use crate::sharded::Sharded;
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
    servers: Vec<Server>,
    next: AtomicUsize,
}

/// One consumer of a command, and the calls that it has in hand.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) consumer: Arc<dyn Consumer>,
    /// Held by the table, and by each call, which runs on its caller's task.
    pub(super) calls: Arc<Sharded<Arc<InHand>>>,
    /// Cancelled when neither the table nor a call holds on to it any more.
    ended: CancellationToken,
}

impl Server {
    /// Calls whose callers go away end on `tasks`.
    pub(super) fn new(consumer: Arc<dyn Consumer>, tasks: &TaskTracker) -> Self {
        let ended = CancellationToken::new();
        let held = Arc::new(ended.clone().drop_guard());
        let in_hand = || Arc::new(InHand::new(tasks.clone(), Arc::clone(&held)));
        Self { consumer, calls: Arc::new(Sharded::new(in_hand)), ended }
    }

    /// Cancelled when nothing is in hand, once it is out of the table.
    pub(super) fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }
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
    pub(super) fn server(&self, address: &Address) -> Option<&Server> {
        let servers = self.servers.get(address)?;
        turn(&servers.next, &servers.servers)
    }

    /// Everybody who serves.
    pub(super) fn all_servers(&self) -> impl Iterator<Item = &Server> {
        self.servers.values().flat_map(|servers| &servers.servers)
    }

    /// Everybody who listens; one who listens to several events comes several times.
    pub(super) fn all_listeners(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.by_event.values().flatten().chain(&self.others).flat_map(|group| &group.listeners)
    }

    /// Whether somebody listens to commands or to responses as such.
    pub(super) fn has_taps(&self) -> bool {
        self.has_taps
    }

    pub(super) fn has_listeners(&self) -> bool {
        !self.by_event.is_empty() || !self.others.is_empty()
    }

    /// One listener of every group whose filter the message passes. A response whose event a log holds is not found by
    /// that event's name: the log delivers it.
    pub(super) fn listeners(&self, message: &Message) -> impl Iterator<Item = &Arc<Listener>> {
        let name =
            message.event_name.as_ref().filter(|_| !(message.kind.is_response() && is_recorded(message)));
        let named = name.and_then(|name| self.by_event.get(name));
        let groups = named.into_iter().flatten().chain(&self.others);
        groups
            .filter(|group| group.filter.matches(message))
            .filter_map(|group| turn(&group.next, &group.listeners))
    }

    pub(super) fn with_server(&self, address: &Address, server: &Server) -> Self {
        self.serving(address, |servers| servers.push(server.clone()))
    }

    fn without_server(&self, address: &Address, server: &Weak<Sharded<Arc<InHand>>>) -> Self {
        self.serving(address, |servers| {
            servers.retain(|one| !std::ptr::eq(Arc::as_ptr(&one.calls), server.as_ptr()));
        })
    }

    fn serving(&self, address: &Address, change: impl FnOnce(&mut Vec<Server>)) -> Self {
        let mut table = self.clone();
        let mut servers =
            table.servers.get(address).map(|servers| servers.servers.clone()).unwrap_or_default();
        change(&mut servers);
        if servers.is_empty() {
            table.servers.remove(address);
        } else {
            table.servers.insert(address.clone(), Arc::new(Servers { servers, next: AtomicUsize::new(0) }));
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

/// Whether a log holds the event that the message is, or is marked with.
pub(super) fn is_recorded(message: &Message) -> bool {
    message.record.as_ref().is_some_and(|record| record.origin.is_some())
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

/// The registration of a command.
pub(super) struct ServerFeed {
    address: Address,
    /// Not held: a server ends when the table lets go of it, whoever keeps the registration.
    calls: Weak<Sharded<Arc<InHand>>>,
    ended: CancellationToken,
    bridge: Weak<Inner>,
}

impl ServerFeed {
    pub(super) fn new(address: Address, server: &Server, bridge: Weak<Inner>) -> Self {
        Self { address, calls: Arc::downgrade(&server.calls), ended: server.ended(), bridge }
    }
}

impl Feed for ServerFeed {
    fn resume(&self) {}

    fn paused(&self) -> Option<String> {
        None
    }

    fn stop(&self) -> BoxFuture<'static, ()> {
        if let Some(bridge) = self.bridge.upgrade() {
            bridge.change(|routing| routing.without_server(&self.address, &self.calls));
        }
        let ended = self.ended.clone();
        Box::pin(async move { ended.cancelled().await })
    }
}

/// The registration of a listener: the pump behind its queue.
pub(super) struct ListenerFeed {
    /// Not held: a queue ends when the table lets go of it, whoever keeps the registration.
    listener: Weak<Listener>,
    pump: Arc<Control>,
    bridge: Weak<Inner>,
}

impl ListenerFeed {
    pub(super) fn new(listener: &Arc<Listener>, bridge: Weak<Inner>) -> Self {
        Self { listener: Arc::downgrade(listener), pump: Arc::clone(listener.pump()), bridge }
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
        if let (Some(bridge), Some(listener)) = (self.bridge.upgrade(), self.listener.upgrade()) {
            bridge.change(|routing| routing.without_listener(&listener));
        }
        let pump = Arc::clone(&self.pump);
        Box::pin(async move {
            // What was published is handled: the queue ends once it is empty, since nobody can put anything into it any more.
            pump.drained().await;
            pump.stop().await;
        })
    }
}
