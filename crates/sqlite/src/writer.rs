//! The one writer: takes what waits as a group, commits it with one fsync, answers.
//!
//! A batch is answered `Ok` only after the COMMIT of its group has returned. When that fails, nobody knows what the
//! disk holds: the group is answered `Unknown`, and the writer is poisoned: it never writes again in this process, since
//! a second fsync may succeed without having written what the first one lost.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use purista_events::batch::{Batch, Receipt};
use purista_events::store::{StoreError, StoreErrorKind};
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::aside::Aside;
use crate::commit;
use crate::error::{self, Refusal, Severity};
use crate::file::{WAL_BYTES_KEPT, last_batch};
use crate::lock::Lock;
use crate::queue::{Answer, Job, Limits, Order, Shared};
use crate::readers::ReaderThreads;
use crate::statements::Statements;
use crate::sums::{Head, Sums};
use crate::watchdog::Inbox;
use crate::{codec, prune};

/// How long a group waits for as many as the last one had: those that were answered together come back together. It is what a
/// sync costs, so that a busy machine, on which they come back late, does not pay a sync for each few of them.
const GATHERED_FOR: Duration = Duration::from_millis(1);

/// When the write-ahead log has grown by this many times the checkpoint's threshold, new readers are held back for a
/// moment, so that it can begin anew.
const OVERGROWN: u64 = 4;

/// How long that moment is at most, for each time that it is overgrown.
const RESTART_WAIT: Duration = Duration::from_millis(50);

/// How large a page of the file is.
const PAGE_BYTES: u64 = 4_096;

/// How long an idle writer waits before it tries to shrink a log of more than [`WAL_BYTES_KEPT`].
const SHRINKS_AFTER: Duration = Duration::from_secs(1);

/// How often a log that cannot shrink is warned of at most.
const WARNED_EVERY: Duration = Duration::from_secs(60);

/// The writer's thread.
pub(crate) struct Writer {
    pub(crate) orders: Inbox,
    /// What waits beside the batches.
    pub(crate) asides: VecDeque<Box<dyn Aside>>,
    pub(crate) limits: Limits,
    pub(crate) shared: Arc<Shared>,
    pub(crate) head: i64,
    /// From how many pages of the write-ahead log on the next checkpoint is due.
    pub(crate) checkpoint_at: u64,
    /// When a log that does not shrink was last warned of.
    pub(crate) warned_at: Option<Instant>,
    pub(crate) readers: Option<ReaderThreads>,
    pub(crate) sums: Sums,
    pub(crate) path: PathBuf,
    /// Let go of when everything else is closed.
    pub(crate) _lock: Lock,
}

impl Writer {
    /// Works until it is told to close, or nobody is left to tell it.
    pub(crate) fn run(self, connection: Connection) {
        let _end = End(Arc::clone(&self.shared));
        // Bound after it, so that they are let go of before it speaks, also in a panic.
        let (mut writer, connection) = (self, Rc::new(connection));
        match Statements::prepare(&connection) {
            Ok(mut statements) => writer.work(&mut statements),
            Err(error) => {
                writer.poison(&connection, format!("the writer could not begin: {error}"));
                writer.refuse_all();
            }
        }
        writer.close(connection);
    }

    fn work(&mut self, statements: &mut Statements<'_>) {
        let mut size = 1;
        loop {
            let order = if self.asides.is_empty() {
                match self.idle_for() {
                    None => self.orders.recv(),
                    Some(time) => self.orders.recv_timeout(time).inspect_err(|_| self.checkpoint_at = 0),
                }
            } else {
                self.orders.try_recv()
            };
            match order {
                Ok(Order::Commit(first)) => {
                    let (group, is_closing) = self.gather(*first, size);
                    size = group.len();
                    self.serve(statements, group);
                    if is_closing {
                        break;
                    }
                }
                Ok(Order::Aside(aside)) => self.asides.push_back(aside),
                Ok(Order::Close) | Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {}
            }
            // One, and then batches have their turn again.
            self.serve_aside(statements);
            self.checkpoint_if_due(statements.connection);
        }
        // What was handed over while the end was being told.
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Commit(job) => self.serve(statements, vec![*job]),
                Order::Aside(aside) => self.asides.push_back(aside),
                Order::Close => {}
            }
        }
        while !self.asides.is_empty() {
            self.serve_aside(statements);
        }
    }

    /// Answers in the place of a writer that could not begin.
    fn refuse_all(&self) {
        loop {
            let refusal = || Err(self.shared.poisoned_error().unwrap_or_else(error::closed));
            match self.orders.recv() {
                Ok(Order::Commit(job)) => drop(job.answer.send(refusal())),
                Ok(Order::Aside(aside)) => aside.answer(refusal().map(|_: Receipt| ())),
                Ok(Order::Close) | Err(_) => return,
            }
        }
    }

    /// What waits, up to a whole group. It waits itself only when the last group was of several.
    fn gather(&mut self, first: Job, last_size: usize) -> (Vec<Job>, bool) {
        let mut group = vec![first];
        let mut until = None;
        while group.len() < self.limits.group_max {
            match self.orders.try_recv() {
                Ok(Order::Commit(job)) => group.push(*job),
                Ok(Order::Aside(aside)) => self.asides.push_back(aside),
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

    /// Does the next of what waits beside batches, if anything does.
    fn serve_aside(&mut self, statements: &Statements<'_>) {
        let Some(mut aside) = self.asides.pop_front() else { return };
        self.shared.busy.begin();
        let end = self.run_aside(statements.connection, &mut *aside);
        self.shared.busy.end();
        aside.answer(end);
    }

    fn run_aside(&self, connection: &Rc<Connection>, aside: &mut dyn Aside) -> Result<(), StoreError> {
        if let Some(error) = self.shared.poisoned_error() {
            return Err(error);
        }
        let end = self.in_transaction_without_flush(connection, aside);
        if let Err(error) = connection.pragma_update(None, "synchronous", "FULL") {
            self.poison(connection, format!("commits could not be made durable again: {error}"));
        }
        end
    }

    fn in_transaction_without_flush(
        &self,
        connection: &Rc<Connection>,
        aside: &mut dyn Aside,
    ) -> Result<(), StoreError> {
        let what = "a step beside the batches failed";
        let failed = |error: rusqlite::Error| {
            let kind = match error::severity(&error) {
                Severity::Batch(kind) => kind,
                Severity::Busy => StoreErrorKind::Overloaded,
                Severity::Broken => {
                    self.poison(connection, format!("{what}: {error}"));
                    StoreErrorKind::Closed
                }
            };
            StoreError::new(kind, what).with_source(error)
        };
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
        connection.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
        match aside.run(connection) {
            Ok(()) => connection.execute_batch("COMMIT").map_err(|error| {
                self.roll_back(connection);
                failed(error)
            }),
            Err(refusal) => {
                self.roll_back(connection);
                Err(match refusal {
                    Refusal::Refused(error) => error,
                    Refusal::Failed(error) => failed(error),
                })
            }
        }
    }

    /// Commits a group and answers each of its batches.
    fn serve(&mut self, statements: &mut Statements<'_>, group: Vec<Job>) {
        self.shared.busy.begin();
        let answers = self.commit(statements, &group);
        self.shared.busy.end();
        let head = codec::position(self.head);
        self.shared.head.send_if_modified(|known| std::mem::replace(known, head) != head);
        for (job, answer) in group.into_iter().zip(answers) {
            // Whoever waited may be gone; the commit stays.
            let _ = job.answer.send(answer);
        }
    }

    fn commit(&mut self, statements: &mut Statements<'_>, group: &[Job]) -> Vec<Answer> {
        let connection = statements.connection;
        let mut failed: Vec<Option<StoreError>> = group.iter().map(|_| None).collect();
        loop {
            if let Some(refused) = self.all_refused(group) {
                return refused;
            }
            if let Err(error) = connection.execute_batch("BEGIN IMMEDIATE") {
                return self.begin_failed(connection, group, &error);
            }
            let mut head = self.head;
            statements.forms_added.clear();
            match self.apply(statements, group, &mut failed, &mut head) {
                Ok(answers) => {
                    let answers = answers.into_iter().zip(failed);
                    let answers = answers.filter_map(|(answer, failed)| failed.map(Err).or(answer)).collect();
                    return self.finish(connection, answers, head);
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

    fn begin_failed(&self, connection: &Connection, group: &[Job], error: &rusqlite::Error) -> Vec<Answer> {
        if error::severity(error) != Severity::Busy {
            self.poison(connection, format!("a transaction could not begin: {error}"));
        }
        self.all_refused(group).unwrap_or_else(|| {
            let what = "another program holds the file";
            group.iter().map(|_| Err(StoreError::new(StoreErrorKind::Overloaded, what))).collect()
        })
    }

    /// Applies every batch that has not failed before; those that have get no answer here.
    fn apply(
        &self,
        statements: &mut Statements<'_>,
        group: &[Job],
        failed: &mut [Option<StoreError>],
        head: &mut i64,
    ) -> Result<Vec<Option<Answer>>, Broken> {
        let connection = statements.connection;
        let now = self.shared.time.now();
        let mut answers = Vec::with_capacity(group.len());
        for (job, failed) in group.iter().zip(failed) {
            if failed.is_some() {
                answers.push(None);
                continue;
            }
            match commit::apply(statements, job, head, now) {
                Ok(receipt) => answers.push(Some(Ok(receipt))),
                Err(Refusal::Refused(error)) => answers.push(Some(Err(error))),
                Err(Refusal::Failed(error)) => {
                    self.roll_back(connection);
                    return Err(self.write_failed(connection, &job.batch, error, failed));
                }
            }
        }
        if let Err(error) = statements.forms_added.write(connection) {
            self.roll_back(connection);
            self.poison(connection, format!("the forms of events could not be counted: {error}"));
            return Err(Broken::Writer);
        }
        let pruned = prune::is_due(connection, now)
            .and_then(|is_due| if is_due { prune::step(connection, group.len(), now) } else { Ok(()) });
        if let Err(error) = pruned {
            self.roll_back(connection);
            self.poison(connection, format!("what is forgotten could not be removed: {error}"));
            return Err(Broken::Writer);
        }
        Ok(answers)
    }

    fn write_failed(
        &self,
        connection: &Connection,
        batch: &Batch,
        error: rusqlite::Error,
        failed: &mut Option<StoreError>,
    ) -> Broken {
        let kind = match error::severity(&error) {
            Severity::Batch(kind) => kind,
            Severity::Busy => StoreErrorKind::Overloaded,
            Severity::Broken => {
                self.poison(connection, format!("a batch could not be written: {error}"));
                return Broken::Writer;
            }
        };
        *failed = Some(StoreError::new(kind, format!("commit of {} failed", batch.id)).with_source(error));
        Broken::Batch
    }

    /// The moment of truth: one COMMIT, which returns when the disk has it.
    fn finish(&mut self, connection: &Connection, answers: Vec<Answer>, head: i64) -> Vec<Answer> {
        let Err(error) = connection.execute_batch("COMMIT") else {
            self.head = head;
            let committed = answers.iter().flatten().filter(|receipt| !receipt.is_repeated).count();
            if committed > 0 {
                self.shared.counters.groups.fetch_add(1, Ordering::Relaxed);
                self.shared.counters.commits.fetch_add(committed as u64, Ordering::Relaxed);
                // Asked for, since the row that was inserted last may be of a batch that was rolled back.
                let written = last_batch(connection)
                    .map_err(std::io::Error::other)
                    .and_then(|batch| self.sums.committed(Head { position: head, batch }));
                if let Err(error) = written {
                    // What it says stays true: a log that ends earlier has lost commits.
                    tracing::warn!(%error, "the end of the log could not be written next to the page checksums");
                }
            }
            return answers;
        };
        self.roll_back(connection);
        let kind = match error::severity(&error) {
            // The commit's frame is the last one of a group: what did not fit was never committed.
            Severity::Batch(StoreErrorKind::NoSpace) => StoreErrorKind::NoSpace,
            Severity::Busy => StoreErrorKind::Overloaded,
            _ => StoreErrorKind::Unknown,
        };
        if kind != StoreErrorKind::Overloaded {
            self.poison(connection, format!("a commit failed: {error}"));
        }
        let what = format!("the commit of its group failed: {error}");
        let lost = |answer: Answer| answer.and_then(|_| Err(StoreError::new(kind, what.clone())));
        answers.into_iter().map(lost).collect()
    }

    fn roll_back(&self, connection: &Connection) {
        // SQLite has done it by itself after some failures.
        if !connection.is_autocommit()
            && let Err(error) = connection.execute_batch("ROLLBACK")
        {
            self.poison(connection, format!("a rollback failed: {error}"));
        }
    }

    fn poison(&self, connection: &Connection, reason: String) {
        tracing::error!(reason, "the store takes no more commits; restart to recover");
        // Leaves the write-ahead log as it is: the next open reads it from the disk.
        let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        // The first reason is the cause.
        let _ = self.shared.poison.set(reason);
    }

    /// Copies the write-ahead log into the file, when it is long enough. Two fsyncs, after the answers.
    fn checkpoint_if_due(&mut self, connection: &Connection) {
        let pages = self.shared.counters.wal_pages.load(Ordering::Relaxed);
        let threshold = self.limits.checkpoint_pages;
        if pages < threshold {
            // It has begun anew.
            self.checkpoint_at = threshold;
        }
        if pages < self.checkpoint_at || self.shared.poison.get().is_some() {
            return;
        }
        let overgrown = pages / threshold.saturating_mul(OVERGROWN);
        if overgrown == 0 {
            self.checkpoint(connection, "PASSIVE");
        } else if pages.saturating_mul(PAGE_BYTES) > WAL_BYTES_KEPT {
            let _ = connection.busy_timeout(RESTART_WAIT);
            let is_held = !self.checkpoint(connection, "TRUNCATE");
            let _ = connection.busy_timeout(self.limits.busy_timeout);
            if is_held {
                self.warn_of_long_reads(pages);
            }
        } else {
            // Commits wait meanwhile, so it gives up early on a reader that does not end; the longer the log, the later.
            let wait = RESTART_WAIT.saturating_mul(u32::try_from(overgrown).unwrap_or(u32::MAX));
            let _ = connection.busy_timeout(wait.min(self.limits.busy_timeout));
            self.checkpoint(connection, "RESTART");
            let _ = connection.busy_timeout(self.limits.busy_timeout);
        }
        self.checkpoint_at = pages + threshold;
    }

    /// Says, at most once in [`WARNED_EVERY`], what holds the write-ahead log back.
    fn warn_of_long_reads(&mut self, pages: u64) {
        if self.warned_at.is_some_and(|at| at.elapsed() < WARNED_EVERY) {
            return;
        }
        self.warned_at = Some(Instant::now());
        tracing::warn!(
            file = %self.path.display(),
            mebibytes = pages.saturating_mul(PAGE_BYTES) / (1024 * 1024),
            "the write-ahead log cannot be copied into the data file: another program, or a long read of this one, holds a \
             read transaction on the file; end it, and the log shrinks"
        );
    }

    /// Copies the write-ahead log into the file, after the checksums of its pages are written. Returns whether all was copied.
    fn checkpoint(&mut self, connection: &Connection, mode: &str) -> bool {
        if let Err(error) = self.sums.take_in(&self.path) {
            self.poison(connection, format!("the checksums of pages could not be written: {error}"));
            return false;
        }
        let is_busy = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        match connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], is_busy) {
            Ok(is_busy) => {
                self.shared.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
                if mode == "TRUNCATE" && is_busy == 0 {
                    self.shared.counters.wal_pages.store(0, Ordering::Relaxed);
                }
                is_busy == 0
            }
            Err(error) if error::severity(&error) == Severity::Busy => false,
            // What it could not copy lies in the log still, but a disk that fails a flush is not asked again.
            Err(error) => {
                self.poison(connection, format!("a checkpoint failed: {error}"));
                false
            }
        }
    }

    /// How long an idle writer waits before it looks whether a log that is too long can shrink; `None` where it is not.
    fn idle_for(&self) -> Option<Duration> {
        let pages = self.shared.counters.wal_pages.load(Ordering::Relaxed);
        let is_long = pages.saturating_mul(PAGE_BYTES) > WAL_BYTES_KEPT;
        (is_long && self.shared.poison.get().is_none()).then_some(SHRINKS_AFTER)
    }

    /// Lets go of everything: the readers first, so that the last connection to close is this one.
    fn close(mut self, connection: Rc<Connection>) {
        if let Some(readers) = self.readers.take() {
            readers.stop();
        }
        if self.shared.poison.get().is_none() {
            self.checkpoint(&connection, "TRUNCATE");
        }
        let Some(connection) = Rc::into_inner(connection) else { return };
        if let Err((_, error)) = connection.close() {
            tracing::warn!(%error, "the store's file was not closed cleanly; the next open recovers it");
        }
        let _ = self.sums.flush();
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
