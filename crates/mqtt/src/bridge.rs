//! The bridge over MQTT 5.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{BoxFuture, join_all};
use purista_core::bridge::{
    Answer, Asking, BridgeError, BridgeErrorKind, BridgeState, COMMAND_TIMEOUT, Capabilities, Consumer,
    EventBridge, Feed, Registration,
};
use purista_core::id::Id;
use purista_core::message::{HOPS_MAX, Message};
use purista_core::subscription::{Sharing, Subscription};
use rumqttc::{Publish, QoS};
use tokio::sync::{OnceCell, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::address::{ShareNames, all_filters_of, filters_of, replies_filter, session_of, unserved_topic};
use crate::dial::{CONNECT_TIMEOUT, Dial, Keeping, PACKET_HEAD_USUAL, Place};
use crate::durable::{Keeper, waiting_max};
use crate::feed::{Handle, MqttFeed, Origin};
use crate::hub::Hub;
use crate::in_hand::InHand;
use crate::line::Taken;
use crate::link::{Link, closed, rejected};
use crate::queue::Queue;
use crate::session::Session;
use crate::wire;

/// Carries messages over MQTT 5, as PURISTA 2.x does.
///
/// **What `Ok` of a publish means.** The broker has confirmed that it has the message (PUBACK at QoS 1). `Rejected` means that
/// it was not sent, or that the broker refused it, `Unknown` that the connection was lost before its word, `Timeout` that
/// the word did not come before the deadline. Nothing is sent again behind the caller's back.
///
/// **Durable subscriptions** have a session each, under the client id and the subscription's name, with a connection of its
/// own. A message is acknowledged when it is done; what is not comes again, to the same process when it comes back. When
/// such a subscription is stopped its session stays; it ends when it has been away for as long as the builder says.
///
/// **What the broker stores depends on its settings.** mosquitto 2.0 stores `max_queued_messages` (1,000 by default) for a
/// session whose process is away and drops more without reporting it, although it confirmed them to their sender. It keeps
/// sessions over its own crash with `persistence true`, `autosave_on_changes true` and `autosave_interval 1`; with the default
/// interval of 1,800 it writes only after so many changes. Even then it confirms a message before it writes it, so that the one
/// that it confirmed in its last instant is gone. It forgets shared subscriptions when it restarts, see
/// [`durable_in_one_process`](crate::connect::Builder::durable_in_one_process). Without `set_tcp_nodelay true` each call
/// through it takes 40 ms more. What a broker lost of events that a host recorded, that host sends again from its log: see
/// `purista relay resend`.
///
/// **A session whose process ended for good** is stored until it expires, and takes its share of a shared subscription:
/// [`MqttBridge::retire_session`] ends it.
///
/// **What is lost, and how one knows.** A message that comes faster than a subscription that is not durable is consumed waits
/// in a bounded queue; past that it is lost, logged as an error, and counted in [`MqttBridge::messages_dropped`]. So is what
/// is no message, and what ends as a dead letter. A retry waits in this process; of a durable subscription the broker keeps
/// the message meanwhile.
///
/// **Order.** A subscription with one message in flight gets the messages of one sender in order; one to several events
/// gets them in order for each name.
///
/// **Nobody serves a command.** The broker says so, or does not: at the start it is asked about a command that nobody serves,
/// and [`Capabilities::unroutable_at_once`] is its answer.
///
/// Dropping a bridge ends it without waiting; [`EventBridge::close`] waits.
pub struct MqttBridge(Inner);

/// How the sessions of durable subscriptions are kept.
pub(crate) struct Sessions {
    /// The name of this process at the broker, the same at each start.
    pub(crate) client_id: Option<String>,
    pub(crate) expiry_s: u32,
    /// Whether no other process runs the same subscriptions.
    pub(crate) are_alone: bool,
}

struct Inner {
    link: Arc<Link>,
    place: Place,
    sessions: Sessions,
    subscription_capacity: usize,
    hub: Arc<Hub>,
    session: Arc<Session>,
    unroutable_at_once: bool,
    /// Whether it was logged which settings of the broker durable subscriptions need.
    has_told_of_settings: AtomicBool,
    feeds: Mutex<Vec<Arc<MqttFeed>>>,
    /// The pumps of the feeds, their ends, and the sessions.
    tasks: TaskTracker,
    /// Counts what callers wait for.
    calls: TaskTracker,
    closed: OnceCell<()>,
}

impl MqttBridge {
    pub(crate) async fn start(
        link: Arc<Link>,
        place: Place,
        sessions: Sessions,
        subscription_capacity: usize,
    ) -> Result<Self, BridgeError> {
        let (hub, tasks) = (Hub::new(Arc::clone(&link)), TaskTracker::new());
        let dial = Dial::new(place.clone(), link.instance.text().into_owned(), Keeping::Nothing);
        let role = Arc::clone(&hub);
        let session = Session::start(Arc::clone(&link), dial, role, true, &tasks).await?;
        let inner = Inner {
            link,
            place,
            sessions,
            subscription_capacity,
            hub,
            session,
            unroutable_at_once: false,
            has_told_of_settings: AtomicBool::new(false),
            feeds: Mutex::default(),
            tasks,
            calls: TaskTracker::new(),
            closed: OnceCell::new(),
        };
        // From here on its drop ends what it has begun.
        let mut bridge = Self(inner);
        bridge.0.unroutable_at_once = bridge.0.prepare().await?;
        Ok(bridge)
    }

    /// How many messages were lost so far: their subscription's queue was full, they were no messages, or nobody could
    /// handle them.
    pub fn messages_dropped(&self) -> u64 {
        self.0.link.dropped()
    }

    /// The address of the broker, and what identifies this process to it.
    pub(crate) fn place(&self) -> Place {
        self.0.place.clone()
    }

    /// How many replies came for which nobody waited any more: after the deadline of their call, twice, or forged. They were
    /// dropped.
    pub fn replies_unclaimed(&self) -> u64 {
        self.0.link.replies.unclaimed()
    }
}

impl Inner {
    /// Hears itself, and asks the broker whether it says when nobody else does.
    async fn prepare(&self) -> Result<bool, BridgeError> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let instance = self.link.instance.text();
        let replies = replies_filter(&self.link.prefix, &instance);
        self.hub.expect_replies(&self.session, replies, deadline).await?;
        let unserved =
            Publish::new(unserved_topic(&self.link.prefix, &instance), QoS::AtLeastOnce, Vec::new(), None);
        let line = self.session.line(deadline).await?;
        // A broker that lets us not ask does not say.
        Ok(line.publish(unserved, deadline).await.is_ok_and(|taken| taken == Taken::Unheard))
    }

    /// Counts a caller, whom `close` waits for.
    fn enter(&self) -> Result<TaskTrackerToken, BridgeError> {
        let token = self.calls.token();
        if self.link.closing.is_cancelled() { Err(closed()) } else { Ok(token) }
    }

    /// Ends what waits for a connection when the bridge closes: it never happened.
    async fn unless_closing<T>(
        &self,
        waiting: impl Future<Output = Result<T, BridgeError>>,
    ) -> Result<T, BridgeError> {
        tokio::select! {
            biased;
            waited = waiting => waited,
            () = self.link.closing.cancelled() => Err(closed()),
        }
    }

    fn publication(&self, message: &Message) -> Result<Publish, BridgeError> {
        let raw = wire::publication(&self.link.prefix, message, Instant::now())?;
        let (bytes, most) = (raw.payload.len(), self.message_bytes_max());
        if bytes > most {
            return Err(BridgeError::too_large(bytes, most));
        }
        Ok(raw)
    }

    async fn publish(&self, message: Message) -> Result<(), BridgeError> {
        let _caller = self.enter()?;
        let deadline = message.deadline.unwrap_or_else(|| Instant::now() + COMMAND_TIMEOUT);
        let line = self.unless_closing(self.session.line(deadline)).await?;
        line.publish(self.publication(&message)?, deadline).await.map(|_| ())
    }

    async fn request(&self, command: Box<Message>) -> Answer {
        let _caller = self.enter()?;
        if command.hops > HOPS_MAX {
            return Err(rejected(format!("more than {HOPS_MAX} messages cause one another")));
        }
        if command.receiver.is_none() {
            return unroutable("nobody is asked");
        }
        let deadline = command.deadline.unwrap_or_else(|| Instant::now() + COMMAND_TIMEOUT);
        let standing = &self.link.standing.of_all;
        standing.asked(command, deadline, |command| self.ask(command, deadline)).await
    }

    async fn ask(&self, mut command: Box<Message>, deadline: Instant) -> Answer {
        let correlation_id = command.correlation_id.get_or_insert_with(|| self.link.clock.id()).clone();
        let line = self.unless_closing(self.session.line(deadline)).await?;
        // The reply goes to the sender, so that there has to be one that hears it.
        let sender = command.sender.instance.get_or_insert_with(|| self.link.instance.clone());
        if *sender != self.link.instance {
            let replies = replies_filter(&self.link.prefix, &sender.text());
            self.hub.expect_replies(&self.session, replies, deadline).await?;
        }
        let raw = self.publication(&command)?;
        let pending = self.link.replies.expect(correlation_id)?;
        let sending = async {
            match line.publish(raw, deadline).await {
                Ok(Taken::Taken) => std::future::pending().await,
                Ok(Taken::Unheard) => unroutable("nobody serves the command"),
                Err(error) => Err(error),
            }
        };
        tokio::select! {
            biased;
            refused = sending => refused,
            reply = pending.until(deadline) => reply.map(Box::new),
        }
    }

    async fn subscribe(
        &self,
        subscription: Subscription,
        consumer: Arc<dyn Consumer>,
    ) -> Result<Registration, BridgeError> {
        let _caller = self.enter()?;
        if subscription.durable && subscription.sharing == Sharing::EveryInstance {
            let why = "its progress is one, its instances are many";
            return Err(rejected(format!("{subscription} cannot be durable and on every instance: {why}")));
        }
        if subscription.from_start {
            let why = "a session holds what came since it began; publish it again, or leave out `from_start`";
            return Err(rejected(format!(
                "{subscription} cannot begin with what was published before it: {why}"
            )));
        }
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        let (origin, queue) = if subscription.durable {
            self.unless_closing(self.own_session(&subscription, deadline)).await?
        } else {
            self.at_hub(&subscription, deadline).await?
        };
        let (link, replying) = (Arc::clone(&self.link), Arc::clone(&self.session));
        let feed = MqttFeed::start(link, subscription, origin, replying, queue, consumer, &self.tasks);
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        feeds.retain(|feed| !feed.is_stopped());
        feeds.push(Arc::clone(&feed));
        Ok(Registration::new(Arc::new(Handle(feed))))
    }

    async fn at_hub(
        &self,
        subscription: &Subscription,
        deadline: Instant,
    ) -> Result<(Origin, Arc<Queue>), BridgeError> {
        let queue = Queue::new(self.subscription_capacity);
        let takes_turns = subscription.sharing == Sharing::Shared;
        let inlet = self.hub.inlet(subscription.address.clone(), takes_turns, Arc::clone(&queue));
        let filters = filters_of(&self.link.prefix, subscription, self.link.share_names);
        let undo = Undo::new({
            let (hub, session, tasks) =
                (Arc::clone(&self.hub), Arc::clone(&self.session), self.tasks.clone());
            let (inlet, queue) = (inlet.clone(), Arc::clone(&queue));
            move || {
                // Its share of the messages goes to others at once.
                queue.close();
                tasks.spawn(async move { hub.remove(&session, &inlet).await });
            }
        });
        self.hub.add(&self.session, &filters, &inlet, deadline).await?;
        undo.keep();
        Ok((Origin::Hub(Arc::clone(&self.hub), inlet), queue))
    }

    /// A session that outlives this process, for one durable subscription.
    async fn own_session(
        &self,
        subscription: &Subscription,
        deadline: Instant,
    ) -> Result<(Origin, Arc<Queue>), BridgeError> {
        let Some(client_id) = &self.sessions.client_id else {
            return Err(rejected(format!(
                "the durable subscription {subscription} needs a bridge with a client id of its own, the same at each start"
            )));
        };
        if subscription.answers {
            return Err(rejected(format!("the command {subscription} cannot be durable on MQTT")));
        }
        self.warn_of_settings(subscription);
        let in_flight = u16::try_from(subscription.in_flight.max(1)).unwrap_or(u16::MAX);
        let keeping = Keeping::Durable { expiry_s: self.sessions.expiry_s, in_flight };
        let dial = Dial::new(self.place.clone(), session_of(client_id, &subscription.address), keeping);
        let queue = Queue::new(waiting_max(self.subscription_capacity, in_flight.into()));
        let mut at_broker = subscription.clone();
        if self.sessions.are_alone {
            at_broker.sharing = Sharing::EveryInstance;
        } else if at_broker.sharing == Sharing::Shared {
            tracing::warn!(
                %subscription,
                "a broker that forgets shared subscriptions when it restarts, as mosquitto 2.0 does, keeps nothing for this \
                 one until its processes are back; `durable_in_one_process` is for those that run in one"
            );
        }
        let filters = filters_of(&self.link.prefix, &at_broker, self.link.share_names);
        let mut former = all_filters_of(&self.link.prefix, subscription);
        former.retain(|filter| !filters.contains(filter));
        let keeper = Keeper::new(
            subscription.clone(),
            filters,
            former,
            Arc::clone(&queue),
            self.link.message_bytes_max,
        );
        let session = Session::start(Arc::clone(&self.link), dial, keeper, false, &self.tasks).await?;
        let undo = Undo::new({
            let session = Arc::clone(&session);
            move || session.end()
        });
        session.line(deadline).await?;
        undo.keep();
        Ok((Origin::Own(session, InHand::new(in_flight.into())), queue))
    }

    /// Logs what of a durable subscription depends on settings that the bridge cannot read.
    fn warn_of_settings(&self, subscription: &Subscription) {
        if !self.has_told_of_settings.swap(true, Ordering::Relaxed) {
            tracing::info!(
                "durable subscriptions on MQTT miss what the broker does not store: mosquitto drops messages beyond \
                 `max_queued_messages` (1000 by default) for a process that is away, and needs `persistence true`, \
                 `autosave_on_changes true` and `autosave_interval 1` to store them over its own crash"
            );
        }
        let is_shared = subscription.sharing == Sharing::Shared && !self.sessions.are_alone;
        if is_shared && self.link.share_names == ShareNames::AsPurista {
            tracing::warn!(
                %subscription,
                "a durable subscription under PURISTA's one share name takes events from every other subscription to them, of \
                 other services too, and its session takes them while its process is away; use `ShareNames::OneEach`, or \
                 retire the session of a process that does not come back"
            );
        }
    }

    fn message_bytes_max(&self) -> usize {
        let theirs = self.session.line_now().map_or(usize::MAX, |line| line.packet_bytes_max);
        let theirs = theirs.min(self.link.refused.most());
        self.link.message_bytes_max.min(theirs.saturating_sub(PACKET_HEAD_USUAL.min(theirs / 2)))
    }

    async fn stop_feeds(&self) {
        let feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner).clone();
        join_all(feeds.into_iter().map(|feed| Handle(feed).stop())).await;
    }

    async fn close(&self) {
        self.link.close();
        self.stop_feeds().await;
        self.calls.close();
        self.calls.wait().await;
        // Those of callers who were about to subscribe.
        self.stop_feeds().await;
        self.session.stop().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn unroutable<T>(what: &str) -> Result<T, BridgeError> {
    Err(BridgeError::new(BridgeErrorKind::Unroutable, what))
}

/// Takes back what was begun for a subscription, when it fails or its caller goes away.
struct Undo<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Undo<F> {
    fn new(undo: F) -> Self {
        Self(Some(undo))
    }

    fn keep(mut self) {
        self.0 = None;
    }
}

impl<F: FnOnce()> Drop for Undo<F> {
    fn drop(&mut self) {
        if let Some(undo) = self.0.take() {
            undo();
        }
    }
}

impl EventBridge for MqttBridge {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "mqtt",
            is_local: false,
            durable: self.0.sessions.client_id.is_some(),
            from_start: false,
            delayed_retry: true,
            dead_letters: false,
            pause: true,
            ordered: true,
            unroutable_at_once: self.0.unroutable_at_once,
            message_bytes_max: self.0.message_bytes_max(),
        }
    }

    fn instance(&self) -> Id {
        self.0.link.instance.clone()
    }

    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), BridgeError>> {
        Box::pin(self.0.publish(message))
    }

    fn request(&self, command: Box<Message>) -> Asking<'_> {
        Asking::new(self.0.request(command))
    }

    fn subscribe(
        &self,
        subscription: Subscription,
        consumer: Arc<dyn Consumer>,
    ) -> BoxFuture<'_, Result<Registration, BridgeError>> {
        Box::pin(self.0.subscribe(subscription, consumer))
    }

    fn state(&self) -> watch::Receiver<BridgeState> {
        self.0.link.standing.state()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), BridgeError>> {
        Box::pin(async move {
            self.0.closed.get_or_init(|| self.0.close()).await;
            Ok(())
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.link.close();
        let feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        feeds.iter().for_each(|feed| feed.drain());
        self.session.end();
    }
}

impl fmt::Debug for MqttBridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MqttBridge")
            .field("instance", &self.0.link.instance)
            .field("state", &*self.0.link.standing.state().borrow())
            .finish_non_exhaustive()
    }
}
