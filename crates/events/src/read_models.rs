//! What an engine does for projections: their tables and their checkpoints, changed together.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use purista_core::error::HandlerError;
use purista_core::text::Text;

use crate::position::Position;
use crate::store::{EventStore, StoreError};

/// One making of a projection's read model. Builds of one projection live beside each other; readers see the current one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Build {
    /// Of which projection.
    pub name: Text,
    /// Of which version of it.
    pub version: u32,
    /// Counts how often this version was made anew, from 1.
    pub generation: u32,
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, version, generation } = self;
        write!(f, "{name} {version}")?;
        if *generation > 1 { write!(f, " (made {generation} times)") } else { Ok(()) }
    }
}

/// How far a build is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRecord {
    /// Which.
    pub build: Build,
    /// Everything up to here is in it.
    pub position: Position,
    /// Whether it is what readers see.
    pub is_current: bool,
    /// Whether it is stopped.
    pub pause: Option<BuildPause>,
}

/// An event that a projection could not take in: it waits there until somebody resumes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildPause {
    /// The event.
    pub at: Position,
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub reason: String,
}

/// Changes a read model, and says up to where everything is in it then. An error takes all of it back.
pub type Step<Tx> = Box<dyn FnOnce(&Tx) -> Result<Position, HandlerError> + Send>;

/// Makes the tables of a build.
pub type Making<Tx> = Box<dyn FnOnce(&Tx) -> Result<(), HandlerError> + Send>;

/// How a step of the user's code ended inside the engine: a `StoreError` around it is the engine's own.
pub type Stepped = Result<Position, HandlerError>;

/// Runs code of a user on an engine's thread: its panic is its own failure, and not the engine's.
pub fn caught<T>(code: impl FnOnce() -> Result<T, HandlerError>) -> Result<T, HandlerError> {
    catch_unwind(AssertUnwindSafe(code)).unwrap_or_else(|panic| Err(panicked(&*panic)))
}

/// The failure of a user's code that panicked, with the text of the panic.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> HandlerError {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    HandlerError::failed(format!("the handler panicked: {}", text.unwrap_or("it said nothing")))
}

/// An engine that keeps read models beside its log.
///
/// Duties, each tested by name in `purista-conformance`:
///
/// * A step and the position that it reaches are committed together, or neither is.
/// * A step that panics is taken back as one that fails; the engine goes on.
/// * A step begins at the position that it names, else it is refused as `Conflict` and never run.
/// * Readers of one projection see one build, all of it at one moment, also while another takes its place.
pub trait ReadModels: EventStore {
    /// The transaction of this engine, as handlers see it.
    type Tx: 'static;

    /// Every build that is kept, in order.
    fn builds(&self) -> BoxFuture<'_, Result<Vec<BuildRecord>, StoreError>>;

    /// Makes the tables of a build, and keeps it from now on with nothing in it; one that is kept already stays as it is.
    /// The first build of a projection is what readers see from the beginning: there is nothing older to show.
    fn begin<'a>(
        &'a self,
        build: &'a Build,
        making: Making<Self::Tx>,
    ) -> BoxFuture<'a, Result<Result<(), HandlerError>, StoreError>>;

    /// Changes the read model of a build that is at `from`. The step runs where the engine writes, so it is short.
    fn step<'a>(
        &'a self,
        build: &'a Build,
        from: Position,
        step: Step<Self::Tx>,
    ) -> BoxFuture<'a, Result<Stepped, StoreError>>;

    /// Shows this build to readers from now on, in one moment. `Conflict` when readers would go back: the one that they see
    /// is further.
    fn switch_to<'a>(&'a self, build: &'a Build) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Stops a build, or lets it go on.
    fn pause_build<'a>(
        &'a self,
        build: &'a Build,
        pause: Option<BuildPause>,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Forgets a build with its tables.
    fn discard<'a>(&'a self, build: &'a Build) -> BoxFuture<'a, Result<(), StoreError>>;
}
