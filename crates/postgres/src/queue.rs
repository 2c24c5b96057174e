//! Batches that wait to be written, and how they are gathered into groups.

use std::sync::atomic::{AtomicUsize, Ordering};

use purista_events::batch::{Batch, Receipt};
use purista_events::store::StoreError;
use tokio::sync::{Mutex, OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::place::PLACES_MAX;

/// The most batches that wait to be written. Each takes at least one unit of the queue.
pub const QUEUE_MAX: usize = 1_024;

/// How many bytes one unit of the queue holds, so that all waiting batches together hold at most 64 MiB.
const UNIT_BYTES: usize = 64 * 1024;

/// The fewest batches that are shared out among lanes.
const SHARE_MIN: usize = 8;

pub(crate) type Answer = Result<Receipt, StoreError>;

/// A batch that waits to be written.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) batch: Batch,
    /// The values of its state as they will lie in their rows. Made by the caller, so that the writer need not.
    pub(crate) state_texts: Vec<Option<String>>,
    pub(crate) answer: oneshot::Sender<Answer>,
    /// Its room in the queue, given back when it is answered.
    pub(crate) _room: OwnedSemaphorePermit,
}

impl Job {
    fn events(&self) -> usize {
        self.batch.appends.iter().map(|append| append.events.len()).sum()
    }
}

/// How much of the queue a batch takes.
pub(crate) fn units(batch: &Batch, state_texts: &[Option<String>]) -> u32 {
    let state = state_texts.iter().flatten().map(String::len);
    let events = batch.appends.iter().flat_map(|append| &append.events).map(|event| event.body.len());
    let reply = batch.reply.iter().filter_map(|reply| reply.body.as_ref()).map(bytes::Bytes::len);
    let bytes: usize = events.chain(reply).chain(state).sum();
    u32::try_from((1 + bytes / UNIT_BYTES).min(QUEUE_MAX)).unwrap_or(1)
}

/// What all writers take their groups from.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    /// How many batches are being written.
    under_way: AtomicUsize,
    /// How many write.
    lanes: usize,
    closing: CancellationToken,
}

#[derive(Debug)]
struct Waiting {
    jobs: mpsc::Receiver<Job>,
    /// The one that did not fit into the last group.
    left_over: Option<Job>,
}

impl Waiting {
    /// Takes what is there, up to a whole group.
    fn take(&mut self, group: &mut Vec<Job>, batches_max: usize) {
        let mut events: usize = group.iter().map(Job::events).sum();
        while group.len() < batches_max && self.left_over.is_none() {
            let Ok(job) = self.jobs.try_recv() else { return };
            events += job.events();
            if events > PLACES_MAX {
                self.left_over = Some(job);
            } else {
                group.push(job);
            }
        }
    }
}

impl Queue {
    /// What is handed to so many lanes.
    pub(crate) fn new(jobs: mpsc::Receiver<Job>, lanes: usize) -> Self {
        let waiting = Mutex::new(Waiting { jobs, left_over: None });
        Self { waiting, under_way: AtomicUsize::new(0), lanes, closing: CancellationToken::new() }
    }

    /// What waits, up to a lane's share; it waits for the first. `None` when the queue is closed and empty.
    pub(crate) async fn group(&self, batches_max: usize) -> Option<Vec<Job>> {
        let mut waiting = self.waiting.lock().await;
        let first = if let Some(job) = waiting.left_over.take() {
            job
        } else {
            tokio::select! {
                biased;
                job = waiting.jobs.recv() => job?,
                () = self.closing.cancelled() => {
                    waiting.jobs.close();
                    waiting.jobs.recv().await?
                }
            }
        };
        // Those who were answered together come back together, but not at once: their tasks have their turn as long as it
        // brings more.
        loop {
            let there = waiting.jobs.len();
            tokio::task::yield_now().await;
            if waiting.jobs.len() == there || there >= batches_max {
                break;
            }
        }
        let mut group = vec![first];
        // A lane that took all would leave the next one a single batch, and so on in turns: each takes its share of what
        // waits and of what is under way, unless that is so little that one group of it is cheaper.
        let all = group.len() + waiting.jobs.len() + self.under_way.load(Ordering::Relaxed);
        let share = all.div_ceil(self.lanes.max(1)).max(SHARE_MIN);
        waiting.take(&mut group, share.min(batches_max));
        self.under_way.fetch_add(group.len(), Ordering::Relaxed);
        Some(group)
    }

    /// So many batches of a group are answered.
    pub(crate) fn answered(&self, batches: usize) {
        self.under_way.fetch_sub(batches, Ordering::Relaxed);
    }

    /// Takes no more; what waits is still handed out.
    pub(crate) fn close(&self) {
        self.closing.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use purista_core::id::Id;
    use tokio::sync::Semaphore;

    use super::*;

    /// The sizes of the groups that two lanes take of so many batches, before any of them is answered.
    async fn groups(batches: usize) -> Vec<usize> {
        let (sender, jobs) = mpsc::channel(QUEUE_MAX);
        let (queue, room) = (Queue::new(jobs, 2), Arc::new(Semaphore::new(QUEUE_MAX)));
        for number in 0..batches {
            let batch = Batch::new(Id::from_random(number as u128), None);
            let permit = Arc::clone(&room).try_acquire_owned().unwrap();
            let job = Job { batch, state_texts: Vec::new(), answer: oneshot::channel().0, _room: permit };
            sender.try_send(job).unwrap();
        }
        drop(sender);
        let mut groups = Vec::new();
        while let Some(group) = queue.group(256).await {
            groups.push(group.len());
        }
        groups
    }

    #[tokio::test]
    async fn lanes_share_what_waits_and_few_stay_together() {
        assert_eq!(groups(64).await, [32, 32]);
        assert_eq!(groups(9).await, [8, 1]);
        assert_eq!(groups(8).await, [8]);
        assert_eq!(groups(1).await, [1]);
        assert_eq!(groups(1_000).await, [256, 256, 256, 232], "a group has its bound");
    }
}
