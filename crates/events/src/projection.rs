//! A projection as a value: a name, a version, and what each type of event does to the read model.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use purista_core::error::HandlerError;
use purista_core::event::Event;
use purista_core::text::Text;

use crate::query::{Query, QueryItem, TenantScope};
use crate::read_models::Making;
use crate::recorded::Recorded;
use crate::upcast::{UnreadableEvent, Upcasters};

/// An event that is decoded, with what is to be done with it.
pub(crate) type Ready<Tx> = Box<dyn FnOnce(&Tx) -> Result<(), HandlerError> + Send>;

type Prepare<Tx> = Arc<dyn Fn(Recorded) -> Result<Ready<Tx>, HandlerError> + Send + Sync>;

type TakeIn<Tx> = Arc<dyn Fn(&Tx, Recorded) -> Result<Result<(), HandlerError>, HandlerError> + Send + Sync>;

/// What is done with events of one name, and the version of their form that it reads.
struct Handler<Tx> {
    version: u32,
    prepare: Prepare<Tx>,
    /// Both at once, for whom nothing lies between them. The outer error is of an event that does not decode.
    take_in: TakeIn<Tx>,
}

/// Through which a projection reads that was given none: every event as it is stored.
static NO_UPCASTERS: Upcasters = Upcasters::new();

type SetUp<Tx> = Arc<dyn Fn(&Tx) -> Result<(), HandlerError> + Send + Sync>;

/// A read model and how it follows from events. `Tx` is the transaction of the engine in which it lies; handlers are sync
/// and run in it, together with the checkpoint, so each event is in the read model exactly once.
///
/// ```
/// use purista_core::event::{Event, Tags};
/// use purista_events::memory::tables::Tables;
/// use purista_events::projection::{Projection, projection};
/// use purista_events::recorded::Recorded;
/// # use garde::Validate; use schemars::JsonSchema; use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
/// #[garde(allow_unvalidated)]
/// struct Renamed { user: String, name: String }
/// impl Event for Renamed { const NAME: &'static str = "renamed"; }
///
/// fn names() -> Projection<Tables> {
///     projection("names", 1).on(|rows: &Tables, event: Recorded<Renamed>| {
///         rows.put("names", &event.body.user, event.body.name.into());
///         Ok(())
///     })
/// }
/// ```
#[must_use = "a projection does nothing before a host runs it"]
pub struct Projection<Tx> {
    name: Text,
    version: u32,
    tenants: TenantScope,
    set_up: Vec<SetUp<Tx>>,
    handlers: BTreeMap<Text, Handler<Tx>>,
    /// Its own; without them those of the host count.
    upcasters: Option<Upcasters>,
}

/// A projection of this name. Raise the version when its tables or its handlers change: the new one is built beside the old
/// one, and takes its place when it has caught up.
pub fn projection<Tx: 'static>(name: &'static str, version: u32) -> Projection<Tx> {
    let name = Text::known(name);
    Projection {
        name,
        version,
        tenants: TenantScope::All,
        set_up: Vec::new(),
        handlers: BTreeMap::new(),
        upcasters: None,
    }
}

impl<Tx: 'static> Projection<Tx> {
    /// Makes its tables; called once for each build of it.
    pub fn set_up(
        mut self,
        set_up: impl Fn(&Tx) -> Result<(), HandlerError> + Send + Sync + 'static,
    ) -> Self {
        self.set_up.push(Arc::new(set_up));
        self
    }

    /// What one type of event does. A second handler for the same type takes the place of the first.
    pub fn on<E: Event>(
        mut self,
        handler: impl Fn(&Tx, Recorded<E>) -> Result<(), HandlerError> + Send + Sync + 'static,
    ) -> Self {
        let handler = Arc::new(handler);
        let at_once = Arc::clone(&handler);
        let take_in = move |tx: &Tx, event: Recorded| Ok(at_once(tx, decoded::<E>(event)?));
        let prepare = move |event: Recorded| -> Result<Ready<Tx>, HandlerError> {
            let event = decoded::<E>(event)?;
            let handler = Arc::clone(&handler);
            Ok(Box::new(move |tx| handler(tx, event)))
        };
        let handler = Handler { version: E::VERSION, prepare: Arc::new(prepare), take_in: Arc::new(take_in) };
        self.handlers.insert(Text::known(E::NAME), handler);
        self
    }

    /// Reads events of older forms through these, and not through those of the host that runs it.
    pub fn upcasters(mut self, upcasters: Upcasters) -> Self {
        self.upcasters = Some(upcasters);
        self
    }

    /// Takes these, unless it was given its own.
    pub(crate) fn take_upcasters(&mut self, upcasters: &Upcasters) {
        self.upcasters.get_or_insert_with(|| upcasters.clone());
    }

    /// By which it reads events of older forms.
    pub(crate) fn steps(&self) -> &Upcasters {
        self.upcasters.as_ref().unwrap_or(&NO_UPCASTERS)
    }

    /// Sees events of this tenant only, or of none; without it, of all.
    pub fn of_tenant(mut self, tenant: Option<Text>) -> Self {
        self.tenants = TenantScope::Only(tenant);
        self
    }

    /// Its name.
    pub fn name(&self) -> &Text {
        &self.name
    }

    /// Its version.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The events that it handles, and those of older names that become them.
    pub fn query(&self) -> Query {
        let types = self.steps().stored_names(self.handlers.keys().cloned());
        let item = QueryItem { types, tags: Vec::new() };
        Query { tenants: self.tenants.clone(), items: vec![item] }
    }

    /// Makes the tables of a build, in the engine's thread.
    pub(crate) fn making(&self) -> Making<Tx> {
        let set_up = self.set_up.clone();
        Box::new(move |tx| set_up.iter().try_for_each(|set_up| set_up(tx)))
    }

    /// Decodes an event and takes it in. The outer error is of an event that cannot be decoded, of which nothing is taken in.
    pub(crate) fn take_in(&self, tx: &Tx, event: Recorded) -> Result<Result<(), HandlerError>, HandlerError> {
        match self.handlers.get(&event.name) {
            Some(handler) if handler.version == event.version => (handler.take_in)(tx, event),
            _ => self.prepare(event).map(|ready| ready(tx)),
        }
    }

    pub(crate) fn prepare(&self, event: Recorded) -> Result<Ready<Tx>, HandlerError> {
        if let Some(handler) = self.handlers.get(&event.name)
            && handler.version == event.version
        {
            return (handler.prepare)(event);
        }
        let mut parts = Vec::new();
        let wanted = |name: &str| self.handlers.get(name).map(|handler| handler.version);
        self.steps().read(&event, wanted, |name, version, body| {
            let became = Recorded { name: name.clone(), version, body: body.clone(), ..event.clone() };
            parts.extend(self.handlers.get(name).map(|handler| (handler.prepare)(became)));
            Ok::<_, UnreadableEvent>(())
        })?;
        let parts: Vec<Ready<Tx>> = parts.into_iter().collect::<Result<_, _>>()?;
        Ok(Box::new(move |tx| parts.into_iter().try_for_each(|part| part(tx))))
    }
}

/// The event as its type, whose version it bears.
pub(crate) fn decoded<E: Event>(event: Recorded) -> Result<Recorded<E>, HandlerError> {
    let body = E::decode(&event.body)?;
    Ok(Recorded {
        position: event.position,
        id: event.id,
        name: event.name,
        version: event.version,
        tags: event.tags,
        stream_version: event.stream_version,
        recorded_at: event.recorded_at,
        tenant_id: event.tenant_id,
        cause: event.cause,
        body,
    })
}

impl<Tx> fmt::Debug for Projection<Tx> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Projection").field("name", &self.name).field("version", &self.version).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::samples::{Joined, Renamed, RenamedV1, joined, recorded, renamed, renamed_v1};

    type Names = Mutex<Vec<String>>;

    fn names() -> Projection<Names> {
        projection("names", 1)
            .on(|names: &Names, event: Recorded<Renamed>| {
                names.lock().unwrap().push(event.body.full.join(" "));
                Ok(())
            })
            .on(|names: &Names, event: Recorded<Joined>| {
                names.lock().unwrap().push(event.body.user);
                Ok(())
            })
    }

    fn taken_in(projection: &Projection<Names>, event: Recorded) -> Result<Vec<String>, String> {
        let names = Names::default();
        projection.prepare(event).and_then(|ready| ready(&names)).map_err(|error| error.report())?;
        Ok(names.into_inner().unwrap())
    }

    #[test]
    fn events_are_taken_in_as_they_are_stored_or_as_what_they_have_become() {
        assert_eq!(taken_in(&names(), recorded(1, &renamed("ada", &["A", "L"]))).unwrap(), ["A L"]);
        let error = taken_in(&names(), recorded(7, &renamed_v1("ada", "Ada"))).unwrap_err();
        assert!(error.contains("renamed v1 at position 7"), "{error}");
        let upcasters = Upcasters::new()
            .upcast(|old: RenamedV1| Renamed { user: old.user, full: vec![old.name] })
            .upcast_json("moved", 1, &[("joined", 1), ("renamed", 3)], |json| {
                vec![("joined", 1, json.clone()), ("renamed", 3, json)]
            });
        let projection = names().upcasters(upcasters);
        assert_eq!(taken_in(&projection, recorded(7, &renamed_v1("ada", "Ada"))).unwrap(), ["Ada"]);
        assert_eq!(taken_in(&projection, recorded(8, &joined("bob"))).unwrap(), ["bob"]);
        let mut moved = recorded(9, &renamed("ada", &["Ada"]));
        (moved.name, moved.version) = (Text::known("moved"), 1);
        assert_eq!(taken_in(&projection, moved).unwrap(), ["ada", "Ada"]);
        assert!(projection.query().items[0].types.contains(&Text::known("moved")));
    }
}
