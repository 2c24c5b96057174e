//! What a feed, its source and its settlements share.

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Mutex, OnceLock};

use lapin::Channel;
use purista_core::bridge::Registration;
use purista_core::subscription::Subscription;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::link::Link;
use crate::topology::{Attached, Topology};

/// What the feed, its source and its settlements share.
pub(crate) struct Shared {
    pub(crate) link: Link,
    pub(crate) subscription: Subscription,
    pub(crate) topology: Topology,
    /// Cancelled when the feed is stopped.
    pub(crate) draining: CancellationToken,
    /// Cancelled when there is nothing more to pull.
    pub(crate) drained: CancellationToken,
    /// Told when a message was to come back while the feed drains: that may have been a pause.
    pub(crate) given_up: Notify,
    pub(crate) fed: Mutex<Fed>,
    /// Told when there is a channel for the source to take.
    pub(crate) arrived: Notify,
    /// How many messages the consumer has in its hands.
    pub(crate) in_hand: AtomicUsize,
    pub(crate) is_over: AtomicBool,
    pub(crate) pump: OnceLock<Registration>,
}

/// How the broker feeds.
#[derive(Debug, Default)]
pub(crate) struct Fed {
    /// The channel on which it does, as long as it does.
    pub(crate) channel: Option<Channel>,
    /// The same with its consumer, until the source takes it.
    pub(crate) handed_over: Option<Attached>,
}

impl Fed {
    pub(crate) fn is_alive(&self) -> bool {
        self.channel.as_ref().is_some_and(|channel| channel.status().connected())
    }
}
