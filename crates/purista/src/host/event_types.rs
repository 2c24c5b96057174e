//! Warnings at the start about event types: stored ones that nothing reads, and mistakes that the compiler cannot see.

use std::collections::BTreeSet;

use purista_core::catalogue::EventEntry;
use purista_core::error::chain;
use purista_events::projector::Projected;
use purista_events::query::Query;
use purista_events::readers::{self, Readers};
use purista_events::store::{Direction, EventStore, StoreError};
use purista_events::upcast::Upcasters;

use crate::service::Service;

/// The most event types that are named by one start; a count stands for the rest.
const WARNINGS_MAX: usize = 20;

/// The event types that a host registers.
pub(super) struct EventTypes {
    /// Those that services and projections read or emit.
    readers: Readers,
    /// Those that decisions record.
    decided: BTreeSet<&'static str>,
}

impl EventTypes {
    pub(super) fn new(services: &[Service], projections: &[Projected], by_views: &[EventEntry]) -> Self {
        let filters = services.iter().flat_map(|service| &service.subscriptions);
        let filtered = filters.flat_map(|part| part.listening.terms.filter.event_names.iter().cloned());
        let queries = projections.iter().map(|projected| projected.handle().query());
        let projected = queries.flat_map(|query| query.items).flat_map(|item| item.types);
        let typed = known(services).chain(by_views).cloned().fold(Readers::new(), Readers::entry);
        let deciding = services.iter().flat_map(|service| &service.commands).filter(|part| part.decides);
        Self {
            readers: filtered.chain(projected).fold(typed, Readers::name),
            decided: deciding.flat_map(|part| &part.emits).map(|event| event.name).collect(),
        }
    }

    /// Logs each stored event type that nothing registered can read, and each that a decision records without tags.
    pub(super) async fn warn_of_stored(&self, store: &dyn EventStore, upcasters: &Upcasters) {
        let result = async {
            self.warn_of_unreadable(store, upcasters).await?;
            self.warn_of_missing_tags(store).await
        };
        if let Err(error) = result.await {
            tracing::warn!(error = chain(&error), "the stored event types could not be checked");
        }
    }

    async fn warn_of_unreadable(
        &self,
        store: &dyn EventStore,
        upcasters: &Upcasters,
    ) -> Result<(), StoreError> {
        let unreadable = readers::check(store, upcasters, &self.readers).await?;
        for unread in unreadable.iter().take(WARNINGS_MAX) {
            tracing::warn!(
                event = %unread.form,
                position = %unread.position,
                reason = %unread,
                "a stored event type cannot be read"
            );
        }
        if unreadable.len() > WARNINGS_MAX {
            let more = unreadable.len() - WARNINGS_MAX;
            tracing::warn!(more, "more stored event types cannot be read");
        }
        Ok(())
    }

    /// No view that selects by a tag sees an event without tags. The newest stored event of each type is the sample.
    async fn warn_of_missing_tags(&self, store: &dyn EventStore) -> Result<(), StoreError> {
        if self.decided.is_empty() {
            return Ok(());
        }
        for form in store.forms().await?.iter().filter(|form| self.decided.contains(form.name.as_str())) {
            let sample = store.read(&Query::all(), form.newest.previous(), Direction::Forwards, 1).await?;
            if sample.iter().any(|event| event.position == form.newest && event.tags.is_empty()) {
                tracing::warn!(
                    event = %form.name,
                    position = %form.newest,
                    "an event that a decision records has no tags: views that select by a tag do not see it"
                );
            }
        }
        Ok(())
    }
}

fn known(services: &[Service]) -> impl Iterator<Item = &EventEntry> {
    services.iter().flat_map(|service| {
        let handled = service.subscriptions.iter().filter_map(|part| part.event.as_ref());
        service.entry.events.iter().chain(handled)
    })
}

/// Logs each command whose output is an event type that a subscription of this host handles or a service emits, but which
/// does not say `.success_event()`.
pub(super) fn warn_of_forgotten_success_events(services: &[Service]) {
    for part in services.iter().flat_map(|service| &service.commands) {
        if part.decides || part.entry.success_event.is_some() {
            continue;
        }
        let Some(event) = known(services).find(|event| event.is_output_of(&part.entry)) else { continue };
        if part.emits.iter().any(|emitted| emitted.name == event.name) {
            continue;
        }
        tracing::warn!(
            command = %part.entry.address,
            event = event.name,
            "the output of a command is an event type, but the event is not emitted: call `.success_event()`"
        );
    }
}
