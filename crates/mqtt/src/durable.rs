//! The session of one durable subscription: the broker keeps for it what comes while it is away.
//!
//! A session of its own, since the broker bounds what is in flight by connection: a slow subscription must hold up no other,
//! and no replies.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;
use purista_core::bridge::BridgeError;
use purista_core::subscription::Subscription;
use rumqttc::Publish;
use tokio::time::Instant;

use crate::dial::CONNECT_TIMEOUT;
use crate::line::Line;
use crate::queue::{Arrival, Queue};
use crate::session::Role;

/// How many messages wait for one durable subscription in this process at most, beyond those in hand: more than the broker may
/// send. mosquitto 2.0 sends several for each that is acknowledged, once some wait at it, and it costs a connection to be
/// sent again what has no place.
const WAITING_MAX: usize = 2_048;

/// How many messages of a durable subscription have a place, when so many are in flight. Over a new connection those in hand
/// come first, so there is room for as many more.
pub(crate) fn waiting_max(capacity: usize, in_flight: usize) -> usize {
    capacity.min(WAITING_MAX).max(in_flight).saturating_add(in_flight)
}

/// Fills the queue of one durable subscription.
pub(crate) struct Keeper {
    subscription: Subscription,
    filters: BTreeSet<String>,
    /// The same in the forms that the subscription has with other settings: a session remembers what was asked before.
    former: BTreeSet<String>,
    queue: Arc<Queue>,
    message_bytes_max: usize,
    was_greeted: AtomicBool,
    /// Whether it was said that there is no more place.
    is_full: AtomicBool,
}

impl Keeper {
    pub(crate) fn new(
        subscription: Subscription,
        filters: BTreeSet<String>,
        former: BTreeSet<String>,
        queue: Arc<Queue>,
        message_bytes_max: usize,
    ) -> Arc<Self> {
        let (was_greeted, is_full) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { subscription, filters, former, queue, message_bytes_max, was_greeted, is_full })
    }
}

impl Role for Keeper {
    fn greet(
        self: Arc<Self>,
        line: Arc<Line>,
        is_resumed: bool,
    ) -> BoxFuture<'static, Result<(), BridgeError>> {
        Box::pin(async move {
            if self.was_greeted.load(Ordering::Relaxed) && !is_resumed {
                tracing::error!(
                    subscription = %self.subscription,
                    "the MQTT broker has forgotten the session: what it kept for the subscription is lost"
                );
            }
            // Also in a session that the broker knows: it may have been cut off before it had subscribed.
            let deadline = Instant::now() + CONNECT_TIMEOUT;
            for filter in &self.filters {
                line.subscribe(filter, None, deadline).await?;
            }
            if is_resumed {
                for filter in &self.former {
                    line.unsubscribe(filter, deadline).await;
                }
            }
            self.was_greeted.store(true, Ordering::Relaxed);
            Ok(())
        })
    }

    fn take(&self, line: &Arc<Line>, raw: Publish) {
        let arrival = Arrival::new(raw, line, self.message_bytes_max);
        if !self.queue.offer_in_order(arrival) && !self.is_full.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                subscription = %self.subscription,
                "the MQTT broker sends more than there are places for; it is asked for the rest again when these are done"
            );
        }
    }

    fn interrupted(&self) -> BoxFuture<'_, ()> {
        // A broker sends again what is not acknowledged, but over another connection only.
        Box::pin(self.queue.owing())
    }

    fn lost(&self) {
        // Not acknowledged, and so it comes again.
        self.queue.forget();
        self.is_full.store(false, Ordering::Relaxed);
    }
}
