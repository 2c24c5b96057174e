//! The bridge over core NATS.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use purista_core::bridge::{
    Answer, Asking, BridgeError, BridgeErrorKind, BridgeState, COMMAND_TIMEOUT, Capabilities, Consumer,
    EventBridge, Registration,
};
use purista_core::id::Id;
use purista_core::message::{HOPS_MAX, Message};
use purista_core::subscription::{Sharing, Subscription};
use tokio::sync::{OnceCell, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::address::{queue_group, subject_of, subjects_of};
use crate::bucket::{Bucket, Ending};
use crate::confirm::Confirm;
use crate::durable::DurableFeed;
use crate::feed::{Intake, NatsFeed};
use crate::inbox::Inbox;
use crate::jetstream::{Streams, kept_subjects};
use crate::key_value::{CONFIG_BUCKET, NatsConfigStore, NatsStateStore, STATE_BUCKET};
use crate::link::{CONNECT_TIMEOUT, Link, closed, encode, rejected};
use crate::wire;

/// How long the end of the connection may take, once everything in flight is settled.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// After which time a connection is looked at again that did not answer.
const WELCOME_PAUSE: Duration = Duration::from_millis(500);

/// Carries messages over core NATS, as PURISTA 2.x does.
///
/// **What `Ok` of a publish means.** The message was written, and the server has answered something that was written behind
/// it on the same connection; so it has read the message and handed it to whoever subscribed. More there is not on core
/// NATS: whether a subscriber handled it, nobody says. `Rejected` means that it was never written, `Unknown` that the
/// connection was lost in between, `Timeout` that the server did not answer before the deadline.
///
/// **State.** `Connected` means that the server has read all subscriptions, also after a lost connection.
///
/// **What is lost, and how one knows.** A message that comes faster than its subscription is consumed waits in a bounded
/// queue; past that it is lost, logged as an error, and counted in [`NatsBridge::messages_dropped`]. A retry waits in this
/// process. What must survive is recorded in a store.
///
/// **Order.** A subscription with one message in flight gets the messages of one sender in order; one to several events
/// gets them in order for each name.
///
/// **When a subscription is stopped**, what the server had handed to this process is still consumed. The client asks for no
/// more and lets go as soon as it has read what has arrived; a message that is on the wire in that very instant is lost,
/// and the caller of a command hears of it at its deadline.
///
/// Dropping a bridge ends it without waiting; [`EventBridge::close`] waits.
pub struct NatsBridge(Inner);

struct Inner {
    link: Link,
    inbox: Inbox,
    confirm: Confirm,
    /// What keeps events, where it was asked for.
    streams: Option<Streams>,
    feeds: Mutex<Vec<Arc<dyn Intake>>>,
    /// The buckets that end with this bridge, as far as they are there.
    buckets: Mutex<Vec<Ending>>,
    /// The pumps of the feeds, and the two tasks behind inbox and echoes.
    tasks: TaskTracker,
    /// Ends those two.
    stop: CancellationToken,
    /// Counts what callers wait for.
    calls: TaskTracker,
    /// The client's own tasks are over.
    ended: CancellationToken,
    closed: OnceCell<()>,
}

impl NatsBridge {
    pub(crate) async fn start(
        link: Link,
        streams: Option<Streams>,
        ended: CancellationToken,
    ) -> Result<Self, BridgeError> {
        let (inbox, stop, tasks) = (Inbox::new(&link), CancellationToken::new(), TaskTracker::new());
        let subscriber = link.client.subscribe(inbox.wildcard()).await;
        let subscriber =
            subscriber.map_err(|error| rejected("subscribe to replies failed").with_source(error))?;
        tasks.spawn(inbox.clone().run(subscriber, link.clone(), stop.clone()));
        let (confirm, echoing) = Confirm::new(link.clone(), inbox.clone(), stop.clone());
        tasks.spawn(echoing);
        tasks.spawn(stop.clone().run_until_cancelled_owned(welcome(link.clone(), confirm.clone())));
        let mut state = link.watch.state();
        let connected = state.wait_for(|state| *state == BridgeState::Connected);
        let in_time = tokio::time::timeout(CONNECT_TIMEOUT, connected).await.is_ok_and(|state| state.is_ok());
        let (feeds, buckets) = (Mutex::default(), Mutex::default());
        let (calls, closed) = (TaskTracker::new(), OnceCell::new());
        let bridge =
            Self(Inner { link, inbox, confirm, streams, feeds, buckets, tasks, stop, calls, ended, closed });
        if in_time { Ok(bridge) } else { Err(rejected("the NATS server does not let us hear ourselves")) }
    }

    /// State for a host without a store, in the server's bucket [`STATE_BUCKET`]. It is found, or made with the last value of
    /// each key on as many servers as `replicas` says. It works as long as the bridge.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), purista_core::bridge::BridgeError> {
    /// use purista_nats::bridge::NatsBridge;
    ///
    /// let bridge = NatsBridge::connect("nats://127.0.0.1:4222").await?;
    /// let state = bridge.state_store(1).await?;
    /// // Host::builder().bridge(bridge).state_store(state)
    /// # drop((bridge, state)); Ok(())
    /// # }
    /// ```
    pub async fn state_store(&self, replicas: usize) -> Result<NatsStateStore, BridgeError> {
        Ok(NatsStateStore(self.bucket(STATE_BUCKET, replicas).await?))
    }

    /// Configuration in the server's bucket [`CONFIG_BUCKET`]; the rest is as for [`Self::state_store`].
    pub async fn config_store(&self, replicas: usize) -> Result<NatsConfigStore, BridgeError> {
        Ok(NatsConfigStore(self.bucket(CONFIG_BUCKET, replicas).await?))
    }

    async fn bucket(&self, name: &str, replicas: usize) -> Result<Bucket, BridgeError> {
        let _caller = self.0.enter()?;
        let bucket = Bucket::open(&self.0.link, name, replicas).await?;
        let mut buckets = self.0.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.retain(|bucket| !bucket.is_over());
        buckets.push(bucket.ending());
        drop(buckets);
        Ok(bucket)
    }

    /// How many messages were lost so far: their subscription's queue was full, or they were no messages.
    pub fn messages_dropped(&self) -> u64 {
        self.0.link.watch.dropped()
    }

    /// How many replies came for which nobody waited any more: after the deadline of their call, twice, or forged. They were
    /// dropped.
    pub fn replies_unclaimed(&self) -> u64 {
        self.0.link.watch.replies.unclaimed()
    }
}

/// Says that the bridge is connected when the server has read its subscriptions, which the client repeats at the beginning
/// of every connection: who waits for `Connected` can count on being heard.
async fn welcome(link: Link, confirm: Confirm) {
    let mut last = None;
    while let Some(connection) = link.watch.next_connection(last).await {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        if confirm.read_by_server(&link, link.connects(), deadline).await.is_ok() {
            link.watch.welcome(connection);
            last = Some(connection);
        } else {
            // The news of its loss is on its way, or the server is slow.
            let _ = tokio::time::timeout(WELCOME_PAUSE, link.watch.lost()).await;
        }
    }
}

impl Inner {
    /// Counts a caller, whom `close` waits for.
    fn enter(&self) -> Result<TaskTrackerToken, BridgeError> {
        let token = self.calls.token();
        if self.link.watch.closing.is_cancelled() { Err(closed()) } else { Ok(token) }
    }

    async fn publish(&self, message: Message) -> Result<(), BridgeError> {
        let _caller = self.enter()?;
        let deadline = message.deadline.unwrap_or_else(|| Instant::now() + COMMAND_TIMEOUT);
        if let Some(streams) = self.streams.as_ref().filter(|_| Streams::keeps(&message)) {
            return streams.publish(&self.link, &message, deadline).await;
        }
        self.link.watch.up_until(deadline).await?;
        let connects = self.link.connects();
        self.link.write_routed(&message, deadline).await?;
        self.confirm.read_by_server(&self.link, connects, deadline).await
    }

    async fn request(&self, command: Box<Message>) -> Answer {
        let _caller = self.enter()?;
        if command.hops > HOPS_MAX {
            return Err(rejected(format!("more than {HOPS_MAX} messages cause one another")));
        }
        if command.receiver.is_none() {
            return Err(BridgeError::new(BridgeErrorKind::Unroutable, "nobody is asked"));
        }
        let deadline = command.deadline.unwrap_or_else(|| Instant::now() + COMMAND_TIMEOUT);
        self.link.watch.standing.asked(command, deadline, |command| self.ask(command, deadline)).await
    }

    async fn ask(&self, mut command: Box<Message>, deadline: Instant) -> Answer {
        let correlation_id = command.correlation_id.get_or_insert_with(|| self.link.clock.id()).clone();
        self.link.watch.up_until(deadline).await?;
        let pending = self.link.watch.replies.expect(correlation_id.clone())?;
        let (subject, headers) = (subject_of(&self.link.prefix, &command), wire::headers(&command));
        let reply_to = Some(self.inbox.reply_to(&correlation_id).into());
        self.link.write(subject.into(), reply_to, headers, encode(&command)?, deadline).await?;
        pending.until(deadline).await.map(Box::new)
    }

    async fn subscribe(
        &self,
        subscription: Subscription,
        consumer: Arc<dyn Consumer>,
    ) -> Result<Registration, BridgeError> {
        let _caller = self.enter()?;
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        self.link.watch.up_until(deadline).await?;
        if subscription.durable {
            return self.subscribe_durable(subscription, consumer).await;
        }
        let group = queue_group(&self.link.prefix, &subscription);
        let mut subscribers = Vec::new();
        for subject in subjects_of(&self.link.prefix, &subscription.filter) {
            let subscribing = async {
                match group.clone() {
                    Some(group) => self.link.client.queue_subscribe(subject, group).await,
                    None => self.link.client.subscribe(subject).await,
                }
            };
            let subscribed = tokio::time::timeout_at(deadline, subscribing).await;
            let subscribed =
                subscribed.map_err(|_| rejected("the queue to NATS was full until the deadline"))?;
            let failed = |error| rejected(format!("subscribe {subscription} failed")).with_source(error);
            subscribers.push(subscribed.map_err(failed)?);
        }
        self.until_read(deadline).await?;
        let (link, streams) = (self.link.clone(), self.streams.clone());
        Ok(self.fed(NatsFeed::start(link, streams, subscription, subscribers, consumer, &self.tasks)))
    }

    async fn subscribe_durable(
        &self,
        subscription: Subscription,
        consumer: Arc<dyn Consumer>,
    ) -> Result<Registration, BridgeError> {
        let refused = |why: &str| Err(rejected(format!("{subscription} cannot be durable on NATS: {why}")));
        let Some(streams) = &self.streams else {
            return refused("the bridge was built without `.jetstream(..)`, so nothing is kept");
        };
        if subscription.answers {
            return refused("a stream over commands would answer them before their handlers do");
        }
        if subscription.sharing == Sharing::EveryInstance {
            return refused("its progress is one, its instances are many");
        }
        if kept_subjects(&self.link.prefix, &subscription.filter).is_empty() {
            return refused("streams keep only events, on their own or on the answer to a command");
        }
        let (link, streams) = (self.link.clone(), streams.clone());
        Ok(self.fed(DurableFeed::start(link, streams, subscription, consumer, &self.tasks).await?))
    }

    fn fed(&self, feed: Arc<impl Intake + 'static>) -> Registration {
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        feeds.retain(|feed| !feed.is_stopped());
        feeds.push(Arc::clone(&feed) as Arc<dyn Intake>);
        Registration::new(feed.feed())
    }

    /// Waits until the server has read the new subscriptions. The client repeats them after a lost connection.
    async fn until_read(&self, deadline: Instant) -> Result<(), BridgeError> {
        loop {
            self.link.watch.up_until(deadline).await?;
            match self.confirm.read_by_server(&self.link, self.link.connects(), deadline).await {
                Err(error) if error.kind() == BridgeErrorKind::Unknown => {}
                Err(error) => return Err(rejected("the NATS server took no subscription").with_source(error)),
                Ok(()) => return Ok(()),
            }
        }
    }

    async fn stop_feeds(&self) {
        let feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner).clone();
        join_all(feeds.into_iter().map(|feed| feed.feed().stop())).await;
    }

    async fn close(&self) {
        self.link.watch.close();
        self.stop_feeds().await;
        self.calls.close();
        self.calls.wait().await;
        // Those of callers who were about to subscribe.
        self.stop_feeds().await;
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        if self.link.watch.is_up() {
            // The last replies; an error says that the connection is gone, and they with it.
            let read = self.confirm.read_by_server(&self.link, self.link.connects(), deadline).await;
            if let Err(error) = read {
                tracing::error!(error = &error as &dyn std::error::Error, "the last replies may be lost");
            }
        }
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        if let Some(streams) = &self.streams {
            streams.end();
        }
        for bucket in self.buckets.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            bucket.end();
        }
        let ending = async {
            // The queue to the server is full and nobody empties it: the client ends by itself, see `connect`.
            let _ = self.link.client.drain().await;
            self.ended.cancelled().await;
        };
        if tokio::time::timeout_at(deadline, ending).await.is_err() {
            tracing::warn!("the connection to NATS ends later than the bridge");
        }
    }
}

impl EventBridge for NatsBridge {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "nats",
            is_local: false,
            durable: self.0.streams.is_some(),
            from_start: self.0.streams.is_some(),
            delayed_retry: true,
            dead_letters: self.0.streams.is_some(),
            pause: true,
            ordered: true,
            unroutable_at_once: true,
            message_bytes_max: self.0.link.client.max_payload(),
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
        self.0.link.watch.state()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), BridgeError>> {
        Box::pin(async move {
            self.0.closed.get_or_init(|| self.0.close()).await;
            Ok(())
        })
    }
}

impl Drop for NatsBridge {
    fn drop(&mut self) {
        self.0.link.watch.close();
        self.0.stop.cancel();
        let feeds = self.0.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        feeds.iter().for_each(|feed| feed.drain());
    }
}

impl fmt::Debug for NatsBridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsBridge")
            .field("instance", &self.0.link.instance)
            .field("state", &*self.0.link.watch.state().borrow())
            .finish_non_exhaustive()
    }
}
