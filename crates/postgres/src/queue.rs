//! Batches that wait to be written, and how they are gathered into groups.

use purista_events::batch::{Batch, Receipt};
use purista_events::store::StoreError;
use tokio::sync::{Mutex, OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::place::PLACES_MAX;

/// The most batches that wait to be written. Each takes at least one unit of the queue.
pub const QUEUE_MAX: usize = 1_024;

/// How many bytes one unit of the queue holds, so that all waiting batches together hold at most 64 MiB.
const UNIT_BYTES: usize = 64 * 1024;

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
    closing: CancellationToken,
}

#[derive(Debug)]
struct Waiting {
    jobs: mpsc::Receiver<Job>,
    /// The one that did not fit into the last group.
    left_over: Option<Job>,
}

impl Queue {
    pub(crate) fn new(jobs: mpsc::Receiver<Job>) -> Self {
        let waiting = Mutex::new(Waiting { jobs, left_over: None });
        Self { waiting, closing: CancellationToken::new() }
    }

    /// What waits, up to a whole group; it waits for the first. `None` when the queue is closed and empty.
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
        let mut events = first.events();
        let mut group = vec![first];
        while group.len() < batches_max {
            let Ok(job) = waiting.jobs.try_recv() else { break };
            events += job.events();
            if events > PLACES_MAX {
                waiting.left_over = Some(job);
                break;
            }
            group.push(job);
        }
        Some(group)
    }

    /// Takes no more; what waits is still handed out.
    pub(crate) fn close(&self) {
        self.closing.cancel();
    }
}
