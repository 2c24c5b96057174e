//! The bridge over RabbitMQ.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, PoisonError};

use futures_util::future::{BoxFuture, join_all};
use purista_core::bridge::{
    Answer, Asking, BridgeError, BridgeErrorKind, BridgeState, COMMAND_TIMEOUT, Capabilities, Consumer,
    EventBridge, Feed, Registration,
};
use purista_core::id::Id;
use purista_core::message::{HOPS_MAX, Message};
use purista_core::subscription::{Sharing, Subscription};
use tokio::sync::{OnceCell, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::error::{closed, rejected};
use crate::feed::{AmqpFeed, Handle};
use crate::link::Link;
use crate::reconnect::{Feeds, Keeper};
use crate::session::Peer;
use crate::wire;

/// Carries messages over RabbitMQ, as PURISTA 2.x does.
///
/// **What `Ok` of a publish means.** The broker has confirmed the message: every durable queue that it belongs to has it on
/// disk. A subscription whose queue was never declared has no queue, and nobody keeps anything for it. `Rejected` means that
/// it was never written, `Unknown` that the connection was lost before the confirmation came, `Timeout` that the broker did
/// not confirm before the deadline.
///
/// **Commands** are acknowledged before they run, so that they run at most once. The answer to one whose server went away is
/// an error at once where another process serves it too, else it ends at its deadline; when the connection is lost it ends
/// as `Unknown`.
///
/// **Durable subscriptions** are acknowledged after their outcome is known. What is to be tried again waits in a queue of
/// the broker with its attempt and its past in headers, see [`crate::history`]; the time is rounded up, at most by half.
/// Dead letters wait in `<queue>.dead-letter`. A message whose handler brings the whole process down comes again without
/// end: a classic queue does not count that.
///
/// **Pauses** live in this process: the broker keeps what comes meanwhile, and after a restart the subscription is fed again.
///
/// **Other subscriptions** are fed as long as they run. A retry waits in this process, and messages for a shared one wait in
/// its queue while all its processes are away without having been stopped.
///
/// **State.** `Connected` means that the broker feeds all subscriptions, also after a lost connection.
///
/// **Order.** A subscription with one message in flight gets the messages of one sender in order; one that comes back comes
/// behind those that came meanwhile.
///
/// Dropping a bridge ends it without waiting; [`EventBridge::close`] waits.
pub struct AmqpBridge(Inner);

struct Inner {
    link: Link,
    feeds: Feeds,
    /// The pumps of the feeds, the connection's keeper, and what was sent and nobody waits for.
    tasks: TaskTracker,
    /// Ends the connection.
    stop: CancellationToken,
    /// Counts what callers wait for.
    calls: TaskTracker,
    closed: OnceCell<()>,
}

impl AmqpBridge {
    pub(crate) async fn start(peer: Peer, link: Link, tasks: TaskTracker) -> Result<Self, BridgeError> {
        let (feeds, stop) = (Feeds::default(), CancellationToken::new());
        let keeper = Keeper {
            peer,
            link: link.clone(),
            feeds: Arc::clone(&feeds),
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        let first = keeper.begin().await?;
        tasks.spawn(keeper.run(first));
        Ok(Self(Inner { link, feeds, tasks, stop, calls: TaskTracker::new(), closed: OnceCell::new() }))
    }

    /// How many messages came so far that could not be read, or were too large.
    pub fn messages_dropped(&self) -> u64 {
        self.0.link.watch.dropped()
    }

    /// How many replies came for which nobody waited any more: after the deadline of their call, twice, or forged. They were
    /// dropped.
    pub fn replies_unclaimed(&self) -> u64 {
        self.0.link.watch.replies.unclaimed()
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
        let (body, properties) = (self.link.encode(&message)?, wire::properties(&message, None)?);
        let session = self.link.watch.up_until(deadline).await?;
        self.link.send_confirmed(&session, self.link.everybody(false), body, properties, deadline).await
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
        let session = self.link.watch.up_until(deadline).await?;
        let pending = self.link.watch.replies.expect(correlation_id)?;
        let properties = wire::properties(&command, Some(session.reply_queue.as_str()))?;
        let (to, body) = (self.link.everybody(true), self.link.encode(&command)?);
        let mut sending = self.link.send(&session, to, body, properties, deadline).await?;
        let mut answered = pin!(pending.until(deadline));
        tokio::select! {
            biased;
            // What comes back for want of a server ends the call like a reply, before its confirmation.
            sent = &mut sending => sent?,
            answer = &mut answered => return answer.map(Box::new),
        }
        answered.await.map(Box::new)
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
            let why =
                "a queue holds what came since it was declared; publish it again, or leave out `from_start`";
            return Err(rejected(format!(
                "{subscription} cannot begin with what was published before it: {why}"
            )));
        }
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        self.link.watch.up_until(deadline).await?;
        let what = subscription.to_string();
        let (feed, begun) = AmqpFeed::start(self.link.clone(), subscription, consumer, &self.tasks)?;
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&feed));
        let unfinished = Unfinished(Some(Arc::clone(&feed)));
        self.link.watch.detached.notify_one();
        let begun = tokio::select! {
            () = self.link.watch.closing.cancelled() => return Err(closed()),
            begun = tokio::time::timeout_at(deadline, begun) => begun,
        };
        match begun {
            Ok(Ok(Ok(()))) => {
                unfinished.finish();
                Ok(Registration::new(Arc::new(Handle(feed))))
            }
            Ok(Ok(Err(error))) => Err(error),
            _ => Err(rejected(format!("subscribe {what} did not succeed before the deadline"))),
        }
    }

    async fn stop_feeds(&self) {
        let feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner).clone();
        join_all(feeds.into_iter().map(|feed| Handle(feed).stop())).await;
    }

    async fn close(&self) {
        self.link.watch.close();
        self.stop_feeds().await;
        self.calls.close();
        self.calls.wait().await;
        // Those of callers who were about to subscribe.
        self.stop_feeds().await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Ends a subscription whose subscriber goes away before it began.
struct Unfinished(Option<Arc<AmqpFeed>>);

impl Unfinished {
    fn finish(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(feed) = &self.0 {
            feed.drain();
        }
    }
}

impl EventBridge for AmqpBridge {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "amqp",
            is_local: false,
            durable: true,
            from_start: false,
            delayed_retry: true,
            dead_letters: true,
            pause: true,
            ordered: true,
            unroutable_at_once: true,
            message_bytes_max: self.0.link.message_bytes_max,
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

    fn alarm(&self) -> Option<String> {
        let is_blocked = self.0.link.watch.is_blocked();
        is_blocked.then(|| "the broker takes no messages for now: its memory or disk alarm is on".to_owned())
    }

    fn close(&self) -> BoxFuture<'_, Result<(), BridgeError>> {
        Box::pin(async move {
            self.0.closed.get_or_init(|| self.0.close()).await;
            Ok(())
        })
    }
}

impl Drop for AmqpBridge {
    fn drop(&mut self) {
        self.0.link.watch.close();
        self.0.stop.cancel();
        let feeds = self.0.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        feeds.iter().for_each(|feed| feed.drain());
    }
}

impl fmt::Debug for AmqpBridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmqpBridge")
            .field("instance", &self.0.link.instance)
            .field("state", &*self.0.link.watch.state().borrow())
            .finish_non_exhaustive()
    }
}
