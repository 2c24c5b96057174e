//! Work for the writer that is no batch, as the handles of a store ask for it.

use std::rc::Rc;
use std::sync::Arc;

use purista_events::store::{StoreError, StoreErrorKind};
use rusqlite::Connection;

use crate::aside::Work;
use crate::error::Refusal;
use crate::queue::{Order, QUEUE_WAIT};
use crate::store::Handle;

impl Handle {
    /// Has the writer do something beside batches, in a transaction that is not flushed by itself.
    pub(crate) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Rc<Connection>) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.is_read_only {
            return Err(StoreError::new(StoreErrorKind::Closed, "the store was opened for reading only"));
        }
        let waiting = tokio::time::timeout(QUEUE_WAIT, Arc::clone(&self.room).acquire_owned());
        let room = match waiting.await {
            Ok(Ok(room)) => room,
            Ok(Err(_)) => return Err(self.refusal()),
            Err(_) => {
                return Err(StoreError::new(StoreErrorKind::Overloaded, "too much waits to be written"));
            }
        };
        let (work, answered) = Work::new(work, room);
        self.orders.try_send(Order::Aside(Box::new(work))).map_err(|_| self.refusal())?;
        let unanswered = |_| StoreError::new(StoreErrorKind::Unknown, "the writer ended without an answer");
        answered.await.map_err(unanswered)?
    }

    /// Names what the writer works on, for health.
    pub(crate) fn namer(&self) -> impl FnOnce(String) + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move |name| shared.busy.name(name)
    }
}
