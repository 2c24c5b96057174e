//! The bytes of all bodies that are being read, bounded over all connections and for each peer address.
//!
//! Only a request whose body is not here at once is counted, with its head: it may stay for as long as a body may take.
//! Once the body is complete, its command takes an in-flight permit, which is the bound from there on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits::Limits;

/// Which part of the bytes one peer address may use, unless it is a trusted proxy: one in so many.
const PEER_SHARE: usize = 4;

/// The bytes of all peers.
pub(crate) struct Buffered {
    used: AtomicUsize,
    max: usize,
    per_peer_max: usize,
}

impl Buffered {
    pub(crate) fn new(limits: &Limits) -> Self {
        let max = limits.buffered_bytes;
        // One whole request fits, whatever the share is.
        let per_peer_max = (max / PEER_SHARE).max(limits.request_bytes()).min(max);
        Self { used: AtomicUsize::new(0), max, per_peer_max }
    }
}

/// The bytes of one peer address.
pub(crate) struct PeerBuffered {
    all: Arc<Buffered>,
    used: AtomicUsize,
    max: usize,
}

impl PeerBuffered {
    pub(crate) fn new(all: &Arc<Buffered>, is_trusted: bool) -> Self {
        let max = if is_trusted { all.max } else { all.per_peer_max };
        Self { all: Arc::clone(all), used: AtomicUsize::new(0), max }
    }
}

/// More bytes are buffered than allowed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// The bytes of one request, until this is dropped.
pub(crate) struct Charge {
    peer: Arc<PeerBuffered>,
    bytes: usize,
}

impl Charge {
    /// Counts nothing yet.
    pub(crate) fn to(peer: &Arc<PeerBuffered>) -> Self {
        Self { peer: Arc::clone(peer), bytes: 0 }
    }

    /// Counts further bytes, or changes nothing.
    pub(crate) fn add(&mut self, bytes: usize) -> Result<(), Full> {
        let PeerBuffered { all, used, max } = &*self.peer;
        take(used, bytes, *max)?;
        if let Err(full) = take(&all.used, bytes, all.max) {
            used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(full);
        }
        self.bytes += bytes;
        Ok(())
    }
}

fn take(used: &AtomicUsize, bytes: usize, max: usize) -> Result<(), Full> {
    if used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > max {
        used.fetch_sub(bytes, Ordering::Relaxed);
        return Err(Full);
    }
    Ok(())
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.peer.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.peer.all.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_its_share_and_all_together_the_whole() {
        let limits = Limits::default().body_bytes(100).header_bytes(50).url_bytes(50).buffered_bytes(1_000);
        let all = Arc::new(Buffered::new(&limits));
        let peer = || Arc::new(PeerBuffered::new(&all, false));
        let proxy = Arc::new(PeerBuffered::new(&all, true));
        let one = peer();
        let (mut first, mut second) = (Charge::to(&one), Charge::to(&one));
        assert_eq!(first.add(250), Ok(()));
        assert_eq!(second.add(1), Err(Full));
        let mut proxied = Charge::to(&proxy);
        assert_eq!(proxied.add(751), Err(Full));
        assert_eq!(proxied.add(750), Ok(()));
        assert_eq!(Charge::to(&peer()).add(1), Err(Full));
        drop(proxied);
        drop(first);
        assert_eq!(second.add(250), Ok(()));
    }
}
