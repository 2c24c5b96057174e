//! The projections of a host: made before its services serve, followed while it runs, drained when it stops.

use std::sync::Arc;

use purista_core::health::{Condition, PartHealth};
use purista_events::position::Position;
use purista_events::projector::{self, Projected, ProjectionHandle};
use purista_events::store::EventStore;

/// What is wrong with these projections, each with its remedy; empty when they may run.
pub(crate) fn problems(projections: &[Projected], store: Option<&Arc<dyn EventStore>>) -> Vec<String> {
    let mut found = Vec::new();
    for (index, projected) in projections.iter().enumerate() {
        let handle = projected.handle();
        let (name, version) = (handle.name(), handle.version());
        if store.is_none_or(|store| store.origin() != projected.origin()) {
            found.push(format!(
                "the projection {name} {version} follows another store than the host's: give the host the same `.store(..)`"
            ));
        }
        let is_same =
            |other: &&Projected| other.handle().name() == name && other.handle().version() == version;
        if projections.iter().take(index).any(|other| is_same(&other)) {
            found.push(format!(
                "the projection {name} {version} is there twice: give each a name or version of its own"
            ));
        }
    }
    found
}

/// How a projection is, as doors tell the outside. Why it is paused stands in the log: the reason may hold what no stranger
/// should read.
pub(crate) fn health(handle: &ProjectionHandle, store: &dyn EventStore, head: Position) -> PartHealth {
    let state = handle.state();
    let current = state.builds.iter().find(|build| build.is_current);
    let at = current.map_or(Position::START, |build| build.position);
    let (condition, detail) = match state.condition {
        projector::Condition::Running => (Condition::Up, None),
        projector::Condition::Paused(pause) => {
            (Condition::Degraded, Some(format!("it is paused at {}: see the log", pause.at)))
        }
        projector::Condition::Failing(_) => (Condition::Down, Some("it waits for its store".to_owned())),
    };
    PartHealth {
        name: format!("projection {} {}", handle.name(), handle.version()),
        condition,
        detail,
        events_behind: store.between(at, head),
    }
}

/// Whether another process runs it.
pub(crate) fn is_elsewhere(handle: &ProjectionHandle) -> bool {
    handle.states().borrow().is_elsewhere
}

/// Where its builds are, as one number that grows with each step of one of them.
pub(crate) fn place(handle: &ProjectionHandle) -> u64 {
    handle.state().builds.iter().map(|build| build.position.number()).sum()
}
