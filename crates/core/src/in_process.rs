//! The bridge inside one process: a command runs on its caller's task, an event waits in a bounded queue for each who
//! listens. Nothing survives the process; what must, is recorded (see `purista-events`).

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::bridge::{
    Answer, Asking, BridgeError, BridgeErrorKind, BridgeState, COMMAND_TIMEOUT, Calling, Capabilities,
    Concludes, Consumer, Delivery, EventBridge, Feed, Outcome, Registration,
};
use crate::clock::Clock;
use crate::id::Id;
use crate::message::{HOPS_MAX, Message, Party};
use crate::payload::{PAYLOAD_BYTES_MAX, Payload};
use crate::subscription::Subscription;

mod listener;
mod routing;

pub use listener::QUEUE_MAX;
use routing::{Routing, Server};

/// Carries messages inside the process. Cheap to clone: clones are the same bridge, so that several hosts can share it.
#[derive(Clone)]
pub struct InProcessBridge(Arc<Inner>);

pub(crate) struct Inner {
    routing: ArcSwap<Routing>,
    /// What [`Routing::has_taps`] says of the table.
    has_taps: AtomicBool,
    /// Held while the table is changed.
    changing: Mutex<()>,
    instance: Id,
    always_encode: bool,
    state: watch::Sender<BridgeState>,
    tasks: TaskTracker,
}

impl InProcessBridge {
    /// A bridge that hands values on as they are, and encodes only for who needs bytes.
    pub fn new() -> Self {
        Self::build(false)
    }

    /// A bridge that encodes every payload, as a broker does: for tests, and for those who want to see that cost early.
    pub fn always_encoding() -> Self {
        Self::build(true)
    }

    fn build(always_encode: bool) -> Self {
        Self(Arc::new(Inner {
            routing: ArcSwap::default(),
            has_taps: AtomicBool::new(false),
            changing: Mutex::default(),
            instance: Clock::system().id(),
            always_encode,
            state: watch::channel(BridgeState::Connected).0,
            tasks: TaskTracker::new(),
        }))
    }

    async fn deliver(&self, message: Message) -> Result<(), BridgeError> {
        let deadline = message.deadline.unwrap_or_else(|| Instant::now() + COMMAND_TIMEOUT);
        let routing = self.0.routing.load_full();
        let message = Arc::new(message);
        let mut taken = 0_usize;
        for listener in routing.listeners(&message) {
            match listener.offer(Arc::clone(&message), deadline).await {
                Ok(()) => taken += 1,
                Err(()) if taken == 0 => {
                    let what = format!("the queue of {} was full until the deadline", listener.name());
                    return Err(BridgeError::new(BridgeErrorKind::Rejected, what));
                }
                Err(()) => {
                    let what = format!(
                        "the queue of {} was full until the deadline, others have it",
                        listener.name()
                    );
                    return Err(BridgeError::new(BridgeErrorKind::Unknown, what));
                }
            }
        }
        Ok(())
    }

    fn check_open(&self) -> Result<(), BridgeError> {
        if *self.0.state.borrow() == BridgeState::Closed {
            return Err(BridgeError::new(BridgeErrorKind::Rejected, "the in-process bridge is closed"));
        }
        Ok(())
    }

    /// A command that others listen to.
    async fn request_heard(&self, command: Box<Message>) -> Answer {
        Box::pin(self.deliver(Message::clone(&command))).await?;
        let delivery = Delivery { message: command.into(), attempt: 1 };
        Asking::calling(self.route(delivery)?, self).await
    }

    /// Hands a command to who serves it. Nothing runs before the call is polled.
    fn route(&self, delivery: Delivery) -> Result<Calling, BridgeError> {
        let command = &delivery.message;
        if command.hops > HOPS_MAX {
            let what = format!("more than {HOPS_MAX} messages cause one another");
            return Err(BridgeError::new(BridgeErrorKind::Rejected, what));
        }
        let routing = self.0.routing.load();
        let receiver = command.receiver.as_ref();
        let Some(server) = receiver.and_then(|party| routing.server(&party.address)) else {
            return Err(self.unserved(receiver));
        };
        let (in_hand, deadline) = (Arc::clone(server.calls.mine()), command.deadline);
        Ok(Calling::new(server.consumer.consume(delivery), deadline, in_hand))
    }

    /// Shows a reply to those who listen to it, as [`Concludes::at_once`] has found that somebody does.
    async fn show(&self, outcome: Outcome, deadline: Option<Instant>) -> Answer {
        match outcome {
            Outcome::Reply(reply) => {
                Box::pin(self.deliver(Message::clone(&reply))).await?;
                Ok(reply)
            }
            _ if deadline.is_some_and(|deadline| Instant::now() >= deadline) => Err(too_late()),
            _ => Err(BridgeError::new(BridgeErrorKind::Unknown, "the consumer gave no reply")),
        }
    }

    /// Why nobody serves a command: the table of a closed bridge is empty.
    #[cold]
    fn unserved(&self, receiver: Option<&Party>) -> BridgeError {
        if let Err(closed) = self.check_open() {
            return closed;
        }
        let what = receiver
            .map_or_else(|| "nobody is asked".to_owned(), |party| format!("nobody serves {}", party.address));
        BridgeError::new(BridgeErrorKind::Unroutable, what)
    }

    /// Whether somebody listens to a reply: to replies as such, or to the event that it is marked with and no log holds.
    fn is_heard(&self, reply: &Message) -> bool {
        let is_event = reply.event_name.is_some() && !routing::is_recorded(reply);
        self.0.has_taps() || (is_event && self.0.routing.load().has_listeners())
    }
}

impl Inner {
    /// Changes the table and returns what it was. One change at a time, so that what is known beside the table is of its
    /// last state.
    fn change(&self, change: impl FnOnce(&Routing) -> Routing) -> Arc<Routing> {
        let _turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let routing = change(&self.routing.load());
        self.has_taps.store(routing.has_taps(), Ordering::Release);
        self.routing.swap(Arc::new(routing))
    }

    /// Whether somebody listens to commands or to responses as such; asked twice a command.
    fn has_taps(&self) -> bool {
        self.has_taps.load(Ordering::Acquire)
    }
}

impl Default for InProcessBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl Concludes for InProcessBridge {
    fn at_once(&self, outcome: Outcome) -> Result<Answer, Outcome> {
        let Outcome::Reply(mut reply) = outcome else { return Err(outcome) };
        if self.0.always_encode
            && let Err(error) = encode_payload(&mut reply)
        {
            return Ok(Err(error));
        }
        if self.is_heard(&reply) { Err(Outcome::Reply(reply)) } else { Ok(Ok(reply)) }
    }

    fn conclude(&self, outcome: Outcome, deadline: Option<Instant>) -> BoxFuture<'_, Answer> {
        Box::pin(self.show(outcome, deadline))
    }

    /// Only who waits needs a timer; a call that is dropped at its deadline runs on by itself.
    fn wait(&self, calling: Calling) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            let deadline = calling.deadline;
            let until = deadline.unwrap_or_else(|| Instant::now() + COMMAND_TIMEOUT);
            let outcome = tokio::time::timeout_at(until, calling).await.map_err(|_| too_late())?;
            match self.at_once(outcome) {
                Ok(answer) => answer,
                Err(outcome) => self.show(outcome, deadline).await,
            }
        })
    }
}

impl EventBridge for InProcessBridge {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "in-process",
            is_local: true,
            durable: false,
            from_start: false,
            delayed_retry: true,
            dead_letters: false,
            pause: true,
            ordered: true,
            unroutable_at_once: true,
            message_bytes_max: PAYLOAD_BYTES_MAX,
        }
    }

    fn instance(&self) -> Id {
        self.0.instance.clone()
    }

    fn publish(&self, mut message: Message) -> BoxFuture<'_, Result<(), BridgeError>> {
        Box::pin(async move {
            self.check_open()?;
            if self.0.always_encode {
                encode_payload(&mut message)?;
            }
            check_size(&message)?;
            self.deliver(message).await
        })
    }

    fn request(&self, mut command: Box<Message>) -> Asking<'_> {
        let encoded = if self.0.always_encode { encode_payload(&mut command) } else { Ok(()) };
        let encoded = encoded.and_then(|()| check_size(&command));
        if encoded.is_ok() && self.0.has_taps() {
            return Asking::new(self.request_heard(command));
        }
        match encoded.and_then(|()| self.route(Delivery { message: command.into(), attempt: 1 })) {
            Ok(calling) => Asking::calling(calling, self),
            Err(error) => Asking::new(std::future::ready(Err(error))),
        }
    }

    fn subscribe(
        &self,
        subscription: Subscription,
        consumer: Arc<dyn Consumer>,
    ) -> BoxFuture<'_, Result<Registration, BridgeError>> {
        Box::pin(async move {
            self.check_open()?;
            if subscription.durable {
                let why = format!(
                    "{subscription} cannot be durable here: what is in the process ends with it, a store keeps"
                );
                return Err(BridgeError::new(BridgeErrorKind::Rejected, why));
            }
            let bridge = Arc::downgrade(&self.0);
            if subscription.answers {
                let server = Server::new(consumer, &self.0.tasks);
                self.0.change(|routing| routing.with_server(&subscription.address, &server));
                let feed = routing::ServerFeed::new(subscription.address, &server, bridge);
                return Ok(Registration::new(Arc::new(feed)));
            }
            let listener = listener::start(&subscription, consumer, &self.0.tasks);
            self.0.change(|routing| routing.with_listener(&subscription, &listener));
            Ok(Registration::new(Arc::new(routing::ListenerFeed::new(&listener, bridge))))
        })
    }

    fn state(&self) -> watch::Receiver<BridgeState> {
        self.0.state.subscribe()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), BridgeError>> {
        Box::pin(async move {
            self.0.state.send_replace(BridgeState::Closed);
            // Without listeners and servers every queue ends once it is empty, and a paused one at once.
            let routing = self.0.change(|_| Routing::default());
            self.0.tasks.close();
            let pumps: Vec<_> = routing.all_listeners().map(|listener| Arc::clone(listener.pump())).collect();
            let servers: Vec<_> = routing.all_servers().map(Server::ended).collect();
            drop(routing);
            for pump in pumps.iter().filter(|pump| pump.paused().is_some()) {
                pump.stop().await;
            }
            for server in servers {
                server.cancelled().await;
            }
            self.0.tasks.wait().await;
            Ok(())
        })
    }
}

fn too_late() -> BridgeError {
    BridgeError::new(BridgeErrorKind::Timeout, "no reply came before the deadline")
}

/// What comes as bytes has the bound of a broker; a value is not encoded to be counted.
#[inline]
fn check_size(message: &Message) -> Result<(), BridgeError> {
    let bytes = message.payload.encoded_len();
    if bytes > PAYLOAD_BYTES_MAX { Err(too_large(bytes)) } else { Ok(()) }
}

#[cold]
fn too_large(bytes: usize) -> BridgeError {
    BridgeError::too_large(bytes, PAYLOAD_BYTES_MAX)
}

fn encode_payload(message: &mut Message) -> Result<(), BridgeError> {
    if !message.payload.is_typed() {
        return Ok(());
    }
    let bytes = std::mem::take(&mut message.payload).into_bytes().map_err(|error| {
        BridgeError::new(BridgeErrorKind::Rejected, "the payload cannot be encoded").with_source(error)
    })?;
    message.payload = bytes.map_or(Payload::empty(), Payload::encoded);
    Ok(())
}

impl fmt::Debug for InProcessBridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessBridge").field("instance", &self.0.instance).finish_non_exhaustive()
    }
}
