//! Leases among several openings of one memory, as among the processes that share a server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::lease::Lease;

/// The leases of one memory, by name: whose each is, and how he learns that it is lost.
#[derive(Default)]
pub(super) struct Leases(watch::Sender<BTreeMap<String, (Arc<Process>, CancellationToken)>>);

/// One process among others.
#[derive(Default)]
pub(super) struct Process {
    /// It gets no lease before.
    cut_off_until: Mutex<Option<Instant>>,
}

/// Gives a lease back when it is dropped.
struct Held {
    leases: Arc<Leases>,
    name: String,
    lost: CancellationToken,
}

impl Leases {
    /// Waits until this process has the lease of this name. Cancel safe.
    pub(super) async fn take(leases: &Arc<Self>, name: &str, process: &Arc<Process>) -> Lease {
        let (lost, mut taken) = (CancellationToken::new(), leases.0.subscribe());
        loop {
            let until = *process.cut_off_until.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(until) = until.filter(|until| *until > Instant::now()) {
                tokio::time::sleep_until(until).await;
                continue;
            }
            let is_ours = leases.0.send_if_modified(|taken| {
                let is_free = !taken.contains_key(name);
                if is_free {
                    taken.insert(name.to_owned(), (Arc::clone(process), lost.clone()));
                }
                is_free
            });
            if is_ours {
                break;
            }
            // The sender lives as long as it is waited for.
            let _ = taken.changed().await;
        }
        let held = Held { leases: Arc::clone(leases), name: name.to_owned(), lost: lost.clone() };
        Lease::kept(lost, held)
    }

    /// This process loses all that it has, others may have it at once, and it gets none for a while.
    pub(super) fn lose(&self, process: &Arc<Process>, and_none_for: Duration) {
        let until = Instant::now() + and_none_for;
        *process.cut_off_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        self.0.send_modify(|taken| {
            taken.retain(|_, (whose, lost)| {
                let is_lost = Arc::ptr_eq(whose, process);
                if is_lost {
                    lost.cancel();
                }
                !is_lost
            });
        });
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // What is lost may be somebody else's already.
        if !self.lost.is_cancelled() {
            self.leases.0.send_modify(|taken| drop(taken.remove(&self.name)));
        }
    }
}
