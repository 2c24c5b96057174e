//! Records events that enter from outside of handlers, by the host's client.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use purista_core::bridge::EventBridge;
use purista_core::client::{EventRecorder, OutsideCause};
use purista_core::clock::Clock;
use purista_core::invoke_error::{InvokeError, InvokeErrorKind};
use purista_core::recording::CheckedEvent;
use purista_core::status::Status;
use purista_core::text::Text;
use purista_events::batch::{Append, Batch, Condition};
use purista_events::recorded::{Cause, NewEvent};
use purista_events::store::{EventStore, StoreError, StoreErrorKind};

use crate::commit::settled;
use crate::runtime::check_carried;

/// Commits each event to the host's store, in a batch of its own.
pub(crate) struct Recorder {
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) bridge: Arc<dyn EventBridge>,
    pub(crate) clock: Clock,
}

impl EventRecorder for Recorder {
    fn record(&self, event: CheckedEvent, cause: OutsideCause) -> BoxFuture<'_, Result<(), InvokeError>> {
        Box::pin(async move {
            let CheckedEvent { name, version, tags, body, .. } = event;
            check_carried(&*self.bridge, name, body.len()).map_err(|error| {
                InvokeError::new(InvokeErrorKind::Rejected, Status::PAYLOAD_TOO_LARGE, error.to_string())
            })?;
            let OutsideCause { sender, principal_id, tenant_id, trace_id } = cause;
            let cause = Cause {
                sender,
                principal_id,
                trace_id,
                trace: None,
                correlation_id: None,
                causation_id: None,
                hops: 0,
            };
            let event = NewEvent { id: self.clock.id(), name: Text::known(name), version, tags, body, cause };
            let mut batch = Batch::new(self.clock.id(), tenant_id);
            batch.appends.push(Append { events: vec![event], condition: Condition::Always });
            settled(&self.store, batch).await.map_err(|error| not_recorded(&error))
        })
    }
}

fn not_recorded(error: &StoreError) -> InvokeError {
    let (kind, status) = match error.kind() {
        StoreErrorKind::Unknown => (InvokeErrorKind::Unknown, Status::GATEWAY_TIMEOUT),
        StoreErrorKind::Invalid => (InvokeErrorKind::Rejected, Status::BAD_REQUEST),
        _ => (InvokeErrorKind::Rejected, Status::SERVICE_UNAVAILABLE),
    };
    InvokeError::new(kind, status, purista_core::error::chain(error))
}
