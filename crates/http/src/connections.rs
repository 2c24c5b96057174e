//! The open connections, counted per peer address; the oldest that waits for its peer is evicted to admit a new one.
//!
//! A connection waits for its peer while no request of it is handled: it is silent, it idles between requests, or all its
//! requests are bodies that still arrive. A connection with a request in a handler is never evicted. When every
//! connection is busy, a new one waits in the accept loop, and the next ones in the queue of the operating system.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::buffered::{Buffered, PeerBuffered};
use crate::limits::Limits;
use crate::pulse::Pulse;

/// How long a connection has to wait for its peer before it is preferred for eviction. A new connection needs a moment
/// until its first request is here: without this time two new connections would evict each other.
const PREFERRED_AFTER: Duration = Duration::from_secs(1);
/// How many bits of an IPv6 address name one peer: one customer gets at least this network, with any number of addresses.
const IPV6_PREFIX_BITS: u32 = 64;

/// All open connections of a gateway.
pub(crate) struct Connections {
    max: usize,
    per_peer_max: usize,
    trusted: Vec<IpAddr>,
    buffered: Arc<Buffered>,
    open: Mutex<Open>,
    /// Notified when a connection has been closed.
    closed: Notify,
}

#[derive(Default)]
struct Open {
    count: usize,
    next_number: u64,
    peers: HashMap<IpAddr, Peer>,
}

/// The connections of one peer address, by their age.
struct Peer {
    pulses: BTreeMap<u64, Arc<Pulse>>,
    buffered: Arc<PeerBuffered>,
}

/// Why a connection is not admitted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The peer has as many connections as one address may have, all with a request in a handler.
    TooManyOfPeer,
    /// All connections are taken. One may have been told to close: try again when it has.
    Full,
}

impl Connections {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            max: limits.connections,
            per_peer_max: limits.connections_per_peer,
            trusted: limits.trusted_proxies.iter().map(IpAddr::to_canonical).collect(),
            buffered: Arc::new(Buffered::new(limits)),
            open: Mutex::default(),
            closed: Notify::new(),
        }
    }

    /// Registers a connection of `peer`; evicts another one first if a limit is reached.
    pub(crate) fn admit(self: &Arc<Self>, peer: IpAddr, pulse: &Arc<Pulse>) -> Result<Admitted, Refused> {
        let peer = peer.to_canonical();
        let is_trusted = self.trusted.contains(&peer);
        let key = if is_trusted { peer } else { network_of(peer) };
        let mut open = self.open();
        if !is_trusted && let Some(of_peer) = open.peers.get(&key) {
            let pulses = of_peer.pulses.values();
            if pulses.clone().filter(|pulse| !pulse.is_leaving()).count() >= self.per_peer_max
                && !evict_oldest(pulses)
            {
                return Err(Refused::TooManyOfPeer);
            }
        }
        if open.count >= self.max {
            self.evict_for_room(&open);
            return Err(Refused::Full);
        }
        open.count += 1;
        let number = open.next_number;
        open.next_number += 1;
        let of_peer = open.peers.entry(key).or_insert_with(|| Peer {
            pulses: BTreeMap::new(),
            buffered: Arc::new(PeerBuffered::new(&self.buffered, is_trusted)),
        });
        of_peer.pulses.insert(number, Arc::clone(pulse));
        let buffered = Arc::clone(&of_peer.buffered);
        Ok(Admitted { connections: Arc::clone(self), key, number, buffered })
    }

    /// Tells the oldest connection that waits for its peer to close, unless another one is closing already.
    fn evict_for_room(&self, open: &Open) {
        let pulses = open.peers.values().flat_map(|peer| peer.pulses.values());
        // One look at each connection for each new one: 10 µs at the default limit, about as much as accepting costs.
        if pulses.clone().filter(|pulse| !pulse.is_leaving()).count() >= self.max {
            evict_oldest(pulses);
        }
    }

    /// Tells the oldest connection that waits for its peer to close, because the system has no more file descriptors.
    pub(crate) fn evict_one(&self) {
        evict_oldest(self.open().peers.values().flat_map(|peer| peer.pulses.values()));
    }

    /// Waits until a connection is closed. At most one task waits.
    pub(crate) async fn one_closed(&self) {
        self.closed.notified().await;
    }

    /// Waits until no connection is open. At most one task waits.
    pub(crate) async fn all_closed(&self) {
        while self.open().count > 0 {
            self.closed.notified().await;
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The peer that an address counts for.
fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let network = u128::from(address) & (u128::MAX << (u128::BITS - IPV6_PREFIX_BITS));
            IpAddr::V6(network.into())
        }
    }
}

/// Evicts the connection that has waited longest: first of the silent and idle ones, then of those whose bodies still
/// arrive, then of those that have waited less than [`PREFERRED_AFTER`]. `false` if none waits.
fn evict_oldest<'p>(pulses: impl Iterator<Item = &'p Arc<Pulse>>) -> bool {
    let waiting = pulses.filter(|pulse| !pulse.is_leaving()).filter_map(|pulse| {
        let waiting = pulse.waiting()?;
        let class = match (waiting.time >= PREFERRED_AFTER, waiting.is_for_body) {
            (true, false) => 0,
            (true, true) => 1,
            (false, _) => 2,
        };
        Some((class, std::cmp::Reverse(waiting.time), pulse))
    });
    match waiting.min_by_key(|(class, time, _)| (*class, *time)) {
        Some((_, _, pulse)) => {
            pulse.evict();
            true
        }
        None => false,
    }
}

/// A connection that counts until this is dropped.
pub(crate) struct Admitted {
    connections: Arc<Connections>,
    key: IpAddr,
    number: u64,
    /// What the peer has in bodies that are being read.
    pub(crate) buffered: Arc<PeerBuffered>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.connections.open();
        open.count = open.count.saturating_sub(1);
        if let Some(peer) = open.peers.get_mut(&self.key) {
            peer.pulses.remove(&self.number);
            if peer.pulses.is_empty() {
                open.peers.remove(&self.key);
            }
        }
        drop(open);
        self.connections.closed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn connections(limits: &Limits) -> Arc<Connections> {
        Arc::new(Connections::new(limits))
    }

    async fn admit(connections: &Arc<Connections>, peer: IpAddr) -> (Arc<Pulse>, Result<Admitted, Refused>) {
        let pulse = Arc::new(Pulse::new());
        let admitted = connections.admit(peer, &pulse);
        tokio::time::advance(Duration::from_secs(2)).await;
        (pulse, admitted)
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_that_waits_longest_is_evicted_and_idle_ones_before_bodies() {
        let connections = connections(&Limits::default().connections(3));
        let (reading, _first) = admit(&connections, ONE).await;
        let _busy = reading.request();
        let body = reading.reading();
        let (idle, second) = admit(&connections, OTHER).await;
        let (handled, _third) = admit(&connections, OTHER).await;
        let _handled = handled.request();
        assert_eq!(admit(&connections, ONE).await.1.err(), Some(Refused::Full));
        assert!(idle.is_leaving() && !reading.is_leaving() && !handled.is_leaving());
        // It is still closing, so no other one is evicted.
        assert_eq!(admit(&connections, ONE).await.1.err(), Some(Refused::Full));
        assert!(!reading.is_leaving());
        drop(second);
        let (newest, fourth) = admit(&connections, ONE).await;
        let _newest = newest.request();
        assert_eq!(admit(&connections, ONE).await.1.err(), Some(Refused::Full));
        assert!(reading.is_leaving());
        drop((body, fourth));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_evicts_its_own_connections_first_and_networks_of_ipv6_are_one_peer() {
        let limits = Limits::default().connections_per_peer(1).trusted_proxy(OTHER);
        let connections = connections(&limits);
        let (one, _one) = admit(&connections, "2001:db8::1".parse().unwrap()).await;
        let (two, _two) = admit(&connections, "2001:db8::ffff:2".parse().unwrap()).await;
        assert!(one.is_leaving() && !two.is_leaving());
        let _busy = two.request();
        let refused = admit(&connections, "2001:db8::3".parse().unwrap()).await.1.err();
        assert_eq!(refused, Some(Refused::TooManyOfPeer));
        assert!(admit(&connections, "2001:db8:0:1::1".parse().unwrap()).await.1.is_ok());
        for _ in 0..3 {
            let (proxied, admitted) = admit(&connections, OTHER).await;
            std::mem::forget((proxied.request(), admitted.unwrap()));
        }
        assert!(admit(&connections, "::ffff:10.0.0.2".parse().unwrap()).await.1.is_ok());
    }
}
