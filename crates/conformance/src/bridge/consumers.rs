//! Consumers that show what they were fed.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use purista_core::bridge::{Consumer, Delivery, Outcome};
use purista_core::message::{Message, MessageType};
use purista_core::payload::Payload;
use tokio::sync::{Mutex, Notify, mpsc};

use super::world::PATIENCE;

/// More deliveries than any duty makes.
const DELIVERIES_MAX: usize = 8192;

/// A consumer made of a function.
pub fn consumer<F, O>(consume: F) -> Arc<dyn Consumer>
where
    F: Fn(Delivery) -> O + Send + Sync + 'static,
    O: Future<Output = Outcome> + Send + 'static,
{
    Arc::new(Function(consume))
}

struct Function<F>(F);

impl<F, O> Consumer for Function<F>
where
    F: Fn(Delivery) -> O + Send + Sync + 'static,
    O: Future<Output = Outcome> + Send + 'static,
{
    fn consume(&self, delivery: Delivery) -> BoxFuture<'static, Outcome> {
        Box::pin((self.0)(delivery))
    }
}

/// Answers with `payload`, or with none when it is empty.
pub fn reply(command: &Message, payload: impl Into<String>) -> Message {
    let payload: String = payload.into();
    let payload =
        if payload.is_empty() { Payload::empty() } else { Payload::encoded(payload.into_bytes().into()) };
    let sender = command.receiver.clone().expect("a command has a receiver");
    command.response(MessageType::CommandSuccessResponse, command.timestamp_ms, sender, payload)
}

/// A consumer that answers every command with its own payload.
pub fn echo() -> Arc<dyn Consumer> {
    consumer(|delivery: Delivery| async move {
        let payload = super::world::text(&delivery.message);
        Outcome::Reply(Box::new(reply(&delivery.message, payload)))
    })
}

/// Keeps what it is fed, and settles it at once. Clones keep together.
#[derive(Debug, Clone)]
pub struct Recorder {
    sender: mpsc::Sender<Delivery>,
    receiver: Arc<Mutex<mpsc::Receiver<Delivery>>>,
}

impl Default for Recorder {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(DELIVERIES_MAX);
        Self { sender, receiver: Arc::new(Mutex::new(receiver)) }
    }
}

impl Recorder {
    /// A consumer that keeps what it is fed here, and answers commands with their own payload.
    pub fn consumer(&self) -> Arc<dyn Consumer> {
        let recorder = self.clone();
        consumer(move |delivery: Delivery| {
            let reply = (delivery.message.kind == MessageType::Command)
                .then(|| reply(&delivery.message, super::world::text(&delivery.message)));
            recorder.keep(delivery);
            async move { reply.map_or(Outcome::Ack, |reply| Outcome::Reply(Box::new(reply))) }
        })
    }

    /// A consumer that keeps what it is fed here and holds it until it is told to go on; from then on it holds nothing.
    pub fn holding(&self, goes_on: &Arc<Notify>) -> Arc<dyn Consumer> {
        let (recorder, goes_on) = (self.clone(), Arc::clone(goes_on));
        consumer(move |delivery: Delivery| {
            recorder.keep(delivery);
            let goes_on = Arc::clone(&goes_on);
            async move {
                goes_on.notified().await;
                goes_on.notify_one();
                Outcome::Ack
            }
        })
    }

    /// Keeps one delivery.
    pub fn keep(&self, delivery: Delivery) {
        self.sender.try_send(delivery).expect("a duty makes fewer deliveries");
    }

    /// The next that was or will be kept.
    pub async fn next(&self) -> Delivery {
        let mut receiver = self.receiver.lock().await;
        let next = tokio::time::timeout(PATIENCE, receiver.recv()).await;
        next.expect("what must be delivered is delivered").expect("the sender lives in here")
    }

    /// The next message that was or will be kept.
    pub async fn message(&self) -> Message {
        *self.next().await.message.into_own()
    }

    /// What was kept and not yet taken.
    pub async fn rest(&self) -> Vec<Delivery> {
        let mut receiver = self.receiver.lock().await;
        std::iter::from_fn(|| receiver.try_recv().ok()).collect()
    }

    /// Fails when something was kept that nobody took.
    pub async fn expect_nothing_more(&self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "nothing more was to be delivered: {rest:?}");
    }
}
