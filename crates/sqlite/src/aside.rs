//! What the writer does beside batches, each in a transaction of its own: snapshots, and steps of projections.
//!
//! Such a commit is not flushed by itself: it concerns what can be made again from the log. Its pages lie in the
//! write-ahead log behind those of the batches before it, so a crash of the machine takes it back whole, together with
//! everything after it, and never a batch that was acknowledged.

use std::rc::Rc;

use purista_events::store::StoreError;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::error::{Refusal, closed};

/// Something for the writer to do in a transaction.
pub(crate) trait Aside: Send {
    /// Does it. The transaction is committed when this is `Ok`, else taken back.
    fn run(&mut self, connection: &Rc<Connection>) -> Result<(), Refusal>;
    /// Tells how it ended.
    fn answer(self: Box<Self>, end: Result<(), StoreError>);
}

/// Work with a result.
pub(crate) struct Work<F, T> {
    run: Option<F>,
    found: Option<T>,
    answer: oneshot::Sender<Result<T, StoreError>>,
    _room: OwnedSemaphorePermit,
}

impl<F, T> Work<F, T> {
    pub(crate) fn new(
        work: F,
        room: OwnedSemaphorePermit,
    ) -> (Self, oneshot::Receiver<Result<T, StoreError>>) {
        let (answer, answered) = oneshot::channel();
        (Self { run: Some(work), found: None, answer, _room: room }, answered)
    }
}

impl<F, T> Aside for Work<F, T>
where
    F: FnOnce(&Rc<Connection>) -> Result<T, Refusal> + Send,
    T: Send,
{
    fn run(&mut self, connection: &Rc<Connection>) -> Result<(), Refusal> {
        let Some(work) = self.run.take() else { return Err(closed().into()) };
        self.found = Some(work(connection)?);
        Ok(())
    }

    fn answer(self: Box<Self>, end: Result<(), StoreError>) {
        let found = self.found;
        // Whoever waited may be gone; what was done stays.
        let _ = self.answer.send(end.and_then(|()| found.ok_or_else(closed)));
    }
}
