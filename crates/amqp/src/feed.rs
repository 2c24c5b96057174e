//! One subscription: what the broker hands over, on its way to a consumer.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{Stream, StreamExt, unfold};
use lapin::Channel;
use lapin::message::Delivery as Raw;
use lapin::options::BasicCancelOptions;
use purista_core::bridge::{BridgeError, Consumer, Feed, Registration};
use purista_core::pump::{Pulled, pump};
use purista_core::subscription::Subscription;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::rejected;
use crate::link::Link;
use crate::session::Session;
use crate::settle::{Settlement, read};
use crate::shared::{Fed, Shared};
use crate::topology::{Attached, Topology};

/// How long the broker may take for what a subscription asks of it.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// How the first attempt to feed a subscription ended.
type Begun = Result<(), BridgeError>;

/// A subscription that is fed.
pub(crate) struct AmqpFeed {
    shared: Arc<Shared>,
    begun: Mutex<Option<oneshot::Sender<Begun>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here can panic half-way, so what is poisoned is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AmqpFeed {
    /// A feed that the broker does not feed yet; the other end hears how the first attempt ended.
    pub(crate) fn start(
        link: Link,
        subscription: Subscription,
        consumer: Arc<dyn Consumer>,
        tasks: &TaskTracker,
    ) -> Result<(Arc<Self>, oneshot::Receiver<Begun>), BridgeError> {
        let topology = Topology::new(&link, &subscription)?;
        let in_flight = subscription.in_flight.max(1);
        let shared = Arc::new(Shared {
            link,
            subscription,
            topology,
            draining: CancellationToken::new(),
            drained: CancellationToken::new(),
            given_up: Notify::new(),
            fed: Mutex::default(),
            arrived: Notify::new(),
            in_hand: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            pump: OnceLock::new(),
        });
        let source = Source { shared: Arc::clone(&shared), attached: None, is_draining: false };
        let pump = pump(source.into_stream(), consumer, in_flight, tasks);
        // It is set once, here.
        let _ = shared.pump.set(pump);
        let (sender, receiver) = oneshot::channel();
        Ok((Arc::new(Self { shared, begun: Mutex::new(Some(sender)) }), receiver))
    }

    /// Whether it was stopped, or never began.
    pub(crate) fn is_over(&self) -> bool {
        self.shared.is_over.load(Ordering::Acquire) || self.shared.draining.is_cancelled()
    }

    /// Ends the intake without waiting.
    pub(crate) fn drain(&self) {
        self.shared.draining.cancel();
    }

    /// Whether the broker is to feed it and does not. What is paused is not fed: what waits here nobody else could have, and
    /// the broker ends a channel on which something waits for half an hour.
    pub(crate) fn wants_feeding(&self) -> bool {
        !locked(&self.shared.fed).is_alive() && !self.is_over() && self.shared.paused().is_none()
    }

    /// Asks the broker to feed it. `false` when that is to be tried again.
    pub(crate) async fn attach(&self, session: &Session) -> bool {
        let has_no_subscriber = locked(&self.begun).as_ref().is_some_and(oneshot::Sender::is_closed);
        if has_no_subscriber {
            self.end();
            return true;
        }
        let asked = tokio::time::timeout(ASK_TIMEOUT, self.ask(session)).await;
        let begun = locked(&self.begun).take();
        match asked {
            Ok(Ok(attached)) => {
                let channel = Some(attached.channel.clone());
                *locked(&self.shared.fed) = Fed { channel, handed_over: Some(attached) };
                self.shared.arrived.notify_one();
                if let Some(begun) = begun {
                    // A subscriber that went away meanwhile stops it, or closes the bridge.
                    let _ = begun.send(Ok(()));
                }
                true
            }
            Ok(Err(error)) if error.is_amqp_soft_error() => self.refused(begun, error),
            Ok(Err(error)) => self.not_yet(begun, &error),
            Err(slow) => self.not_yet(begun, &slow),
        }
    }

    /// A channel on which nobody would take what comes is closed again: the broker would go on to hand messages to it.
    async fn ask(&self, session: &Session) -> lapin::Result<Attached> {
        let channel = session.connection.create_channel().await?;
        let unfinished = Abandoned(Some((channel.clone(), self.shared.link.tasks().clone())));
        let attached = self.shared.topology.attach(channel, &self.shared.link.exchange).await?;
        unfinished.finish();
        Ok(attached)
    }

    /// The broker does not want to: as when somebody else declared the queue otherwise. Who subscribes now is told; what was
    /// fed before is tried again, since somebody may set it right.
    fn refused(&self, begun: Option<oneshot::Sender<Begun>>, error: lapin::Error) -> bool {
        let (subscription, queue) = (&self.shared.subscription, &self.shared.topology.queue);
        let Some(begun) = begun else {
            tracing::error!(%subscription, %queue, error = &error as &dyn std::error::Error, "the broker refuses to feed a subscription");
            return false;
        };
        let told =
            rejected(format!("subscribe {subscription} to queue `{queue}` was refused")).with_source(error);
        let _ = begun.send(Err(told));
        self.end();
        true
    }

    fn not_yet(
        &self,
        begun: Option<oneshot::Sender<Begun>>,
        error: &(dyn std::error::Error + 'static),
    ) -> bool {
        *locked(&self.begun) = begun;
        tracing::warn!(subscription = %self.shared.subscription, error, "a subscription is not fed yet");
        false
    }

    fn end(&self) {
        self.shared.is_over.store(true, Ordering::Release);
        self.drain();
    }
}

/// Closes a channel that was not made use of, also when nobody waits for it any more.
struct Abandoned(Option<(Channel, TaskTracker)>);

impl Abandoned {
    fn finish(mut self) {
        self.0 = None;
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        let Some((channel, tasks)) = self.0.take() else { return };
        if channel.status().connected() {
            tasks.spawn(async move {
                // An error says that it has ended before.
                let _ = tokio::time::timeout(ASK_TIMEOUT, channel.close(200, "OK".into())).await;
            });
        }
    }
}

/// The handle that a bridge gives away.
pub(crate) struct Handle(pub(crate) Arc<AmqpFeed>);

impl Feed for Handle {
    fn resume(&self) {
        if let Some(pump) = self.0.shared.pump.get() {
            pump.resume();
        }
        self.0.shared.link.watch.detached.notify_one();
    }

    fn paused(&self) -> Option<String> {
        self.0.shared.paused()
    }

    fn stop(&self) -> BoxFuture<'static, ()> {
        self.0.drain();
        let shared = Arc::clone(&self.0.shared);
        Box::pin(async move {
            // What the broker handed to this process and keeps no copy of is consumed, unless the feed is paused.
            while !shared.subscription.durable && shared.paused().is_none() {
                tokio::select! {
                    () = shared.drained.cancelled() => break,
                    () = shared.given_up.notified() => {}
                }
            }
            if let Some(pump) = shared.pump.get() {
                pump.stop().await;
            }
            shared.leave().await;
        })
    }
}

impl Shared {
    pub(crate) fn paused(&self) -> Option<String> {
        self.pump.get().and_then(Registration::paused)
    }

    /// One message less is in the hands of the consumer. A feed that is paused lets the broker have back what waits here.
    pub(crate) async fn settled(&self) {
        let was_last = self.in_hand.fetch_sub(1, Ordering::AcqRel) == 1;
        if was_last && self.paused().is_some() {
            self.close_channel().await;
        }
    }

    async fn close_channel(&self) {
        if let Some(channel) = self.give_up_channel() {
            // An error says that it has ended before.
            let _ = tokio::time::timeout(ASK_TIMEOUT, channel.close(200, "OK".into())).await;
        }
    }

    /// Takes away what nobody needs any more at the broker, and the channel: within one time, since a broker that does not
    /// answer the first will not answer the second.
    async fn leave(&self) {
        let Some(channel) = self.give_up_channel() else { return };
        let leaving = async {
            self.topology.leave(&channel).await;
            channel.close(200, "OK".into()).await
        };
        let _ = tokio::time::timeout(ASK_TIMEOUT, leaving).await;
    }

    fn give_up_channel(&self) -> Option<Channel> {
        let channel = std::mem::take(&mut *locked(&self.fed)).channel;
        channel.filter(|channel| channel.status().connected())
    }
}

/// What the broker hands over.
struct Source {
    shared: Arc<Shared>,
    attached: Option<Attached>,
    is_draining: bool,
}

impl Source {
    fn into_stream(self) -> Pin<Box<dyn Stream<Item = Pulled<Settlement>> + Send>> {
        // The guard speaks also when the pump lets go of the stream before its end.
        let ended = self.shared.drained.clone().drop_guard();
        Box::pin(unfold((self, ended), |(mut source, ended)| async move {
            let pulled = source.next().await?;
            Some((pulled, (source, ended)))
        }))
    }

    async fn next(&mut self) -> Option<Pulled<Settlement>> {
        loop {
            self.look_at_channel();
            if self.is_draining && (self.attached.is_none() || self.shared.subscription.durable) {
                return None;
            }
            let raw = tokio::select! {
                biased;
                () = self.shared.draining.cancelled(), if !self.is_draining => {
                    // What was handed over since is to be cancelled too, or its end would never come.
                    self.look_at_channel();
                    self.is_draining = true;
                    self.cancel().await;
                    continue;
                }
                () = self.shared.arrived.notified() => continue,
                raw = next_of(self.attached.as_mut()) => raw,
            };
            let queue = self.attached.as_ref().map(|attached| attached.queue.clone());
            let Some((raw, queue)) = raw.zip(queue) else {
                self.attached = None;
                continue;
            };
            if !locked(&self.shared.fed).is_alive() {
                // What came on a channel that is over comes again.
                continue;
            }
            if let Some(pulled) = read(&self.shared, raw, queue).await {
                self.shared.in_hand.fetch_add(1, Ordering::AcqRel);
                return Some(pulled);
            }
        }
    }

    /// Takes a new channel, and lets go of one that is over, lost or given up for a pause: what it brought and nobody has in
    /// hand yet comes again.
    fn look_at_channel(&mut self) {
        let is_over = {
            let mut fed = locked(&self.shared.fed);
            if let Some(attached) = fed.handed_over.take().filter(|_| !self.is_draining) {
                self.attached = Some(attached);
            }
            if !fed.is_alive() {
                self.attached = None;
            }
            let is_over = self.attached.is_none() && fed.channel.is_some() && !self.is_draining;
            if is_over {
                // Under the same lock: the next channel may come at any moment, and must not be forgotten in its place.
                *fed = Fed::default();
            }
            is_over
        };
        if is_over {
            // Whoever makes the broker feed again is told.
            self.shared.link.watch.detached.notify_one();
        }
    }

    /// Asks the broker for no more; the stream ends behind what it had sent.
    async fn cancel(&mut self) {
        let Some(attached) = self.attached.as_ref().filter(|_| !self.shared.subscription.durable) else {
            return;
        };
        let cancelling =
            attached.channel.basic_cancel(attached.consumer.tag(), BasicCancelOptions::default());
        let cancelled = tokio::time::timeout(ASK_TIMEOUT, cancelling).await;
        if !matches!(cancelled, Ok(Ok(()))) {
            // The connection is gone, or hangs: what it brought comes again, and nothing more is asked of it.
            self.attached = None;
            *locked(&self.shared.fed) = Fed::default();
        }
    }
}

/// The next delivery; `None` at the end of its consumer. Without one, nothing comes.
async fn next_of(attached: Option<&mut Attached>) -> Option<Raw> {
    match attached {
        Some(attached) => attached.consumer.next().await?.ok(),
        None => std::future::pending().await,
    }
}
