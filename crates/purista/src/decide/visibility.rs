//! Whether concurrent decisions over one boundary can see each other's events.
//!
//! A decision is appended on condition that no event of its boundary was added since it read. If its own events are not
//! selected by the boundary, two decisions at the same time do not conflict, and a rule such as "only once" lets both pass.

use std::sync::atomic::{AtomicBool, Ordering};

use purista_core::error::HandlerError;
use purista_core::recording::CheckedEvent;
use purista_events::query::QueryItem;

/// Checks the events of one command's decisions against its boundary.
#[derive(Debug)]
pub(crate) struct Visibility {
    command: &'static str,
    allows_unselected: bool,
    /// Whether the missing tag of an event was logged already.
    has_warned: AtomicBool,
}

impl Visibility {
    pub(crate) const fn of_command(command: &'static str, allows_unselected: bool) -> Self {
        Self { command, allows_unselected, has_warned: AtomicBool::new(false) }
    }

    /// Rejects events of which the boundary selects none. Logs once when a view reads the type of an event that can never
    /// match the view's tags, while another view selects it.
    pub(crate) fn check(&self, events: &[CheckedEvent], boundary: &[QueryItem]) -> Result<(), HandlerError> {
        if self.allows_unselected || boundary.is_empty() {
            return Ok(());
        }
        let mut recorded = events.iter().filter(|event| event.is_recorded).peekable();
        let Some(first) = recorded.peek().copied() else { return Ok(()) };
        let missing = events
            .iter()
            .filter(|event| event.is_recorded)
            .find_map(|event| boundary.iter().find_map(|view| Some((event, missing_tag(event, view)?))));
        if !recorded.any(|event| boundary.iter().any(|view| view.selects_pending(event.name, &event.tags))) {
            return Err(HandlerError::failed(self.rejection(first, missing)));
        }
        if let Some((event, tag)) = missing
            && !self.has_warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                command = self.command,
                event = event.name,
                tag,
                "a view reads this event type by a tag that the event does not have: the view never sees it"
            );
        }
        Ok(())
    }

    #[cold]
    fn rejection(&self, first: &CheckedEvent, missing: Option<(&CheckedEvent, &str)>) -> String {
        let (command, event) = (self.command, missing.map_or(first, |(event, _)| event).name);
        let remedy = missing.map_or_else(
            || format!("read {event} in a view of the boundary"),
            |(_, tag)| format!("give {event} the tag `{tag}` that its view selects by"),
        );
        format!(
            "the decision of {command} records {event}, but its boundary selects none of its events: two decisions at the \
             same time would both be committed; {remedy}, or call `.allow_unselected_events()`"
        )
    }
}

/// The tag by which a view selects this event type, if the event has no tag of that name.
fn missing_tag<'v>(event: &CheckedEvent, view: &'v QueryItem) -> Option<&'v str> {
    let (tag, _) = view
        .tags
        .iter()
        .filter(|_| view.names_type(event.name))
        .find(|(tag, _)| !event.tags.iter().any(|(name, _)| name == tag.as_str()))?;
    Some(tag.as_str())
}
