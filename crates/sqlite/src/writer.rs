//! The one writer: takes what waits as a group, commits it with one fsync, answers.
//!
//! A batch is answered `Ok` only after the COMMIT of its group has returned. When that fails, nobody knows what the
//! disk holds: the group is answered `Unknown`, and the writer is poisoned: it never writes again in this process, since
//! a second fsync may succeed without having written what the first one lost.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use purista_core::clock::Clock;
use purista_events::batch::{Batch, Receipt};
use purista_events::position::Position;
use purista_events::store::{StoreError, StoreErrorKind};
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use crate::codec;
use crate::commit::{self, Refusal};
use crate::error::{self, Severity};
use crate::file::Known;
use crate::lock::Lock;
use crate::prune;
use crate::readers::ReaderThreads;
use crate::statistics::Counters;
use crate::time::LogTime;

/// How long a group waits for as many as the last one had: those that were answered together come back together.
const GATHERED_FOR: Duration = Duration::from_micros(200);

/// When the write-ahead log has grown by this many times the checkpoint's threshold, new readers are held back for a
/// moment, so that it can begin anew.
const OVERGROWN: u64 = 4;

/// How long that moment is at most.
const RESTART_WAIT: Duration = Duration::from_millis(50);

pub(crate) type Answer = Result<Receipt, StoreError>;

/// A batch that waits to be written.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) batch: Batch,
    /// See [`crate::state::texts`].
    pub(crate) state_texts: Vec<Option<String>>,
    pub(crate) answer: oneshot::Sender<Answer>,
    /// Its room in the queue, given back when it is answered.
    pub(crate) _room: OwnedSemaphorePermit,
}

#[derive(Debug)]
pub(crate) enum Order {
    Commit(Box<Job>),
    /// Write what came before, then let go of the file.
    Close,
}

/// What the writer tells the handles of the store.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) head: watch::Sender<Position>,
    pub(crate) poison: OnceLock<String>,
    pub(crate) ended: watch::Sender<bool>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) time: LogTime,
}

impl Shared {
    pub(crate) fn new(known: &Known, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            head: watch::Sender::new(codec::position(known.head)),
            poison: OnceLock::new(),
            ended: watch::Sender::new(false),
            counters: Arc::default(),
            time: LogTime::new(clock, known.latest),
        })
    }

    pub(crate) fn poisoned_error(&self) -> Option<StoreError> {
        let reason = self.poison.get()?;
        let what = format!("the store takes no commits since a write failed: {reason}");
        Some(StoreError::new(StoreErrorKind::Closed, what))
    }
}

/// How the writer groups and checkpoints.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The most batches of one group.
    pub(crate) group_max: usize,
    /// From how many pages on the write-ahead log is copied into the file.
    pub(crate) checkpoint_pages: u64,
    /// How long a statement waits for another program that holds the file.
    pub(crate) busy_timeout: Duration,
}

/// The writer's thread.
pub(crate) struct Writer {
    pub(crate) connection: Connection,
    pub(crate) orders: Receiver<Order>,
    pub(crate) limits: Limits,
    pub(crate) shared: Arc<Shared>,
    pub(crate) head: i64,
    /// From how many pages of the write-ahead log on the next checkpoint is due.
    pub(crate) checkpoint_at: u64,
    pub(crate) readers: Option<ReaderThreads>,
    /// Let go of when everything else is closed.
    pub(crate) _lock: Lock,
}

impl Writer {
    /// Works until it is told to close, or nobody is left to tell it.
    pub(crate) fn run(mut self) {
        let _end = End(Arc::clone(&self.shared));
        let mut size = 1;
        while let Ok(Order::Commit(first)) = self.orders.recv() {
            let (group, is_closing) = self.gather(*first, size);
            size = group.len();
            self.serve(group);
            if is_closing {
                break;
            }
            self.checkpoint_if_due();
        }
        // What was handed over while the end was being told.
        while let Ok(order) = self.orders.try_recv() {
            if let Order::Commit(job) = order {
                self.serve(vec![*job]);
            }
        }
        self.close();
    }

    /// What waits, up to a whole group. It waits itself only when the last group was of several.
    fn gather(&self, first: Job, last_size: usize) -> (Vec<Job>, bool) {
        let mut group = vec![first];
        let mut until = None;
        while group.len() < self.limits.group_max {
            match self.orders.try_recv() {
                Ok(Order::Commit(job)) => group.push(*job),
                Ok(Order::Close) => return (group, true),
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) if group.len() >= last_size => break,
                Err(TryRecvError::Empty) => {
                    let now = Instant::now();
                    if now >= *until.get_or_insert(now + GATHERED_FOR) {
                        break;
                    }
                    // A sleep would be longer than what is waited for.
                    std::thread::yield_now();
                }
            }
        }
        (group, false)
    }

    /// Commits a group and answers each of its batches.
    fn serve(&mut self, group: Vec<Job>) {
        let answers = self.commit(&group);
        let head = codec::position(self.head);
        self.shared.head.send_if_modified(|known| std::mem::replace(known, head) != head);
        for (job, answer) in group.into_iter().zip(answers) {
            // Whoever waited may be gone; the commit stays.
            let _ = job.answer.send(answer);
        }
    }

    fn commit(&mut self, group: &[Job]) -> Vec<Answer> {
        let mut failed: Vec<Option<StoreError>> = group.iter().map(|_| None).collect();
        loop {
            if let Some(refused) = self.all_refused(group) {
                return refused;
            }
            if let Err(error) = self.connection.execute_batch("BEGIN IMMEDIATE") {
                return self.begin_failed(group, &error);
            }
            let mut head = self.head;
            match self.apply(group, &mut failed, &mut head) {
                Ok(answers) => {
                    let answers = answers.into_iter().zip(failed);
                    let answers = answers.filter_map(|(answer, failed)| failed.map(Err).or(answer)).collect();
                    return self.finish(answers, head);
                }
                // The batch that failed is left out, and the others begin again: what they wrote is gone with it.
                Err(Broken::Batch) => {}
                Err(Broken::Writer) => {
                    return self.all_refused(group).unwrap_or_default();
                }
            }
        }
    }

    fn all_refused(&self, group: &[Job]) -> Option<Vec<Answer>> {
        self.shared.poison.get()?;
        Some(group.iter().map(|_| Err(self.shared.poisoned_error().unwrap_or_else(error::closed))).collect())
    }

    fn begin_failed(&self, group: &[Job], error: &rusqlite::Error) -> Vec<Answer> {
        if error::severity(error) != Severity::Busy {
            self.poison(format!("a transaction could not begin: {error}"));
        }
        self.all_refused(group).unwrap_or_else(|| {
            let what = "another program holds the file";
            group.iter().map(|_| Err(StoreError::new(StoreErrorKind::Overloaded, what))).collect()
        })
    }

    /// Applies every batch that has not failed before; those that have get no answer here.
    fn apply(
        &self,
        group: &[Job],
        failed: &mut [Option<StoreError>],
        head: &mut i64,
    ) -> Result<Vec<Option<Answer>>, Broken> {
        let now = self.shared.time.now();
        let mut answers = Vec::with_capacity(group.len());
        for (job, failed) in group.iter().zip(failed) {
            if failed.is_some() {
                answers.push(None);
                continue;
            }
            match commit::apply(&self.connection, job, head, now) {
                Ok(receipt) => answers.push(Some(Ok(receipt))),
                Err(Refusal::Refused(error)) => answers.push(Some(Err(error))),
                Err(Refusal::Failed(error)) => {
                    self.roll_back();
                    return Err(self.write_failed(&job.batch, error, failed));
                }
            }
        }
        let pruned = prune::is_due(&self.connection, now)
            .and_then(|is_due| if is_due { prune::step(&self.connection, group.len(), now) } else { Ok(()) });
        if let Err(error) = pruned {
            self.roll_back();
            self.poison(format!("what is forgotten could not be removed: {error}"));
            return Err(Broken::Writer);
        }
        Ok(answers)
    }

    fn write_failed(&self, batch: &Batch, error: rusqlite::Error, failed: &mut Option<StoreError>) -> Broken {
        let kind = match error::severity(&error) {
            Severity::Batch(kind) => kind,
            Severity::Busy => StoreErrorKind::Overloaded,
            Severity::Broken => {
                self.poison(format!("a batch could not be written: {error}"));
                return Broken::Writer;
            }
        };
        *failed = Some(StoreError::new(kind, format!("commit of {} failed", batch.id)).with_source(error));
        Broken::Batch
    }

    /// The moment of truth: one COMMIT, which returns when the disk has it.
    fn finish(&mut self, answers: Vec<Answer>, head: i64) -> Vec<Answer> {
        let Err(error) = self.connection.execute_batch("COMMIT") else {
            self.head = head;
            let committed = answers.iter().flatten().filter(|receipt| !receipt.is_repeated).count();
            if committed > 0 {
                self.shared.counters.groups.fetch_add(1, Ordering::Relaxed);
                self.shared.counters.commits.fetch_add(committed as u64, Ordering::Relaxed);
            }
            return answers;
        };
        self.roll_back();
        let kind = match error::severity(&error) {
            // The commit's frame is the last one of a group: what did not fit was never committed.
            Severity::Batch(StoreErrorKind::NoSpace) => StoreErrorKind::NoSpace,
            Severity::Busy => StoreErrorKind::Overloaded,
            _ => StoreErrorKind::Unknown,
        };
        if kind != StoreErrorKind::Overloaded {
            self.poison(format!("a commit failed: {error}"));
        }
        let what = format!("the commit of its group failed: {error}");
        let lost = |answer: Answer| answer.and_then(|_| Err(StoreError::new(kind, what.clone())));
        answers.into_iter().map(lost).collect()
    }

    fn roll_back(&self) {
        // SQLite has done it by itself after some failures.
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            self.poison(format!("a rollback failed: {error}"));
        }
    }

    fn poison(&self, reason: String) {
        tracing::error!(reason, "the store takes no more commits; restart to recover");
        // Leaves the write-ahead log as it is: the next open reads it from the disk.
        let _ = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        // The first reason is the cause.
        let _ = self.shared.poison.set(reason);
    }

    /// Copies the write-ahead log into the file, when it is long enough. Two fsyncs, after the answers.
    fn checkpoint_if_due(&mut self) {
        let pages = self.shared.counters.wal_pages.load(Ordering::Relaxed);
        let threshold = self.limits.checkpoint_pages;
        if pages < threshold {
            // It has begun anew.
            self.checkpoint_at = threshold;
        }
        if pages < self.checkpoint_at || self.shared.poison.get().is_some() {
            return;
        }
        if pages < threshold.saturating_mul(OVERGROWN) {
            self.checkpoint("PASSIVE");
        } else {
            // Commits wait meanwhile, so it gives up early on a reader that does not end.
            let _ = self.connection.busy_timeout(RESTART_WAIT);
            self.checkpoint("RESTART");
            let _ = self.connection.busy_timeout(self.limits.busy_timeout);
        }
        self.checkpoint_at = pages + threshold;
    }

    fn checkpoint(&self, mode: &str) {
        match self.connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(())) {
            Ok(()) => {
                self.shared.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if error::severity(&error) == Severity::Busy => {}
            // What it could not copy lies in the log still, but a disk that fails a flush is not asked again.
            Err(error) => self.poison(format!("a checkpoint failed: {error}")),
        }
    }

    /// Lets go of everything: the readers first, so that the last connection to close is this one.
    fn close(mut self) {
        if let Some(readers) = self.readers.take() {
            readers.stop();
        }
        if self.shared.poison.get().is_none() {
            self.checkpoint("TRUNCATE");
        }
        let Self { connection, _lock, .. } = self;
        if let Err((_, error)) = connection.close() {
            tracing::warn!(%error, "the store's file was not closed cleanly; the next open recovers it");
        }
    }
}

/// Tells that the writer has ended, in whatever way. Declared before everything that the thread holds, so that the
/// file's lock is free by then.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.poison.set("the writer panicked".to_owned());
        }
        self.0.ended.send_replace(true);
    }
}

/// What went wrong inside a group; its transaction is gone.
enum Broken {
    /// One batch, which knows its error.
    Batch,
    /// The writer, which is poisoned.
    Writer,
}
