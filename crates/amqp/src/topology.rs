//! What the broker is asked for, for a subscription: its queue, its bindings, and to be fed from it.

use std::time::Duration;

use lapin::options::{
    BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongLongInt, ShortString};
use lapin::{Channel, Consumer};
use purista_core::bridge::BridgeError;
use purista_core::subscription::{Sharing, Subscription};

use crate::address::{bindings, dead_letter_queue_name, queue_name, retry_queue_name, short};
use crate::link::Link;
use crate::session::Session;

/// The names that belong to a subscription, and what its queue is declared with.
#[derive(Debug, Clone)]
pub(crate) struct Topology {
    /// Empty when the broker is to choose: each process then has a queue of its own.
    pub(crate) queue: ShortString,
    pub(crate) dead_letters: ShortString,
    options: QueueDeclareOptions,
    bindings: Vec<FieldTable>,
    prefetch: u16,
}

/// A subscription that the broker feeds.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) channel: Channel,
    pub(crate) consumer: Consumer,
    pub(crate) queue: ShortString,
}

impl Topology {
    /// Queues with PURISTA's names are declared exactly as PURISTA does: with anything else, whoever comes second is refused.
    ///
    /// So the queue of a shared subscription that is not durable stays behind its last consumer, until the broker restarts;
    /// [`Topology::leave`] takes it away.
    pub(crate) fn new(link: &Link, subscription: &Subscription) -> Result<Self, BridgeError> {
        let nothing = QueueDeclareOptions::default();
        let named = short(queue_name(&link.prefix, subscription))?;
        let (queue, options) = match (subscription.answers, subscription.sharing) {
            (true, _) => (named, QueueDeclareOptions { auto_delete: true, ..nothing }),
            (false, Sharing::Shared) => {
                (named, QueueDeclareOptions { durable: subscription.durable, ..nothing })
            }
            (false, Sharing::EveryInstance) => {
                ("".into(), QueueDeclareOptions { exclusive: true, auto_delete: true, ..nothing })
            }
        };
        Ok(Self {
            queue,
            dead_letters: short(dead_letter_queue_name(&link.prefix, subscription))?,
            options,
            bindings: bindings(&subscription.filter),
            // More than the consumer handles at a time would wait here where another process could have it.
            prefetch: u16::try_from(subscription.in_flight.max(1)).unwrap_or(u16::MAX),
        })
    }

    /// Declares, binds and consumes, on a channel that it has for itself.
    pub(crate) async fn attach(&self, channel: Channel, exchange: &ShortString) -> lapin::Result<Attached> {
        channel.basic_qos(self.prefetch, BasicQosOptions::default()).await?;
        let nothing = FieldTable::default();
        let queue = channel.queue_declare(self.queue.clone(), self.options, nothing.clone()).await?;
        let queue = queue.name().clone();
        for binding in &self.bindings {
            let options = QueueBindOptions::default();
            channel.queue_bind(queue.clone(), exchange.clone(), "".into(), options, binding.clone()).await?;
        }
        let consumer =
            channel.basic_consume(queue.clone(), "".into(), BasicConsumeOptions::default(), nothing).await?;
        Ok(Attached { channel, consumer, queue })
    }

    /// Takes away the queue that would collect messages for nobody, unless somebody else is fed from it.
    pub(crate) async fn leave(&self, channel: &Channel) {
        if self.options.durable || self.options.auto_delete {
            return;
        }
        let unused = QueueDeleteOptions { if_unused: true, ..QueueDeleteOptions::default() };
        if let Err(error) = channel.queue_delete(self.queue.clone(), unused).await {
            tracing::debug!(queue = %self.queue, error = &error as &dyn std::error::Error, "the queue stays");
        }
    }

    /// Declares the queue in which messages wait for their next attempt, and says its name.
    pub(crate) async fn retry_queue(
        &self,
        session: &Session,
        delay: Duration,
    ) -> Result<ShortString, BridgeError> {
        let name = short(retry_queue_name(self.queue.as_str(), delay))?;
        let mut arguments = FieldTable::default();
        let ms = LongLongInt::try_from(delay.as_millis()).unwrap_or(LongLongInt::MAX);
        arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(ms));
        arguments.insert("x-dead-letter-exchange".into(), crate::address::text(""));
        arguments.insert("x-dead-letter-routing-key".into(), crate::address::text(self.queue.as_str()));
        declare_kept(session, name.clone(), arguments).await?;
        Ok(name)
    }

    /// Declares the queue that keeps what cannot be handled, and says its name.
    pub(crate) async fn dead_letter_queue(&self, session: &Session) -> Result<ShortString, BridgeError> {
        declare_kept(session, self.dead_letters.clone(), FieldTable::default()).await?;
        Ok(self.dead_letters.clone())
    }
}

/// Declares a durable queue on a channel of its own: a refusal, as when somebody else declared it otherwise, ends a channel.
async fn declare_kept(
    session: &Session,
    name: ShortString,
    arguments: FieldTable,
) -> Result<(), BridgeError> {
    let declaring = async {
        let channel = session.connection.create_channel().await?;
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(name.clone(), options, arguments).await?;
        channel.close(200, "OK".into()).await
    };
    declaring
        .await
        .map_err(|error| crate::error::rejected(format!("declare queue `{name}` failed")).with_source(error))
}
