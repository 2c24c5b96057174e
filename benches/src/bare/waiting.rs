//! The calls that wait for a reply.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;

/// The calls that wait for a reply, by the id that the reply bears.
#[derive(Debug, Clone, Default)]
pub(super) struct Waiting(Arc<Mutex<HashMap<String, oneshot::Sender<Bytes>>>>);

impl Waiting {
    /// Announces a call.
    pub(super) fn expect(&self, id: &str) -> oneshot::Receiver<Bytes> {
        let (sender, receiver) = oneshot::channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), sender);
        receiver
    }

    /// Hands over the body of its reply.
    pub(super) fn complete(&self, id: &str, body: Bytes) {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        if let Some(call) = waiting {
            // Who measures does not go away before its answer.
            let _ = call.send(body);
        }
    }
}
