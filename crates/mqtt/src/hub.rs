//! The connection for everything that does not outlive it: calls and their replies, events, subscriptions that are not
//! durable.
//!
//! One subscription of the broker for each filter, and fan-out here: a second one to the same filter would take the place of
//! the first.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt, stream};
use purista_core::address::Address;
use purista_core::bridge::{BridgeError, BridgeErrorKind};
use rumqttc::Publish;
use tokio::time::Instant;

use crate::dial::CONNECT_TIMEOUT;
use crate::line::Line;
use crate::link::{Link, rejected};
use crate::queue::{Arrival, Queue};
use crate::session::{Role, Session};
use crate::wire;

/// How many subscriptions are asked for at a time on a fresh connection.
const GREETING_AT_ONCE: usize = 16;
/// How many foreign instances replies are taken for; see [`Hub::expect_replies`].
const FOREIGN_INSTANCES_MAX: usize = 64;

/// Routes what arrives by the identifier of its subscription.
pub(crate) struct Hub {
    link: Arc<Link>,
    routes: Mutex<Routes>,
    /// Held while subscriptions at the broker change, so that a greeting finds them whole.
    changing: tokio::sync::Mutex<()>,
}

struct Routes {
    by_id: HashMap<usize, Route>,
    id_next: usize,
    inlet_next: u64,
}

/// One subscription at the broker.
#[derive(Default)]
struct Route {
    filter: String,
    /// Whether it brings replies to the calls of this process.
    is_for_replies: bool,
    is_granted: bool,
    inlets: Vec<Inlet>,
    turn: usize,
}

/// Where the messages of one subscription go.
#[derive(Clone)]
pub(crate) struct Inlet {
    number: u64,
    /// Inlets of one name take turns, when the subscription is shared; else it is absent.
    turns: Option<Address>,
    name: Address,
    queue: Arc<Queue>,
}

impl Hub {
    pub(crate) fn new(link: Arc<Link>) -> Arc<Self> {
        // 0 is no identifier.
        let routes = Routes { by_id: HashMap::new(), id_next: 1, inlet_next: 0 };
        Arc::new(Self { link, routes: Mutex::new(routes), changing: tokio::sync::Mutex::default() })
    }

    /// A place for the messages of one subscription.
    pub(crate) fn inlet(&self, name: Address, takes_turns: bool, queue: Arc<Queue>) -> Inlet {
        let mut routes = self.lock();
        routes.inlet_next = routes.inlet_next.saturating_add(1);
        let turns = takes_turns.then(|| name.clone());
        Inlet { number: routes.inlet_next, turns, name, queue }
    }

    /// Feeds an inlet from these filters, once the broker has granted them. Where that fails, or its caller goes away, the
    /// inlet has to be removed.
    pub(crate) async fn add(
        &self,
        session: &Session,
        filters: &BTreeSet<String>,
        inlet: &Inlet,
        deadline: Instant,
    ) -> Result<(), BridgeError> {
        let route = |routes: &mut Routes, filter: &str| routes.feed(filter, inlet);
        self.grant(session, filters, route, deadline).await
    }

    /// Takes the replies for an instance of this name. Those of the bridge's own are always taken; a call in another's name
    /// needs that one's too, since PURISTA's servers answer to the sender and to nobody else.
    pub(crate) async fn expect_replies(
        &self,
        session: &Session,
        filter: String,
        deadline: Instant,
    ) -> Result<(), BridgeError> {
        {
            let routes = self.lock();
            let replies = routes.by_id.values().filter(|route| route.is_for_replies);
            if replies.clone().any(|route| route.is_granted && route.filter == filter) {
                return Ok(());
            }
            if replies.count() > FOREIGN_INSTANCES_MAX {
                return Err(rejected("commands are sent in the names of too many instances"));
            }
        }
        let filters = BTreeSet::from([filter]);
        self.grant(session, &filters, Routes::expect_replies, deadline).await
    }

    /// Has the broker grant these filters, each under the identifier that `route` gives it.
    async fn grant(
        &self,
        session: &Session,
        filters: &BTreeSet<String>,
        mut route: impl FnMut(&mut Routes, &str) -> usize,
        deadline: Instant,
    ) -> Result<(), BridgeError> {
        let line = session.line(deadline).await?;
        let granted = async {
            let _changing = self.changing.lock().await;
            // All of them before the first is asked for: when the connection is lost in between, the greeting of the next
            // one finds them.
            let routes: Vec<_> = {
                let mut routes = self.lock();
                filters.iter().map(|filter| (route(&mut routes, filter), filter)).collect()
            };
            for (id, filter) in routes {
                line.subscribe(filter, Some(id), deadline).await?;
                self.lock().by_id.entry(id).and_modify(|route| route.is_granted = true);
            }
            Ok::<_, BridgeError>(())
        };
        match granted.await {
            // The greeting of the next connection subscribes to all there is.
            Err(error) if error.kind() == BridgeErrorKind::Unknown => {
                session.line_after(line.number, deadline).await.map(|_| ())
            }
            granted => granted,
        }
    }

    /// Feeds an inlet no more. What the broker had sent before is in its queue.
    pub(crate) async fn remove(&self, session: &Session, inlet: &Inlet) {
        let _changing = self.changing.lock().await;
        let alone = self.lock().filters_of_only(inlet);
        if let Some(line) = session.line_now() {
            let deadline = Instant::now() + CONNECT_TIMEOUT;
            for filter in &alone {
                line.unsubscribe(filter, deadline).await;
            }
        }
        self.lock().forget(inlet);
    }

    fn lock(&self) -> MutexGuard<'_, Routes> {
        // Nothing in here can panic half-way, so a poisoned table is whole.
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a reply to its call, or says why it is none. What is no reply is not for us: an event may name a receiver.
    fn reply(&self, Arrival { raw, oversize, .. }: &Arrival) {
        let call = wire::correlation_id(raw);
        if let Some(bytes) = oversize {
            let most = self.link.message_bytes_max;
            let what =
                format!("the reply has {bytes} bytes, more than the {most} that the MQTT bridge accepts");
            let too_large = BridgeError::new(BridgeErrorKind::Unknown, what);
            let is_told = call.is_some_and(|call| self.link.replies.refuse(&call, too_large));
            tracing::warn!(is_told, bytes, most, "a reply is too large");
            return;
        }
        match wire::decode(raw, &self.link.clock) {
            Ok(reply) if !reply.kind.is_response() => {}
            Ok(reply) => {
                if !self.link.replies.complete(reply) {
                    tracing::debug!(?call, "a reply came that nobody waits for");
                }
            }
            Err(error) => {
                let unreadable = BridgeError::new(BridgeErrorKind::Unknown, "the reply cannot be read");
                let is_told =
                    call.is_some_and(|call| self.link.replies.refuse(&call, unreadable.with_source(error)));
                tracing::warn!(is_told, bytes = raw.payload.len(), "what came as a reply is no message");
            }
        }
    }
}

impl Role for Hub {
    fn greet(self: Arc<Self>, line: Arc<Line>, _: bool) -> BoxFuture<'static, Result<(), BridgeError>> {
        Box::pin(async move {
            let _changing = self.changing.lock().await;
            let routes: Vec<_> =
                self.lock().by_id.iter().map(|(id, route)| (*id, route.filter.clone())).collect();
            let deadline = Instant::now() + CONNECT_TIMEOUT;
            let asking = routes.into_iter().map(|(id, filter)| {
                let line = Arc::clone(&line);
                async move { line.subscribe(&filter, Some(id), deadline).await }
            });
            stream::iter(asking).buffer_unordered(GREETING_AT_ONCE).try_collect().await
        })
    }

    fn take(&self, line: &Arc<Line>, raw: Publish) {
        let arrival = Arrival::new(raw, line, self.link.message_bytes_max);
        let ids = arrival.raw.properties.as_ref().map_or(&[][..], |found| &found.subscription_identifiers);
        let mut is_reply = false;
        {
            let mut routes = self.lock();
            for id in ids {
                let Some(route) = routes.by_id.get_mut(id) else {
                    tracing::debug!(id, "a message came for a subscription that has ended");
                    continue;
                };
                is_reply |= route.is_for_replies;
                route.turn = route.turn.wrapping_add(1);
                fan_out(&route.inlets, route.turn, &arrival, |inlet| self.lost_for(inlet));
            }
        }
        if is_reply {
            self.reply(&arrival);
        }
    }

    fn interrupted(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    fn lost(&self) {
        // What was asked over the connection is lost with it.
        self.link.replies.abandon();
    }
}

impl Hub {
    fn lost_for(&self, inlet: &Inlet) {
        let dropped = self.link.count_dropped();
        tracing::error!(
            subscription = %inlet.name,
            dropped,
            "a message from MQTT is lost: its subscription's queue is full"
        );
    }
}

/// Gives an arrival to every inlet, and of those that take turns to one.
fn fan_out(inlets: &[Inlet], turn: usize, arrival: &Arrival, lost: impl Fn(&Inlet)) {
    for (index, inlet) in inlets.iter().enumerate() {
        let is_same = |other: &&Inlet| other.turns.is_some() && other.turns == inlet.turns;
        if inlets.iter().take(index).any(|other| is_same(&other)) {
            // The first of them has asked whose turn it is.
            continue;
        }
        let same = || inlets.iter().filter(is_same);
        let whose = turn.checked_rem(same().count()).and_then(|turn| same().nth(turn)).unwrap_or(inlet);
        if !whose.queue.offer(arrival.clone()) {
            lost(whose);
        }
    }
}

impl Routes {
    /// The identifier of a filter, which feeds the inlet from now on.
    fn feed(&mut self, filter: &str, inlet: &Inlet) -> usize {
        let (id, route) = self.route(filter);
        if !route.inlets.iter().any(|other| other.number == inlet.number) {
            route.inlets.push(inlet.clone());
        }
        id
    }

    fn expect_replies(&mut self, filter: &str) -> usize {
        let (id, route) = self.route(filter);
        route.is_for_replies = true;
        id
    }

    fn route(&mut self, filter: &str) -> (usize, &mut Route) {
        let known = self.by_id.iter().find(|(_, route)| route.filter == filter).map(|(id, _)| *id);
        let id = known.unwrap_or(self.id_next);
        self.id_next = self.id_next.max(id.saturating_add(1));
        let fresh = || Route { filter: filter.to_owned(), ..Route::default() };
        (id, self.by_id.entry(id).or_insert_with(fresh))
    }

    /// The filters that feed this inlet and nobody else.
    fn filters_of_only(&self, inlet: &Inlet) -> Vec<String> {
        let is_only = |route: &&Route| {
            matches!(route.inlets.as_slice(), [one] if one.number == inlet.number) && !route.is_for_replies
        };
        self.by_id.values().filter(is_only).map(|route| route.filter.clone()).collect()
    }

    fn forget(&mut self, inlet: &Inlet) {
        self.by_id.retain(|_, route| {
            route.inlets.retain(|other| other.number != inlet.number);
            !route.inlets.is_empty() || route.is_for_replies
        });
    }
}
