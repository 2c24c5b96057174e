//! Which forms of events a program reads, and whether it can read everything that is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use purista_core::catalogue::EventEntry;
use purista_core::event::Event;
use purista_core::text::Text;

use crate::position::Position;
use crate::query::Query;
use crate::recorded::Recorded;
use crate::store::{Direction, EventStore, StoreError};
use crate::upcast::{EventForm, UnreadableEvent, Upcasters};

/// The events that a program reads, each in one form.
#[derive(Clone, Default)]
pub struct Readers {
    by_name: BTreeMap<&'static str, EventEntry>,
    /// Names that are read in a form that is not known here.
    names: BTreeSet<Text>,
}

impl Readers {
    /// None.
    pub const fn new() -> Self {
        Self { by_name: BTreeMap::new(), names: BTreeSet::new() }
    }

    /// One more event that is read, in the form of `E`.
    #[must_use]
    pub fn event<E: Event>(self) -> Self {
        self.entry(EventEntry::of::<E>())
    }

    /// One more event that is read, as the catalogue lists it.
    #[must_use]
    pub fn entry(mut self, entry: EventEntry) -> Self {
        self.by_name.insert(entry.name, entry);
        self
    }

    /// One more event that is read by name: its stored versions are not decoded by [`check`].
    #[must_use]
    pub fn name(mut self, name: Text) -> Self {
        self.names.insert(name);
        self
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.by_name.iter().map(|(name, entry)| (name, entry.version))).finish()
    }
}

/// A form of events that is stored, and that the program cannot read.
#[derive(Debug)]
#[non_exhaustive]
pub struct UnreadForm {
    /// The form.
    pub form: EventForm,
    /// Where one of its events lies.
    pub position: Position,
    /// What goes wrong with that event; `None` when no reader asks for events of this name, nor for what they become.
    pub error: Option<UnreadableEvent>,
}

impl fmt::Display for UnreadForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            Some(error) => fmt::Display::fmt(error, f),
            None => write!(
                f,
                "nothing reads the event {}, as at position {}: add its type to the readers, or an upcaster to an event \
                 that is read",
                self.form, self.position
            ),
        }
    }
}

/// Reads the newest and the oldest event of every form that is stored, and names what no code can read. Run it where a
/// program starts, and before it is deployed.
///
/// ```
/// # use garde::Validate; use schemars::JsonSchema; use serde::{Deserialize, Serialize};
/// # use purista_core::event::Event;
/// # use purista_events::{memory::MemoryStore, store::StoreError};
/// # #[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)] #[garde(allow_unvalidated)] struct Joined {}
/// # impl Event for Joined { const NAME: &'static str = "joined"; }
/// use purista_events::readers::{Readers, check};
/// use purista_events::upcast::Upcasters;
///
/// # async fn example(store: MemoryStore) -> Result<(), StoreError> {
/// for unread in check(&store, &Upcasters::new(), &Readers::new().event::<Joined>()).await? {
///     eprintln!("{unread}");
/// }
/// # Ok(())
/// # }
/// ```
pub async fn check(
    store: &dyn EventStore,
    upcasters: &Upcasters,
    readers: &Readers,
) -> Result<Vec<UnreadForm>, StoreError> {
    let mut found = Vec::new();
    for stored in store.forms().await? {
        let form = EventForm { name: stored.name, version: stored.version };
        let typed = upcasters.stored_names(readers.by_name.keys().map(|name| Text::known(name)));
        if !typed.contains(&form.name) {
            if readers.names.contains(&form.name) {
                continue;
            }
            found.push(UnreadForm { form, position: stored.newest, error: None });
            continue;
        }
        for position in [stored.newest, stored.oldest] {
            let sample = store.read(&Query::all(), position.previous(), Direction::Forwards, 1).await?;
            let sample = sample.iter().find(|event| event.position == position);
            if let Some(Err(error)) = sample.map(|event| read(event, upcasters, readers)) {
                found.push(UnreadForm { form, position, error: Some(error) });
                break;
            }
        }
    }
    Ok(found)
}

fn read(event: &Recorded, upcasters: &Upcasters, readers: &Readers) -> Result<(), UnreadableEvent> {
    let wanted = |name: &str| readers.by_name.get(name).map(|entry| entry.version);
    upcasters.read(event, wanted, |name, version, body| {
        let decoded = readers.by_name.get(name.as_str()).map_or(Ok(()), |entry| entry.decode(body));
        decoded.map_err(|error| {
            UnreadableEvent::not_of_its_form(event, EventForm { name: name.clone(), version }, error)
        })
    })
}

#[cfg(test)]
mod tests;
