//! What all parts of one bridge share, and the state that others see of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use purista_core::address::Address;
use purista_core::bridge::{BridgeError, BridgeErrorKind, BridgeState};
use purista_core::clock::Clock;
use purista_core::id::Id;
use purista_core::message::Party;
use purista_core::replies::Replies;
use purista_core::standing;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::address::ShareNames;
use crate::refused::Refused;

/// Shared by all parts of one bridge.
pub(crate) struct Link {
    pub(crate) prefix: String,
    pub(crate) instance: Id,
    pub(crate) clock: Clock,
    pub(crate) share_names: ShareNames,
    /// The largest message, as the builder says.
    pub(crate) message_bytes_max: usize,
    /// What the broker has refused by its size without having said so before.
    pub(crate) refused: Arc<Refused>,
    /// The calls that wait for a reply; they end with the connection.
    pub(crate) replies: Replies,
    pub(crate) standing: Standing,
    /// Cancelled when the bridge begins to close.
    pub(crate) closing: CancellationToken,
    dropped: AtomicU64,
}

impl Link {
    pub(crate) fn new(
        prefix: String,
        instance: Id,
        clock: Clock,
        share_names: ShareNames,
        message_bytes_max: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            prefix,
            instance,
            clock,
            share_names,
            message_bytes_max,
            refused: Arc::default(),
            replies: Replies::default(),
            standing: Standing::default(),
            closing: CancellationToken::new(),
            dropped: AtomicU64::new(0),
        })
    }

    /// This process, as the party behind an address.
    pub(crate) fn party(&self, address: &Address) -> Party {
        Party { address: address.clone(), instance: Some(self.instance.clone()) }
    }

    /// Counts a message that is lost; how many it were so far.
    pub(crate) fn count_dropped(&self) -> u64 {
        self.dropped.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Says that the bridge is closed, for good.
    pub(crate) fn close(&self) {
        self.standing.of_all.close();
        self.closing.cancel();
    }
}

/// The state of a bridge with several connections: connected while none of them is away.
pub(crate) struct Standing {
    pub(crate) of_all: standing::Standing,
    away: Mutex<usize>,
}

impl Default for Standing {
    /// The first connection is not there yet.
    fn default() -> Self {
        Self { of_all: standing::Standing::default(), away: Mutex::new(1) }
    }
}

impl Standing {
    pub(crate) fn state(&self) -> watch::Receiver<BridgeState> {
        self.of_all.state()
    }

    /// One more connection is away.
    pub(crate) fn lost(&self) {
        self.change(|away| away.saturating_add(1));
    }

    /// One of those that were away is back, or is missed no longer.
    pub(crate) fn back(&self) {
        self.change(|away| away.saturating_sub(1));
    }

    fn change(&self, change: impl FnOnce(usize) -> usize) {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        *away = change(*away);
        if *away == 0 {
            self.of_all.connected();
        } else {
            self.of_all.lost();
        }
    }
}

/// An error of something that never happened.
pub(crate) fn rejected(what: impl Into<String>) -> BridgeError {
    BridgeError::new(BridgeErrorKind::Rejected, what)
}

pub(crate) fn closed() -> BridgeError {
    rejected("the MQTT bridge is closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_is_connected_while_no_connection_is_away() {
        let standing = Standing::default();
        let state = standing.state();
        assert_eq!(*state.borrow(), BridgeState::Reconnecting, "the first is not there yet");
        standing.back();
        assert_eq!(*state.borrow(), BridgeState::Connected);
        standing.lost();
        standing.lost();
        standing.back();
        assert_eq!(*state.borrow(), BridgeState::Reconnecting, "one is still away");
        standing.back();
        assert_eq!(*state.borrow(), BridgeState::Connected);
        standing.of_all.close();
        standing.lost();
        assert_eq!(*state.borrow(), BridgeState::Closed, "for good");
    }
}
