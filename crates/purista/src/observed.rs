//! Collects what an observer is told of one delivery.

use bytes::Bytes;
use purista_core::address::Address;
use purista_core::payload::Payload;

use crate::context::Context;
use crate::observation::{Ending, Observation};
use crate::unit_of_work::Changes;

/// What an observer is told, collected before the unit is consumed.
pub(crate) struct Observed {
    input: Bytes,
    emitted: Vec<(String, Bytes)>,
    invoked: Vec<Address>,
}

impl Observed {
    pub(crate) fn of(input: &Payload, changes: Option<&Changes>) -> Self {
        let recorded = changes
            .iter()
            .flat_map(|changes| &changes.recorded)
            .map(|e| (e.name.to_string(), e.body.clone()));
        let published = changes.iter().flat_map(|changes| &changes.published).map(|message| {
            let name = message.event_name.as_deref().unwrap_or_default().to_owned();
            (name, message.payload.bytes().ok().flatten().unwrap_or_default())
        });
        Self {
            input: input.bytes().ok().flatten().unwrap_or_default(),
            emitted: recorded.chain(published).collect(),
            invoked: changes
                .iter()
                .flat_map(|changes| &changes.invoked)
                .map(|(address, _)| address.clone())
                .collect(),
        }
    }

    pub(crate) fn settled<S>(self, context: &Context<S>, ending: Ending) {
        let Some(observer) = &context.runtime().observer else { return };
        let is_done = ending == Ending::Done;
        observer.settled(Observation {
            handler: context.place().sender.address.clone(),
            message_id: context.message().id.clone(),
            attempt: context.attempt(),
            input: self.input,
            emitted: if is_done { self.emitted } else { Vec::new() },
            invoked: self.invoked,
            ending,
        });
    }
}
